"""The log file's containers: sealed lines without a chain. What can't be written is the caller's to drop."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from b2bua.errors import JournalError
from b2bua.journal.segment import SealedLines, SegmentFile, end_dead, lock_dead, segment_names
from recording.errors import RecordingError
from recording.format.content import RecordingKind, RecordingMeta
from recording.keys.pool import PooledKey
from recording.spool_file import Disk

MAX_BYTES: Final = 64 * 1024 * 1024
_LIMIT_BYTES: Final = 512 * 1024 * 1024
"""While no key is to be had an old file goes on up to here."""
_NS_PER_S: Final = 1_000_000_000


@dataclass(slots=True, kw_only=True)
class _Open:
    lines: SealedLines
    file: SegmentFile
    began_ns: int


class LineJournal:
    """Owned by one thread. Each process writes files of its own; their numbers only order them."""

    def __init__(
        self,
        directory: Path,
        *,
        log_id: bytes,
        take_key: Callable[[bytes], PooledKey],
        segment_seconds: int,
        disk: Disk | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Make the directory (mode 0700) and end what dead processes left open in it; no file yet.

        Args:
            directory: of its own.
            log_id: 16 random bytes that this process's files share.
            take_key: gives a fresh data key for the log with the id it is called with, or raises a RecordingError.
            segment_seconds: a file ends after so long, with the first lines after it.
            disk: what writes and syncs.
            clock_ns: a monotonic clock.

        Raises:
            JournalError: the directory can't be used, or others may enter it.
        """
        self._directory = directory
        self._log_id = log_id
        self._take_key = take_key
        self._segment_ns = segment_seconds * _NS_PER_S
        self._disk = disk or Disk()
        self._clock_ns = clock_ns
        self._open: _Open | None = None
        self._previous: bytes | None = None
        try:
            self._number = self._prepare()
        except OSError as error:
            raise JournalError(
                f"{directory}: {error.strerror}; the log needs a directory of its own"
            ) from error

    def append(self, lines: Sequence[bytes]) -> None:
        """Seal and write; on return they are durable.

        Raises:
            JournalError: they are not, or in part; the file was given up, and what is in it stays.
            RecordingError: there is no key for a new file; nothing was written.
        """
        current = self._current()
        size = current.file.size
        try:
            current.file.append(current.lines.seal(lines))
            current.file.sync()
        except OSError as error:
            self._give_up(current, size)
            raise JournalError(
                f"{self._directory}: {error.strerror}; these lines of the log are lost"
            ) from error

    def close(self) -> None:
        """End the file under way. Does nothing twice."""
        if self._open is not None:
            self._finish(self._open, reason="closed")

    def _prepare(self) -> int:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = self._directory.stat().st_mode
        if mode & 0o077:
            raise JournalError(
                f"{self._directory} has mode {mode & 0o7777:04o}, others may enter it; run: chmod 700 {self._directory}"
            )
        names = segment_names(self._directory)
        for name in names:
            if name.is_open and (descriptor := lock_dead(name)) is not None:
                try:
                    end_dead(name, descriptor)
                finally:
                    os.close(descriptor)
        return max((name.number for name in names), default=-1) + 1

    def _current(self) -> _Open:
        current = self._open
        if current is not None:
            is_due = self._clock_ns() - current.began_ns >= self._segment_ns or current.file.size >= MAX_BYTES
            if not is_due:
                return current
        try:
            key = self._take_key(self._log_id)
        except RecordingError:
            if current is not None and current.file.size < _LIMIT_BYTES:
                return current
            raise
        if current is not None:
            self._finish(current, reason="segment_full")
        return self._begin(key)

    def _begin(self, key: PooledKey) -> _Open:
        meta = RecordingMeta(
            kind=RecordingKind.LOG,
            recording=self._log_id,
            segment=self._number,
            previous=self._previous,
            started_at=datetime.now(UTC),
            sample_format=None,
        )
        lines = SealedLines(key, kind=RecordingKind.LOG, meta=meta)
        name = f"{self._number:08d}-{key.file_id.hex()}.crec"
        try:
            file = SegmentFile.create(self._directory, name=name, data=lines.writer.begin(), disk=self._disk)
        except OSError as error:
            raise JournalError(
                f"{self._directory}: {error.strerror}; these lines of the log are lost"
            ) from error
        self._number += 1
        self._previous = key.file_id
        self._open = _Open(lines=lines, file=file, began_ns=self._clock_ns())
        return self._open

    def _finish(self, current: _Open, *, reason: str) -> None:
        self._open = None
        size = current.file.size
        try:
            current.file.append(current.lines.writer.finish(ended_by="writer", reason=reason))
            current.file.sync()
            current.file.end()
        except OSError:
            self._close(current, size)

    def _give_up(self, current: _Open, size: int) -> None:
        """An index is spent by sealing: after a failed write nothing more goes into this file."""
        self._open = None
        current.lines.writer.abandon()
        self._close(current, size)

    def _close(self, current: _Open, size: int) -> None:
        with contextlib.suppress(OSError):
            current.file.cut_back(size)
            current.file.end()
        current.file.close()
