"""Bytes that are not audio to sealed records: META, DATA, FINAL. No files, no clock: the caller writes what it gets.

As with `SegmentWriter`, an index is spent by sealing: what was sealed is written byte for byte, or the file is
given up.
Source: docs/recording-format.md, Records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recording.errors import MalformedContentError, SegmentFullError, WriterClosedError
from recording.file_head import begin_file
from recording.format import limits
from recording.format.content import FinalInfo, RecordingMeta
from recording.format.record import RecordType, payload_capacity, seal_inner, write_inner_header
from recording.format.suites import wipe


class DataWriter:
    """Seals the records of one file whose META has a kind other than audio. Owned by one thread, does no I/O."""

    def __init__(
        self,
        *,
        file_id: bytes,
        tenant_handle: bytes,
        dek: bytearray,
        slots_area: bytes,
        meta: RecordingMeta,
        chunk_size: int = limits.DEFAULT_CHUNK_SIZE,
        first_position: int = 0,
        salt: bytes | None = None,
    ) -> None:
        """Derive the file's keys and wipe `dek`, which is the writer's from here on.

        `first_position`: bytes of data in the segments before this file. `salt` None draws it; only vectors give one.

        Raises:
            FormatError: an id, the chunk size or the area is not as the format asks.
            MalformedContentError: `meta` does not fit into one record.
        """
        begun = begin_file(
            file_id=file_id,
            tenant_handle=tenant_handle,
            dek=dek,
            slots_area=slots_area,
            segment=meta.segment,
            chunk_size=chunk_size,
            salt=salt,
        )
        self._head, self._body, self._core = begun.head, begun.body, begun.core
        self._inner = bytearray(chunk_size)
        self._records = 0
        self._position = first_position
        self._is_open = True
        self._meta_payload = meta.build()
        self._fits(self._meta_payload, "META")

    @property
    def file_id(self) -> bytes:
        return self._core.file_id

    @property
    def capacity(self) -> int:
        """Bytes that one DATA record holds."""
        return payload_capacity(self._core.chunk_size)

    @property
    def position(self) -> int:
        """Bytes of data sealed so far, those of the segments before this one included."""
        return self._position

    @property
    def records(self) -> int:
        """Records sealed so far; the index that the next one gets."""
        return self._records

    @property
    def size_bytes(self) -> int:
        """Bytes that the file has once all that was sealed is written."""
        return len(self._head) + self._records * self._core.record_len

    def begin(self) -> bytes:
        """The file's first bytes: its head and META. Once, before anything else."""
        assert self._records == 0, "a file begins once"
        return self._head + self._seal(RecordType.META, self._meta_payload)

    def append(self, payload: bytes | memoryview) -> bytes:
        """One DATA record with exactly these bytes.

        Raises:
            MalformedContentError: they are more than `capacity`.
            SegmentFullError: the file would pass 1 GiB. WriterClosedError: after `finish` or `abandon`.
        """
        self._require_open()
        self._fits(payload, "DATA")
        if self.size_bytes + 2 * self._core.record_len > limits.MAX_SEGMENT_BYTES:
            raise SegmentFullError(f"file {self._core.file_id.hex()} has reached {self.size_bytes} bytes")
        sealed = self._seal(RecordType.DATA, payload)
        self._position += len(payload)
        return sealed

    def finish(
        self,
        *,
        ended_by: str,
        reason: str,
        next_file_id: bytes | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> bytes:
        """FINAL; the writer is closed then."""
        self._require_open()
        final = FinalInfo(
            count=self._records + 1, ended_by=ended_by, reason=reason, next=next_file_id, extra=extra or {}
        )
        payload = final.build()
        self._fits(payload, "FINAL")
        sealed = self._seal(RecordType.FINAL, payload)
        self.abandon()
        return sealed

    def abandon(self) -> None:
        """Close without FINAL: what was sealed stays a valid prefix. Does nothing twice."""
        if self._is_open:
            self._is_open = False
            wipe(self._inner)
            del self._body  # the cipher object frees its key schedule

    def _seal(self, record_type: RecordType, payload: bytes | memoryview) -> bytes:
        start = limits.INNER_HEADER_LEN
        self._inner[start : start + len(payload)] = payload
        self._inner[start + len(payload) :] = bytes(len(self._inner) - start - len(payload))
        write_inner_header(
            self._inner, record_type=record_type, payload_len=len(payload), position=self._position
        )
        index = self._records
        self._records += 1
        return seal_inner(self._body, index=index, inner=self._inner)

    def _fits(self, payload: bytes | memoryview, record: str) -> None:
        if len(payload) > self.capacity:
            raise MalformedContentError(
                f"{record} needs {len(payload)} bytes, a record holds {self.capacity}"
            )

    def _require_open(self) -> None:
        assert self._records > 0, "begin comes first"
        if not self._is_open:
            raise WriterClosedError(f"file {self._core.file_id.hex()} is closed")
