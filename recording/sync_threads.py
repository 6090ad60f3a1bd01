"""Several syncs at once, for the group commit.

A file system puts concurrent syncs into one journal transaction. Measured on ext4 over virtio, 400 files: 2.7 ms a
file with one thread, 0.25 with four, 0.14 with eight, no better with sixteen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

SYNC_THREADS: Final = 8
MEANWHILE_S: Final = 0.02  # how long what arrives during a commit may wait to be written


class SyncThreads:
    """Threads named `fsync_0` and so on. Owned by the spool thread."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="fsync")

    def run(
        self, jobs: Sequence[Callable[[], None]], *, meanwhile: Callable[[], None]
    ) -> list[OSError | None]:
        """Run all jobs; what each raised, in their order.

        `meanwhile` is called again and again until the last is
        done.
        """
        futures = [self._executor.submit(job) for job in jobs]
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=MEANWHILE_S)
            meanwhile()
        return [_os_error(future) for future in futures]

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _os_error(future: Future[None]) -> OSError | None:
    error = future.exception()
    if error is None or isinstance(error, OSError):
        return error
    raise error
