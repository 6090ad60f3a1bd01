"""When a leg's silence is found, from counters and a clock alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b2bua.call.events import AbsenceCause
from b2bua.engine.media_watch import LOSS_MS, Absent, Finding, LegSilence, Missing, what_came
from b2bua.sip.leg import Received


def counted(packets: int, *, bursts: int = 0, last_burst_ms: int = 0) -> Received:
    return Received(packets=packets, bursts=bursts, last_burst_ms=last_burst_ms)


def refused(packets: int = 0, *, unauthenticated: int = 0, elsewhere: int = 0, replayed: int = 0) -> Received:
    return Received(packets, unauthenticated=unauthenticated, elsewhere=elsewhere, replayed=replayed)


def watch(*looks: Received | None, after_s: float = 3) -> list[tuple[int, Finding]]:
    """A look a second; what was found and in which second."""
    silence = LegSilence(after_s=after_s)
    found = []
    for second, received in enumerate(looks):
        finding = silence.look(second * 1000, received)
        if finding is not None:
            found.append((second, finding))
    return found


def test_a_leg_that_sends_is_not_silent() -> None:
    assert watch(*(counted(50 * second) for second in range(20))) == []


def test_a_leg_that_never_sends_is_found_once() -> None:
    assert watch(*[counted(0)] * 20) == [(3, Absent(silent_ms=3000))]


def test_a_leg_that_falls_silent_is_found_and_so_is_its_return() -> None:
    looks = [counted(50), counted(100), *[counted(100)] * 4, counted(120), *[counted(120)] * 3]
    assert watch(*looks) == [
        (4, Absent(silent_ms=3000)),
        (6, Missing(missing_ms=2000, returned=True)),
        (9, Absent(silent_ms=3000)),
    ]


@pytest.mark.parametrize(
    ("before", "now", "cause", "count"),
    [
        (refused(), refused(), AbsenceCause.NOTHING, 0),
        (refused(unauthenticated=7, elsewhere=7, replayed=7),) * 2 + (AbsenceCause.NOTHING, 0),
        (refused(unauthenticated=7), refused(unauthenticated=157), AbsenceCause.NOT_AUTHENTICATED, 150),
        (refused(elsewhere=7), refused(elsewhere=17), AbsenceCause.OTHER_SOURCE, 10),
        (refused(replayed=7), refused(replayed=17), AbsenceCause.REPLAYED, 10),
        # a stranger who sends as well hides neither
        (refused(), refused(unauthenticated=1, elsewhere=999), AbsenceCause.NOT_AUTHENTICATED, 1),
        (refused(), refused(replayed=1, elsewhere=999), AbsenceCause.REPLAYED, 1),
        # the transport was made anew
        (refused(unauthenticated=500), refused(unauthenticated=3), AbsenceCause.NOT_AUTHENTICATED, 3),
    ],
)
def test_what_came_instead_is_told(before: Received, now: Received, cause: AbsenceCause, count: int) -> None:
    assert what_came(before, now) == (cause, count)


def test_what_was_refused_while_the_leg_was_heard_is_no_cause_of_its_silence() -> None:
    looks = [refused(1), refused(2, elsewhere=50), *[refused(2, elsewhere=50)] * 3]
    assert watch(*looks) == [(4, Absent(silent_ms=3000))]
    looks = [refused(1), refused(2, elsewhere=50), *[refused(2, elsewhere=50 + 9 * n) for n in (1, 2, 3)]]
    assert watch(*looks) == [(4, Absent(silent_ms=3000, cause=AbsenceCause.OTHER_SOURCE, refused=27))]


def test_a_shorter_silence_is_none() -> None:
    assert watch(*([counted(1)] * 3 + [counted(2)] * 3 + [counted(3)] * 3)) == []


def test_a_leg_on_hold_owes_nothing_and_gets_its_whole_time_afterwards() -> None:
    assert watch(counted(1), counted(1), None, *[counted(1)] * 3) == []
    assert watch(counted(1), counted(1), None, *[counted(1)] * 4) == [(6, Absent(silent_ms=3000))]
    assert watch(*[None] * 30) == []


def test_a_stream_that_begins_again_at_nothing_is_no_sign_of_life() -> None:
    assert watch(counted(70), counted(0), counted(0), counted(0)) == [(3, Absent(silent_ms=3000))]
    assert watch(counted(70), counted(0), counted(2), counted(9)) == []


@pytest.mark.parametrize(("length_ms", "found"), [(LOSS_MS - 20, False), (LOSS_MS, True), (900, True)])
def test_a_burst_of_lost_packets_is_found_if_it_is_long(length_ms: int, found: bool) -> None:
    looks = [
        counted(50),
        counted(100, bursts=1, last_burst_ms=length_ms),
        counted(150, bursts=1, last_burst_ms=length_ms),
    ]
    assert watch(*looks) == ([(1, Missing(missing_ms=length_ms))] if found else [])


def test_a_loss_that_an_absence_told_is_not_told_again() -> None:
    looks = [
        *[counted(50)] * 4,
        counted(60, bursts=1, last_burst_ms=4000),
        counted(70, bursts=1, last_burst_ms=4000),
    ]
    assert watch(*looks) == [(3, Absent(silent_ms=3000)), (4, Missing(missing_ms=1000, returned=True))]


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 6))
def test_what_is_told_of_silences_adds_up_to_them(sends: list[bool], after_s: int) -> None:
    """Every silence of `after_s` looks or more is told in full once it is over."""
    packets, looks = 1, [counted(1)]
    for second in [*sends, True]:
        packets += second
        looks.append(counted(packets))
    told = sum(
        finding.silent_ms if isinstance(finding, Absent) else finding.missing_ms
        for _, finding in watch(*looks, after_s=after_s)
    )
    wanted, run = 0, 0
    for second in [*sends, True]:
        run += 1
        if second:
            wanted += run * 1000 if run > after_s else 0
            run = 0
    assert told == wanted
