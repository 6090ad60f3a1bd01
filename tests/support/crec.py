"""Recordings for tests: written by the real writer, with keys that tests know."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from recording.chain import Opener
from recording.errors import CorruptRecordingError, RecordingError, TruncatedRecordingError
from recording.format import slots
from recording.format.content import ChannelLayout, RecordingMeta
from recording.format.record import Record
from recording.reader import RecordingReader, open_with_dek
from recording.writer import SegmentWriter

DEK = bytes(range(32))
FILE_ID = b"F" * 16
TENANT = b"T" * 16
CHUNK = 4096
RECORD = CHUNK + 16
BODY = 4096  # where record 0 starts in a file with a small slots area

META = RecordingMeta(
    recording=b"R" * 16,
    segment=0,
    started_at=datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC),
    rate_hz=8000,
    channels=1,
    layout=ChannelLayout.MIXED,
    call_uid="c0ffee",
    sip_call_ids=("a@one", "b@two"),
    from_="sip:+4930111@one.example",
    to="sip:+4930222@two.example",
    trunk_a="clinic",
    trunk_b="carrier",
)


def segment_writer(**changes: Any) -> SegmentWriter:
    """A writer with fixed identifiers; each call gives it its own copy of the data key."""
    arguments: dict[str, Any] = {
        "file_id": FILE_ID,
        "tenant_handle": TENANT,
        "dek": bytearray(DEK),
        "slots_area": slots.build_area([]),
        "meta": META,
        "chunk_size": CHUNK,
        "salt": b"S" * 32,
    }
    return SegmentWriter(**(arguments | changes))


def interleave(first: bytes, second: bytes) -> bytes:
    """A frame of each channel in turn, `first` leading."""
    return np.stack((np.frombuffer(first, "<i2"), np.frombuffer(second, "<i2")), axis=1).tobytes()


def mixed(first: bytes, second: bytes) -> bytes:
    """The sum, clamped to the range of a sample."""
    total = np.frombuffer(first, "<i2").astype(int) + np.frombuffer(second, "<i2")
    return total.clip(-32768, 32767).astype("<i2").tobytes()


def ramp(frames: int, *, start: int = 0) -> bytes:
    """PCM in which each sample tells its frame number, modulo a prime, so that no shift goes unseen."""
    return b"".join(
        ((start + frame) * 7 % 65521 - 32760).to_bytes(2, "little", signed=True) for frame in range(frames)
    )


def recording(
    pcm: bytes = b"", *, ended: bool = True, next_file_id: bytes | None = None, **changes: Any
) -> bytes:
    """A whole file with this audio, FINAL included unless `ended` is False (then the open record is closed)."""
    writer = segment_writer(**changes)
    data = writer.head() + writer.append(pcm)
    if not ended:
        return data + writer.flush()
    return data + writer.finish(ended_by="a", reason="bye", next_file_id=next_file_id)


def reader(data: bytes) -> RecordingReader:
    """The file opened with the key that `segment_writer` sealed it under."""
    return open_with_dek(io.BytesIO(data), DEK)


def pcm_of(data: bytes) -> bytes:
    """All audio of a complete file."""
    return b"".join(record.payload for record in reader(data).audio())


def prefix(opened: RecordingReader) -> tuple[list[Record], RecordingError | None]:
    """The records that a reader yields, and the error that it stops with (None: complete)."""
    records = []
    try:
        for record in opened.records():
            records.append(record)  # noqa: PERF402 - what came before the error counts
    except (TruncatedRecordingError, CorruptRecordingError) as error:
        return records, error
    return records, None


def segment_id(number: int) -> bytes:
    """File id of a segment of `segmented`."""
    return bytes([0xA0 + number]) * 16


def segmented(pcm: bytes, frames: list[int], *, meta: RecordingMeta = META, **changes: Any) -> list[bytes]:
    """A recording in segments of so many frames each, linked as the recorder links them."""
    segments, position, frame_bytes = [], 0, 2 * (meta.channels or 1)
    for number, count in enumerate(frames):
        is_last = number == len(frames) - 1
        part = pcm[position * frame_bytes : (position + count) * frame_bytes]
        segments.append(
            recording(
                part,
                file_id=segment_id(number),
                meta=replace(meta, segment=number, previous=segment_id(number - 1) if number else None),
                first_position=position,
                next_file_id=None if is_last else segment_id(number + 1),
                **changes,
            )
        )
        position += count
    return segments


def openers(segments: list[bytes]) -> list[Opener]:
    """What opens each of them, anew at each call."""
    return [partial(reader, data) for data in segments]
