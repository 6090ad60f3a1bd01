"""One spooled segment on disk: appended to in order, cut back to whole records when a write fails for good.

An index is spent by sealing, not by writing, so a record whose write failed is written again byte for byte at the
same offset, or the segment is given up with what came before it kept (docs/recording-format.md, Records).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from recording.errors import RecordingError
from recording.spool_state import SpoolError, SpoolState, segment_path, sync_state, write_state

WRITE_RETRY_S: Final = (
    2.0  # a full disk is given this long to get room; what is sealed meanwhile waits in the queue
)
_FILE_MODE: Final = 0o600
_RETRIED: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EINTR})
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The two calls by which bytes reach the disk, so that a test can make them fail as a disk does."""

    pwrite: Callable[[int, memoryview, int], int] = os.pwrite
    fdatasync: Callable[[int], None] = os.fdatasync


class SpooledSegment:
    """A segment on its way to disk. Made by `Spool.create`; its holder only hands it back to the spool.

    All methods belong to the spool thread.
    """

    def __init__(
        self,
        *,
        directory: Path,
        state: SpoolState,
        record_len: int,
        on_failure: Callable[[RecordingError], None],
        disk: Disk,
    ) -> None:
        self.state = state
        self.path = segment_path(directory, state.file_id)
        self.is_dirty = False
        self.is_given_up = False
        self.is_ours = False  # whether what lies at `path` is of our making: nothing else is ever removed
        self.final_records: int | None = None  # what the writer sealed, FINAL included, once it has finished
        self._directory = directory
        self._record_len = record_len
        self._on_failure = on_failure
        self._disk = disk
        self._fd = -1
        self._waiting: deque[bytes] = deque()
        self._is_state_synced = False
        self._head_len = 0
        self._written = 0
        self._syncing = 0
        self.durable_bytes = 0  # the first of the file that were made durable; they stay as they are
        self.offered_bytes = 0  # of these, how many the uploader was told of
        self._failing_since_ns: int | None = None
        self._digest = hashlib.sha256()

    @property
    def file_id(self) -> bytes:
        return self.state.file_id

    @property
    def records(self) -> int:
        """Whole records on disk."""
        return max(0, self._written - self._head_len) // self._record_len

    @property
    def size_bytes(self) -> int:
        return self._written

    @property
    def sha256(self) -> bytes:
        """Over all that is written, taken while it was."""
        return self._digest.digest()

    @property
    def is_drained(self) -> bool:
        """Whether all that was handed in has been written."""
        return not self._waiting

    @property
    def is_failing(self) -> bool:
        """Whether the last write failed and will be tried again."""
        return self._failing_since_ns is not None

    def create(self, head: bytes) -> None:
        """Make the state file, then the segment, which must not exist; the head waits to be written. Raises OSError."""
        self._head_len = len(head)
        if self.path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self.is_ours = True
        write_state(self._directory, self.state, sync=False)
        self._fd = os.open(
            self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE
        )
        self._waiting.append(head)

    def add(self, data: bytes) -> None:
        """Whole records to be appended."""
        self._waiting.append(data)

    def write(self, now_ns: int) -> int:
        """Write what waits. Returns the bytes that left the queue; a write that fails stays at its head.

        Raises:
            OSError: the write failed for good, or for longer than `WRITE_RETRY_S`.
        """
        released = 0
        while self._waiting:
            data = self._waiting[0]
            try:
                self._write_whole(data)
            except OSError as error:
                if not self._may_retry(error, now_ns):
                    raise
                return released
            self._failing_since_ns = None
            self.is_dirty = True
            self._written += len(data)
            self._digest.update(data)
            released += len(self._waiting.popleft())
        return released

    def begin_sync(self) -> Callable[[], None]:
        """A job for another thread that makes durable what was written so far. It raises OSError.

        What is on disk is unknown then, and the segment must be given up. The job has a descriptor of its own, so
        that the segment may be closed meanwhile. Raises OSError where there is none to be had.
        """
        fd = os.dup(self._fd)
        self.is_dirty = False
        self._syncing = self._written
        is_state_synced, self._is_state_synced = self._is_state_synced, True

        def job() -> None:
            try:
                if not is_state_synced:
                    sync_state(self._directory, self.file_id)
                self._disk.fdatasync(fd)
            finally:
                os.close(fd)

        return job

    def synced(self) -> None:
        """The job that `begin_sync` gave has ended well."""
        self.durable_bytes = self._syncing

    def begin_mark_ended(self) -> Callable[[], None]:
        """A job for another thread that says in the state file that FINAL is on disk. It raises OSError."""
        assert self.final_records == self.records, "every sealed record was written"
        self.state = replace(self.state, ended=self.records)
        return functools.partial(write_state, self._directory, self.state)

    def give_up(self, error: RecordingError) -> int:
        """Keep the whole records that are on disk, drop what waits, close, tell the owner; the bytes dropped."""
        dropped = sum(map(len, self._waiting))
        self._waiting.clear()
        self.is_given_up = True
        if self._fd >= 0:
            self._written = self._head_len + self.records * self._record_len if self.records else 0
            with contextlib.suppress(
                OSError
            ):  # recovery does the same again; the caller is told of the first error
                os.ftruncate(self._fd, self._written)
                self._disk.fdatasync(self._fd)
        self.close()
        self._on_failure(error)
        return dropped

    def close(self) -> None:
        """Close the file. Does nothing twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write_whole(self, data: bytes) -> None:
        """All of `data` at the end of what is written; after a failure the next call writes all of it again."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            count = self._disk.pwrite(self._fd, view[done:], self._written + done)
            if count <= 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done += count

    def _may_retry(self, error: OSError, now_ns: int) -> bool:
        if self._failing_since_ns is None:
            self._failing_since_ns = now_ns
        return error.errno in _RETRIED and now_ns - self._failing_since_ns < WRITE_RETRY_S * _NS_PER_S


def spool_error(path: Path, error: OSError) -> SpoolError:
    """An operating system error about a spooled file, as ours."""
    return SpoolError(f"{path}: {error.strerror}; what was sealed before is kept")
