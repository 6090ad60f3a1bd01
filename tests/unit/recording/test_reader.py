"""Reading: the verified prefix, positions, search, and what is said of each kind of damage."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from recording.errors import (
    CorruptRecordingError,
    FormatError,
    MalformedContentError,
    NotARecordingError,
    TruncatedRecordingError,
    UnsupportedVersionError,
)
from recording.format.content import ChannelLayout, EventKind, RecordingEvent
from recording.format.record import RecordType
from recording.reader import open_with_dek
from recording.verify import verify
from support.crec import BODY, DEK, META, RECORD, pcm_of, prefix, ramp, reader, recording, segment_writer

GAP = RecordingEvent(event=EventKind.GAP, frames=1)
DATA = recording(ramp(9000))  # META, five AUDIO records, FINAL


class Trickle(io.BytesIO):
    """A raw file that gives a few bytes at a time, as the system may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size, 1000) if size is not None and size >= 0 else size)


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :]


def test_meta_audio_events_and_final_come_back() -> None:
    opened = reader(DATA)
    assert opened.meta == META
    assert (opened.file_id, opened.first_position) == (b"F" * 16, 0)
    assert pcm_of(DATA) == ramp(9000)
    assert list(opened.events()) == []
    found = opened.final()
    assert found is not None
    assert (found[0], found[1].count, found[1].reason) == (9000, 7, "bye")


def test_a_path_is_opened_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.crec"
    path.write_bytes(DATA)
    with open_with_dek(path, DEK) as opened:
        assert verify(opened).is_complete
        file = opened._file
    assert file.closed


def test_a_file_that_was_given_stays_open() -> None:
    file = io.BytesIO(DATA)
    with open_with_dek(file, DEK):
        pass
    assert not file.closed


def test_a_path_that_cannot_be_opened_leaves_no_open_file(tmp_path: Path) -> None:
    path = tmp_path / "a.crec"
    path.write_bytes(b"RIFF" * 100)
    with pytest.raises(NotARecordingError):  # an unclosed file would be an error of its own here
        open_with_dek(path, DEK)


def test_short_reads_change_nothing() -> None:
    opened = open_with_dek(Trickle(DATA), DEK)
    assert b"".join(record.payload for record in opened.audio()) == ramp(9000)


def test_files_larger_than_a_block_are_read_through() -> None:
    pcm = ramp(2040 * 200)
    assert pcm_of(recording(pcm)) == pcm


@pytest.mark.parametrize("start", [0, 1, 2039, 2040, 2041, 5000, 8999])
def test_audio_from_a_position_starts_exactly_there(start: int) -> None:
    parts = list(reader(DATA).audio(start))
    assert parts[0].position == start
    assert b"".join(part.payload for part in parts) == ramp(9000 - start, start=start)


@pytest.mark.parametrize("start", [9000, 10**9])
def test_audio_past_the_end_is_none(start: int) -> None:
    assert list(reader(DATA).audio(start)) == []


def test_two_channel_audio_is_cut_by_frames() -> None:
    stereo = replace(META, channels=2, layout=ChannelLayout.CALLER_CALLED)
    data = recording(ramp(2 * 3000), meta=stereo)
    assert b"".join(part.payload for part in reader(data).audio(1500)) == ramp(2 * 1500, start=3000)


def eventful() -> bytes:
    """Events between, before and behind audio, some at one position; the segment starts at frame 1000."""
    writer = segment_writer(first_position=1000)
    data = writer.head() + writer.event(GAP) + writer.event(GAP)
    for number in range(20):
        data += writer.append(ramp(100, start=100 * number)) + writer.event(
            GAP, position=writer.position - 50
        )
        data += writer.event(GAP)
    return data + writer.finish(ended_by="a", reason="bye")


