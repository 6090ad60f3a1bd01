"""PCM to sealed records, one segment at a time. No files, no clock: the spool writes what this gives.

An index is spent by sealing. A record whose write failed is written again byte for byte, or the segment is
abandoned;
nothing here can seal an index twice, because the index only ever grows and no writer reopens a file.
Source: docs/recording-format.md, Records.
"""

from __future__ import annotations

import enum
from typing import Final

from recording.errors import MalformedContentError, SegmentFullError, TimelineError, WriterClosedError
from recording.file_head import begin_file
from recording.format import limits
from recording.format.content import FinalInfo, RecordingEvent, RecordingMeta
from recording.format.record import RecordType, payload_capacity, seal_inner, write_inner_header
from recording.format.suites import wipe

SAMPLE_BYTES: Final = 2
_INNER: Final = limits.INNER_HEADER_LEN
# Kept free below the greatest size: what one drain may bring between two looks at `segment_full`, and FINAL.
_RESERVE_RECORDS: Final = 64


class _State(enum.Enum):
    OPEN = "open"
    SEALING = (
        "sealing"  # seen from outside only if sealing raised: an index is spent and its record does not exist
    )
    FINISHED = "finished"
    ABANDONED = "abandoned"


class SegmentWriter:
    """Seals the records of one segment.

    Owned by one thread (the pump); every method is quick and does no I/O.

    Each method that seals returns the records now due, joined, to be appended to the file in the order of
    the calls.
    Record 0 (META) comes with the first of them, so that `head() + flush()` is all that a fresh file needs.
    """

    def __init__(
        self,
        *,
        file_id: bytes,
        tenant_handle: bytes,
        dek: bytearray,
        slots_area: bytes,
        meta: RecordingMeta,
        chunk_size: int = limits.DEFAULT_CHUNK_SIZE,
        record_ms: int = limits.RECORD_MS,
        first_position: int = 0,
        segment_seconds: int = limits.MAX_SEGMENT_SECONDS,
        salt: bytes | None = None,
    ) -> None:
        """Derive the segment's keys and wipe `dek`.

        The writer owns it from here on, and it is zero afterwards.

        Args:
            file_id: 16 random bytes, never used for a file before.
            tenant_handle: the tenant's 16-byte random id.
            dek: 32 bytes, for this file alone.
            slots_area: from `slots.build_area`.
            meta: gives segment number, rate and channels too.
            chunk_size: one of `limits.CHUNK_SIZES`.
            record_ms: an AUDIO record closes after this much audio, or when it is full.
            first_position: sample frames of the recording before this segment.
            segment_seconds: `segment_full` after so much audio.
            salt: 32 random bytes; None draws them. Only vectors give their own.

        Raises:
            ValueError: an argument is out of its bounds.
            FormatError: an id or the area has another length.
            MalformedContentError: `meta` does not fit into one record.
        """
        try:
            rate_hz, channels = _audio_form(meta)
            _check_bounds(record_ms=record_ms, segment_seconds=segment_seconds, first_position=first_position)
            begun = begin_file(
                file_id=file_id,
                tenant_handle=tenant_handle,
                dek=dek,
                slots_area=slots_area,
                segment=meta.segment,
                chunk_size=chunk_size,
                salt=salt,
            )
        finally:
            wipe(dek)
        self._head, self._body, self._core = begun.head, begun.body, begun.core
        self._frame_bytes = SAMPLE_BYTES * channels
        capacity = payload_capacity(chunk_size)
        # Whole frames only, and the shorter of a full record and record_ms of audio.
        self._audio_bytes = self._frame_bytes * min(
            capacity // self._frame_bytes, max(1, rate_hz * record_ms // 1000)
        )
        self._max_frames = segment_seconds * rate_hz
        self._inner = bytearray(chunk_size)
        self._filled = 0  # audio bytes waiting in `_inner`
        self._dirty = 0  # payload bytes of `_inner` that may be other than zero
        self._records = 0
        self._first_position = first_position
        self._open_position = first_position  # of the first waiting frame
        self._last_position = first_position  # of the last sealed record
        self._meta_payload: bytes | None = meta.build()
        self._state = _State.OPEN
        self._fits(self._meta_payload, "META")

    @property
    def file_id(self) -> bytes:
        return self._core.file_id

    @property
    def position(self) -> int:
        """One past the last sample frame appended; the next segment's `first_position`."""
        return self._open_position + self._filled // self._frame_bytes

    @property
    def records(self) -> int:
        """Records sealed so far; the index that the next one gets."""
        return self._records

    @property
    def size_bytes(self) -> int:
        """Bytes that the file has once all that was sealed is written."""
        return len(self._head) + self._records * self._core.record_len

    def head(self) -> bytes:
        """The bytes before the first record. The same at every call; no index is spent."""
        return self._head

    def segment_full(self) -> bool:
        """Whether it is time to finish.

        1 GiB (less a reserve for what is under way), or `segment_seconds` of audio.
        """
        reserve = _RESERVE_RECORDS * self._core.record_len
        return (
            self.size_bytes + reserve >= limits.MAX_SEGMENT_BYTES
            or self.position - self._first_position >= self._max_frames
        )

    def append(self, pcm: bytes | bytearray | memoryview) -> bytes:
        """Add whole sample frames (s16le, interleaved). The bytes are copied; the caller may wipe its buffer.

        Raises:
            TimelineError: part of a frame. Nothing was taken.
            SegmentFullError: the file would pass 1 GiB. Nothing was taken.
            WriterClosedError: after `finish` or `abandon`.
        """
        self._require_open()
        with memoryview(pcm) as view, view.cast("B") as data:
            if len(data) % self._frame_bytes:
                raise TimelineError(f"{len(data)} bytes are not whole frames of {self._frame_bytes} bytes")
            self._require_room(1 + (self._filled + len(data)) // self._audio_bytes)
            sealed = self._meta_due()
            taken = 0
            while taken < len(data):
                take = min(self._audio_bytes - self._filled, len(data) - taken)
                start = _INNER + self._filled
                self._inner[start : start + take] = data[taken : taken + take]
                self._filled += take
                taken += take
                self._dirty = max(self._dirty, self._filled)
                if self._filled == self._audio_bytes:
                    sealed.append(self._seal_audio())
        return b"".join(sealed)

    def flush(self) -> bytes:
        """Close the open record, if it holds audio. What is appended later opens the next one."""
        self._require_open()
        self._require_room(2)
        return b"".join(self._flushed())

    def event(self, event: RecordingEvent, *, position: int | None = None) -> bytes:
        """Close the open record and seal an EVENT at `position`, by default where the audio stands.

        Positions never decrease in a file: an event from before the last sealed record is put at that
        record's
        position. Raises as `flush`, and MalformedContentError if the event does not fit into one record.
        """
        self._require_open()
        self._require_room(3)
        payload = event.build()
        self._fits(payload, "EVENT")
        sealed = self._flushed()
        at = self.position if position is None else min(max(position, self._last_position), self.position)
        sealed.append(self._seal_payload(RecordType.EVENT, payload, at))
        return b"".join(sealed)

    def finish(self, *, ended_by: str, reason: str, next_file_id: bytes | None = None) -> bytes:
        """Close the open record and seal FINAL; the writer is closed then, whatever comes of the write.

        Raises MalformedContentError if the words do not fit into one record; nothing was sealed then.
        """
        self._require_open()
        due = (self._meta_payload is not None) + (self._filled > 0)
        final = FinalInfo(
            count=self._records + due + 1,
            frames=self.position - self._first_position,
            ended_by=ended_by,
            reason=reason,
            next=next_file_id,
        )
        payload = final.build()
        self._fits(payload, "FINAL")
        sealed = self._flushed()
        sealed.append(self._seal_payload(RecordType.FINAL, payload, self.position))
        self._close(_State.FINISHED)
        return b"".join(sealed)

    def abandon(self) -> None:
        """Close without FINAL: what was sealed stays a valid prefix. Does nothing to a closed writer."""
        if self._state in {_State.OPEN, _State.SEALING}:
            self._close(_State.ABANDONED)

    def _meta_due(self) -> list[bytes]:
        if self._meta_payload is None:
            return []
        payload, self._meta_payload = self._meta_payload, None
        return [self._seal_payload(RecordType.META, payload, self._first_position)]

    def _flushed(self) -> list[bytes]:
        sealed = self._meta_due()
        if self._filled:
            sealed.append(self._seal_audio())
        return sealed

    def _seal_audio(self) -> bytes:
        length, position = self._filled, self._open_position
        sealed = self._seal(RecordType.AUDIO, length, position)
        self._filled = 0
        self._open_position = position + length // self._frame_bytes
        return sealed

    def _seal_payload(self, record_type: RecordType, payload: bytes, position: int) -> bytes:
        assert self._filled == 0, "audio waits in the buffer that this payload would overwrite"
        self._inner[_INNER : _INNER + len(payload)] = payload
        self._dirty = max(self._dirty, len(payload))
        return self._seal(record_type, len(payload), position)

    def _seal(self, record_type: RecordType, payload_len: int, position: int) -> bytes:
        """Seal `_inner` at the next index.

        Should sealing raise, the state stays SEALING and nothing more is sealed.
        """
        if payload_len < self._dirty:  # an earlier, longer payload must not stay behind as padding
            self._inner[_INNER + payload_len : _INNER + self._dirty] = bytes(self._dirty - payload_len)
        self._dirty = payload_len
        write_inner_header(self._inner, record_type=record_type, payload_len=payload_len, position=position)
        index = self._records
        self._state = _State.SEALING
        self._records += 1
        sealed = seal_inner(self._body, index=index, inner=self._inner)
        self._last_position = position
        self._state = _State.OPEN
        return sealed

    def _fits(self, payload: bytes, record: str) -> None:
        capacity = payload_capacity(self._core.chunk_size)
        if len(payload) > capacity:
            raise MalformedContentError(f"{record} needs {len(payload)} bytes, a record holds {capacity}")

    def _require_open(self) -> None:
        if self._state is not _State.OPEN:
            raise WriterClosedError(f"segment {self._core.file_id.hex()} is {self._state.value}")

    def _require_room(self, records: int) -> None:
        """Room for this many records and for the last audio, META and FINAL."""
        if self.size_bytes + (records + 3) * self._core.record_len > limits.MAX_SEGMENT_BYTES:
            raise SegmentFullError(f"segment {self._core.file_id.hex()} has reached {self.size_bytes} bytes")

    def _close(self, state: _State) -> None:
        self._state = state
        wipe(self._inner)
        del self._body  # the cipher object frees its key schedule


def _audio_form(meta: RecordingMeta) -> tuple[int, int]:
    """Rate and channels of what will be appended."""
    rate_hz, channels = meta.rate_hz, meta.channels
    if not rate_hz or channels not in {1, 2}:
        raise ValueError(f"META must give rate_hz and 1 or 2 channels, not {rate_hz} and {channels}")
    if meta.layout is not None and meta.layout.channels != channels:
        raise ValueError(
            f"layout {meta.layout.value} has {meta.layout.channels} channels, META says {channels}"
        )
    return rate_hz, channels


def _check_bounds(*, record_ms: int, segment_seconds: int, first_position: int) -> None:
    if not 0 < record_ms <= limits.RECORD_MS:
        raise ValueError(f"record_ms must be within 1..{limits.RECORD_MS}, not {record_ms}")
    if not 0 < segment_seconds <= limits.MAX_SEGMENT_SECONDS:
        raise ValueError(
            f"segment_seconds must be within 1..{limits.MAX_SEGMENT_SECONDS}, not {segment_seconds}"
        )
    if first_position < 0:
        raise ValueError(f"first_position must not be negative, is {first_position}")
