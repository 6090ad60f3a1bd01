"""Recordings for tests: written by the real writer, with keys that tests know."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

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


def ramp(frames: int, *, start: int = 0) -> bytes:
    """PCM in which each sample tells its frame number, modulo a prime, so that no shift goes unseen."""
    return b"".join(
        ((start + frame) * 7 % 65521 - 32760).to_bytes(2, "little", signed=True) for frame in range(frames)
    )


def recording(pcm: bytes = b"", *, ended: bool = True, **changes: Any) -> bytes:
    """A whole file with this audio, FINAL included unless `ended` is False (then the open record is closed)."""
    writer = segment_writer(**changes)
    data = writer.head() + writer.append(pcm)
    return data + (writer.finish(ended_by="a", reason="bye") if ended else writer.flush())


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
