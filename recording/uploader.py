"""Carries segments from the spool to the sink, in threads of its own so that a slow store delays no write.

A segment that still grows may be sent in parts; one that is finished is stored, shown to be there, and only then
reported, so that the spool forgets it.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recording.observer import RecordingObserver, SilentObserver
from recording.sinks.sink import ObjectName, Sink, SinkError, SinkUnavailableError

FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0
REFUSED_RETRY_S: Final = 300.0  # an operator has to act first; nothing is lost meanwhile
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadJob:
    """A file in the spool and the name it gets in the sink."""

    path: Path
    name: ObjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A job that is done: the object is durable. `at_ns`: when, by the monotonic clock."""

    file_id: bytes
    key: str
    size_bytes: int
    at_ns: int


@dataclass(order=True, slots=True)
class _Waiting:
    due_ns: int
    number: int
    failures: int
    job: UploadJob


@dataclass(frozen=True, slots=True)
class _Growing:
    job: UploadJob
    durable_bytes: int


class Uploader:
    """As many jobs at a time as it has threads, never two of one file.

    A job that fails is tried again later, for as long as the process lives. What waits is a name per file in the
    spool, so the spool's disk bounds it.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        observer: RecordingObserver | None = None,
        vouch: Callable[[ObjectName], None] | None = None,
        threads: int = 1,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`vouch` is called for each object once it is stored and before the spool forgets the file.

        From an uploader thread; it may raise SinkError, and is then called again.
        """
        self._sink = sink
        self._observer = observer or SilentObserver()
        self._vouch = vouch
        self._count = threads
        self._jitter = jitter
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._growing: dict[bytes, _Growing] = {}
        self._working: set[bytes] = set()
        self._number = 0
        self._is_stopping = False
        self._problems: dict[bytes, str] = {}
        self._threads: list[threading.Thread] = []

    @property
    def part_bytes(self) -> int | None:
        """How much more of a growing file is worth telling `grow`; None: nothing is."""
        return self._sink.part_bytes

    def start(self, on_stored: Callable[[Stored], None]) -> None:
        """`on_stored` is called from an uploader thread, once per job that is done."""
        assert not self._threads, "an uploader is started once"
        for number in range(self._count):
            name = "uploader" if number == 0 else f"uploader-{number}"
            self._threads.append(
                threading.Thread(target=self._run, args=(on_stored,), name=name, daemon=True)
            )
        for thread in self._threads:
            thread.start()

    def submit(self, job: UploadJob) -> None:
        """Any thread, at any time; jobs handed in before `start` wait for it."""
        with self._changed:
            self._growing.pop(job.name.file_id, None)
            self._push(job, due_ns=time.monotonic_ns(), failures=0)
            self._changed.notify_all()

    def grow(self, job: UploadJob, durable_bytes: int) -> None:
        """A file that is still written to has so many bytes that will stay. Any thread; before its `submit`.

        Sent when no finished file waits. A failure is counted and else forgotten: what is told next, or `submit`,
        sends the rest.
        """
        with self._changed:
            self._growing[job.name.file_id] = _Growing(job, durable_bytes)
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until every job is done. False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._working, timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """End after the jobs at work.

        What waits stays in the spool for the next start. Whether the threads ended in time.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def is_running(self) -> bool:
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    @property
    def problem(self) -> str | None:
        """Why the oldest job that fails does so; None while all go well."""
        with self._changed:
            return next(iter(self._problems.values()), None)

    @property
    def pending(self) -> int:
        """Files that are not in the sink yet, those at work included."""
        with self._changed:
            return len(self._waiting) + len(self._working)

    def _run(self, on_stored: Callable[[Stored], None]) -> None:
        while (work := self._next()) is not None:
            if isinstance(work, _Growing):
                self._advance(work)
            else:
                self._store(work, on_stored)

    def _store(self, waiting: _Waiting, on_stored: Callable[[Stored], None]) -> None:
        name = waiting.job.name
        try:
            size_bytes = self._sink.put(waiting.job.path, name)
            if self._vouch is not None:
                self._vouch(name)
        except SinkError as error:
            self._failed(waiting, error)
            return
        self._observer.upload_finished(file_id=name.file_id, size_bytes=size_bytes)
        on_stored(
            Stored(file_id=name.file_id, key=name.key, size_bytes=size_bytes, at_ns=time.monotonic_ns())
        )
        with self._changed:
            self._problems.pop(name.file_id, None)
            self._working.remove(name.file_id)
            self._changed.notify_all()

    def _advance(self, growing: _Growing) -> None:
        name = growing.job.name
        try:
            self._sink.advance(growing.job.path, name, growing.durable_bytes)
        except SinkError as error:
            self._observer.upload_failed(file_id=name.file_id, reason=error.reason_label)
        with self._changed:
            self._working.remove(name.file_id)
            self._changed.notify_all()

    def _next(self) -> _Waiting | _Growing | None:
        """The next work when it is due, None when it is time to end."""
        with self._changed:
            while not self._is_stopping:
                now_ns = time.monotonic_ns()
                work = self._take_due(now_ns) or self._take_growing()
                if work is not None:
                    self._working.add(work.job.name.file_id)
                    return work
                # What is due and could not be taken waits for the end of its file's other work, which notifies.
                later = [waiting.due_ns for waiting in self._waiting if waiting.due_ns > now_ns]
                self._changed.wait((min(later) - now_ns) / _NS_PER_S if later else None)
        return None

    def _take_due(self, now_ns: int) -> _Waiting | None:
        busy = []
        found = None
        while found is None and self._waiting and self._waiting[0].due_ns <= now_ns:
            waiting = heapq.heappop(self._waiting)
            if waiting.job.name.file_id in self._working:
                busy.append(waiting)
            else:
                found = waiting
        for waiting in busy:
            heapq.heappush(self._waiting, waiting)
        return found

    def _take_growing(self) -> _Growing | None:
        for file_id in self._growing:
            if file_id not in self._working:
                return self._growing.pop(file_id)
        return None

    def _failed(self, waiting: _Waiting, error: SinkError) -> None:
        step_s = REFUSED_RETRY_S
        if isinstance(error, SinkUnavailableError):
            step_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2 ** min(waiting.failures, 16))
        due_ns = time.monotonic_ns() + int(step_s * (0.5 + 0.5 * self._jitter()) * _NS_PER_S)
        file_id = waiting.job.name.file_id
        self._observer.upload_failed(file_id=file_id, reason=error.reason_label)
        with self._changed:
            self._problems[file_id] = f"{type(error).__name__}: {error}"
            self._working.discard(file_id)
            self._push(waiting.job, due_ns=due_ns, failures=waiting.failures + 1)
            self._changed.notify_all()

    def _push(self, job: UploadJob, *, due_ns: int, failures: int) -> None:
        self._number += 1
        heapq.heappush(self._waiting, _Waiting(due_ns, self._number, failures, job))
