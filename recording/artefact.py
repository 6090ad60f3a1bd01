"""Documents that belong to a call: sealed under data keys of their own, spooled and stored as its recording is.

A document of any size becomes one segment or several, of kind `artefact`: META names its type, its SHA-256 and the
recording it belongs to; DATA records hold it. Source: docs/recording-format.md, Artefacts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from recording.chain import ChainCheck, ChainError, ChainFault, ChainFaultKind, Opener
from recording.cms import Recipient
from recording.data_writer import DataWriter
from recording.errors import ExportError, MalformedContentError, RecordingError
from recording.export import write_out
from recording.format import limits
from recording.format.content import RecordingKind, RecordingMeta
from recording.format.slots import build_area
from recording.index import IndexEntry, IndexState, RecordingIndex, utc_hour
from recording.keys.provider import KeyContext, KeyProvider
from recording.private_file import private_file
from recording.spool_file import Disk, SpooledSegment
from recording.spool_state import (
    OwnerLock,
    SpoolError,
    SpoolState,
    make_spool_directory,
    remove_spooled,
    sync_directory,
)

CHUNK_SIZE: Final = 65536
"""The largest: a document is written at once, so nothing is gained by closing records early."""
SEGMENT_RECORDS: Final = (limits.MAX_SEGMENT_BYTES - 2 * 65536) // (CHUNK_SIZE + limits.TAG_LEN) - 2
MEDIA_TYPE_MAX: Final = 255
_MEDIA_TYPE: Final = re.compile(
    r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*"
)  # RFC 6838 section 4.2
_BLOCK_BYTES: Final = 1 << 20
_WRITE_PAUSE_S: Final = 0.05

Progress = Callable[[int, int], None]
"""Bytes done, and of how many: the document is read twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What came of a document. `owner`: whose files in the spool it is now; they wait to be stored."""

    artefact: bytes
    file_ids: tuple[bytes, ...]
    size_bytes: int
    sha256: bytes
    owner: str


def check_media_type(text: str) -> str:
    """`text` in lower case, if it is a media type.

    Raises:
        ValueError: says what one looks like.
    """
    lowered = text.lower()
    if len(text) > MEDIA_TYPE_MAX or _MEDIA_TYPE.fullmatch(lowered) is None:
        raise ValueError("a media type is written type/subtype, as in text/plain or application/json")
    return lowered


class ArtefactWriter:
    """Seals documents into the spool. For a command, in one thread; beside a living recorder or without one."""

    def __init__(
        self,
        *,
        spool_directory: Path,
        min_free_bytes: int,
        index: RecordingIndex,
        provider: KeyProvider,
        segment_records: int = SEGMENT_RECORDS,
        disk: Disk | None = None,
    ) -> None:
        """Nothing is written yet. `min_free_bytes`: what a document leaves free for calls."""
        self._directory = spool_directory
        self._min_free_bytes = min_free_bytes
        self._index = index
        self._provider = provider
        self._segment_records = segment_records
        self._disk = disk or Disk()

    def attach(
        self, call: IndexEntry, source: Path, *, media_type: str, progress: Progress | None = None
    ) -> Attached:
        """Seal `source` as a document of the call's recording. On return it is durable in the spool.

        The index has it from the first byte on, with the call's retention and hold: until the end the call's
        recording cannot be deleted.

        Raises:
            SpoolError: the spool has no room for it, or cannot be written.
            ExportError: the source changed while it was read, or the call's recording was deleted meanwhile.
            RecordingError: from the key provider. After each of these nothing of the document is left.
            OSError: the source cannot be read.
        """
        make_spool_directory(self._directory)
        with source.open("rb") as file:
            size, digest = _measure(file, progress)
            self._require_room(size)
            lock = OwnerLock.create(self._directory)
            job = _Job(self, lock.owner, call, media_type, size, digest)
            try:
                job.write(file, progress)
            except BaseException:
                job.undo()
                raise
            finally:
                lock.release()
        return Attached(
            artefact=job.artefact,
            file_ids=tuple(job.file_ids),
            size_bytes=size,
            sha256=digest,
            owner=lock.owner,
        )

    def _require_room(self, size: int) -> None:
        try:
            status = os.statvfs(self._directory)
        except OSError as error:
            raise SpoolError(f"{self._directory}: {error.strerror}") from error
        free = status.f_bavail * status.f_frsize
        if free - size < self._min_free_bytes:
            raise SpoolError(
                f"{self._directory}: {size} bytes would leave less than min_free_bytes for calls; make room first"
            )


class _Job:
    """One document on its way into the spool."""

    def __init__(
        self,
        parts: ArtefactWriter,
        owner: str,
        call: IndexEntry,
        media_type: str,
        size: int,
        digest: bytes,
    ) -> None:
        self.artefact = os.urandom(16)
        self.file_ids: list[bytes] = []
        self._parts = parts
        self._owner = owner
        self._call = call
        self._size = size
        self._digest = digest
        self._states: list[SpoolState] = []
        self._now = datetime.now(UTC)
        self._meta = RecordingMeta(
            kind=RecordingKind.ARTEFACT,
            recording=self.artefact,
            started_at=self._now,
            sample_format=None,
            call_uid=call.call_uid,
            media_type=media_type,
            sha256=digest,
            parent=call.recording,
        )

    def write(self, file: BinaryIO, progress: Progress | None) -> None:
        """All segments, each durable and marked as ended."""
        file.seek(0)
        digest = hashlib.sha256()
        done, file_id = 0, os.urandom(16)
        while True:
            capacity = self._parts._segment_records * (CHUNK_SIZE - limits.INNER_HEADER_LEN)
            is_last = done + capacity >= self._size
            next_id = None if is_last else os.urandom(16)
            segment = self._segment(file_id, done)
            for payload in _payloads(file, min(capacity, self._size - done)):
                digest.update(payload)
                done += len(payload)
                segment.add(payload)
                if progress is not None:
                    progress(self._size + done, 2 * self._size)
            segment.finish(next_id)
            if next_id is None:
                break
            file_id = next_id
        if digest.digest() != self._digest or file.read(1):
            raise ExportError("the document changed while it was read; nothing was kept of it")

    def undo(self) -> None:
        """Forget what was written; the index says that nothing of it could be kept."""
        for state in self._states:
            with contextlib.suppress(OSError):
                remove_spooled(self._parts._directory, state.file_id)
        with contextlib.suppress(RecordingError):  # what the caller is told of is the first error
            self._parts._index.put([state.entry(IndexState.FAILED) for state in self._states])

    def _segment(self, file_id: bytes, position: int) -> _Segment:
        number = len(self.file_ids)
        key = self._parts._provider.new_key(
            KeyContext(file_id=file_id, tenant_handle=self._call.tenant_handle)
        )
        writer = DataWriter(
            file_id=file_id,
            tenant_handle=self._call.tenant_handle,
            dek=key.dek,
            slots_area=build_area([key.slot]),
            meta=replace(self._meta, segment=number, previous=self.file_ids[-1] if number else None),
            chunk_size=CHUNK_SIZE,
            first_position=position,
        )
        state = SpoolState(
            file_id=file_id,
            owner=self._owner,
            recording=self.artefact,
            segment=number,
            call_uid=self._call.call_uid,
            tenant_handle=self._call.tenant_handle,
            provider=key.slot.provider,
            key_id=key.slot.key_id.decode("ascii", "backslashreplace"),
            started_hour=utc_hour(self._now),
            kind=RecordingKind.ARTEFACT,
            parent=self._call.recording,
            trunk_a=self._call.trunk_a,
            trunk_b=self._call.trunk_b,
            retain_until=self._call.retain_until,
        )
        self._states.append(state)
        self.file_ids.append(file_id)
        self._enter(state)
        return _Segment(self._parts, state, writer)

    def _enter(self, state: SpoolState) -> None:
        """Into the index, so that the recording is not deleted meanwhile; then look whether it was just before."""
        index = self._parts._index
        index.put([replace(state.entry(IndexState.RECORDING), hold=self._call.hold)])
        group = index.find(recording=self._call.recording)
        if not group or any(entry.state in {IndexState.DELETING, IndexState.DELETED} for entry in group):
            raise ExportError("the recording was deleted meanwhile; nothing can be attached to it")


class _Segment:
    """One segment, written at once: whoever adds to it waits for the disk."""

    def __init__(self, parts: ArtefactWriter, state: SpoolState, writer: DataWriter) -> None:
        self._directory = parts._directory
        self._writer = writer
        self._file = SpooledSegment(
            directory=parts._directory,
            state=state,
            record_len=CHUNK_SIZE + limits.TAG_LEN,
            on_failure=lambda _: None,
            disk=parts._disk,
        )
        begin = writer.begin()
        head, meta = begin[: -CHUNK_SIZE - limits.TAG_LEN], begin[-CHUNK_SIZE - limits.TAG_LEN :]
        with _spool_errors(self._file.path):
            self._file.create(head)
            self._write(meta)

    def add(self, payload: memoryview) -> None:
        with _spool_errors(self._file.path):
            self._write(self._writer.append(payload))

    def finish(self, next_file_id: bytes | None) -> None:
        """FINAL, then all of it to disk, then the mark that it is all there."""
        with _spool_errors(self._file.path):
            self._write(
                self._writer.finish(ended_by="operator", reason="attached", next_file_id=next_file_id)
            )
            self._file.final_records = self._writer.records
            self._file.begin_sync()()
            self._file.begin_mark_ended()()
            sync_directory(self._directory)
            self._file.close()

    def _write(self, sealed: bytes) -> None:
        """A disk that is full is given the time that a call would give it."""
        self._file.add(sealed)
        try:
            while True:
                self._file.write(time.monotonic_ns())
                if self._file.is_drained:
                    return
                time.sleep(_WRITE_PAUSE_S)
        except OSError:
            self._writer.abandon()
            self._file.close()
            raise


# ---- reading -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Belonging:
    """Which document it is to be, and the recording of the call that it was sealed for: both stand in META."""

    artefact: bytes
    parent: bytes | None


def describe_artefact(opener: Opener, belonging: Belonging) -> RecordingMeta:
    """META of an artefact's segment.

    Raises:
        MalformedContentError: it is something else.
        ChainError: it is another document, or was sealed for another call.
    """
    with opener() as reader:
        meta = reader.meta
    if meta.kind is not RecordingKind.ARTEFACT:
        raise MalformedContentError("it is no artefact of a call")
    if (meta.recording, meta.parent) != (belonging.artefact, belonging.parent):
        raise ChainError(
            [
                ChainFault(
                    kind=ChainFaultKind.FOREIGN,
                    segment=meta.segment or 0,
                    detail="what is stored there is another document, or was sealed for another call",
                )
            ]
        )
    return meta


def open_artefact(
    segments: Sequence[Opener],
    destination: Path | BinaryIO,
    belonging: Belonging,
    *,
    recipients: Sequence[Recipient] = (),
) -> RecordingMeta:
    """Write the document out, sealed if there are recipients. A path appears when all of it was found right.

    A stream gets nothing before that: the document is read twice for it.

    Raises:
        TruncatedRecordingError, CorruptRecordingError, ChainError: it is not whole, or not the one that belongs there.
        MalformedContentError: it is no artefact, or not the document whose SHA-256 META names.
        ExportError: the path is taken.
    """
    if not segments:
        raise ExportError("there is no segment to open")
    meta = describe_artefact(segments[0], belonging)
    if isinstance(destination, Path):
        with private_file(destination) as file:
            write_out(_content(segments, meta), file, recipients)
    else:
        for _ in _content(segments, meta):
            pass
        write_out(_content(segments, meta), destination, recipients)
        destination.flush()
    return meta


def _content(segments: Sequence[Opener], meta: RecordingMeta) -> Iterator[memoryview]:
    """The document; it ends with an error if it was not the right one."""
    check, digest = ChainCheck(is_whole=True), hashlib.sha256()
    for opener in segments:
        with opener() as reader:
            _require_none(check.begin(reader))
            end = reader.first_position
            for record in reader.data():
                digest.update(record.payload)
                end = record.position + len(record.payload)
                yield record.payload
            final = reader.final()
            check.end(end, final and final[1])
    _require_none(check.finish())
    if digest.digest() != meta.sha256:
        raise MalformedContentError("it is not the document whose SHA-256 META names")


def _require_none(faults: Sequence[ChainFault]) -> None:
    if faults:
        raise ChainError(faults)


def _measure(file: BinaryIO, progress: Progress | None) -> tuple[int, bytes]:
    """Size and SHA-256, which stand in META before the first byte is sealed."""
    total = os.fstat(file.fileno()).st_size
    digest, done = hashlib.sha256(), 0
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        done += len(block)
        if progress is not None:
            progress(done, 2 * max(total, done))
    return done, digest.digest()


def _payloads(file: BinaryIO, length: int) -> Iterator[memoryview]:
    """So many bytes, a record's worth at a time; fewer if the file has become shorter."""
    record = CHUNK_SIZE - limits.INNER_HEADER_LEN
    while length > 0 and (block := file.read(min(record, length))):
        length -= len(block)
        yield memoryview(block)


@contextlib.contextmanager
def _spool_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(f"{path}: {error.strerror}; nothing of the document was kept") from error
