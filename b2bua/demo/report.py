"""What a demonstration found, as values, as JSON and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from b2bua.demo.score import Score, SplitScore

_TLS: Final = "TLSv1.3"
_TLS_CIPHERS: Final = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")
_SUITES: Final = ("AEAD_AES_256_GCM", "AEAD_AES_128_GCM")


@dataclass(frozen=True, slots=True, kw_only=True)
class LegReport:
    """One leg as its endpoint saw it."""

    side: str
    tls: str
    cipher: str
    suite: str
    sent: int
    sent_late: int
    """Packets that left over 15 ms after their time: the machine was busy, and the far end may have heard a gap."""
    received: int
    lost: int
    auth_failures: int
    plaintext: int
    heard: Score

    def faults(self) -> list[str]:
        """Every broken promise of the leg."""
        checks = (
            (self.tls == _TLS, f"the TLS version is {self.tls}"),
            (self.cipher in _TLS_CIPHERS, f"the cipher is {self.cipher}"),
            (self.suite in _SUITES, f"the SRTP suite is {self.suite}"),
            (self.auth_failures == 0, f"{self.auth_failures} packets failed authentication"),
            (self.plaintext == 0, f"{self.plaintext} packets came in plain text"),
        )
        found = [text for holds, text in checks if not holds]
        return [f"{self.side}: {text}" for text in (*found, *self.heard.faults)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingReport:
    """The recording of a call, as the `recordings` commands tell it, and how its audio scored."""

    call_uid: str
    file_id: str
    records: int
    state: str
    key_id: str
    wav: Path
    score: Score | SplitScore

    def faults(self) -> list[str]:
        """Every broken promise of the recording."""
        found = [] if self.state == "complete" else [f"its state is {self.state}"]
        if isinstance(self.score, SplitScore):
            found += [f"caller channel: {text}" for text in self.score.caller.faults]
            found += [f"called channel: {text}" for text in self.score.called.faults]
        return [f"recording: {text}" for text in (*found, *self.score.faults)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """One call of the demonstration."""

    layout: str
    caller: LegReport
    callee: LegReport
    recording: RecordingReport

    def faults(self) -> list[str]:
        """Every broken promise of the call; empty if all is as promised."""
        found = [*self.caller.faults(), *self.callee.faults(), *self.recording.faults()]
        return [f"{self.layout}: {text}" for text in found]

    def as_json(self) -> dict[str, Any]:
        """The call as JSON values."""
        content = asdict(self)
        content["recording"]["wav"] = str(self.recording.wav)
        return {**content, "passed": not self.faults(), "faults": self.faults()}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """The whole demonstration."""

    calls: tuple[CallReport, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(fault for call in self.calls for fault in call.faults())

    @property
    def passed(self) -> bool:
        return bool(self.calls) and not self.faults

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "passed": self.passed,
            "faults": list(self.faults),
            "calls": [call.as_json() for call in self.calls],
        }


def print_table(report: DemoReport, console: Console) -> None:
    """The short table: one column a call, one row a fact."""
    table = Table("", *(call.layout for call in report.calls), box=None, pad_edge=False)
    columns = [_facts(call) for call in report.calls]
    for name in columns[0] if columns else ():
        table.add_row(name, *(Text(column[name], overflow="fold") for column in columns))
    console.print(table)
    for fault in report.faults:
        console.print(Text(f"not as promised: {fault}", style="bold red"))


def _facts(call: CallReport) -> dict[str, str]:
    recording = call.recording
    return {
        **_leg_facts("caller leg", call.caller),
        **_leg_facts("callee leg", call.callee),
        "call_uid": recording.call_uid,
        "file_id": recording.file_id,
        "records": str(recording.records),
        "state": recording.state,
        "key id": recording.key_id,
        "WAV": str(recording.wav),
        "recording score": _words(recording.score),
    }


def _leg_facts(name: str, leg: LegReport) -> dict[str, str]:
    return {
        name: f"{leg.tls}  {leg.cipher}  {leg.suite}",
        f"{name} heard": f"{_words(leg.heard)}, {leg.lost} of {leg.received + leg.lost} packets lost",
        f"{name} sent": f"{leg.sent} packets, {leg.sent_late} late",
    }


def _words(score: Score | SplitScore) -> str:
    if isinstance(score, SplitScore):
        return (
            f"caller {score.caller.worst:.3f}, called {score.called.worst:.3f} at worst, "
            f"crosstalk {score.crosstalk:.3f}"
        )
    return (
        f"{score.worst:.3f} at worst of {score.windows} windows, delay {score.offset_ms:.0f} ms "
        f"(moves {score.drift_ms:.1f})"
    )
