"""What holds for every write pattern, every cut and every failing disk."""

from __future__ import annotations

import errno
import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from recording import writer as writer_module
from recording.errors import CorruptRecordingError, TruncatedRecordingError
from recording.format.content import EventKind, FinalInfo, RecordingEvent, parse_event, parse_final
from recording.format.record import RecordType, seal_inner
from recording.reader import open_with_dek
from recording.verify import verify
from recording.writer import SegmentWriter
from support.crec import BODY, META, RECORD, prefix, ramp, reader, recording, segment_writer

HOLD = RecordingEvent(event=EventKind.HOLD, channel=0)


@contextmanager
def sealing_watched() -> Iterator[list[tuple[AESGCM, int]]]:
    """(cipher object, index) of each sealing by the writer, in order. The objects are kept, so that none is reused."""
    seen: list[tuple[AESGCM, int]] = []

    def watch(body: AESGCM, *, index: int, inner: bytearray) -> bytes:
        seen.append((body, index))
        return seal_inner(body, index=index, inner=inner)

    with mock.patch.object(writer_module, "seal_inner", watch):
        yield seen


def sealed_once(seen: list[tuple[AESGCM, int]]) -> bool:
    pairs = [(id(body), index) for body, index in seen]
    return len(set(pairs)) == len(pairs)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 5000)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("event"), st.integers(-10, 10_000)),
    ),
    max_size=12,
)


def written(steps: list[tuple[str, int]], *, ended: bool) -> tuple[bytes, bytes]:
    """The file and the audio that these steps put into it."""
    writer = segment_writer()
    data, pcm = writer.head(), b""
    for action, number in steps:
        if action == "append":
            part = ramp(number, start=len(pcm) // 2)
            pcm += part
            data += writer.append(part)
        else:
            data += writer.flush() if action == "flush" else writer.event(HOLD, position=number)
    data += writer.finish(ended_by="a", reason="bye") if ended else writer.flush()
    return data, pcm


@settings(max_examples=60, deadline=None)
@given(STEPS, st.booleans(), st.data())
def test_any_pattern_cut_anywhere_gives_exactly_the_full_records(
    steps: list[tuple[str, int]], ended: bool, data: st.DataObject
) -> None:
    whole, pcm = written(steps, ended=ended)
    all_records, error = prefix(reader(whole))
    assert (error is None) == ended
    assert b"".join(record.payload for record in all_records if record.type == RecordType.AUDIO) == pcm
    positions = [record.position for record in all_records]
    assert positions == sorted(positions)

    cut = data.draw(st.integers(BODY, len(whole)), label="cut")
    full = (cut - BODY) // RECORD
    records, error = prefix(reader(whole[:cut]))
    assert records == all_records[:full]
    if cut == len(whole) and ended:
        assert error is None
    else:
        assert type(error) is (TruncatedRecordingError if full else CorruptRecordingError)
        assert error.records == full


def test_every_byte_of_a_body_as_a_cut() -> None:
    whole = recording(ramp(2500))
    all_records, error = prefix(reader(whole))
    assert (len(all_records), error) == (4, None)
    for cut in range(BODY, len(whole)):
        verdict = verify(reader(whole[:cut]))
        full = (cut - BODY) // RECORD
        assert str(verdict) == (f"incomplete({full})" if full else "corrupt(0)")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 8 * 4 * RECORD - 1))
