"""One call's recording: audio and events in, sealed segments handed to the spool.

Everything here is quick: sealing is computation, handing over is a bounded queue. What fails ends the recording once,
with what was sealed kept; the call's policy decides what becomes of the call.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from recording.audio import silence
from recording.errors import MalformedContentError, RecordingError, TimelineError
from recording.format import limits
from recording.format.content import ChannelLayout, EventKind, RecordingEvent, RecordingMeta
from recording.format.record import payload_capacity
from recording.format.slots import build_area
from recording.index import NO_PARTIES, SealedParties, utc_hour
from recording.index.parties import PartySealer
from recording.keys.errors import NoKeyError
from recording.keys.pool import KeyPool, PooledKey
from recording.observer import RecordingObserver
from recording.pause import RESUME_GUARD_MS, Pause
from recording.settings import Layout, RecordingSettings
from recording.spool import Spool
from recording.spool_file import SpooledSegment
from recording.spool_state import SpoolState
from recording.timeline import Audio, Gap, Timeline
from recording.writer import SAMPLE_BYTES, SegmentWriter

MAX_EARLY_EVENTS: Final = 64  # before the first audio; a call has a handful
ROLLED: Final = "segment_full"
_RESERVE_RECORDS: Final = 16
_NS_PER_MS: Final = 1_000_000
_LAYOUTS: Final = {Layout.MIXED: ChannelLayout.MIXED, Layout.SPLIT: ChannelLayout.CALLER_CALLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderParts:
    """What every recording of a recorder shares."""

    settings: RecordingSettings
    owner: str
    pool: KeyPool
    spool: Spool
    observer: RecordingObserver
    sealer: PartySealer | None = None


class CallRecording:
    """Made by `Recorder.open`. `append`, `event`, `tick` and `finish` belong to the pump thread and never wait.

    No file exists before the first audio; a call without audio leaves none. After a failure, which is told exactly
    once through `on_failure` (from the pump or the spool thread), every call does nothing.
    """

    def __init__(
        self,
        *,
        parts: RecorderParts,
        key: PooledKey,
        meta: RecordingMeta,
        layout: Layout,
        on_failure: Callable[[RecordingError], None],
    ) -> None:
        """Take over `key`. `meta` must give `rate_hz` and `call_uid`."""
        if not meta.rate_hz or not meta.call_uid:
            raise ValueError("META must give rate_hz and call_uid")
        self.recording_id = os.urandom(16)
        self._parts = parts
        self._key: PooledKey | None = key
        self._tenant = key.tenant
        self._call_uid = meta.call_uid
        self._rate_hz = meta.rate_hz
        self._meta = replace(
            meta, recording=self.recording_id, channels=layout.channels, layout=_LAYOUTS[layout]
        )
        self._channels = layout.channels
        self._on_failure = on_failure
        self._timeline = Timeline(channels=self._channels)
        self._pause = Pause()
        self._told: dict[str, str] = {}
        self._early_events: list[RecordingEvent] = []
        self._writer: SegmentWriter | None = None
        self._segment: SpooledSegment | None = None
        self._first_position = 0
        self._file_ids: list[bytes] = []
        self._open_since_ns: int | None = None
        self._is_finished = False
        self._last_file_id = key.file_id
        self._failing = threading.Lock()
        self._failure: RecordingError | None = None
        _require_fit(self._meta, chunk_size=parts.settings.chunk_size)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample frame."""
        return SAMPLE_BYTES * self._channels

    @property
    def file_ids(self) -> tuple[bytes, ...]:
        """The segments begun so far, in order; empty before the first audio. Any thread."""
        return tuple(self._file_ids)

    @property
    def is_failed(self) -> bool:
        """Whether the recording has failed. Any thread."""
        return self._failure is not None

    def append(self, pcm: memoryview, frames: int, gap_frames: int) -> None:
        """Add `frames` sample frames; the first `gap_frames` of them are silence that stands for lost time.

        The bytes are copied before this returns.
        """
        if not self._is_open():
            return
        try:
            if len(pcm) != frames * self.frame_bytes:
                raise TimelineError(f"{len(pcm)} bytes are not {frames} frames of {self.frame_bytes} bytes")
            if frames:
                self._append(pcm, gap_frames)
        except RecordingError as error:
            self._fail(error)

    def event(self, event: RecordingEvent) -> None:
        """Note that something happened after the audio so far. Before the first audio it is kept until then."""
        if not self._is_open():
            return
        writer = self._writer
        if writer is None:
            if len(self._early_events) < MAX_EARLY_EVENTS:
                self._early_events.append(event)
            return
        try:
            self._hand_over(writer.event(event))
        except RecordingError as error:
            self._fail(error)

    def pause(self, *, by: str, reason: str) -> int:
        """Record silence of the true length from the next frame on, both channels, until `resume`.

        Nothing of the audio that `append` is given meanwhile is sealed or kept.

        Args:
            by: what asked for it, a word for EVENT.
            reason: why, a label for EVENT.

        Returns:
            The position of the first silent frame.
        """
        position = self._timeline.position
        if self._pause.begin(position):
            self._told = {"by": by, "reason": reason}
            self.event(self._pause_event())
        return position

    def resume(self) -> int:
        """End the pause `RESUME_GUARD_MS` from here: what was said in it may still be under way. Not paused: nothing.

        Returns:
            The position of the first frame that is recorded again.
        """
        position = self._timeline.position + RESUME_GUARD_MS * self._rate_hz // 1000
        self._pause.end(position)
        return position

    def tick(self, now_ns: int) -> None:
        """Close the open record when its audio has waited for `record_ms`. `now_ns`: the monotonic clock."""
        if not self._is_open() or self._writer is None or self._open_since_ns is None:
            return
        if now_ns - self._open_since_ns < self._parts.settings.record_ms * _NS_PER_MS:
            return
        try:
            self._hand_over(self._writer.flush())
        except RecordingError as error:
            self._fail(error)
        self._open_since_ns = None

    def finish(self, *, ended_by: str, reason: str) -> None:
        """Seal what is left and FINAL. Nothing is taken afterwards. A second call does nothing."""
        if not self._is_open():
            return
        self._is_finished = True
        if self._writer is None:
            self._wipe_key()
            return
        try:
            self._finish_segment(ended_by=ended_by, reason=reason, next_file_id=None)
        except RecordingError as error:
            self._fail(error)
            self._is_open()

    def _is_open(self) -> bool:
        """Whether calls still do something.

        Cleans up, on the pump thread, after a failure that another thread told of.
        """
        if self._failure is not None:
            self._wipe_key()
            if self._writer is not None:
                self._writer.abandon()
                self._writer = None
            if self._segment is not None:
                self._parts.spool.abandon(self._segment, self._failure)
                self._segment = None
        return not self._is_finished and self._failure is None

    def _wipe_key(self) -> None:
        if self._key is not None:
            self._key.wipe()
            self._key = None

    def _append(self, pcm: memoryview, gap_frames: int) -> None:
        writer = self._current_writer()
        records = writer.records
        for piece in self._timeline.take(pcm, gap_frames=gap_frames):
            if isinstance(piece, Gap):
                self._hand_over(writer.event(piece.event(), position=piece.position))
            else:
                self._append_piece(writer, piece)
        # What is open now came with this drain, if a record was closed in it.
        if self._open_since_ns is None or writer.records != records:
            self._open_since_ns = time.monotonic_ns()

    def _append_piece(self, writer: SegmentWriter, piece: Audio) -> None:
        """The one way of audio into a record: what a pause takes away is replaced before the writer sees any of it."""
        pcm = memoryview(piece.pcm)
        frames = len(pcm) // self.frame_bytes
        silenced = self._pause.silenced(piece.position, frames)
        if silenced:
            self._hand_over(writer.append(silence(silenced, channels=self._channels)))
        length = self._pause.completed(piece.position + silenced)
        if length is not None:
            resumed = RecordingEvent(event=EventKind.RESUME, frames=length, at=datetime.now(UTC))
            self._hand_over(writer.event(resumed))
        if silenced < frames:
            self._hand_over(writer.append(pcm[silenced * self.frame_bytes :]))

    def _pause_event(self) -> RecordingEvent:
        return RecordingEvent(event=EventKind.PAUSE, at=datetime.now(UTC), extra=self._told)

    def _current_writer(self) -> SegmentWriter:
        if self._writer is None:
            assert self._key is not None, "an open recording without a segment has its first key"
            key, self._key = self._key, None
            writer = self._begin_segment(key)
            early, self._early_events = self._early_events, []
            for event in early:
                self._hand_over(writer.event(event))
            return writer
        if self._writer.segment_full():
            return self._roll(self._writer)
        return self._writer

    def _roll(self, full: SegmentWriter) -> SegmentWriter:
        """A new segment with a new key. While the pool has none, the old one goes on up to the format's own limits."""
        try:
            key = self._parts.pool.take(self._tenant)
        except NoKeyError:
            if self._has_room(full):
                return full
            raise
        try:
            self._finish_segment(ended_by="recorder", reason=ROLLED, next_file_id=key.file_id)
        except BaseException:
            key.wipe()
            raise
        writer = self._begin_segment(key)
        if self._pause.is_active:  # each segment tells by itself why it is silent
            self._hand_over(writer.event(self._pause_event()))
        return writer

    def _has_room(self, writer: SegmentWriter) -> bool:
        frames = writer.position - self._first_position
        reserve = _RESERVE_RECORDS * (self._parts.settings.chunk_size + limits.TAG_LEN)
        return (
            frames < (limits.MAX_SEGMENT_SECONDS - 1) * self._rate_hz
            and writer.size_bytes + reserve < limits.MAX_SEGMENT_BYTES
        )

    def _begin_segment(self, key: PooledKey) -> SegmentWriter:
        settings, slot = self._parts.settings, key.key.slot
        self._last_file_id = key.file_id
        number = len(self._file_ids)
        try:
            slots_area = build_area([slot])
        except BaseException:
            key.wipe()
            raise
        now = datetime.now(UTC)
        started_at = self._meta.started_at or now
        self._meta = replace(self._meta, started_at=started_at)
        writer = SegmentWriter(
            file_id=key.file_id,
            tenant_handle=key.tenant_handle,
            dek=key.key.dek,
            slots_area=slots_area,
            meta=replace(self._meta, segment=number, previous=self._file_ids[-1] if number else None),
            chunk_size=settings.chunk_size,
            record_ms=settings.record_ms,
            first_position=self._timeline.position,
            segment_seconds=settings.segment_seconds,
        )
        state = SpoolState(
            file_id=key.file_id,
            owner=self._parts.owner,
            recording=self.recording_id,
            segment=number,
            call_uid=self._call_uid,
            tenant_handle=key.tenant_handle,
            provider=slot.provider,
            key_id=slot.key_id.decode("ascii", "backslashreplace"),
            started_hour=utc_hour(now),
            trunk_a=self._meta.trunk_a,
            trunk_b=self._meta.trunk_b,
            retain_until=settings.retention.until(
                utc_hour(started_at),
                tenant_handle=key.tenant_handle,
                trunks=(self._meta.trunk_a, self._meta.trunk_b),
            ),
            parties=self._sealed_parties(key),
            previous=self._file_ids[-1] if number else None,
        )
        self._segment = self._parts.spool.create(
            state,
            head=writer.head(),
            record_len=settings.chunk_size + limits.TAG_LEN,
            on_failure=self._fail,
        )
        self._writer = writer
        self._first_position = self._timeline.position
        self._file_ids.append(key.file_id)
        self._parts.observer.recording_started(file_id=key.file_id, call_uid=self._call_uid)
        self._hand_over(writer.flush())
        return writer

    def _sealed_parties(self, key: PooledKey) -> SealedParties:
        sealer = self._parts.sealer
        if sealer is None:
            return NO_PARTIES
        return sealer.seal(
            tenant_handle=key.tenant_handle, file_id=key.file_id, from_=self._meta.from_, to=self._meta.to
        )

    def _finish_segment(self, *, ended_by: str, reason: str, next_file_id: bytes | None) -> None:
        writer, segment = self._writer, self._segment
        assert writer is not None
        assert segment is not None
        for gap in self._timeline.settle():
            self._hand_over(writer.event(gap.event(), position=gap.position))
        self._hand_over(writer.finish(ended_by=ended_by, reason=reason, next_file_id=next_file_id))
        self._parts.spool.finish(segment, records=writer.records)
        self._writer = self._segment = None
        self._open_since_ns = None

    def _hand_over(self, sealed: bytes) -> None:
        if not sealed:
            return
        assert self._segment is not None
        self._parts.spool.append(self._segment, sealed)
        count = len(sealed) // (self._parts.settings.chunk_size + limits.TAG_LEN)
        self._parts.observer.records_sealed(count=count, sealed_bytes=len(sealed))

    def _fail(self, error: RecordingError) -> None:
        """Pump or spool thread.

        The first failure counts; the spool reports a segment's failure to the observer itself.
        """
        with self._failing:
            if self._failure is not None:
                return
            self._failure = error
        segment = self._segment
        if segment is not None:
            self._parts.spool.abandon(segment, error)
        else:
            self._parts.observer.recording_failed(
                file_id=self._last_file_id, call_uid=self._call_uid, reason=type(error).__name__
            )
        self._on_failure(error)


def _require_fit(meta: RecordingMeta, *, chunk_size: int) -> None:
    """Refuse at once what would fail at the first audio: names that do not fit into the META record."""
    size = len(replace(meta, segment=0xFFFFFFFF, previous=bytes(16), started_at=datetime.now(UTC)).build())
    if size > payload_capacity(chunk_size):
        raise MalformedContentError(f"META needs {size} bytes, a record holds {payload_capacity(chunk_size)}")
