"""The local sink: a directory tree on a file system with hard links.

An object appears whole or not at all: it is linked into place once its bytes are durable. link(2) fails where the
name exists, which makes the store create-only without a window between looking and writing.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from recording.format import limits
from recording.format.manifest import MANIFEST_MAX
from recording.format.slots import sidecar_generation
from recording.private_file import UnnamedFile, unnamed_file
from recording.sinks.sink import (
    NO_RETENTION,
    ObjectConflictError,
    ObjectMissingError,
    ObjectName,
    Retention,
    SinkError,
    SinkRefusedError,
    SinkUnavailableError,
    SlotFile,
    by_object,
    check_directory,
    check_key,
    file_id_of,
    is_key,
    manifest_key,
    sidecar_key,
)

_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_COMPARE_BYTES: Final = 1 << 20
_LATER: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ESTALE}
)


class LocalSink:
    """Objects under `directory`, one file each, mode 0600. Any thread.

    A file system keeps nothing from its owner, so this store cannot lock.
    """

    locks = False
    part_bytes = None

    def __init__(self, directory: Path, *, name: str = "local") -> None:
        self.name = name
        self._directory = directory

    def put(self, source: Path, name: ObjectName) -> int:
        """As `Sink.put`: a link on the same file system, else a copy; `source` is gone afterwards."""
        target = self._directory / name.key
        with _translated(target):
            if not source.exists():
                return _present(target)
            expected = source.stat().st_size
            _make_directories(target.parent, below=self._directory)
            self._place(source, target)
            _sync_directory(target.parent)
            stored = target.stat().st_size
            if stored != expected:
                raise SinkUnavailableError(f"{name.key}: {expected} bytes were stored, {stored} are there")
            source.unlink(missing_ok=True)
            return stored

    def advance(self, source: Path, name: ObjectName, durable_bytes: int) -> None:
        """Nothing: whole files only."""

    def size(self, key: str) -> int | None:
        with _translated(path := self.path(key)):
            return path.stat().st_size if path.exists() else None

    def open(self, key: str) -> BinaryIO:
        path = self.path(key)
        with _translated(path):
            try:
                return path.open("rb")
            except FileNotFoundError as error:
                raise ObjectMissingError(f"no object {key}") from error

    def put_slots(self, key: str, generation: int, data: bytes) -> None:
        if self.put_all_slots([SlotFile(object_key=key, generation=generation, data=data)]):
            raise _conflict(sidecar_key(key, generation))

    def put_all_slots(self, files: Sequence[SlotFile]) -> list[SlotFile]:
        targets = [self._directory / sidecar_key(each.object_key, each.generation) for each in files]
        with _translated(self._directory):
            are_stored = self._write_all([each.data for each in files], targets)
        return [file for file, is_stored in zip(files, are_stored, strict=True) if not is_stored]

    def _write_all(self, contents: Sequence[bytes], targets: Sequence[Path]) -> list[bool]:
        """Small files, each create-only, durable together. False: something else is there.

        All are on their way to the disk before the first is waited for, so that the file system needs few commits
        of its journal; none gets its name before it is there; the names are then made durable by directory.
        """
        with contextlib.ExitStack() as stack:
            directories = {}
            for parent in {target.parent for target in targets}:
                _make_directories(parent, below=self._directory)
                directories[parent] = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, directories[parent])
            new = []
            for content, target in zip(contents, targets, strict=True):
                each = stack.enter_context(unnamed_file(target, directories[target.parent]))
                each.file.write(content)
                each.file.flush()
                os.posix_fadvise(each.file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # begins to write it out
                new.append(each)
            for each in new:
                os.fsync(each.file.fileno())
            are_stored = [
                _link(each, io.BytesIO(content), target)
                for each, content, target in zip(new, contents, targets, strict=True)
            ]
            for directory in directories.values():
                os.fsync(directory)
        return are_stored

    def slot_generations(self, key: str) -> list[int]:
        directory, file_id = self.path(key).parent, file_id_of(key)
        with _translated(directory):
            if not directory.exists():
                return []
            found = (sidecar_generation(entry.name, file_id=file_id) for entry in directory.iterdir())
            return sorted((generation for generation in found if generation is not None), reverse=True)

    def slots_below(self, directory: str) -> dict[str, list[int]]:
        place = self._directory / check_directory(directory)
        with _translated(place):
            if not place.exists():
                return {}
            with os.scandir(place) as entries:
                return by_object(f"{directory}{entry.name}" for entry in entries)

    def slots(self, key: str, generation: int) -> bytes:
        path = self._directory / sidecar_key(key, generation)
        with _translated(path):
            try:
                with path.open("rb") as file:
                    return file.read(limits.SIDECAR_LEN_MAX + 1)
            except FileNotFoundError as error:
                raise ObjectMissingError(f"no slots {path.name}") from error

    def put_manifest(self, key: str, data: bytes) -> None:
        target = self._directory / manifest_key(key)
        with _translated(target):
            self._write_all([data], [target])

    def manifest(self, key: str) -> bytes | None:
        path = self._directory / manifest_key(key)
        with _translated(path):
            try:
                with path.open("rb") as file:
                    return file.read(MANIFEST_MAX + 1)
            except FileNotFoundError:
                return None

    def keys(self, prefix: str = "") -> Iterator[str]:
        return self._keys_below(self._directory, "", prefix)

    def _keys_below(self, directory: Path, at: str, prefix: str) -> Iterator[str]:
        """Depth first, each directory sorted by name: as object stores sort whole keys."""
        with _translated(directory):
            names = sorted(entry.name for entry in directory.iterdir()) if directory.exists() else []
        for name in names:
            key = f"{at}{name}"
            below = f"{key}/"
            if key.startswith(prefix) and is_key(key):
                yield key
            elif (below.startswith(prefix) or prefix.startswith(below)) and (directory / name).is_dir():
                yield from self._keys_below(directory / name, below, prefix)

    def path(self, key: str) -> Path:
        """The file that holds an object, whether or not it exists.

        Raises ObjectMissingError for what is no object key.
        """
        return self._directory / check_key(key)

    def health(self) -> None:
        with _translated(self._directory):
            _make_directories(self._directory, below=self._directory.parent)
            probe = self._directory / f".probe-{secrets.token_hex(8)}"
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
            probe.unlink()

    def delete(self, key: str) -> None:
        path = self.path(key)
        with _translated(path):
            if path.parent.exists():
                path.unlink(missing_ok=True)
                for generation in self.slot_generations(key):  # of no use to anybody without the object
                    (self._directory / sidecar_key(key, generation)).unlink(missing_ok=True)
                (self._directory / manifest_key(key)).unlink(missing_ok=True)
                _sync_directory(path.parent)
            if os.path.lexists(path):
                raise SinkRefusedError(
                    f"{key}: the file was removed and is there again; somebody else writes here"
                )

    def retention(self, key: str) -> Retention:
        if self.size(key) is None:
            raise ObjectMissingError(f"no object {key}")
        return NO_RETENTION

    def extend_retention(self, key: str, until: datetime) -> Retention:
        del until
        self._cannot_lock(key)

    def set_hold(self, key: str, *, is_held: bool) -> Retention:
        del is_held
        self._cannot_lock(key)

    def _cannot_lock(self, key: str) -> NoReturn:
        self.retention(key)
        raise SinkRefusedError(
            f"{key}: a file system cannot keep a file from its owner; retention here is the index's alone"
        )

    def _place(self, source: Path, target: Path) -> None:
        try:
            os.link(source, target)
        except FileExistsError as error:
            if source.samefile(target):
                return
            with source.open("rb") as ours:
                if not _is_same(ours, target):
                    raise _conflict(target.name) from error
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    """Across file systems: a durable copy in the directory of `target`, then linked into place."""
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with source.open("rb") as original, unnamed_file(target, directory) as copy:
            shutil.copyfileobj(original, copy.file, _COMPARE_BYTES)
            copy.file.flush()
            os.fsync(copy.file.fileno())
            original.seek(0)
            if not _link(copy, original, target):
                raise _conflict(target.name)
    finally:
        os.close(directory)


def _link(new: UnnamedFile, ours: BinaryIO, target: Path) -> bool:
    """Give the file its name, or find that the same content has it already; False: other content."""
    try:
        new.link()
    except FileExistsError:
        return _is_same(ours, target)
    return True


def _is_same(ours: BinaryIO, target: Path) -> bool:
    """Whether the object that is there is from an attempt of ours; then it is durable afterwards, but for its name."""
    with target.open("rb") as theirs:
        while block := ours.read(_COMPARE_BYTES):
            if theirs.read(len(block)) != block:
                return False
        if theirs.read(1):
            return False
        os.fsync(theirs.fileno())  # whoever put it there may not have got so far
    return True


def _conflict(name: str) -> ObjectConflictError:
    return ObjectConflictError(f"{name} exists with other content; it was left as it is")


def _present(target: Path) -> int:
    if not target.exists():
        raise ObjectMissingError(f"neither the spooled file nor the object {target.name} is there")
    _sync_directory(target.parent)
    return target.stat().st_size


def _make_directories(directory: Path, *, below: Path) -> None:
    """Make what is missing of `directory`, durably: each new name is synced in the directory that holds it."""
    missing = []
    at = directory
    while not at.exists() and at != below.parent:
        missing.append(at)
        at = at.parent
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=_DIRECTORY_MODE)
        _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The one place where the operating system's errors become a sink's."""
    try:
        yield
    except SinkError:
        raise
    except OSError as error:
        what = f"{path}: {error.strerror}"
        if error.errno in _LATER:
            raise SinkUnavailableError(f"{what}; the recording stays in the spool") from error
        raise SinkRefusedError(f"{what}; check the directory, its owner and its file system") from error
