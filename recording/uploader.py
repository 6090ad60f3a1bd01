"""Carries finished segments from the spool to the sink, in a thread of its own so that a slow store delays no write."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recording.sinks.sink import ObjectName, Sink, SinkError, SinkUnavailableError

FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0
REFUSED_RETRY_S: Final = 300.0  # an operator has to act first; nothing is lost meanwhile
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadJob:
    """A closed file in the spool and the name it gets in the sink."""

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


class Uploader:
    """One job at a time; a job that fails is tried again later, for as long as the process lives.

    What waits is a name per file in the spool, so the spool's disk bounds it.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        vouch: Callable[[ObjectName], None] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`vouch` is called for each object once it is stored; it may raise SinkError, and is then called again."""
        self._sink = sink
        self._vouch = vouch
        self._jitter = jitter
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._number = 0
        self._is_working = False
        self._is_stopping = False
        self._problems: dict[bytes, str] = {}
        self._thread: threading.Thread | None = None

    def start(self, on_stored: Callable[[Stored], None]) -> None:
        """`on_stored` is called from the uploader thread, once per job that is done."""
        assert self._thread is None, "an uploader is started once"
        self._thread = threading.Thread(target=self._run, args=(on_stored,), name="uploader", daemon=True)
        self._thread.start()

    def submit(self, job: UploadJob) -> None:
        """Any thread, at any time; jobs handed in before `start` wait for it."""
        with self._changed:
            self._push(job, due_ns=time.monotonic_ns(), failures=0)
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until every job is done. False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._is_working, timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """End after the job at work.

        What waits stays in the spool for the next start. Whether the thread ended in time.
        """
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def problem(self) -> str | None:
        """Why the oldest job that fails does so; None while all go well."""
        with self._changed:
            return next(iter(self._problems.values()), None)

    @property
    def pending(self) -> int:
        """Files that are not in the sink yet."""
        with self._changed:
            return len(self._waiting) + self._is_working

    def _run(self, on_stored: Callable[[Stored], None]) -> None:
        while (waiting := self._next()) is not None:
            try:
                size_bytes = self._sink.put(waiting.job.path, waiting.job.name)
                if self._vouch is not None:
                    self._vouch(waiting.job.name)
            except SinkError as error:
                self._failed(waiting, error)
                continue
            name = waiting.job.name
            on_stored(
                Stored(file_id=name.file_id, key=name.key, size_bytes=size_bytes, at_ns=time.monotonic_ns())
            )
            with self._changed:
                self._problems.pop(name.file_id, None)
                self._is_working = False
                self._changed.notify_all()

    def _next(self) -> _Waiting | None:
        """The next job when it is due, None when it is time to end."""
        with self._changed:
            while not self._is_stopping:
                now_ns = time.monotonic_ns()
                if self._waiting and self._waiting[0].due_ns <= now_ns:
                    self._is_working = True
                    return heapq.heappop(self._waiting)
                pause_s = (self._waiting[0].due_ns - now_ns) / _NS_PER_S if self._waiting else None
                self._changed.wait(pause_s)
        return None

    def _failed(self, waiting: _Waiting, error: SinkError) -> None:
        step_s = REFUSED_RETRY_S
        if isinstance(error, SinkUnavailableError):
            step_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2 ** min(waiting.failures, 16))
        due_ns = time.monotonic_ns() + int(step_s * (0.5 + 0.5 * self._jitter()) * _NS_PER_S)
        with self._changed:
            self._problems[waiting.job.name.file_id] = f"{type(error).__name__}: {error}"
            self._is_working = False
            self._push(waiting.job, due_ns=due_ns, failures=waiting.failures + 1)
            self._changed.notify_all()

    def _push(self, job: UploadJob, *, due_ns: int, failures: int) -> None:
        self._number += 1
        heapq.heappush(self._waiting, _Waiting(due_ns, self._number, failures, job))
