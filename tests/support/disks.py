"""Disks that write short, fill up, fail or hang, as `recording.spool_file.Disk`."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recording.spool_file import Disk

_LIBC = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2  # linux/fs.h


@contextlib.contextmanager
def small_disk(mount_point: Path, *, size_kib: int) -> Iterator[Path]:
    """A file system of that size in memory; the test is skipped where none can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mount_point.mkdir()
    if _LIBC.mount(b"tmpfs", bytes(mount_point), b"tmpfs", 0, f"size={size_kib}k,mode=0700".encode()):
        pytest.skip(f"mount: {os.strerror(ctypes.get_errno())}")
    yield mount_point
    assert _LIBC.umount2(bytes(mount_point), _MNT_DETACH) == 0


class FaultyDisk:
    """Writes really, but for what `faults` says. Remembers what was ever put at each offset of each file.

    `short`: the chance that a write is cut short; `fail`: that it fails with `number`. `dead`: descriptors' inodes
    whose writes all fail. `sync_error`: fails every sync.
    """

    def __init__(
        self, *, seed: int = 1, short: float = 0, fail: float = 0, number: int = errno.ENOSPC
    ) -> None:
        self._random = random.Random(seed)
        self.short, self.fail, self.number = short, fail, number
        self.is_full = False
        self.sync_error: int | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.sync_gate = threading.Event()
        self.sync_gate.set()
        self.entered = threading.Event()
        self._counting = threading.Lock()
        self.syncs = 0
        self.failures = 0
        self.shorts = 0
        self.attempts: list[tuple[int, int, bytes]] = []

    def disk(self) -> Disk:
        return Disk(pwrite=self.pwrite, fdatasync=self.fdatasync)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        self.entered.set()
        self.gate.wait(30)
        self.attempts.append((os.fstat(fd).st_ino, offset, bytes(data)))
        if self.is_full or self._random.random() < self.fail:
            self.failures += 1
            raise OSError(self.number, os.strerror(self.number))
        if self._random.random() < self.short:
            self.shorts += 1
            return os.pwrite(fd, data[: self._random.randrange(1, len(data) + 1)], offset)
        return os.pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        self.sync_gate.wait(30)
        with self._counting:
            self.syncs += 1
        if self.sync_error is not None:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        os.fdatasync(fd)


class SyncLog:
    """What was made durable and what was named, in order: put in place of `os.fsync`, `os.link` and `Path.rename`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[str, str]] = []
        fsync, link, rename = os.fsync, os.link, Path.rename

        def logged_fsync(fd: int) -> None:
            self.done.append(("sync", Path(f"/proc/self/fd/{fd}").readlink().name))
            fsync(fd)

        def logged_link(source: Path | str, target: Path | str, **places: int) -> None:
            link(source, target, **places)
            self.done.append(("link", Path(target).name))

        def logged_rename(source: Path, target: Path) -> Path:
            self.done.append(("rename", target.name))
            return rename(source, target)

        monkeypatch.setattr(os, "fsync", logged_fsync)
        monkeypatch.setattr(os, "link", logged_link)
        monkeypatch.setattr(Path, "rename", logged_rename)
