"""The product's own errors. `recording` and `tls` have roots of their own; the command line knows all three."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class B2BUAError(Exception):
    """Root of what the `b2bua` package raises.

    `exit_code` is unique among errors that reach the command line (70-99).
    """

    exit_code = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationProblem:
    """One fault of a configuration.

    `line` is 1-based in `path`, None where the fault belongs to no line; `key` is dotted ("trunks.pbx.tenant").
    """

    path: str
    line: int | None
    key: str
    what: str
    cure: str

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.key}: {self.what}; {self.cure}"


class ConfigurationError(B2BUAError):
    """The configuration can't be used; carries every problem found, not only the first."""

    exit_code = 71

    def __init__(self, problems: Sequence[ConfigurationProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class EngineError(B2BUAError):
    """pjsip or the native extension failed in a way that stops the process from serving."""

    exit_code = 72


class ReadinessError(B2BUAError):
    """`b2bua serve` could not come up: a port is taken, a file is unreadable, the key provider does not answer."""

    exit_code = 73


class InitialisationError(B2BUAError):
    """`b2bua init` would overwrite something, can't write, or finds no free ports."""

    exit_code = 74


class AuditError(B2BUAError):
    """The audit log can't be opened or written, or an event carries a field that is not allowed there."""

    exit_code = 75


class MetricsError(B2BUAError):
    """The metrics endpoint can't listen."""

    exit_code = 76


class CommandError(B2BUAError):
    """A command can't do what its arguments ask.

    No such recording, a file in the way, nothing configured to read with.
    """

    exit_code = 77


class ControlError(B2BUAError):
    """No process answers at the control socket, or the socket can't be made, trusted or understood."""

    exit_code = 96


class RefusedCommandError(B2BUAError):
    """The serving process refused a command: no such call, nothing recorded, not paused."""

    exit_code = 97


class ArtefactPendingError(B2BUAError):
    """A document was sealed and waits in the spool; the store did not take it. `recordings recover` tries again."""

    exit_code = 87


class FindingsError(B2BUAError):
    """A probed TLS server falls short of the policy: each line is one finding."""

    exit_code = 78


class PostureAttentionError(B2BUAError):
    """The posture report has findings that need attention, or that could not be made; each line is one."""

    exit_code = 98


class PostureAlarmError(B2BUAError):
    """The posture report has an alarm; each line is one."""

    exit_code = 99


class JournalError(B2BUAError):
    """A directory of sealed lines can't be used: its head is damaged or locked, the disk is full, others may enter."""

    exit_code = 95


class AuditFindingsError(B2BUAError):
    """`b2bua audit verify` found lines cut, changed, moved or missing; each line of the message is one finding."""

    exit_code = 94


class AuditKeptError(B2BUAError):
    """`b2bua audit expire` takes nothing away while a recording is on hold: its lines may be evidence too."""

    exit_code = 79


class ExpiryError(B2BUAError):
    """Recordings whose time is over could not be deleted whole; each is named. They stay `deleting`: run it again."""

    exit_code = 88


class IndexFindingsError(B2BUAError):
    """The index and the store do not agree, or an object could not be read; each is named."""

    exit_code = 89


class KeyOverdueError(B2BUAError):
    """A key or certificate is older than it may be, or about to expire; each line names one and what to do."""

    exit_code = 85


class NotConfirmedError(B2BUAError):
    """What cannot be taken back was not confirmed; nothing was done."""

    exit_code = 86
