"""Sealed lines back to text, file after file, each with the verdict over its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from b2bua.errors import JournalError
from b2bua.journal.segment import SegmentName, segment_names
from recording.errors import (
    CorruptRecordingError,
    FormatError,
    MalformedContentError,
    MissingSlotError,
    TruncatedRecordingError,
    WrongKeyError,
)
from recording.format.content import FinalInfo, RecordingKind, RecordingMeta, parse_final, parse_meta
from recording.format.record import RecordType
from recording.reader import RecordingReader, open_recording
from recording.unlock import SlotKey
from recording.verify import RecordingState

_DAMAGE = (
    CorruptRecordingError,
    FormatError,
    MalformedContentError,
    MissingSlotError,
    TruncatedRecordingError,
    WrongKeyError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    """What one file holds. `lines` are whole lines with their newline, of the records that are authentic.

    `state` None: it could not be opened at all; `problem` says why, or why it is not complete.
    """

    name: SegmentName
    state: RecordingState | None
    meta: RecordingMeta | None = None
    final: FinalInfo | None = None
    lines: tuple[bytes, ...] = field(default=(), repr=False)
    problem: str = ""


def read_files(directory: Path, *, keys: Sequence[SlotKey], kind: RecordingKind) -> Iterator[SealedFile]:
    """Every sealed file of a directory in order.

    Damage is told in the result; a key service that does not answer is an error.

    Raises:
        JournalError: the directory can't be read.
        RecordingError: a key provider could not tell whether it opens a file.
    """
    try:
        names = segment_names(directory)
    except OSError as error:
        raise JournalError(f"{directory}: {error.strerror}") from error
    for name in names:
        yield _read_file(name, keys, kind)


def _read_file(name: SegmentName, keys: Sequence[SlotKey], kind: RecordingKind) -> SealedFile:
    try:
        try:
            reader = open_recording(name.path, keys=keys)
        except FileNotFoundError:
            if not name.is_open:
                raise
            reader = open_recording(name.path.with_suffix(""), keys=keys)  # it has ended meanwhile
        with reader:
            return _read(reader, name, kind)
    except _DAMAGE as error:
        return SealedFile(name=name, state=None, problem=str(error))
    except OSError as error:
        raise JournalError(f"{name.path}: {error.strerror}") from error


def _read(reader: RecordingReader, name: SegmentName, kind: RecordingKind) -> SealedFile:
    meta: RecordingMeta | None = None
    final: FinalInfo | None = None
    data: list[bytes] = []
    state, problem = RecordingState.COMPLETE, ""
    try:
        for record in reader.records():
            if record.type == RecordType.META:
                meta = parse_meta(record.payload)
            elif record.type == RecordType.DATA:
                data.append(bytes(record.payload))
            elif record.is_final:
                final = parse_final(record.payload)
    except TruncatedRecordingError as error:
        state, problem = RecordingState.INCOMPLETE, error.what
    except CorruptRecordingError as error:
        state, problem = RecordingState.CORRUPT, error.what
    if meta is not None and (meta.kind is not kind or reader.file_id != name.file_id):
        return SealedFile(
            name=name, state=None, problem=f"it is no {kind.value} file, or one under another file's name"
        )
    lines = tuple(line for payload in data for line in payload.splitlines(keepends=True))
    return SealedFile(name=name, state=state, meta=meta, final=final, lines=lines, problem=problem)
