"""The SIP thread.

A loop around libHandleEvents that alone touches pj objects, with a queue for what others want done on it.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

_log = structlog.get_logger(__name__)

POLL_MS = 10
"""How long one poll may sleep: the wait of a job posted by another thread.

100 idle wake-ups a second cost 0.2 % of a core.
"""


@dataclass(order=True)
class Timer:
    """A job due at `due_ns` of the monotonic clock; cancelled by dropping its job."""

    due_ns: int
    number: int
    job: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        self.job = None


class SIPLoop:
    """Runs on the thread that calls `run`. `post` may be called from any thread; everything else from the loop's own.

    `poll` handles SIP events for at most so many milliseconds. A job that raises is reported and counted in
    `failures`: the loop
    goes on, because live calls hang on it.
    """

    def __init__(self) -> None:
        self._jobs: collections.deque[tuple[Callable[[], None], Callable[[], None] | None]] = (
            collections.deque()
        )
        self._timers: list[Timer] = []
        self._numbers = itertools.count()
        self._stopping = False
        self.failures = 0

    def post(self, job: Callable[[], None], on_failure: Callable[[], None] | None = None) -> None:
        """Run `job` on the SIP thread, in order of posting; `on_failure` after it if it raised."""
        self._jobs.append((job, on_failure))

    def call_later(self, delay_s: float, job: Callable[[], None]) -> Timer:
        """Run `job` after `delay_s`; not before."""
        timer = Timer(due_ns=time.monotonic_ns() + int(delay_s * 1e9), number=next(self._numbers), job=job)
        heapq.heappush(self._timers, timer)
        return timer

    def stop(self) -> None:
        """Leave `run` once the jobs posted so far are done. Any thread."""
        self.post(self._mark_stopping)

    def _mark_stopping(self) -> None:
        self._stopping = True

    def run(self, poll: Callable[[int], None]) -> None:
        """Until `stop`. The calling thread is the SIP thread."""
        while not self._stopping:
            self._turn(poll)

    def _turn(self, poll: Callable[[int], None]) -> None:
        poll(0 if self._jobs else POLL_MS)
        while self._jobs:
            self._run(*self._jobs.popleft())
        now = time.monotonic_ns()
        while self._timers and self._timers[0].due_ns <= now:
            timer = heapq.heappop(self._timers)
            if timer.job is not None:
                self._run(timer.job)

    def _run(self, job: Callable[[], None], on_failure: Callable[[], None] | None = None) -> None:
        try:
            job()
        except Exception:  # noqa: BLE001 - the loop outlives any one job; the job's owner is told
            self.failures += 1
            _log.exception("sip_job_failed")
            if on_failure is not None:
                self._run(on_failure)