def test_search_finds_the_record_that_holds_a_frame_whatever_lies_between() -> None:
    data = eventful()
    held = {}
    for record in reader(data).records():
        if record.type == RecordType.AUDIO:
            held.update(
                dict.fromkeys(
                    range(record.position, record.position + len(record.payload) // 2), record.index
                )
            )
    opened = reader(data)
    assert {position: opened.seek(position) for position in held} == held


def test_audio_from_before_the_segment_starts_at_its_first_frame() -> None:
    parts = list(reader(eventful()).audio(0))
    assert (parts[0].position, b"".join(part.payload for part in parts)) == (1000, ramp(2000))


def test_search_reads_few_records() -> None:
    class Counting(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.reads += 1
            return super().read(size)

    file = Counting(recording(ramp(2040 * 500)))
    opened = open_with_dek(file, DEK)
    file.reads = 0
    opened.seek(2040 * 321)
    assert file.reads < 30


def test_search_works_in_a_file_that_was_cut() -> None:
    data = DATA[: BODY + 4 * RECORD + 100]
    assert reader(data).seek(5000) == 3
    parts = []
    with pytest.raises(TruncatedRecordingError):
        parts.extend(part.payload for part in reader(data).audio(5000))
    opened = reader(data).audio(5000)
    assert next(opened).position == 5000


@pytest.mark.parametrize("kept", range(7))
def test_a_cut_file_gives_its_full_records_and_then_says_so(kept: int) -> None:
    for extra in (0, 1, RECORD - 1):
        records, error = prefix(reader(DATA[: BODY + kept * RECORD + extra]))
        assert len(records) == kept
        assert type(error) is (TruncatedRecordingError if kept else CorruptRecordingError)
        assert error.records == kept


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("within", [0, 2000, RECORD - 17, RECORD - 1])
def test_a_flipped_bit_is_corruption_and_what_comes_before_is_read(index: int, within: int) -> None:
    records, error = prefix(reader(flipped(DATA, BODY + index * RECORD + within)))
    assert [record.index for record in records] == list(range(index))
    assert isinstance(error, CorruptRecordingError)
    assert error.records == index


def test_the_rest_of_a_corrupt_file_can_be_read_from_behind_the_damage() -> None:
    damaged = reader(flipped(DATA, BODY + 2 * RECORD))
    assert [record.index for record in damaged.records(3)] == [3, 4, 5, 6]


def test_final_is_not_believed_where_the_end_is_damaged() -> None:
    assert reader(DATA[:-1]).final() is None
    assert reader(DATA[:-RECORD]).final() is None
    assert reader(flipped(DATA, len(DATA) - 1)).final() is None
    assert reader(DATA + bytes(RECORD)).final() is None
    assert reader(DATA[:BODY]).final() is None


def test_meta_of_a_file_without_one_is_corrupt() -> None:
    for data in (DATA[:BODY], flipped(DATA, BODY), DATA[:BODY] + DATA[BODY + RECORD :]):
        with pytest.raises(CorruptRecordingError):
            _ = reader(data).meta


def test_zeros_from_a_sector_boundary_on_are_a_torn_write() -> None:
    whole = DATA[: BODY + 3 * RECORD]
    torn_at = 512 * 25
    assert BODY + 2 * RECORD < torn_at < len(whole)
    for length in (len(whole), len(whole) + 5 * RECORD + 7):
        torn = DATA[:torn_at].ljust(length, b"\0")
        records, error = prefix(reader(torn))
        assert (len(records), type(error)) == (2, TruncatedRecordingError)


def test_zeros_within_a_sector_or_before_data_are_corruption() -> None:
    whole = DATA[: BODY + 3 * RECORD]  # ends 48 bytes into a sector
    within = whole[:-40] + bytes(40)
    hole = DATA[: BODY + 2 * RECORD] + bytes(RECORD) + DATA[BODY + 3 * RECORD :]
    behind_damage = flipped(whole, BODY + 2 * RECORD) + bytes(4 * RECORD)
    for data in (within, hole, behind_damage):
        records, error = prefix(reader(data))
        assert (len(records), type(error)) == (2, CorruptRecordingError)
    records, error = prefix(reader(whole[:-48] + bytes(48)))
    assert (len(records), type(error)) == (2, TruncatedRecordingError)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotARecordingError),
        (DATA[:10], TruncatedRecordingError),
        (DATA[: BODY - 1], TruncatedRecordingError),
        (b"\x89CREC\n\n\x1a" + DATA[8:], NotARecordingError),
        (flipped(DATA, 8), UnsupportedVersionError),
        (flipped(DATA, 81), FormatError),
    ],
)
def test_a_head_that_cannot_be_read_says_what_it_is(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        reader(data)
    assert type(caught.value) is error


def test_audio_that_does_not_follow_on_is_the_writers_fault() -> None:
    writer = segment_writer()
    data = writer.head() + writer.append(ramp(10)) + writer.flush()
    writer._open_position += 1
    data += writer.append(ramp(10)) + writer.finish(ended_by="a", reason="bye")
    with pytest.raises(MalformedContentError, match="record 2 is at frame 11, not 10"):
        list(reader(data).audio())
    assert verify(reader(data)).is_complete


def test_audio_of_no_channels_is_the_writers_fault() -> None:
    opened = reader(DATA)
    opened._meta = replace(META, channels=0)
    with pytest.raises(MalformedContentError, match="frame of 0 bytes"):
        list(opened.audio())


def test_a_verdict_counts_records_and_audio() -> None:
    verdict = verify(reader(DATA))
    assert (str(verdict), verdict.records, verdict.audio_bytes, verdict.detail) == ("complete", 7, 18000, "")
    verdict = verify(reader(DATA[: BODY + 3 * RECORD + 9]))
    assert (str(verdict), verdict.audio_bytes) == ("incomplete(3)", 2 * 4080)
    assert verdict.detail == "9 bytes of a record follow"
    verdict = verify(reader(flipped(DATA, BODY + 4 * RECORD)))
    assert (str(verdict), verdict.audio_bytes) == ("corrupt(4)", 3 * 4080)


@pytest.mark.parametrize("first", range(1, 7))
def test_a_file_that_grows_while_it_is_read_is_no_altered_one(tmp_path: Path, first: int) -> None:
    """Its writer goes on after the reader has taken what was there: records, then FINAL."""
    path = tmp_path / "live.crec"
    path.write_bytes(DATA[: BODY + first * RECORD])
    with open_with_dek(path, DEK) as opened:
        records = opened.records()
        read = [next(records) for _ in range(first)]
        path.write_bytes(DATA)
        read += records
    assert [record.index for record in read] == list(range(7))
    assert read[-1].is_final
