"""One sealed file of lines on disk: begun whole, appended to, and renamed when it ends.

A file that is being written ends in `.crec.open` and is locked by its writer, so that whoever finds one can tell a dead
writer's from a living one's. Both need no key.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from b2bua.journal.head import sync_directory
from recording.data_writer import DataWriter
from recording.errors import FormatError, TruncatedRecordingError
from recording.format.content import RecordingKind, RecordingMeta
from recording.format.slots import build_area
from recording.keys.pool import PooledKey
from recording.recovery import recover_file
from recording.spool_file import Disk

CHUNK_BYTES: Final = 4096
"""The smallest record: a commit of one line costs a page, not more."""
OPEN_SUFFIX: Final = ".open"
_NAME: Final = re.compile(r"(?P<number>\d{8,10})-(?P<file>[0-9a-f]{32})\.crec(?P<open>\.open)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentName:
    """What a file's name says. `number` orders the files of a directory."""

    path: Path
    number: int
    file_id: bytes
    is_open: bool


def segment_names(directory: Path) -> list[SegmentName]:
    """The sealed files of a directory in their order; other files are passed over."""
    found = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is not None:
            found.append(
                SegmentName(
                    path=path,
                    number=int(match["number"]),
                    file_id=bytes.fromhex(match["file"]),
                    is_open=match["open"] is not None,
                )
            )
    return sorted(found, key=lambda name: (name.number, name.file_id))


class SealedLines:
    """Seals lines: whole lines to a record, as many as fit. Owned by one thread."""

    def __init__(self, key: PooledKey, *, kind: RecordingKind, meta: RecordingMeta) -> None:
        """Take over `key`. Raises MalformedContentError where `meta` does not fit into a record."""
        assert meta.kind is kind, "META says what the file is"
        try:
            slots_area = build_area([key.key.slot])
        except BaseException:
            key.wipe()
            raise
        self.writer = DataWriter(
            file_id=key.file_id,
            tenant_handle=key.tenant_handle,
            dek=key.key.dek,
            slots_area=slots_area,
            meta=meta,
            chunk_size=CHUNK_BYTES,
        )

    def seal(self, lines: Sequence[bytes]) -> bytes:
        """The records with these lines, each ending in a newline."""
        sealed = []
        payload = bytearray()
        for line in lines:
            if payload and len(payload) + len(line) > self.writer.capacity:
                sealed.append(self.writer.append(bytes(payload)))
                payload.clear()
            payload += line
        if payload:
            sealed.append(self.writer.append(bytes(payload)))
        return b"".join(sealed)


class SegmentFile:
    """The file under way. Methods raise OSError; after `close` or `end` nothing more is written."""

    def __init__(self, path: Path, descriptor: int, size: int, disk: Disk) -> None:
        self.path = path
        self.size = size
        self._descriptor = descriptor
        self._disk = disk

    @classmethod
    def create(cls, directory: Path, *, name: str, data: bytes, disk: Disk) -> Self:
        """A new file with its first bytes, durable. Where that fails nothing is left."""
        path = directory / f"{name}{OPEN_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        file = cls(path, descriptor, 0, disk)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.append(data)
            file.sync()
            sync_directory(directory)
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise
        return file

    def append(self, data: bytes) -> None:
        """Write at the end; `size` grows only where all of it was written."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            count = self._disk.pwrite(self._descriptor, view[done:], self.size + done)
            if count <= 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done += count
        self.size += len(view)

    def sync(self) -> None:
        self._disk.fdatasync(self._descriptor)

    def cut_back(self, size: int) -> None:
        """Take off what a failed write left."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def end(self) -> None:
        """Give the file its final name and close it."""
        target = self.path.with_name(self.path.name.removesuffix(OPEN_SUFFIX))
        self.path.rename(target)
        self.path = target
        with contextlib.suppress(
            OSError
        ):  # the name is all that is at stake, and the next start gives it again
            sync_directory(target.parent)
        self.close()

    def close(self) -> None:
        """Give the lock back. Does nothing twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A file that its writer left open. `lost_lines`: lines that were numbered and did not reach the disk."""

    file_id: bytes
    lost_lines: int = 0


def lock_dead(name: SegmentName) -> int | None:
    """A descriptor that holds the lock of an open file whose writer is dead; None where it lives. Raises OSError."""
    descriptor = os.open(name.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def end_dead(name: SegmentName, descriptor: int, *, size: int | None = None) -> None:
    """Cut a dead writer's file to whole records, and to `size` at most, and give it its final name. Raises OSError."""
    with contextlib.suppress(
        FormatError, TruncatedRecordingError
    ):  # what is no container is kept for whoever verifies
        recover_file(name.path)
    if size is not None and os.fstat(descriptor).st_size > size:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    name.path.rename(name.path.with_name(name.path.name.removesuffix(OPEN_SUFFIX)))
