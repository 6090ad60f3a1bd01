"""Playing the SIPp scenarios against a running B2BUA, for the tests and for sipp-scenarios/run.py alike.

Each side is a SIPp in a process and a folder of its own, with the certificate, port and media ports of its trunk.
A side has passed when it ended by itself with 0 and wrote no error.
"""

from __future__ import annotations

import contextlib
import random
import shlex
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.ports import share
from support.sipp_build import sipp_program

SCENARIOS = Path(__file__).resolve().parents[2] / "sipp-scenarios"
CALLED_USER = "2001"
TIMEOUT_S = 30
_LISTEN_S = 10.0
_END_S = 10.0
_RTP_PORTS = 100
_CALLER_RTP_PORTS, _CALLEE_RTP_PORTS = range(2100, 5000, _RTP_PORTS), range(6000, 9000, _RTP_PORTS)
"""Below the B2BUA's; chosen anew for each lab, so that no run hears what was meant for another."""
_LISTENING = "0A"
"""Source: proc(5), /proc/net/tcp: TCP_LISTEN."""
_QUIET_MS = "60000"
"""SIPp counts its own late wake-ups as errors; on a busy machine they say nothing about the B2BUA."""


class SippError(Exception):
    """A side did not play its scenario to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row of scenarios.toml."""

    name: str
    shows: str
    rfc: str
    caller: str
    callee: str | None = None
    calls: int = 1
    reverse: bool = False
    refusals: tuple[str, ...] = ()
    ended: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One of the two trunks of `b2bua init`, played by SIPp."""

    certificate: Path
    private_key: Path
    port: int
    first_rtp_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """What SIPp needs to know of a configuration made by `b2bua init`."""

    sip_port: int
    authority: Path
    caller: Party
    callee: Party

    def calling(self, row: Scenario) -> Party:
        return self.callee if row.reverse else self.caller

    def called(self, row: Scenario) -> Party:
        return self.caller if row.reverse else self.callee


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A side that ended; its folder has what it sent, received and logged."""

    folder: Path
    exit_code: int

    @property
    def errors(self) -> str:
        return _text(self.folder / "errors.log").strip()

    @property
    def messages(self) -> str:
        return _text(self.folder / "messages.log")

    def report(self) -> str:
        """What a reader of a failure wants to see."""
        screen = _text(self.folder / "screen.txt")[-1500:]
        return f"{self.folder.name}: exit code {self.exit_code}\n{self.errors}\n{self.messages[-6000:]}\n{screen}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """Both sides of a scenario."""

    caller: Side
    callee: Side | None


def read_scenarios() -> tuple[Scenario, ...]:
    """The table."""
    rows = tomllib.loads((SCENARIOS / "scenarios.toml").read_text())["scenario"]
    return tuple(Scenario(**{**row, "refusals": tuple(row.get("refusals", ()))}) for row in rows)


def readme_table(rows: Sequence[Scenario]) -> str:
    """The table of README.md."""
    lines = ["| scenario | shows | RFC section | files | test | by hand |", "|---|---|---|---|---|---|"]
    for row in rows:
        files = ", ".join(f"[{name}]({name}.xml)" for name in (row.caller, row.callee) if name)
        test = f"`test_scenario[{row.name}]`"
        lines.append(f"| {row.name} | {row.shows} | {row.rfc} | {files} | {test} | `{by_hand(row)}` |")
    return "\n".join(lines) + "\n"


def by_hand(row: Scenario) -> str:
    """The command that plays a row against the lab of README.md."""
    return f".venv/bin/python sipp-scenarios/run.py lab {row.name}"


def read_lab(configuration: Path) -> Lab:
    """The ports and certificates of a configuration of `b2bua init`."""
    document = tomllib.loads(configuration.read_text())
    folder = configuration.parent

    def party(name: str, first_rtp_port: int) -> Party:
        return Party(
            certificate=folder / f"tls/{name}.pem",
            private_key=folder / f"tls/{name}.key",
            port=_port(document["trunks"][name]["target"]),
            first_rtp_port=first_rtp_port,
        )

    return Lab(
        sip_port=_port(document["sip"]["listen"]),
        authority=folder / document["tls"]["trust"],
        caller=party("caller", random.choice(share(_CALLER_RTP_PORTS))),
        callee=party("callee", random.choice(share(_CALLEE_RTP_PORTS))),
    )


def caller_command(lab: Lab, row: Scenario) -> list[str]:
    """SIPp as the side that calls the B2BUA."""
    place = [f"127.0.0.1:{lab.sip_port}", "-s", CALLED_USER, "-cid_str", "caller-%u-%p-%r"]
    return [str(sipp_program()), *place, *_options(lab, lab.calling(row), row.caller, row.calls)]


def callee_command(lab: Lab, row: Scenario) -> list[str]:
    """SIPp as the side that the B2BUA calls."""
    assert row.callee is not None
    return [str(sipp_program()), *_options(lab, lab.called(row), row.callee, row.calls)]


def play(lab: Lab, row: Scenario, folder: Path) -> Played:
    """Play a scenario, the callee first.

    Raises:
        SippError: a side ended with another code than 0 or wrote errors; the message has what it saw.
    """
    if row.callee is None:
        with _started(caller_command(lab, row), folder / "caller") as process:
            caller = _ended(process, folder / "caller")
        return _judged(Played(caller=caller, callee=None))
    with _started(callee_command(lab, row), folder / "callee") as called:
        _wait_listening(lab.called(row).port, called, folder / "callee")
        with _started(caller_command(lab, row), folder / "caller") as calling:
            caller = _ended(calling, folder / "caller")
        if caller.exit_code != 0:  # the callee would wait for a call that does not come
            called.send_signal(signal.SIGTERM)
        callee = _ended(called, folder / "callee")
    return _judged(Played(caller=caller, callee=callee))


def command_line(words: Sequence[str]) -> str:
    """As it is typed in a shell."""
    return shlex.join(words)


def _options(lab: Lab, party: Party, scenario: str, calls: int) -> list[str]:
    last_rtp_port = party.first_rtp_port + _RTP_PORTS - 1
    return [
        *("-sf", str(SCENARIOS / f"{scenario}.xml"), "-p", str(party.port)),
        *("-t", "l1", "-tls_version", "1.3", "-tls_ca", str(lab.authority)),
        *("-tls_cert", str(party.certificate), "-tls_key", str(party.private_key)),
        *("-i", "127.0.0.1", "-mi", "127.0.0.1"),
        *("-min_rtp_port", str(party.first_rtp_port), "-max_rtp_port", str(last_rtp_port)),
        *("-m", str(calls), "-l", str(calls), "-r", "10"),
        *("-timeout", f"{TIMEOUT_S}s", "-timeout_error", "-nostdin"),
        *("-watchdog_minor_threshold", _QUIET_MS, "-watchdog_major_threshold", _QUIET_MS),
        *("-trace_err", "-error_file", "errors.log", "-trace_msg", "-message_file", "messages.log"),
        "-rtpcheck_debug",
    ]


@contextlib.contextmanager
def _started(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a folder of its own, gone when the block is left."""
    folder.mkdir(parents=True)
    with (folder / "screen.txt").open("wb") as screen:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=screen, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(_END_S)


def _ended(process: subprocess.Popen[bytes], folder: Path) -> Side:
    try:
        return Side(folder=folder, exit_code=process.wait(TIMEOUT_S + _END_S))
    except subprocess.TimeoutExpired:
        process.kill()
        return Side(folder=folder, exit_code=process.wait(_END_S))


def _judged(played: Played) -> Played:
    sides = [side for side in (played.caller, played.callee) if side is not None]
    if any(side.exit_code != 0 or side.errors for side in sides):
        raise SippError("\n".join(side.report() for side in sides))
    return played


def _wait_listening(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until SIPp listens, without a connection that it would take for the B2BUA's."""
    deadline = time.monotonic() + _LISTEN_S
    while not _is_listening(port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise SippError(_ended(process, folder).report())
        time.sleep(0.02)


def _is_listening(port: int) -> bool:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == _LISTENING and int(local.partition(":")[2], 16) == port:
            return True
    return False


def _port(address: str) -> int:
    """The port of an address or a URI."""
    return int(address.partition(";")[0].rpartition(":")[2])


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
