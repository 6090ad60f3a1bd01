"""The audit log's files: lines are chained, sealed and durable before `append` returns.

Several processes append to one chain, each to a file of its own, one at a time under the head's lock. A record that
could not be written is written again byte for byte, or its file is given up: an index is spent by sealing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from b2bua.errors import JournalError
from b2bua.journal.chain import ChainHead, link
from b2bua.journal.head import Claim, Head, HeadFile
from b2bua.journal.segment import (
    Recovered,
    SealedLines,
    SegmentFile,
    SegmentName,
    end_dead,
    lock_dead,
    segment_names,
)
from recording.errors import RecordingError
from recording.format.content import RecordingKind, RecordingMeta
from recording.keys.pool import PooledKey
from recording.spool_file import Disk

MAX_BYTES: Final = 8 * 1024 * 1024
"""About two thousand commits; a file that grows faster than `segment_seconds` allows is ended too."""
_LIMIT_BYTES: Final = 512 * 1024 * 1024
"""While no key is to be had an old file goes on up to here."""
_NS_PER_S: Final = 1_000_000_000


@dataclass(slots=True, kw_only=True)
class _Segment:
    """The file under way. `is_counted`: whether the head on disk knows of it."""

    number: int
    previous: bytes | None
    lines: SealedLines
    begin: bytes
    began_ns: int
    chain: ChainHead
    file: SegmentFile | None = None
    is_counted: bool = False

    @property
    def file_id(self) -> bytes:
        return self.lines.writer.file_id

    @property
    def name(self) -> str:
        return f"{self.number:08d}-{self.file_id.hex()}.crec"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """Sealed, and not known to be on disk."""

    lines: tuple[bytes, ...]
    data: bytes
    size_before: int
    previous: ChainHead
    after: ChainHead


class ChainedJournal:
    """Owned by one thread. `append` blocks for the disk, and for the lock while another process appends."""

    def __init__(
        self,
        directory: Path,
        *,
        take_key: Callable[[bytes], PooledKey],
        mark: Callable[[Recovered], bytes],
        segment_seconds: int,
        disk: Disk | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Open the head; no segment yet.

        Args:
            directory: made where it is missing.
            take_key: gives a fresh data key for the log with the id it is called with, or raises a RecordingError.
            mark: the line that tells of a file which its writer left open.
            segment_seconds: a file ends after so long, with the first line or `tick` after it.
            disk: what writes and syncs.
            clock_ns: a monotonic clock.

        Raises:
            JournalError: the directory can't be used.
        """
        self._directory = directory
        self._head_file = HeadFile.open(directory)
        self.log_id = self._head_file.read().log_id
        self._take_key = take_key
        self._mark = mark
        self._segment_ns = segment_seconds * _NS_PER_S
        self._disk = disk or Disk()
        self._clock_ns = clock_ns
        self._segment: _Segment | None = None
        self._pending: _Pending | None = None
        self._marks: list[bytes] = []
        self._is_recovered = False
        self.ended = 0  # files of this process that have their end
        self.last: Head | None = None  # where the chain stood after the last lines of this process

    @property
    def has_segment(self) -> bool:
        """Whether a line could be taken without a new key. Any thread."""
        return self._segment is not None

    def append(self, lines: Sequence[bytes]) -> int:
        """Chain, seal and write. After a failure the same lines come first in the next call.

        Returns:
            How many of the lines are durable now, all of them unless an earlier call failed: then what that one
            was given comes first, and the rest is for the next call.

        Raises:
            JournalError: none of them is, and none was taken.
            RecordingError: there is no key for a new file; likewise.
        """
        with self._head_file.locked():
            head = self._settled(self._head_file.read())
            try:
                self._recover(head)
                written = self._write_pending(head, (*self._marks, *lines))
                if not written:
                    self._recover(head)
                    batch = (*self._marks, *lines)
                    self._write_batch(head, batch)
                    written = len(batch)
            except OSError as error:
                raise JournalError(
                    f"{self._directory}: {error.strerror}; lines wait until they can be written"
                ) from error
            written -= len(self._marks)
            self._marks.clear()
            return written

    def tick(self) -> None:
        """End a file that is old enough although no line comes. Nothing is lost where that fails."""
        if self._segment is not None and self._pending is None and self._is_due(self._segment):
            self._finish(self._segment, reason="segment_full")

    def seconds_left(self) -> float | None:
        """Until `tick` has something to do; None: nothing is open."""
        if self._segment is None:
            return None
        return max(0, self._segment.began_ns + self._segment_ns - self._clock_ns()) / _NS_PER_S

    def close(self) -> None:
        """End the file under way. Does nothing twice."""
        if self._segment is not None:
            if self._pending is None:
                self._finish(self._segment, reason="closed")
            else:
                self._give_up(self._segment)
        self._head_file.close()

    # ---- under the lock --------------------------------------------------------------------------------------

    def _settled(self, head: Head) -> Head:
        """`head` without its claim: what a dead writer claimed is there whole, or counts as never written.

        A file that is gone proves nothing, so its lines stay counted, and whoever verifies misses them.
        """
        claim = head.claim
        if claim is None:
            return head
        named = [name for name in segment_names(self._directory) if name.file_id == claim.file_id]
        if not named or named[0].path.stat().st_size >= claim.size_after:
            return replace(head, claim=None)
        return replace(head, claim=None, chain=claim.previous)

    def _recover(self, head: Head) -> None:
        """End the files that dead writers left open, and note each as a line of its own.

        Before the first line, and after a file of our own was given up; not each time, for a log has many files.
        """
        if self._is_recovered:
            return
        on_disk = self._head_file.read()
        claim = on_disk.claim
        for name in segment_names(self._directory):
            if not name.is_open or (descriptor := lock_dead(name)) is None:
                continue
            try:
                self._end_dead(name, descriptor, head, on_disk, claim)
            finally:
                os.close(descriptor)
        self._is_recovered = True

    def _end_dead(
        self, name: SegmentName, descriptor: int, head: Head, on_disk: Head, claim: Claim | None
    ) -> None:
        if name.number >= head.segments:
            name.path.unlink()  # begun and never counted: no line is in it
            return
        if claim is not None and claim.file_id == name.file_id and head.chain != on_disk.chain:
            lost = on_disk.chain.sequence - head.chain.sequence
            end_dead(name, descriptor, size=claim.size_before)
            self._marks.append(self._mark(Recovered(file_id=name.file_id, lost_lines=lost)))
            return
        end_dead(name, descriptor)
        self._marks.append(self._mark(Recovered(file_id=name.file_id)))

    def _write_pending(self, head: Head, batch: tuple[bytes, ...]) -> int:
        """What was sealed and did not get to the disk, byte for byte, if the chain still stands where it stood."""
        pending, segment = self._pending, self._segment
        if segment is not None and head.last_file_id == segment.file_id:
            segment.is_counted = True
        if pending is None or segment is None:
            return 0
        if not segment.is_counted:
            if segment.number != head.segments or segment.previous != head.last_file_id:
                self._discard(segment)
                return 0
            head = replace(head, segments=segment.number + 1, last_file_id=segment.file_id)
        if head.chain != pending.previous or batch[: len(pending.lines)] != pending.lines:
            self._give_up(segment)
            return 0
        self._write(head, segment, pending)
        return len(pending.lines)

    def _write_batch(self, head: Head, batch: tuple[bytes, ...]) -> None:
        head, segment = self._current(head)
        assert segment.file is not None
        stored, after = link(head.chain, batch)
        pending = _Pending(
            lines=batch,
            data=segment.lines.seal(stored),
            size_before=segment.file.size,
            previous=head.chain,
            after=after,
        )
        self._pending = pending
        self._write(head, segment, pending)

    def _write(self, head: Head, segment: _Segment, pending: _Pending) -> None:
        assert segment.file is not None
        claim = Claim(
            file_id=segment.file_id,
            size_before=pending.size_before,
            size_after=pending.size_before + len(pending.data),
            previous=pending.previous,
        )
        claimed = replace(head, generation=head.generation + 1, chain=pending.after, claim=claim)
        self._head_file.write(claimed, sync=True)
        segment.is_counted = True
        try:
            segment.file.append(pending.data)
        except OSError:
            self._take_back(claimed, segment, pending)
            raise
        try:
            segment.file.sync()
        except OSError:
            # What is on disk is unknown now: nothing more is written to this file.
            self._take_back(claimed, segment, pending)
            self._give_up(segment)
            raise
        self._pending = None
        segment.chain = pending.after
        self.last = replace(claimed, claim=None)
        done = replace(claimed, generation=claimed.generation + 1, claim=None)
        with contextlib.suppress(OSError):  # the claim stays, and the file's size proves it
            self._head_file.write(done, sync=False)

    def _take_back(self, claimed: Head, segment: _Segment, pending: _Pending) -> None:
        """Undo a failed write as far as the disk lets us; what stays is undone by whoever appends next."""
        assert segment.file is not None
        with contextlib.suppress(OSError):
            segment.file.cut_back(pending.size_before)
            undone = replace(claimed, generation=claimed.generation + 1, chain=pending.previous, claim=None)
            self._head_file.write(undone, sync=False)

    # ---- files -----------------------------------------------------------------------------------------------

    def _current(self, head: Head) -> tuple[Head, _Segment]:
        """The file that takes the next lines, and the head that counts it."""
        segment = self._segment
        if segment is not None and segment.file is not None and segment.is_counted:
            if not self._is_due(segment):
                return head, segment
            try:
                key = self._take_key(self.log_id)
            except RecordingError:
                if segment.file.size < _LIMIT_BYTES:
                    return head, segment
                raise
            self._finish(segment, reason="segment_full")
            segment = self._prepare(head, key)
        elif segment is None or segment.number != head.segments or segment.previous != head.last_file_id:
            if segment is not None:
                self._discard(segment)
            segment = self._prepare(head, self._take_key(self.log_id))
        self._segment = segment
        if segment.file is None:
            segment.file = SegmentFile.create(
                self._directory, name=segment.name, data=segment.begin, disk=self._disk
            )
        return replace(head, segments=segment.number + 1, last_file_id=segment.file_id), segment

    def _prepare(self, head: Head, key: PooledKey) -> _Segment:
        meta = RecordingMeta(
            kind=RecordingKind.AUDIT,
            recording=self.log_id,
            segment=head.segments,
            previous=head.last_file_id,
            started_at=datetime.now(UTC),
            sample_format=None,
            extra={"chain": head.chain.as_json()},
        )
        lines = SealedLines(key, kind=RecordingKind.AUDIT, meta=meta)
        return _Segment(
            number=head.segments,
            previous=head.last_file_id,
            lines=lines,
            begin=lines.writer.begin(),
            began_ns=self._clock_ns(),
            chain=head.chain,
        )

    def _is_due(self, segment: _Segment) -> bool:
        assert segment.file is not None
        return self._clock_ns() - segment.began_ns >= self._segment_ns or segment.file.size >= MAX_BYTES

    def _finish(self, segment: _Segment, *, reason: str) -> None:
        """FINAL and the final name. A file that can't be ended is given up, with its lines in it."""
        file = segment.file
        if file is None or not segment.is_counted:
            self._discard(segment)
            return
        final = segment.lines.writer.finish(
            ended_by="writer", reason=reason, extra={"chain": segment.chain.as_json()}
        )
        size = file.size
        try:
            file.append(final)
            file.sync()
            file.end()
        except OSError:
            with contextlib.suppress(OSError):
                file.cut_back(size)
            self._leave(segment)
        else:
            self.ended += 1
        self._segment = None

    def _give_up(self, segment: _Segment) -> None:
        """No more is written to this file; its lines stay, and the next line says that it has no end."""
        self._pending = None
        segment.lines.writer.abandon()
        self._leave(segment)
        self._segment = None

    def _leave(self, segment: _Segment) -> None:
        if segment.file is not None:
            segment.file.close()
            self._is_recovered = False

    def _discard(self, segment: _Segment) -> None:
        """Forget a file that the head never counted: no line is in it."""
        segment.lines.writer.abandon()
        if segment.file is not None:
            segment.file.close()
            with contextlib.suppress(OSError):
                segment.file.path.unlink()
        self._segment = None
        self._pending = None
