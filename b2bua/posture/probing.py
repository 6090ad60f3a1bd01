"""Running probes: all at once, each with a time limit of its own; one that fails is a row that says why."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from b2bua.errors import B2BUAError
from b2bua.posture.report import Level, Row, Safeguard
from recording.errors import RecordingError
from tls.errors import TLSError

_EXPECTED = (B2BUAError, RecordingError, TLSError, OSError, subprocess.SubprocessError, ValueError)
"""What a probe of files, sockets and other programs may raise. Anything else is a defect of ours, which the
interpreter prints; the row is there all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question and how long it may take. `key`, `safeguard` and `subject` serve where there is no answer."""

    key: str
    safeguard: Safeguard
    subject: str
    ask: Callable[[], Sequence[Row]]
    limit_s: float


@dataclass(slots=True)
class _Run:
    probe: Probe
    rows: Sequence[Row] | None = None
    problem: str = "the probe ended without an answer"
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._ask, name=f"probe-{self.probe.key}", daemon=True)

    def _ask(self) -> None:
        try:
            self.rows = tuple(self.probe.ask())
        except _EXPECTED as error:
            self.problem = str(error) or type(error).__name__


def run_probes(probes: Sequence[Probe]) -> tuple[Row, ...]:
    """The rows of all probes, in their order. Returns when the slowest is done or over its limit.

    A probe past its limit is left to itself; its thread does not hold up the end of the process.
    """
    runs = [_Run(probe) for probe in probes]
    began = time.monotonic()
    for run in runs:
        run.thread.start()
    found: list[Row] = []
    for run in runs:
        run.thread.join(max(0.0, began + run.probe.limit_s - time.monotonic()))
        found += _rows(run)
    return tuple(found)


def _rows(run: _Run) -> Sequence[Row]:
    if run.rows is not None:
        return run.rows
    probe = run.probe
    is_late = run.thread.is_alive()
    reason = f"no answer within {probe.limit_s:g} s" if is_late else run.problem
    return [
        Row(
            key=probe.key,
            safeguard=probe.safeguard,
            subject=probe.subject,
            finding=f"not known: {reason}",
            evidence="the probe failed",
            level=Level.UNKNOWN,
        )
    ]
