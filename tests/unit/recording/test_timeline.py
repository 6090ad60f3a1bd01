"""The sample clock: nothing that goes missing makes the recording shorter, and every gap is told."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.errors import TimelineError
from recording.format.content import EventKind
from recording.timeline import Audio, Gap, Piece, Timeline
from support.crec import ramp


def told(pieces: Iterable[Piece]) -> list[tuple[str, int, int]]:
    """(kind, position, frames of mono audio) of each piece."""
    return [
        ("gap", piece.position, piece.frames)
        if isinstance(piece, Gap)
        else ("audio", piece.position, len(piece.pcm) // 2)
        for piece in pieces
    ]


def test_audio_in_order_goes_through_untouched() -> None:
    timeline = Timeline(rate_hz=8000, channels=1)
    pcm = ramp(160)
    pieces = [*timeline.take(pcm), *timeline.take(pcm)]
    assert told(pieces) == [("audio", 0, 160), ("audio", 160, 160)]
    assert all(isinstance(piece, Audio) and piece.pcm is pcm for piece in pieces)
    assert (timeline.position, timeline.gap_frames) == (320, 0)


def test_a_gap_that_the_source_filled_is_told_before_its_audio() -> None:
    timeline = Timeline(rate_hz=8000, channels=1, position=1000)
    pieces = timeline.take(bytes(200) + ramp(60), gap_frames=100)
    assert told(pieces) == [("gap", 1000, 100), ("audio", 1000, 160)]
    assert told(timeline.settle()) == []


def test_a_gap_over_many_drains_is_told_twice_and_adds_up() -> None:
    timeline = Timeline(rate_hz=8000, channels=1)
    pieces = [*timeline.take(ramp(160))]
    for _ in range(5):
        pieces += timeline.take(bytes(320), gap_frames=160)
    pieces += timeline.take(bytes(100) + ramp(110), gap_frames=50)
    gaps = [piece for piece in told(pieces) if piece[0] == "gap"]
    assert gaps == [("gap", 160, 160), ("gap", 320, 4 * 160 + 50)]
    assert timeline.gap_frames == 5 * 160 + 50
    assert told(timeline.take(ramp(10))) == [("audio", 1120, 10)]


def test_a_gap_still_open_at_the_end_is_settled_once() -> None:
    timeline = Timeline(rate_hz=8000, channels=1)
    list(timeline.take(bytes(320), gap_frames=160))
    list(timeline.take(bytes(320), gap_frames=160))
    assert told(timeline.settle()) == [("gap", 160, 160)]
    assert told(timeline.settle()) == []


def test_early_audio_is_preceded_by_silence_of_the_true_length() -> None:
    timeline = Timeline(rate_hz=100, channels=1)
    pieces = list(timeline.place(250, ramp(10)))
    assert told(pieces) == [
        ("gap", 0, 250), ("audio", 0, 100), ("audio", 100, 100), ("audio", 200, 50), ("audio", 250, 10),
    ]  # fmt: skip
    assert all(not any(piece.pcm) for piece in pieces[1:4] if isinstance(piece, Audio))


def test_late_audio_loses_only_what_was_laid_already() -> None:
    timeline = Timeline(rate_hz=8000, channels=2)
    list(timeline.take(ramp(2 * 100)))
    pieces = list(timeline.place(80, ramp(2 * 50)))
    assert isinstance(pieces[0], Audio)
    assert (len(pieces), pieces[0].position, bytes(pieces[0].pcm)) == (1, 100, ramp(60, start=40))
    assert list(timeline.place(0, ramp(2 * 50))) == []
    assert (timeline.position, timeline.late_frames) == (130, 20 + 50)


def test_a_clock_that_went_on_is_followed_with_silence() -> None:
    timeline = Timeline(rate_hz=8000, channels=1)
    list(timeline.take(ramp(8000)))
    assert timeline.frames_at(4_000_000_000) == 32000
    pieces = list(timeline.fill_to(timeline.frames_at(4_000_000_000)))
    assert told(pieces) == [("gap", 8000, 24000)] + [("audio", at, 8000) for at in (8000, 16000, 24000)]
    assert list(timeline.fill_to(32000)) == []
    assert list(timeline.fill_to(5)) == []


def test_a_gap_is_an_event_with_its_length() -> None:
    event = Gap(position=5, frames=160).event()
    assert (event.event, event.frames, event.channel) == (EventKind.GAP, 160, None)


@pytest.mark.parametrize(
    "refused",
    [
        lambda timeline: timeline.take(bytes(3)),
        lambda timeline: timeline.take(bytes(4), gap_frames=2),
        lambda timeline: timeline.take(bytes(4), gap_frames=-1),
        lambda timeline: timeline.place(0, bytes(2)),
        lambda timeline: timeline.place(4 * 3600 * 8000 + 1, bytes(4)),
        lambda timeline: timeline.fill_to(4 * 3600 * 8000 + 1),
    ],
)
def test_what_no_clock_can_place_is_refused_and_nothing_is_laid(refused: object) -> None:
    timeline = Timeline(rate_hz=8000, channels=2)
    with pytest.raises(TimelineError):
        refused(timeline)  # type: ignore[operator]
    assert (timeline.position, timeline.gap_frames, timeline.late_frames) == (0, 0, 0)
    assert told(timeline.fill_to(4 * 3600 * 8000))[0] == ("gap", 0, 4 * 3600 * 8000)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 300), st.integers(0, 300)),
        st.tuples(st.just("place"), st.integers(0, 300), st.integers(-400, 400)),
        st.tuples(st.just("fill"), st.just(0), st.integers(-400, 400)),
    )
)


@given(STEPS)
def test_pieces_are_contiguous_and_gaps_add_up_whatever_comes(steps: list[tuple[str, int, int]]) -> None:
    timeline = Timeline(rate_hz=100, channels=1)
    pieces: list[Piece] = []
    expected_gap = 0
    for action, frames, number in steps:
        if action == "take":
            gap = min(frames, number)
            expected_gap += gap
            pieces += timeline.take(bytes(2 * gap) + b"\1\1" * (frames - gap), gap_frames=gap)
            continue
        target = max(0, timeline.position + number)
        expected_gap += max(0, target - timeline.position)
        pieces += timeline.place(target, b"\1\1" * frames) if action == "place" else timeline.fill_to(target)
    pieces += timeline.settle()
    at = 0
    for piece in pieces:
        if isinstance(piece, Audio):
            assert piece.position == at
            at += len(piece.pcm) // 2
    assert at == timeline.position
    assert (
        sum(piece.frames for piece in pieces if isinstance(piece, Gap)) == timeline.gap_frames == expected_gap
    )
    silent = sum(
        1 for piece in pieces if isinstance(piece, Audio) for byte in bytes(piece.pcm)[::2] if not byte
    )
    assert silent == expected_gap
