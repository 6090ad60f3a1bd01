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
    timeline = Timeline(channels=1)
    pcm = ramp(160)
    pieces = [*timeline.take(pcm), *timeline.take(pcm)]
    assert told(pieces) == [("audio", 0, 160), ("audio", 160, 160)]
    assert all(isinstance(piece, Audio) and piece.pcm is pcm for piece in pieces)
    assert (timeline.position, timeline.gap_frames) == (320, 0)


def test_a_gap_that_the_source_filled_is_told_before_its_audio() -> None:
    timeline = Timeline(channels=1, position=1000)
    pieces = timeline.take(bytes(200) + ramp(60), gap_frames=100)
    assert told(pieces) == [("gap", 1000, 100), ("audio", 1000, 160)]
    assert told(timeline.settle()) == []


def test_a_gap_over_many_drains_is_told_twice_and_adds_up() -> None:
    timeline = Timeline(channels=1)
    pieces = [*timeline.take(ramp(160))]
    for _ in range(5):
        pieces += timeline.take(bytes(320), gap_frames=160)
    pieces += timeline.take(bytes(100) + ramp(110), gap_frames=50)
    gaps = [piece for piece in told(pieces) if piece[0] == "gap"]
    assert gaps == [("gap", 160, 160), ("gap", 320, 4 * 160 + 50)]
    assert timeline.gap_frames == 5 * 160 + 50
    assert told(timeline.take(ramp(10))) == [("audio", 1120, 10)]


def test_a_gap_still_open_at_the_end_is_settled_once() -> None:
    timeline = Timeline(channels=1)
    list(timeline.take(bytes(320), gap_frames=160))
    list(timeline.take(bytes(320), gap_frames=160))
    assert told(timeline.settle()) == [("gap", 160, 160)]
    assert told(timeline.settle()) == []


def test_a_gap_is_an_event_with_its_length() -> None:
    event = Gap(position=5, frames=160).event()
    assert (event.event, event.frames, event.channel) == (EventKind.GAP, 160, None)


@pytest.mark.parametrize(
    "refused",
    [
        lambda timeline: timeline.take(bytes(3)),
        lambda timeline: timeline.take(bytes(4), gap_frames=2),
        lambda timeline: timeline.take(bytes(4), gap_frames=-1),
    ],
)
def test_what_no_clock_can_place_is_refused_and_nothing_is_laid(refused: object) -> None:
    timeline = Timeline(channels=2)
    with pytest.raises(TimelineError):
        refused(timeline)  # type: ignore[operator]
    assert (timeline.position, timeline.gap_frames) == (0, 0)
    assert told(timeline.take(bytes(4), gap_frames=1)) == [("gap", 0, 1), ("audio", 0, 2)]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300))))
def test_pieces_are_contiguous_and_gaps_add_up_whatever_comes(drains: list[tuple[int, int]]) -> None:
    timeline = Timeline(channels=1)
    pieces: list[Piece] = []
    expected_gap = 0
    for frames, lost in drains:
        gap = min(frames, lost)
        expected_gap += gap
        pieces += timeline.take(bytes(2 * gap) + b"\1\1" * (frames - gap), gap_frames=gap)
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