def test_no_flipped_bit_of_a_body_is_accepted(bit: int) -> None:
    damaged = bytearray(recording(ramp(2500)))
    damaged[BODY + bit // 8] ^= 1 << bit % 8
    assert str(verify(reader(bytes(damaged)))) == f"corrupt({bit // 8 // RECORD})"


class RollingRecording(RuleBasedStateMachine):
    """One recording over several segments, with events and flushes, as the pump writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.watching = sealing_watched()
        self.seen = self.watching.__enter__()
        self.pcm = b""
        self.events: list[int] = []
        self.segments: list[tuple[bytes, int]] = []  # file, first position
        self.begin(first_position=0)

    def begin(self, *, first_position: int) -> None:
        meta = replace(META, segment=len(self.segments))
        self.writer = segment_writer(
            meta=meta, first_position=first_position, file_id=len(self.segments).to_bytes(16, "big")
        )
        self.first_position = first_position
        self.file = self.writer.head()

    @rule(frames=st.integers(0, 4500))
    def append(self, frames: int) -> None:
        part = ramp(frames, start=len(self.pcm) // 2)
        self.pcm += part
        self.file += self.writer.append(part)

    @rule()
    def flush(self) -> None:
        self.file += self.writer.flush()

    @rule()
    def event(self) -> None:
        self.events.append(self.writer.position)
        self.file += self.writer.event(HOLD)

    @precondition(lambda self: len(self.segments) < 5)
    @rule()
    def roll(self) -> None:
        following = (len(self.segments) + 1).to_bytes(16, "big")
        self.file += self.writer.finish(ended_by="b", reason="segment", next_file_id=following)
        self.segments.append((self.file, self.first_position))
        self.begin(first_position=self.writer.position)

    @rule()
    def crash(self) -> None:
        """The segment ends without FINAL; what had been sealed is there, and the rest of the call is a new one."""
        lost = self.writer.position
        self.writer.abandon()
        records, _ = prefix(reader(self.file))
        audio = b"".join(record.payload for record in records if record.type == RecordType.AUDIO)
        assert audio == self.pcm[2 * self.first_position :][: len(audio)]
        assert lost - self.first_position - len(audio) // 2 < 2040
        self.segments.append((self.file, self.first_position))
        self.begin(first_position=lost)

    @invariant()
    def no_index_is_sealed_twice(self) -> None:
        assert sealed_once(self.seen)

    @invariant()
    def the_position_is_the_audio_so_far(self) -> None:
        assert self.writer.position == len(self.pcm) // 2

    def teardown(self) -> None:
        self.file += self.writer.finish(ended_by="a", reason="bye")
        self.watching.__exit__(None, None, None)
        events = []
        for number, (data, first_position) in enumerate([*self.segments, (self.file, self.first_position)]):
            records, error = prefix(reader(data))
            assert not isinstance(error, CorruptRecordingError) or not records
            assert len(data) == BODY + len(records) * RECORD
            position = first_position
            for record in records:
                if record.type == RecordType.AUDIO:
                    frames = len(record.payload) // 2
                    assert record.position == position
                    assert record.payload == self.pcm[2 * position : 2 * (position + frames)]
                    position += frames
                elif record.type == RecordType.EVENT:
                    assert parse_event(record.payload) == HOLD
                    events.append(record.position)
                elif record.type == RecordType.FINAL:
                    final = parse_final(record.payload)
                    assert (final.count, final.frames) == (len(records), position - first_position)
                    assert (final.next is None) == (number == len(self.segments))
        assert events == self.events


TestRollingRecording = RollingRecording.TestCase
TestRollingRecording.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


class FailingDisk(io.BytesIO):
    """Takes part of a write, or refuses it for want of space, as told by a random number with a fixed seed."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.failures = 0

    def write(self, data: object, /) -> int:
        assert isinstance(data, memoryview)
        fate = self.chance.random()
        if fate < 0.25:
            self.failures += 1
            raise OSError(errno.ENOSPC, "no space left on device")
        if fate < 0.6:
            self.failures += 1
            return super().write(data[: self.chance.randrange(len(data))])
        return super().write(data)


def write_stubbornly(disk: FailingDisk, data: bytes) -> bool:
    """The same bytes again until they are all there; False once in a while: the state is unknown, give the file up."""
    view = memoryview(data)
    while view:
        try:
            view = view[disk.write(view) :]
        except OSError:
            if disk.chance.random() < 0.02:
                return False
    return True


def test_a_thousand_failing_writes_never_make_an_index_sealed_twice() -> None:
    chance = random.Random(20260301)
    disks: list[FailingDisk] = []
    ended: list[bool] = []
    with sealing_watched() as seen:
        while sum(disk.failures for disk in disks) < 1000:
            disk = FailingDisk(chance)
            disks.append(disk)
            ended.append(_record_on(disk, chance))
    assert sealed_once(seen)
    assert len(seen) > 500
    assert {True, False} == set(ended)
    for disk, was_ended in zip(disks, ended, strict=True):
        data = disk.getvalue()
        if len(data) < BODY:
            assert not was_ended
            continue
        records, error = prefix(reader(data))
        assert (error is None) == was_ended
        assert len(records) == (len(data) - BODY) // RECORD
        audio = b"".join(record.payload for record in records if record.type == RecordType.AUDIO)
        assert audio == ramp(len(audio) // 2)


def _record_on(disk: FailingDisk, chance: random.Random) -> bool:
    """One segment; whether it was finished. A new file has a new writer, and with it a new key."""
    writer: SegmentWriter = segment_writer(file_id=chance.randbytes(16))
    if not write_stubbornly(disk, writer.head()):
        writer.abandon()
        return False
    for _ in range(10):
        frames = chance.randrange(3000)
        if not write_stubbornly(disk, writer.append(ramp(frames, start=writer.position))):
            writer.abandon()
            return False
    if not write_stubbornly(disk, writer.event(HOLD)):
        writer.abandon()
        return False
    return write_stubbornly(disk, writer.finish(ended_by="a", reason="bye"))


def test_what_is_sealed_twice_would_be_seen() -> None:
    with sealing_watched() as seen:
        writer = segment_writer()
        writer.flush()
        writer._records = 0
        writer.event(HOLD)
    assert not sealed_once(seen)


@pytest.mark.parametrize("count", [0, 2**64 - 1])
def test_a_count_may_be_any_64_bit_number(count: int) -> None:
    assert parse_final(FinalInfo(count=count).build()).count == count


def test_a_reader_may_follow_a_file_that_grows() -> None:
    whole = recording(ramp(6000))
    file = io.BytesIO(whole[: BODY + 2 * RECORD + 10])
    opened = open_with_dek(file, bytes(range(32)))
    assert str(verify(opened)) == "incomplete(2)"
    file.seek(0)
    file.write(whole)
    assert str(verify(opened)) == "complete"
