"""A probe that fails, hangs or breaks is a row that says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from b2bua.errors import CommandError
from b2bua.posture.probing import Probe, run_probes
from b2bua.posture.report import Level, Row, Safeguard
from recording.errors import RecordingError
from tls.errors import ProbeError

GOOD = Row(key="a", safeguard=Safeguard.TLS, subject="s", finding="found", evidence="e", level=Level.OK)


def probe(ask: Callable[[], Sequence[Row]], *, key: str = "p", limit_s: float = 10.0) -> Probe:
    return Probe(key=key, safeguard=Safeguard.AUDIT, subject="the probe", ask=ask, limit_s=limit_s)


def test_rows_come_in_the_order_of_the_probes() -> None:
    slow_may_go = threading.Event()

    def slow() -> Sequence[Row]:
        assert slow_may_go.wait(10)
        return [GOOD]

    def quick() -> Sequence[Row]:
        slow_may_go.set()
        return [GOOD, GOOD]

    rows = run_probes([probe(slow), probe(quick)])
    assert rows == (GOOD, GOOD, GOOD)


@pytest.mark.parametrize(
    "error",
    [
        CommandError("that is why"),
        RecordingError("that is why"),
        ProbeError("that is why"),
        OSError("that is why"),
        ValueError("that is why"),
    ],
)
def test_a_failure_is_a_row_with_its_reason(error: Exception) -> None:
    def fail() -> Sequence[Row]:
        raise error

    broken, good = run_probes([probe(fail, key="broken"), probe(lambda: [GOOD])])
    assert (broken.key, broken.level, broken.safeguard) == ("broken", Level.UNKNOWN, Safeguard.AUDIT)
    assert "that is why" in broken.finding
    assert good is GOOD


def test_a_probe_that_hangs_does_not_hold_up_the_others() -> None:
    release = threading.Event()

    def hang() -> Sequence[Row]:
        release.wait(60)
        return [GOOD]

    began = time.monotonic()
    try:
        hung, good = run_probes([probe(hang, limit_s=0.2), probe(lambda: [GOOD])])
    finally:
        release.set()
    assert time.monotonic() - began < 5
    assert hung.level is Level.UNKNOWN
    assert "no answer within 0.2 s" in hung.finding
    assert good is GOOD


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_of_a_probe_is_told_and_breaks_nothing() -> None:
    def broken() -> Sequence[Row]:
        raise ZeroDivisionError

    first, second = run_probes([probe(broken), probe(lambda: [GOOD])])
    assert first.level is Level.UNKNOWN
    assert "without an answer" in first.finding
    assert second is GOOD
