"""`b2bua audit show`: decrypt the audit log, with a reason, and print the lines that were asked for."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from b2bua.audit import AuditEvent
from b2bua.cli import output
from b2bua.cli.audit_reading import add_directory, open_audit, print_findings
from b2bua.cli.parser import add_command, add_configuration, add_json
from b2bua.errors import CommandError
from b2bua.journal.chain import ChainedLine

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

_CALL_UID = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which lines are wanted; what is None or empty does not matter. Times are aware, `until` is not included."""

    since: datetime | None = None
    until: datetime | None = None
    events: frozenset[str] = frozenset()
    call_uid: str | None = None

    def takes(self, values: Mapping[str, Any]) -> bool:
        """Whether a line with these values is wanted."""
        at = datetime.fromisoformat(values["at"])
        return (
            (self.since is None or at >= self.since)
            and (self.until is None or at < self.until)
            and (not self.events or values["event"] in self.events)
            and (self.call_uid is None or values.get("call_uid") == self.call_uid)
        )


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "show",
        summary="Decrypt lines of the audit log. The log says that it was read, and why.",
        example="""
            b2bua audit show -c lab/b2bua.toml --reason incident-review
            b2bua audit show -c lab/b2bua.toml --reason access-request --since 2026-03-01 --event recording_read --json
        """,
        run=run,
    )
    add_configuration(parser)
    add_selection(parser)
    add_directory(parser)
    add_json(parser)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The reason, and which lines."""
    parser.add_argument(
        "--reason",
        metavar="WORD",
        required=True,
        help="why, as one word: it goes into the log (incident-review)",
    )
    parser.add_argument(
        "--since", metavar="TIME", type=parse_time, help="from then on, RFC 3339; UTC where no zone is given"
    )
    parser.add_argument("--until", metavar="TIME", type=parse_time, help="before then")
    parser.add_argument(
        "--event",
        dest="events",
        metavar="EVENT",
        action="append",
        choices=sorted(event.value for event in AuditEvent),
        default=[],
        help="only this event; may be given several times",
    )
    parser.add_argument("--call-uid", metavar="UID", help="only lines about this call")


def selection(arguments: argparse.Namespace) -> Filter:
    """What `add_selection` was given. Raises CommandError."""
    if arguments.call_uid is not None and _CALL_UID.fullmatch(arguments.call_uid) is None:
        raise CommandError("a call's uid is 16 to 64 lower-case hex digits")
    return Filter(
        since=arguments.since,
        until=arguments.until,
        events=frozenset(arguments.events),
        call_uid=arguments.call_uid,
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what was asked for. What is wrong with the log is told too, and makes the exit code."""
    wanted = selection(arguments)
    audit = open_audit(arguments)
    audit.note(AuditEvent.AUDIT_READ, reason=arguments.reason)
    found: list[dict[str, Any]] = []
    report = audit.read(_collect(wanted, found), doing="reading")
    if arguments.json:
        output.print_json({"lines": found, "whole": report.is_whole})
    else:
        output.print_table(["line", "at", "event", "about"], [_row(values) for values in found])
    return print_findings(report)


def _collect(wanted: Filter, found: list[dict[str, Any]]) -> Callable[[ChainedLine], None]:
    def take(line: ChainedLine) -> None:
        if wanted.takes(line.values):
            found.append({"seq": line.sequence, **line.values})

    return take


def _row(values: Mapping[str, Any]) -> list[object]:
    about = " ".join(
        f"{name}={value}" for name, value in values.items() if name not in {"seq", "at", "event"}
    )
    return [values["seq"], values["at"], values["event"], about]


def parse_time(text: str) -> datetime:
    """An RFC 3339 time or date; without a zone it is UTC."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; write it like 2026-03-01T12:00:00Z"
        ) from error
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
