"""Segments as a call makes them, for tests of what happens to them on disk afterwards."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from recording.errors import TruncatedRecordingError
from recording.format.content import RecordingMeta
from recording.format.slots import KeySlot, SlotProvider, build_area
from recording.reader import RecordingReader, open_with_dek
from recording.spool_state import SpoolState, segment_path, write_state
from recording.writer import SegmentWriter

RATE_HZ = 8000
CHUNK_SIZE = 4096
RECORD_LEN = CHUNK_SIZE + 16
OWNER = "0123456789abcdef" * 2
HOUR = datetime(2026, 5, 6, 7, tzinfo=UTC)
TENANT_HANDLE = b"T" * 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A sealed segment: its parts in the order of sealing, and the key to look into it with."""

    file_id: bytes
    dek: bytes = field(repr=False)
    head: bytes = field(repr=False)
    records: tuple[bytes, ...] = field(repr=False)
    pcm: bytes = field(repr=False)

    @property
    def content(self) -> bytes:
        return self.head + b"".join(self.records)

    def state(self, **changes: object) -> SpoolState:
        state = SpoolState(
            file_id=self.file_id,
            owner=OWNER,
            recording=b"R" * 16,
            segment=0,
            call_uid="call-1",
            tenant_handle=TENANT_HANDLE,
            provider=SlotProvider.LOCAL_DEV,
            key_id="0123456789abcdef",
            started_hour=HOUR,
        )
        return replace(state, **changes)  # type: ignore[arg-type]

    def open(self, path: Path) -> RecordingReader:
        return open_with_dek(path, self.dek)


def make_segment(audio_records: int = 4, *, finished: bool = True) -> Segment:
    """META, so many full AUDIO records, and FINAL unless the call is to look unfinished."""
    file_id, dek = os.urandom(16), os.urandom(32)
    writer = SegmentWriter(
        file_id=file_id,
        tenant_handle=TENANT_HANDLE,
        dek=bytearray(dek),
        slots_area=build_area(
            [KeySlot(provider=SlotProvider.LOCAL_DEV, key_id=b"0123456789abcdef", wrapped=bytes(40))]
        ),
        meta=RecordingMeta(recording=b"R" * 16, rate_hz=RATE_HZ, channels=1, call_uid="call-1"),
        chunk_size=CHUNK_SIZE,
    )
    pcm = os.urandom(audio_records * (CHUNK_SIZE - 16))
    sealed = writer.append(pcm)
    if finished:
        sealed += writer.finish(ended_by="caller", reason="bye")
    records = tuple(sealed[start : start + RECORD_LEN] for start in range(0, len(sealed), RECORD_LEN))
    assert len(records) == writer.records
    return Segment(file_id=file_id, dek=dek, head=writer.head(), records=records, pcm=pcm)


def leave_behind(
    directory: Path, segment: Segment, *, content: bytes | None = None, state: SpoolState | None = None
) -> Path:
    """What a process that died left: a state file and, unless `content` is empty-handed, the segment's bytes."""
    directory.mkdir(mode=0o700, exist_ok=True)
    write_state(directory, segment.state() if state is None else state)
    path = segment_path(directory, segment.file_id)
    path.write_bytes(segment.content if content is None else content)
    path.chmod(0o600)
    return path


def prefix_audio(reader: RecordingReader) -> bytes:
    """The audio of a recording that was cut off, up to its last authentic record."""
    audio = bytearray()
    with contextlib.suppress(TruncatedRecordingError):
        for record in reader.audio():
            audio += record.payload
    return bytes(audio)
