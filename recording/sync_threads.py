"""Several syncs at once, for the group commit.

A file system puts concurrent syncs into one journal transaction. Measured on ext4 over virtio, 400 files: 2.7 ms a
file with one thread, 0.25 with four, 0.14 with eight, no better with sixteen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final

SYNC_THREADS: Final = 8
MEANWHILE_S: Final = 0.02  # how long what arrives during a commit may wait to be written

_Job = tuple[int, Callable[[], None]]


class SyncThreads:
    """Threads named `fsync_0` and so on. Owned by the spool thread."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="fsync")

    def run(
        self, jobs: Sequence[Callable[[], None]], *, meanwhile: Callable[[], None]
    ) -> list[OSError | None]:
        """Run all jobs; what each raised, in their order.

        `meanwhile` is called again and again until the last is
        done. Each thread takes one job after the other; a future for each job cost more than the sync's own calls.
        """
        failures: list[OSError | None] = [None] * len(jobs)
        waiting = iter(tuple(enumerate(jobs)))
        workers = [
            self._executor.submit(_work, waiting, failures) for _ in range(min(SYNC_THREADS, len(jobs)))
        ]
        pending = set(workers)
        while pending:
            _, pending = wait(pending, timeout=MEANWHILE_S)
            meanwhile()
        for worker in workers:
            worker.result()
        return failures

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _work(waiting: Iterator[_Job], failures: list[OSError | None]) -> None:
    """Until no job waits. A tuple's iterator gives each entry to one thread only."""
    for number, job in waiting:
        try:
            job()
        except OSError as error:
            failures[number] = error
