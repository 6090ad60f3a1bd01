"""A pause takes exactly the frames between its begin and its end, and nothing said in them is sealed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.call_recording import CallRecording
from recording.format.content import EventKind, parse_event
from recording.format.record import RecordType
from recording.pause import RESUME_GUARD_MS, Pause
from recording.reader import RecordingReader
from recording.settings import Layout
from recording.verify import RecordingState, verify
from support.recorder_bench import RATE_HZ, RecorderBench, feed, sound

GUARD = RESUME_GUARD_MS * RATE_HZ // 1000
TOLD = {"by": "command", "reason": "card_number"}


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., RecorderBench]]:
    made: list[RecorderBench] = []

    def make(**changes: object) -> RecorderBench:
        made.append(RecorderBench(tmp_path, **changes))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def heard(reader: RecordingReader) -> bytes:
    return b"".join(bytes(record.payload) for record in reader.audio())


def events(reader: RecordingReader) -> list[tuple[EventKind, int, int | None]]:
    """Kind, position and frames of the events of a segment."""
    found = []
    for record in reader.records():
        if record.type == RecordType.EVENT:
            event = parse_event(record.payload)
            found.append((event.event, record.position, event.frames))
    return found


def said_in_pieces(recording: CallRecording, pcm: bytes, piece: int) -> None:
    step = piece * recording.frame_bytes
    for start in range(0, len(pcm), step):
        feed(recording, pcm[start : start + step])


@pytest.mark.parametrize("layout", Layout)
def test_the_pause_is_silence_of_the_true_length_and_what_follows_is_in_its_place(
    make_bench: Callable[..., RecorderBench], layout: Layout
) -> None:
    bench = make_bench()
    recording = bench.open(layout=layout)
    channels = layout.channels
    before, paused, guarded, after = (
        sound(frames, channels) for frames in (RATE_HZ + 7, 2 * RATE_HZ, GUARD, RATE_HZ)
    )
    said_in_pieces(recording, before, 1600)
    assert recording.pause(**TOLD) == RATE_HZ + 7
    said_in_pieces(recording, paused, 1600)
    assert recording.resume() == 3 * RATE_HZ + 7 + GUARD
    said_in_pieces(recording, guarded + after, 1111)
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)

    (entry,) = bench.entries()
    with bench.reader(entry) as reader:
        assert verify(reader).state is RecordingState.COMPLETE
        assert heard(reader) == before + bytes(len(paused) + len(guarded)) + after
        assert events(reader) == [
            (EventKind.PAUSE, RATE_HZ + 7, None),
            (EventKind.RESUME, 3 * RATE_HZ + 7 + GUARD, 2 * RATE_HZ + GUARD),
        ]
    assert not bench.failures


def test_the_event_says_who_asked_and_why(make_bench: Callable[..., RecorderBench]) -> None:
    bench = make_bench()
    recording = bench.open()
    feed(recording, sound(160))
    recording.pause(**TOLD)
    feed(recording, sound(160))
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)
    (entry,) = bench.entries()
    with bench.reader(entry) as reader:
        (record,) = [record for record in reader.records() if record.type == RecordType.EVENT]
        event = parse_event(record.payload)
        assert dict(event.extra) == TOLD
        assert event.at is not None


def test_a_call_that_ends_in_a_pause_is_complete_and_silent_to_its_end(
    make_bench: Callable[..., RecorderBench],
) -> None:
    bench = make_bench()
    recording = bench.open()
    feed(recording, sound(800))
    recording.pause(**TOLD)
    feed(recording, sound(4000))
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)
    (entry,) = bench.entries()
    with bench.reader(entry) as reader:
        assert verify(reader).state is RecordingState.COMPLETE
        assert heard(reader)[1600:] == bytes(8000)
        final = reader.final()
        assert final is not None
        assert final[1].frames == 4800


def test_a_pause_before_the_first_audio_silences_it(make_bench: Callable[..., RecorderBench]) -> None:
    bench = make_bench()
    recording = bench.open()
    recording.pause(**TOLD)
    feed(recording, sound(800))
    recording.resume()
    after = sound(160)
    feed(recording, sound(GUARD))
    feed(recording, after)
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)
    (entry,) = bench.entries()
    with bench.reader(entry) as reader:
        assert heard(reader) == bytes(2 * (800 + GUARD)) + after
        assert [kind for kind, _, _ in events(reader)] == [EventKind.PAUSE, EventKind.RESUME]


def test_a_second_pause_before_the_end_of_the_first_lets_nothing_through(
    make_bench: Callable[..., RecorderBench],
) -> None:
    bench = make_bench()
    recording = bench.open()
    feed(recording, sound(800))
    recording.pause(**TOLD)
    recording.pause(**TOLD)
    feed(recording, sound(800))
    recording.resume()
    feed(recording, sound(GUARD - 1))
    recording.pause(**TOLD)
    feed(recording, sound(800))
    recording.resume()
    recording.resume()
    feed(recording, sound(GUARD))
    last = sound(10)
    feed(recording, last)
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)
    (entry,) = bench.entries()
    with bench.reader(entry) as reader:
        assert heard(reader)[1600:] == bytes(2 * (1600 + 2 * GUARD - 1)) + last
        assert [kind for kind, _, _ in events(reader)] == [EventKind.PAUSE, EventKind.RESUME]


def test_a_segment_that_begins_in_a_pause_says_so(make_bench: Callable[..., RecorderBench]) -> None:
    bench = make_bench(segment_seconds=10)
    recording = bench.open()
    recording.pause(**TOLD)
    for _ in range(55):
        feed(recording, sound(1600))
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)
    found = []
    for entry in bench.entries():
        with bench.reader(entry) as reader:
            assert not any(heard(reader))
            found.append([kind for kind, _, _ in events(reader)])
    assert found == [[EventKind.PAUSE], [EventKind.PAUSE]]


def test_time_lost_in_a_pause_is_still_a_gap(make_bench: Callable[..., RecorderBench]) -> None:
    bench = make_bench()
    recording = bench.open()
    feed(recording, sound(160))
    recording.pause(**TOLD)
    feed(recording, bytes(320) + sound(160), gap_frames=160)
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)
    (entry,) = bench.entries()
    with bench.reader(entry) as reader:
        assert len(heard(reader)) == 2 * 480
        assert events(reader) == [(EventKind.PAUSE, 160, None), (EventKind.GAP, 160, 160)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("say"), st.integers(1, 300)),
            st.tuples(st.just("pause"), st.just(0)),
            st.tuples(st.just("resume"), st.integers(0, 200)),
        ),
        max_size=40,
    )
)
def test_whatever_the_order_a_frame_is_silent_exactly_in_a_pause(steps: list[tuple[str, int]]) -> None:
    """Against a model that knows of every single frame whether it may be kept."""
    pause, position = Pause(), 0
    got: list[bool] = []
    wanted: list[bool] = []
    open_at: int | None = 0  # frames from here on are kept; None: none is, so far
    lengths = 0
    for step, number in steps:
        if step == "pause":
            pause.begin(position)
            open_at = None
        elif step == "resume":
            if open_at is None:
                assert pause.end(position + number)
                open_at = position + number
            else:
                assert not pause.end(position + number) or open_at <= position
        else:
            silent = pause.silenced(position, number)
            got += [False] * silent + [True] * (number - silent)
            wanted += [
                open_at is not None and frame >= open_at for frame in range(position, position + number)
            ]
            length = pause.completed(position + silent)
            lengths += length or 0
            position += number
    assert got == wanted
    if not pause.is_active:
        assert lengths == wanted.count(False)
