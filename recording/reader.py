"""Sealed records back to audio and events: the verified prefix first, then the error that says why it stops.

Every record is authenticated on its own, at its own index, before a byte of it is handed out.
Source: docs/recording-format.md, Records and Crash, truncation, tampering.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from recording.errors import (
    CorruptRecordingError,
    FormatError,
    MalformedContentError,
    TruncatedRecordingError,
)
from recording.format import limits
from recording.format.content import (
    FinalInfo,
    RecordingEvent,
    RecordingMeta,
    parse_event,
    parse_final,
    parse_meta,
)
from recording.format.header import MAGIC, Head, head_len_needed, parse_head
from recording.format.record import Record, RecordType, final_count, open_record
from recording.format.slots import sidecar_generation
from recording.format.suites import SegmentKeys
from recording.unlock import SlotKey, keys_from_dek, unlock

_BLOCK_BYTES: Final = 256 * 1024  # read at once: 16 KiB to 1 MiB gave the same speed, below it calls dominate

EndError = TruncatedRecordingError | CorruptRecordingError


def open_recording(
    source: Path | BinaryIO, *, keys: Sequence[SlotKey], sidecars: Iterable[bytes] | None = None
) -> RecordingReader:
    """Open one segment with whichever of `keys` a slot names.

    Args:
        source: a path, or a binary file that can seek; the reader closes what it opened, not what it was
            given.
        keys: what the configuration may read with.
        sidecars: contents of slot sidecars, highest generation first. None: those that lie beside a path.

    Raises:
        NotARecordingError, UnsupportedVersionError, FormatError: the head; the error says where.
        TruncatedRecordingError: the file ends within its head.
        MissingSlotError, WrongKeyError: no key; or what a key provider raised.
        OSError: the file cannot be read.
    """

    def find(head: Head) -> SegmentKeys:
        found = sidecars
        if found is None:
            found = sidecars_beside(source, head.core.file_id) if isinstance(source, Path) else ()
        return unlock(head, keys=keys, sidecars=found)

    return _open(source, find)


def open_with_dek(source: Path | BinaryIO, dek: bytes | bytearray) -> RecordingReader:
    """Open one segment with its data key, borrowed. Raises as `open_recording`."""
    return _open(source, lambda head: keys_from_dek(head, dek))


def open_with(source: Path | BinaryIO, find_keys: Callable[[Head], SegmentKeys]) -> RecordingReader:
    """Open one segment with the keys that `find_keys` gives for its head, having compared the commitment.

    Raises as `open_recording`, and what `find_keys` raises.
    """
    return _open(source, find_keys)


def read_head(file: BinaryIO) -> Head:
    """The head of a recording, which needs no key; nothing in it is authentic yet.

    Raises:
        NotARecordingError, UnsupportedVersionError, FormatError: as `parse_head`.
        TruncatedRecordingError: it is a recording, but the head is not all there.
    """
    file.seek(0)
    data = file.read(len(MAGIC))
    while len(data) < (needed := head_len_needed(data)):
        more = file.read(needed - len(data))
        if not more:
            raise TruncatedRecordingError(0, f"the head has {len(data)} of at least {needed} bytes")
        data += more
    return parse_head(data)


class RecordingReader:
    """One segment, opened. Not for several threads; its iterators may be used side by side in one."""

    def __init__(self, file: BinaryIO, head: Head, keys: SegmentKeys, *, owns_file: bool) -> None:
        self._file = file
        self._keys = keys
        self._owns_file = owns_file
        self._meta: RecordingMeta | None = None
        self._first: Record | None = None
        self.head = head

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file if the reader opened it."""
        if self._owns_file:
            self._file.close()

    @property
    def file_id(self) -> bytes:
        return self.head.core.file_id

    @property
    def meta(self) -> RecordingMeta:
        """What record 0 says.

        Raises:
            CorruptRecordingError: there is no authentic META at record 0.
            MalformedContentError: it cannot be read.
        """
        if self._meta is None:
            self._meta = parse_meta(self._first_record().payload)
        return self._meta

    @property
    def first_position(self) -> int:
        """Sample frames of the recording before this segment."""
        return self._first_record().position

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample frame, as META says. Raises as `meta`."""
        channels = self.meta.channels
        return 2 * (1 if channels is None else channels)

    def records(self, start: int = 0) -> Iterator[Record]:
        """Authentic records from index `start` on, FINAL included.

        Raises:
            TruncatedRecordingError, CorruptRecordingError: after the last authentic record, unless the file
                is complete.
        """
        index = start
        while True:
            for block in self._blocks(index):
                view = memoryview(block)
                for at in range(0, len(view), self._record_len):
                    try:
                        record = open_record(
                            self._keys.body, index=index, sealed=view[at : at + self._record_len]
                        )
                        self._check_first(record)
                    except FormatError as error:
                        raise self._end_error(index, str(error), size=self._size()) from error
                    yield record
                    index += 1
                    if record.is_final:
                        self._check_final(record)
                        return
            size = self._size()
            if size < self.head.record_offset(index + 1):
                raise self._end_error(index, "there is no FINAL record", size=size)
            # Records were written while these were read: a file that grows is no altered one.

    def audio(self, start: int | None = None, stop: int | None = None) -> Iterator[Record]:
        """AUDIO records, from sample frame `start` on (default: all) to before `stop` (default: the end).

        The first is cut so that it begins at `start`, the last so that it ends at `stop`; what lies behind `stop` is
        not read.

        Raises as `records`, and MalformedContentError where a record does not start where the last one ended.
        """
        expected: int | None = None
        for record in self.records(0 if start is None else self.seek(start)):
            if record.type != RecordType.AUDIO:
                continue
            frames = self._whole_frames(record)
            if expected is not None and record.position != expected:
                raise MalformedContentError(
                    f"record {record.index} is at frame {record.position}, not {expected}"
                )
            expected = record.position + frames
            first = record.position if start is None else max(start, record.position)
            last = expected if stop is None else min(stop, expected)
            if first < last:
                yield self._cut(record, first, last)
            if stop is not None and stop <= expected:
                return

    def data(self) -> Iterator[Record]:
        """DATA records in order.

        Raises as `records`, and MalformedContentError where a record does not start where the last one ended.
        """
        expected = self.first_position
        for record in self.records():
            if record.type == RecordType.DATA:
                if record.position != expected:
                    raise MalformedContentError(
                        f"record {record.index} is at byte {record.position}, not {expected}"
                    )
                expected += len(record.payload)
                yield record

    def events(self) -> Iterator[tuple[int, RecordingEvent]]:
        """Position and content of each EVENT. Raises as `records`, and MalformedContentError."""
        for record in self.records():
            if record.type == RecordType.EVENT:
                yield record.position, parse_event(record.payload)

    def final(self) -> tuple[int, FinalInfo] | None:
        """Position and content of FINAL, found from the file's size without reading what lies before it.

        None unless the last bytes of the file are an authentic FINAL record with the right count.
        """
        count, ragged = divmod(self._size() - self.head.body_offset, self._record_len)
        if count <= 0 or ragged:
            return None
        record = self._record_at(count - 1)
        if record is None or not record.is_final or final_count(record) != count:
            return None
        return record.position, parse_final(record.payload)

    def seek(self, position: int) -> int:
        """Index of the AUDIO record that holds sample frame `position`: binary search over the records.

        Before the first audio it is 0, past the end the last AUDIO record.
        """
        low, high = 0, (self._size() - self.head.body_offset) // self._record_len
        while (
            low < high
        ):  # the records before `low` start at or before `position`, those from `high` on after it
            middle = (low + high) // 2
            record = self._record_at(middle)
            if record is not None and record.position <= position:
                low = middle + 1
            else:
                high = middle
        for index in range(low - 1, -1, -1):
            record = self._record_at(index)
            if record is not None and record.type == RecordType.AUDIO:
                return index
        return 0

    @property
    def _record_len(self) -> int:
        return self.head.core.record_len

    def _size(self) -> int:
        return self._file.seek(0, os.SEEK_END)

    def _blocks(self, start: int) -> Iterator[bytes]:
        """Whole records from index `start` on, some at a time; a ragged end is left out."""
        at = self.head.record_offset(start)
        want = max(1, _BLOCK_BYTES // self._record_len) * self._record_len
        while True:
            block = self._read_at(at, want)
            whole = len(block) - len(block) % self._record_len
            if whole:
                yield block if whole == len(block) else block[:whole]
            if len(block) < want:
                return
            at += want

    def _read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes, or up to the end of the file: a raw file may give less at a time."""
        self._file.seek(offset)
        data = self._file.read(length)
        while 0 < len(data) < length:
            more = self._file.read(length - len(data))
            if not more:
                break
            data += more
        return data

    def _record_at(self, index: int) -> Record | None:
        """One record, None if it is not authentic."""
        sealed = self._read_at(self.head.record_offset(index), self._record_len)
        if len(sealed) < self._record_len:
            return None
        try:
            return open_record(self._keys.body, index=index, sealed=sealed)
        except FormatError:
            return None

    def _first_record(self) -> Record:
        if self._first is None:
            first = self._record_at(0)
            if first is None or first.type != RecordType.META:
                raise CorruptRecordingError(0, "record 0 is no authentic META record")
            self._first = first
        return self._first

    def _check_first(self, record: Record) -> None:
        if record.index == 0 and record.type != RecordType.META:
            raise FormatError(f"type {record.type:#x}, not META", field="record 0 type", offset=0)

    def _check_final(self, record: Record) -> None:
        good = record.index + 1
        count = final_count(record)
        if count != good:
            raise CorruptRecordingError(good, f"FINAL counts {count} records")
        behind = self._size() - self.head.record_offset(good)
        if behind:
            raise CorruptRecordingError(good, f"{behind} bytes follow FINAL")

    def _end_error(self, good: int, what: str, *, size: int) -> EndError:
        """Why there are only `good` records in `size` bytes: the end was lost, or bytes were altered."""
        if good == 0:
            return CorruptRecordingError(0, what)
        offset = self.head.record_offset(good)
        rest = size - offset
        if rest == 0:
            return TruncatedRecordingError(good, "there is no FINAL record")
        if rest < self._record_len:
            return TruncatedRecordingError(good, f"{rest} bytes of a record follow")
        zeros_from = self._zeros_from(offset)
        if zeros_from < offset + self._record_len:
            return TruncatedRecordingError(good, f"zeros from byte {zeros_from} on")
        return CorruptRecordingError(good, what)

    def _zeros_from(self, offset: int) -> int:
        """First sector boundary at or after `offset` from which on the file holds only zeros.

        Stops looking once it is certain to lie past the record at `offset`.
        """
        last_nonzero = offset - 1
        at = offset
        while block := self._read_at(at, _BLOCK_BYTES):
            kept = block.rstrip(b"\0")
            if kept:
                last_nonzero = at + len(kept) - 1
                if last_nonzero >= offset + self._record_len:
                    break
            at += len(block)
        return -(-(last_nonzero + 1) // limits.SECTOR) * limits.SECTOR

    def _whole_frames(self, record: Record) -> int:
        frame_bytes = self.frame_bytes
        if frame_bytes == 0 or len(record.payload) % frame_bytes:
            raise MalformedContentError(f"record {record.index} holds part of a frame of {frame_bytes} bytes")
        return len(record.payload) // frame_bytes

    def _cut(self, record: Record, first: int, last: int) -> Record:
        """The part of an AUDIO record from frame `first` to before `last`."""
        frame_bytes = self.frame_bytes
        start, stop = (first - record.position) * frame_bytes, (last - record.position) * frame_bytes
        if start == 0 and stop == len(record.payload):
            return record
        return Record(
            index=record.index, type=record.type, position=first, payload=record.payload[start:stop]
        )


def _open(source: Path | BinaryIO, find_keys: Callable[[Head], SegmentKeys]) -> RecordingReader:
    if not isinstance(source, Path):
        head = read_head(source)
        return RecordingReader(source, head, find_keys(head), owns_file=False)
    file = source.open("rb", buffering=0)
    try:
        head = read_head(file)
        return RecordingReader(file, head, find_keys(head), owns_file=True)
    except BaseException:
        file.close()
        raise


def sidecars_beside(path: Path, file_id: bytes) -> Iterator[bytes]:
    """Contents of the sidecars in the file's directory, highest generation first.

    One that cannot be read counts as empty, which is passed over: a directory of that name must not stop reading.
    """
    found = []
    for entry in path.parent.iterdir():
        generation = sidecar_generation(entry.name, file_id=file_id)
        if generation is not None:
            found.append((generation, entry))
    for _, entry in sorted(found, reverse=True):
        try:
            with entry.open("rb") as file:
                data = file.read(limits.SIDECAR_LEN_MAX + 1)
        except OSError:
            data = b""
        yield data
