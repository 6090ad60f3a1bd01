"""The spool: sealed records on local disk while the call runs, then handed to the sink.

Any thread may hand records in; only the thread named `spool` writes, syncs and updates the index. What waits for it
is bounded in bytes: a disk that does not keep up makes `append` raise, it never makes the pump wait.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, assert_never

from recording.errors import RecordingError
from recording.index import IndexEntry, IndexState, IndexUnavailableError, RecordingIndex
from recording.observer import RecordingObserver
from recording.spool_file import Disk, SpooledSegment, spool_error
from recording.spool_state import (
    SpoolError,
    SpoolFullError,
    SpoolState,
    make_spool_directory,
    remove_spooled,
    segment_path,
    sync_directory,
)
from recording.sync_threads import SyncThreads
from recording.uploader import Stored, Uploader, UploadJob
from recording.voucher import Voucher

RETRY_INTERVAL_S: Final = 0.05
SYNC_BATCH: Final = 64  # each holds a second descriptor while it is synced
INDEX_BACKLOG: Final = (
    100_000  # entries kept while the index cannot be written; recovery rebuilds what is lost beyond
)
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Create:
    segment: SpooledSegment
    head: bytes
    at_ns: int


@dataclass(frozen=True, slots=True)
class _Append:
    segment: SpooledSegment
    data: bytes
    at_ns: int


@dataclass(frozen=True, slots=True)
class _Finish:
    segment: SpooledSegment
    records: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class _Abandon:
    segment: SpooledSegment
    error: RecordingError
    at_ns: int


_Message = _Create | _Append | _Finish | _Abandon | Stored


class Spool:
    """Owned by the recorder, which starts and stops it. `create`, `append`, `finish`, `abandon` return at once."""

    def __init__(
        self,
        *,
        directory: Path,
        index: RecordingIndex,
        uploader: Uploader,
        observer: RecordingObserver,
        queue_bytes: int,
        fsync_interval_ms: int,
        min_free_bytes: int,
        voucher: Voucher | None = None,
        max_spool_bytes: int | None = None,
        disk: Disk | None = None,
    ) -> None:
        """Check the directory and its free space. Raises SpoolError."""
        make_spool_directory(directory)
        self._directory = directory
        self._index = index
        self._uploader = uploader
        self._observer = observer
        self._queue_bytes = queue_bytes
        self._interval_ns = fsync_interval_ms * _NS_PER_MS
        self._min_free_bytes = min_free_bytes
        self._voucher = voucher
        self._max_spool_bytes = max_spool_bytes
        self._disk = disk or Disk()
        self._changed = threading.Condition()
        self._messages: deque[_Message] = deque()
        self._queued_bytes = 0
        self._is_running = False
        self._is_stopping = False
        self._has_ended_well = False
        self._flush_asked = 0
        self._flush_done = 0
        self._thread: threading.Thread | None = None
        self._sync_threads = SyncThreads()
        # Of the spool thread alone from here on; `_free_bytes`, `_spooled_bytes`, `_index_problem` are read elsewhere.
        self._segments: dict[bytes, SpooledSegment] = {}
        self._failing: dict[bytes, SpooledSegment] = {}
        self._stored: list[SpoolState] = []
        self._uploading: dict[bytes, tuple[SpoolState, IndexEntry]] = {}
        self._entries: deque[IndexEntry] = deque(maxlen=INDEX_BACKLOG)
        self._is_directory_dirty = False
        self._lag_ns = 0
        self._free_bytes = _free_bytes(directory)
        self._spooled_bytes = 0
        self._index_problem: str | None = None

    def start(self) -> None:
        assert self._thread is None, "a spool is started once"
        self._look_at_space()  # what a recovery left to be uploaded counts from the first call on
        self._is_running = True
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Write and sync all that waits, give up segments that were not finished, end the thread.

        Whether it ended in time, and not by dying.
        """
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return self._has_ended_well

    # ---- any thread ------------------------------------------------------------------------------------------

    def create(
        self,
        state: SpoolState,
        *,
        head: bytes,
        record_len: int,
        on_failure: Callable[[RecordingError], None],
    ) -> SpooledSegment:
        """A new segment whose file begins with `head`. `on_failure` is called at most once, from the spool thread.

        Raises SpoolFullError and SpoolError as `append`.
        """
        segment = SpooledSegment(
            directory=self._directory,
            state=state,
            record_len=record_len,
            on_failure=on_failure,
            disk=self._disk,
        )
        self._post(_Create(segment, head, time.monotonic_ns()), len(head))
        return segment

    def append(self, segment: SpooledSegment, data: bytes) -> None:
        """Sealed records to be written next in `segment`.

        Raises:
            SpoolFullError: more than `queue_bytes` wait already. Nothing was taken; the caller abandons the segment.
            SpoolError: the spool does not run.
        """
        if data:
            self._post(_Append(segment, data, time.monotonic_ns()), len(data))

    def finish(self, segment: SpooledSegment, *, records: int) -> None:
        """All was handed in, FINAL included: `records` in all. Takes no room, so it is never refused for want of it."""
        self._post(_Finish(segment, records, time.monotonic_ns()), 0)

    def abandon(self, segment: SpooledSegment, error: RecordingError) -> None:
        """No more will come; keep what was handed in so far. Never refused; does nothing once the spool has ended."""
        with self._changed:
            if self._is_running:
                self._messages.append(_Abandon(segment, error, time.monotonic_ns()))
                self._changed.notify()

    def flush(self, timeout_s: float) -> bool:
        """Ask for a commit now and wait until no segment is under way. False when the time is over first."""
        with self._changed:
            self._flush_asked += 1
            asked = self._flush_asked
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._is_running or self._is_flushed(asked), timeout_s)

    def stored(self, result: Stored) -> None:
        """The uploader's report. Uploader thread."""
        with self._changed:
            self._messages.append(result)
            self._changed.notify()

    @property
    def is_running(self) -> bool:
        """False before start, after stop, and when the thread has died."""
        return self._is_running and self._thread is not None and self._thread.is_alive()

    @property
    def has_space(self) -> bool:
        """Whether a new recording has room.

        The spool's file system had `min_free_bytes` at the last commit, and the spool held less than
        `max_spool_bytes`. Recordings that run go on; nothing is deleted that is not stored.
        """
        if self._max_spool_bytes is not None and self._spooled_bytes >= self._max_spool_bytes:
            return False
        return self._free_bytes >= self._min_free_bytes

    @property
    def space_problem(self) -> str:
        """Why `has_space` is false, for people."""
        if self._free_bytes < self._min_free_bytes:
            return "its file system has less than min_free_bytes"
        return f"{self._spooled_bytes} bytes wait in it, max_spool_bytes is reached"

    @property
    def has_queue_room(self) -> bool:
        """Whether less than half of the queue is taken: a new call is not admitted into one that is filling."""
        return self._queued_bytes * 2 < self._queue_bytes

    @property
    def index_problem(self) -> str | None:
        return self._index_problem

    def _post(self, message: _Message, size: int) -> None:
        with self._changed:
            if not self._is_running or self._is_stopping:
                raise SpoolError("the spool does not run; no recording can be written")
            if size and self._queued_bytes + size > self._queue_bytes:
                raise SpoolFullError(
                    f"{self._queued_bytes} sealed bytes wait for the disk, `queue_bytes` allows {self._queue_bytes}"
                )
            self._queued_bytes += size
            self._messages.append(message)
            self._changed.notify()

    def _is_flushed(self, asked: int) -> bool:
        return self._flush_done >= asked and not self._messages and not self._segments

    # ---- spool thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            due_ns = time.monotonic_ns() + self._interval_ns
            is_stopping = False
            while not is_stopping:
                is_stopping, asked = self._wait(due_ns)
                self._take_messages()
                if is_stopping or asked > self._flush_done or time.monotonic_ns() >= due_ns:
                    self._commit(asked)
                    due_ns = time.monotonic_ns() + self._interval_ns
            self._close_all()
            self._has_ended_well = True
        finally:
            self._sync_threads.close()
            with self._changed:
                self._is_running = False
                self._changed.notify_all()

    def _wait(self, due_ns: int) -> tuple[bool, int]:
        """Until there is something to do. Whether the spool is being stopped; how many flushes were asked for."""
        with self._changed:
            if not self._messages and not self._is_stopping and self._flush_asked == self._flush_done:
                pause_s = max(0, due_ns - time.monotonic_ns()) / _NS_PER_S
                self._changed.wait(min(pause_s, RETRY_INTERVAL_S) if self._failing else pause_s)
            return self._is_stopping, self._flush_asked

    def _take_messages(self) -> None:
        """Handle what waits, then write."""
        with self._changed:
            messages, self._messages = self._messages, deque()
        now_ns = time.monotonic_ns()
        touched = dict(self._failing)
        for message in messages:
            self._lag_ns = max(self._lag_ns, now_ns - message.at_ns)
            segment = self._handle(message)
            if segment is not None:
                touched[segment.file_id] = segment
        for segment in touched.values():
            if not segment.is_given_up:
                self._write(segment, now_ns)

    def _handle(self, message: _Message) -> SpooledSegment | None:
        match message:
            case _Create(segment, head):
                self._create(segment, head)
                return segment
            case _Append(segment, data):
                if segment.is_given_up:
                    self._release(len(data))
                else:
                    segment.add(data)
                return segment
            case _Finish(segment, records):
                segment.final_records = records
                return segment
            case _Abandon(segment, error):
                self._abandon(segment, error)
                return None
            case Stored():
                self._settle(message)
                return None
            case _:
                assert_never(message)

    def _abandon(self, segment: SpooledSegment, error: RecordingError) -> None:
        """Unless it has failed already, or was finished first."""
        if segment.final_records is not None or segment.is_given_up:
            return
        self._write(segment, time.monotonic_ns())
        if not segment.is_given_up:
            self._give_up(segment, error)

    def _create(self, segment: SpooledSegment, head: bytes) -> None:
        self._segments[segment.file_id] = segment
        try:
            segment.create(head)
        except OSError as error:
            self._release(len(head))
            self._give_up(segment, spool_error(segment.path, error))
            return
        self._is_directory_dirty = True
        self._entries.append(segment.state.entry(IndexState.RECORDING))

    def _write(self, segment: SpooledSegment, now_ns: int) -> None:
        try:
            self._release(segment.write(now_ns))
        except OSError as error:
            self._give_up(segment, spool_error(segment.path, error))
        if segment.is_failing and not segment.is_given_up:
            self._failing[segment.file_id] = segment
        else:
            self._failing.pop(segment.file_id, None)

    def _commit(self, asked: int) -> None:
        """The group commit: sync every file that was written to, then end those that are finished.

        What arrives meanwhile is written meanwhile, so that a slow disk does not hold up writing.
        """
        self._sync_segments()
        self._end_segments()
        self._offer_parts()
        self._write_index()
        self._look_at_space()
        self._observer.spool_lag(seconds=self._lag_ns / _NS_PER_S, queued_bytes=self._queued_bytes)
        self._lag_ns = 0
        with self._changed:
            self._flush_done = asked
            self._changed.notify_all()

    def _sync_segments(self) -> None:
        dirty = [segment for segment in self._segments.values() if segment.is_dirty]
        if self._is_directory_dirty:
            self._sync_directory()
        for start in range(0, len(dirty), SYNC_BATCH):
            self._sync_batch(dirty[start : start + SYNC_BATCH])

    def _sync_batch(self, dirty: list[SpooledSegment]) -> None:
        segments: list[SpooledSegment] = []
        jobs: list[Callable[[], None]] = []
        for segment in dirty:
            if segment.file_id in self._segments:  # it may have failed while the batch before was synced
                try:
                    jobs.append(segment.begin_sync())
                    segments.append(segment)
                except OSError as error:
                    self._give_up(segment, spool_error(segment.path, error))
        for segment, failure in zip(segments, self._sync(jobs), strict=True):
            if failure is None:
                segment.synced()
            elif segment.file_id in self._segments:
                self._give_up(segment, spool_error(segment.path, failure))

    def _end_segments(self) -> None:
        """Mark, then hand over. A full disk is waited for here: the recordings themselves are safe already."""
        ended = [segment for segment in self._segments.values() if self._is_ended(segment)]
        failures = self._sync([segment.begin_mark_ended() for segment in ended])
        if ended and self._sync_directory():
            for segment, failure in zip(ended, failures, strict=True):
                if failure is None:
                    self._hand_over(segment, IndexState.COMPLETE)

    def _offer_parts(self) -> None:
        """Tell the uploader of running segments that have grown by a part."""
        part_bytes = self._uploader.part_bytes
        if part_bytes is None:
            return
        for segment in self._segments.values():
            if segment.durable_bytes - segment.offered_bytes >= part_bytes:
                segment.offered_bytes = segment.durable_bytes - segment.durable_bytes % part_bytes
                job = UploadJob(path=segment.path, name=segment.state.object_name)
                self._uploader.grow(job, segment.durable_bytes)

    def _sync(self, jobs: list[Callable[[], None]]) -> list[OSError | None]:
        return self._sync_threads.run(jobs, meanwhile=self._take_messages)

    def _look_at_space(self) -> None:
        try:
            self._free_bytes = _free_bytes(self._directory)
        except SpoolError:
            self._free_bytes = 0  # a file system that does not answer takes no new call
        running = sum(segment.size_bytes for segment in self._segments.values())
        self._spooled_bytes = running + sum(entry.size_bytes for _, entry in self._uploading.values())
        self._observer.spool_level(spooled_bytes=self._spooled_bytes, waiting_files=len(self._uploading))

    def _is_ended(self, segment: SpooledSegment) -> bool:
        return segment.final_records is not None and segment.is_drained and not segment.is_dirty

    def _sync_directory(self) -> bool:
        """Whether names are durable. If not, no segment ends now; the next commit tries again."""
        try:
            sync_directory(self._directory)
        except OSError:
            self._is_directory_dirty = True
            return False
        self._is_directory_dirty = False
        return True

    def _give_up(self, segment: SpooledSegment, error: RecordingError) -> None:
        self._release(segment.give_up(error))
        self._observer.recording_failed(
            file_id=segment.file_id, call_uid=segment.state.call_uid, reason=type(error).__name__
        )
        if segment.records:
            self._hand_over(segment, IndexState.INCOMPLETE)
            return
        self._segments.pop(segment.file_id, None)
        if segment.is_ours:
            self._remove(segment.state)
        self._entries.append(segment.state.entry(IndexState.FAILED))

    def _hand_over(self, segment: SpooledSegment, state: IndexState) -> None:
        """From the spool's care to the uploader's."""
        segment.close()
        self._segments.pop(segment.file_id, None)
        entry = segment.state.entry(state, records=segment.records, size_bytes=segment.size_bytes)
        self._entries.append(entry)
        self._observer.recording_finished(
            file_id=segment.file_id,
            call_uid=segment.state.call_uid,
            state=state.value,
            size_bytes=segment.size_bytes,
        )
        self._sign(segment, state)
        self.adopt(segment.state, entry)

    def _sign(self, segment: SpooledSegment, state: IndexState) -> None:
        if self._voucher is None:
            return
        self._voucher.sign(
            segment.state,
            sha256=segment.sha256,
            size_bytes=segment.size_bytes,
            records=segment.records,
            is_complete=state is IndexState.COMPLETE,
        )

    def adopt(self, state: SpoolState, entry: IndexEntry) -> None:
        """Have a finished file uploaded. The spool thread, or before `start` the thread that recovers."""
        self._uploading[state.file_id] = (state, entry)
        path = segment_path(self._directory, state.file_id)
        self._uploader.submit(UploadJob(path=path, name=state.object_name))

    def _settle(self, result: Stored) -> None:
        """The object is durable: the next commit says so in the index, and then forgets the file."""
        state, entry = self._uploading.pop(result.file_id)
        self._entries.append(replace(entry, object_key=result.key, size_bytes=result.size_bytes))
        self._stored.append(state)

    def _remove(self, state: SpoolState) -> None:
        with contextlib.suppress(OSError):  # recovery finds what is left and does it again
            remove_spooled(self._directory, state.file_id)

    def _write_index(self) -> None:
        if self._entries:
            try:
                self._index.put(tuple(self._entries))
            except IndexUnavailableError as error:
                self._index_problem = str(error)
                return
            self._entries.clear()
            self._index_problem = None
        for state in self._stored:
            self._remove(state)
        self._stored.clear()

    def _release(self, size: int) -> None:
        if size:
            with self._changed:
                self._queued_bytes -= size

    def _close_all(self) -> None:
        for segment in list(self._segments.values()):
            self._give_up(segment, SpoolError("the recorder was stopped before this recording was finished"))
        self._write_index()


def _free_bytes(directory: Path) -> int:
    """Bytes that an unprivileged writer still gets. Raises SpoolError."""
    try:
        status = os.statvfs(directory)
    except OSError as error:
        raise SpoolError(f"{directory}: {error.strerror}") from error
    return status.f_bavail * status.f_frsize
