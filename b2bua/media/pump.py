"""The pump thread: empties every tap, hands the audio to the call's recording. It does no I/O and never touches SIP.

A call's recording object is used on this thread alone; what others want of it is put on the pump's queue.
"""

from __future__ import annotations

import collections
import functools
import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from b2bua.native import _native
from recording.format.content import RecordingEvent

_log = structlog.get_logger(__name__)

BYTES_PER_MS = 2 * 8 * 2
"""Two channels of 8 kHz s16le."""
BUFFER_MS = 2000
"""A late pump finds that much per tap; what does not fit is drained in a second round."""


class Recording(Protocol):
    """What the pump needs of a call's recording; `recording.recorder.CallRecording` is one.

    `frame_bytes`: of one sample frame.
    """

    @property
    def frame_bytes(self) -> int: ...
    def append(self, pcm: memoryview, frames: int, gap_frames: int) -> None: ...
    def event(self, event: RecordingEvent) -> None: ...
    def pause(self, *, by: str, reason: str) -> int: ...
    def resume(self) -> int: ...
    def tick(self, now_ns: int) -> None: ...
    def finish(self, *, ended_by: str, reason: str) -> None: ...


Mark = Callable[[Recording], None]


class Pump:
    """Started once, stopped once. `add`, `mark`, `finish` may be called from any thread and return at once."""

    def __init__(self, *, interval_ms: int, max_taps: int, on_overrun: Callable[[int], None]) -> None:
        self._interval_s = interval_ms / 1000
        self._buffer = bytearray(max(1, max_taps) * min(BUFFER_MS, 2 * interval_ms) * BYTES_PER_MS)
        self._new: collections.deque[tuple[int, Recording]] = collections.deque()
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._fed: dict[int, Recording] = {}
        self._on_overrun = on_overrun
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pump", daemon=True)
        self.failures = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Drain once more and end; recordings still there are left to their owner."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)

    def add(self, tap_id: int, recording: Recording) -> None:
        """Feed `recording` from the tap, from the tap's first sample on. Call it before the tap is attached."""
        self._new.append((tap_id, recording))

    def mark(self, tap_id: int, mark: Mark, *, at_once: bool = False) -> None:
        """Call `mark` with the tap's recording, after the audio that came before.

        `at_once`: in a turn of its own, not with the next one that is due.
        """
        self._jobs.append(lambda: self._mark(tap_id, mark))
        if at_once:
            self._wake.set()

    def finish(self, tap_id: int, *, ended_by: str, reason: str, done: Callable[[], None]) -> None:
        """Drain the tap a last time, finish its recording.

        Then call `done` (which frees the tap on the SIP thread).
        """
        self._jobs.append(lambda: self._finish(tap_id, ended_by, reason, done))
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            self._turn()
        self._turn()

    def _turn(self) -> None:
        due = len(self._jobs)
        while self._new:
            tap_id, recording = self._new.popleft()
            self._fed[tap_id] = recording
        while self._drain():
            pass
        for _ in range(due):
            self._guard(self._jobs.popleft())
        now = time.monotonic_ns()
        for recording in self._fed.values():
            self._guard(functools.partial(recording.tick, now))

    def _drain(self) -> bool:
        """One round over all taps; True when the buffer was filled so far that another round may find more."""
        view = memoryview(self._buffer)
        used = 0
        for tap_id, offset, frames, gap_frames, overruns in _native.tap_drain_all(view):
            if overruns:
                self._on_overrun(overruns)
            recording = self._fed.get(tap_id)
            if recording is None or not frames:
                continue
            end = offset + frames * recording.frame_bytes
            used = max(used, end)
            self._guard(functools.partial(recording.append, view[offset:end], frames, gap_frames))
        return used > len(view) // 2

    def _mark(self, tap_id: int, mark: Mark) -> None:
        recording = self._fed.get(tap_id)
        if recording is not None:
            mark(recording)

    def _finish(self, tap_id: int, ended_by: str, reason: str, done: Callable[[], None]) -> None:
        recording = self._fed.pop(tap_id, None)
        try:
            if recording is not None:
                recording.finish(ended_by=ended_by, reason=reason)
        finally:
            done()

    def _guard(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:  # noqa: BLE001 - one call's failure must not end the thread that all recordings hang on
            self.failures += 1
            _log.exception("pump_job_failed")
