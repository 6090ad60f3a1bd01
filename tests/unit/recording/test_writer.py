"""The segment writer: what it seals when, at which position, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recording.errors import (
    MalformedContentError,
    SegmentFullError,
    TimelineError,
    TruncatedRecordingError,
    WriterClosedError,
)
from recording.format import limits, record
from recording.format.content import ChannelLayout, EventKind, RecordingEvent, parse_final, parse_meta
from recording.format.header import parse_head
from recording.format.record import RecordType
from support.crec import (
    BODY,
    CHUNK,
    DEK,
    META,
    RECORD,
    pcm_of,
    prefix,
    ramp,
    reader,
    recording,
    segment_writer,
)

HOLD = RecordingEvent(event=EventKind.HOLD, channel=0)


def shape(data: bytes) -> list[tuple[int, int, int]]:
    """Type, position and payload length of each record of a complete file."""
    return [(item.type, item.position, len(item.payload)) for item in reader(data).records()]


def test_the_head_carries_the_given_identifiers_and_spends_no_index() -> None:
    writer = segment_writer(meta=replace(META, segment=3))
    head = parse_head(writer.head())
    assert (head.core.file_id, head.core.tenant_handle, head.core.segment_no) == (b"F" * 16, b"T" * 16, 3)
    assert writer.head() == writer.head()
    assert writer.file_id == b"F" * 16
    assert (writer.records, writer.size_bytes) == (0, BODY)


def test_a_segment_that_meta_does_not_number_is_the_first() -> None:
    assert parse_head(segment_writer(meta=replace(META, segment=None)).head()).core.segment_no == 0


def test_meta_is_record_0_and_comes_with_the_first_call() -> None:
    writer = segment_writer(first_position=9000)
    first = writer.flush()
    assert (len(first), writer.records) == (RECORD, 1)
    assert writer.flush() == b""
    opened = next(iter(reader(writer.head() + first).records()))
    assert (opened.type, opened.position) == (RecordType.META, 9000)
    assert parse_meta(opened.payload) == META


def test_an_audio_record_closes_when_it_is_full() -> None:
    writer = segment_writer()
    assert len(writer.append(ramp(2039))) == RECORD  # META
    assert len(writer.append(ramp(1))) == RECORD  # 2,040 frames are the 4,080 bytes that a record holds
    data = recording(ramp(5000))
    assert shape(data)[1:-1] == [(1, 0, 4080), (1, 2040, 4080), (1, 4080, 1840)]
    assert pcm_of(data) == ramp(5000)


@pytest.mark.parametrize(("record_ms", "frames"), [(500, 4000), (100, 800), (1, 8)])
def test_an_audio_record_closes_on_elapsed_audio_before_it_is_full(record_ms: int, frames: int) -> None:
    writer = segment_writer(chunk_size=16384, record_ms=record_ms)
    writer.flush()
    assert writer.append(ramp(frames - 1)) == b""
    assert len(writer.append(ramp(1))) == 16400
    assert writer.append(ramp(frames - 1)) == b""


def test_a_record_holds_at_least_one_frame() -> None:
    writer = segment_writer(meta=replace(META, rate_hz=100), record_ms=1)
    writer.flush()
    assert len(writer.append(ramp(1))) == RECORD


def test_the_default_record_is_half_a_second_of_telephone_audio() -> None:
    writer = segment_writer(chunk_size=limits.DEFAULT_CHUNK_SIZE)
    writer.flush()
    assert writer.append(ramp(3999)) == b""
    assert len(writer.append(ramp(1))) == limits.DEFAULT_CHUNK_SIZE + 16


def test_two_channel_audio_stays_in_whole_frames() -> None:
    stereo = replace(META, channels=2, layout=ChannelLayout.CALLER_CALLED)
    writer = segment_writer(meta=stereo)
    data = writer.head() + writer.append(ramp(2 * 1500)) + writer.finish(ended_by="b", reason="bye")
    assert [item[:2] for item in shape(data)[1:]] == [(1, 0), (1, 1020), (0x7F, 1500)]
    assert pcm_of(data) == ramp(3000)


@pytest.mark.parametrize(("channels", "length"), [(1, 1), (1, 319), (2, 2), (2, 318)])
def test_part_of_a_frame_is_refused_and_nothing_is_taken(channels: int, length: int) -> None:
    writer = segment_writer(meta=replace(META, channels=channels, layout=None))
    with pytest.raises(TimelineError, match=f"{length} bytes"):
        writer.append(bytes(length))
    assert (writer.position, writer.records) == (0, 0)


def test_a_flushed_record_is_closed_and_later_audio_opens_the_next() -> None:
    writer = segment_writer()
    data = writer.head() + writer.append(ramp(10)) + writer.flush() + writer.append(ramp(5, start=10))
    data += writer.finish(ended_by="a", reason="bye")
    assert shape(data)[1:3] == [(1, 0, 20), (1, 10, 10)]
    assert pcm_of(data) == ramp(15)


def test_an_event_closes_the_open_record_so_that_positions_never_decrease() -> None:
    writer = segment_writer()
    data = writer.head() + writer.append(ramp(10)) + writer.event(HOLD) + writer.append(ramp(5, start=10))
    data += writer.finish(ended_by="a", reason="bye")
    assert [item[:2] for item in shape(data)] == [(2, 0), (1, 0), (3, 10), (1, 10), (0x7F, 15)]
    assert list(reader(data).events()) == [(10, HOLD)]


@pytest.mark.parametrize(
    ("asked", "given"),
    [(4, 4), (0, 0), (10, 10), (99, 10), (-1, 0)],
)
def test_an_event_is_put_where_it_happened_as_far_as_order_allows(asked: int, given: int) -> None:
    writer = segment_writer()
    data = writer.head() + writer.append(ramp(10)) + writer.event(HOLD, position=asked)
    data += writer.finish(ended_by="a", reason="bye")
    assert [position for position, _ in reader(data).events()] == [given]


def test_an_event_from_before_the_last_record_is_put_at_that_record() -> None:
    writer = segment_writer()
    data = writer.head() + writer.append(ramp(10)) + writer.flush() + writer.append(ramp(10)) + writer.flush()
    data += writer.event(HOLD, position=3) + writer.finish(ended_by="a", reason="bye")
    assert [position for position, _ in reader(data).events()] == [10]


def test_final_counts_itself_and_says_how_the_segment_ended() -> None:
    writer = segment_writer(first_position=100)
    data = writer.head() + writer.append(ramp(3000))
    data += writer.finish(ended_by="b", reason="segment", next_file_id=b"N" * 16)
    last = list(reader(data).records())[-1]
    final = parse_final(last.payload)
    assert (last.position, final.count, final.frames) == (3100, 4, 3000)
    assert (final.ended_by, final.reason, final.next) == ("b", "segment", b"N" * 16)


def test_a_segment_without_audio_is_meta_and_final() -> None:
    assert [item[:2] for item in shape(recording())] == [(2, 0), (0x7F, 0)]


def test_positions_go_on_across_segments() -> None:
    first = segment_writer()
    first.append(ramp(2500))
    first.finish(ended_by="b", reason="segment")
    data = recording(ramp(100, start=2500), first_position=first.position, meta=replace(META, segment=1))
    assert [item[:2] for item in shape(data)] == [(2, 2500), (1, 2500), (0x7F, 2600)]


def test_the_data_key_is_zero_once_the_writer_has_it_even_if_it_refuses() -> None:
    dek = bytearray(DEK)
    segment_writer(dek=dek)
    assert dek == bytes(32)
    dek = bytearray(DEK)
    with pytest.raises(ValueError, match="record_ms"):
        segment_writer(dek=dek, record_ms=501)
    assert dek == bytes(32)


def test_a_shorter_payload_leaves_nothing_of_a_longer_one_behind() -> None:
    writer = segment_writer()
    data = writer.head() + writer.append(b"\x55" * 4080) + writer.append(b"\x66" * 20) + writer.event(HOLD)
    data += writer.finish(ended_by="a", reason="bye")
    head = parse_head(data)
    body = reader(data)._keys.body
    for index in range(writer.records - 1):
        at = head.record_offset(index)
        inner = body.decrypt(record.nonce(index, final=False), data[at : at + RECORD], None)
        used = 16 + int.from_bytes(inner[4:8], "big")
        assert not any(inner[used:])


@pytest.mark.parametrize("close", ["finish", "abandon"])
def test_a_closed_writer_refuses_everything(close: str) -> None:
    writer = segment_writer()
    writer.append(ramp(10))
    if close == "finish":
        writer.finish(ended_by="a", reason="bye")
    else:
        writer.abandon()
    for call in (
        lambda: writer.append(ramp(1)),
        writer.flush,
        lambda: writer.event(HOLD),
        lambda: writer.finish(ended_by="a", reason="bye"),
    ):
        with pytest.raises(WriterClosedError):
            call()
    writer.abandon()


def test_closing_leaves_no_audio_in_the_buffer() -> None:
    writer = segment_writer()
    writer.append(b"\x55" * 100)
    assert b"\x55" * 100 in writer._inner
    writer.abandon()
    assert not any(writer._inner)


def test_what_an_abandoned_writer_sealed_is_a_readable_prefix() -> None:
    writer = segment_writer()
    data = writer.head() + writer.append(ramp(3000))
    writer.abandon()
    opened, error = prefix(reader(data))
    assert [item.type for item in opened] == [RecordType.META, RecordType.AUDIO]
    assert isinstance(error, TruncatedRecordingError)


def test_after_sealing_failed_nothing_more_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = segment_writer()
    writer.flush()
    with monkeypatch.context() as patch:
        patch.setattr("recording.writer.seal_inner", _out_of_memory)
        with pytest.raises(MemoryError):
            writer.append(bytes(4080))
    with pytest.raises(WriterClosedError):
        writer.flush()
    writer.abandon()


def _out_of_memory(body: AESGCM, *, index: int, inner: bytearray) -> bytes:
    raise MemoryError


def test_segment_full_after_its_seconds_of_audio() -> None:
    writer = segment_writer(segment_seconds=2)
    writer.append(ramp(15_999))
    assert not writer.segment_full()
    writer.append(ramp(1))
    assert writer.segment_full()


def test_a_segment_ends_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SEGMENT_BYTES", BODY + 80 * RECORD)
    writer = segment_writer()
    size = len(writer.head() + writer.append(bytes(4080 * 14)))
    assert not writer.segment_full()
    size += len(writer.append(bytes(4080)))
    assert writer.segment_full()
    with pytest.raises(SegmentFullError):
        writer.append(bytes(4080 * 70))
    assert size == writer.size_bytes, "a refused call seals nothing"
    size += len(writer.append(bytes(4080 * 60)))
    with pytest.raises(SegmentFullError):
        writer.append(bytes(4080))
    with pytest.raises(SegmentFullError):
        writer.event(HOLD)
    with pytest.raises(SegmentFullError):
        writer.flush()
    size += len(writer.finish(ended_by="b", reason="segment"))
    assert size <= limits.MAX_SEGMENT_BYTES


def test_content_that_no_record_holds_is_refused_before_anything_is_sealed() -> None:
    with pytest.raises(MalformedContentError, match="META needs"):
        segment_writer(meta=replace(META, to="x" * CHUNK))
    writer = segment_writer()
    writer.append(ramp(10))
    with pytest.raises(MalformedContentError, match="EVENT needs"):
        writer.event(replace(HOLD, extra={"note": "x" * CHUNK}))
    with pytest.raises(MalformedContentError, match="FINAL needs"):
        writer.finish(ended_by="a", reason="x" * CHUNK)
    assert writer.records == 1
    assert writer.finish(ended_by="a", reason="bye")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"record_ms": 0}, "record_ms"),
        ({"segment_seconds": 0}, "segment_seconds"),
        ({"segment_seconds": 14401}, "segment_seconds"),
        ({"first_position": -1}, "first_position"),
        ({"dek": bytearray(31)}, "32 bytes"),
        ({"meta": replace(META, rate_hz=None)}, "rate_hz"),
        ({"meta": replace(META, channels=3, layout=None)}, "channels"),
        ({"meta": replace(META, channels=2)}, "layout mixed"),
    ],
)
def test_an_argument_out_of_bounds_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segment_writer(**changes)


def test_two_writers_never_share_a_salt() -> None:
    first, second = segment_writer(salt=None), segment_writer(salt=None)
    assert parse_head(first.head()).core.salt != parse_head(second.head()).core.salt


def test_a_view_of_a_larger_buffer_is_taken_as_it_is() -> None:
    buffer = bytearray(ramp(100))
    writer = segment_writer()
    data = writer.head() + writer.append(memoryview(buffer)[20:60])
    buffer[:] = bytes(200)
    data += writer.finish(ended_by="a", reason="bye")
    assert pcm_of(data) == ramp(20, start=10)
