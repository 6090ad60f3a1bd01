"""Files that appear under their names when they are whole, readable by their owner alone, never in place of another."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from recording.errors import ExportError

_NO_UNNAMED_FILES: Final = {errno.EOPNOTSUPP, errno.EISDIR}


@contextlib.contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """A new file of mode 0600, seekable; it gets its name, durably, when this is left without an error.

    It has none before, where the file system knows such files: a process that is killed leaves nothing behind.

    Raises:
        ExportError: something has the name already, or has got it meanwhile.
        OSError: from the file system.
    """
    if os.path.lexists(path):
        raise _taken(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with unnamed_file(path, directory) as new:
            yield new.file
            new.file.flush()
            os.fsync(new.file.fileno())
            try:
                new.link()
            except FileExistsError as error:
                raise _taken(path) from error
        os.fsync(directory)
    finally:
        os.close(directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnnamedFile:
    """A file that is being written, and where it will be: `name` in `directory`, a descriptor."""

    file: BinaryIO
    name: str
    directory: int
    source: str

    def link(self) -> None:
        """Give it its name; neither is durable by that. Raises FileExistsError: something has it."""
        os.link(self.source, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)


@contextlib.contextmanager
def in_place_of(path: Path, *, is_forced: bool) -> Iterator[Path]:
    """Where to write what takes the place of `path` when the block ends well; what is there stays until then.

    Not forced, or where nothing is there, it is `path` itself. Raises OSError.
    """
    if not (is_forced and path.exists()):
        yield path
        return
    target = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    yield target
    target.replace(path)


@contextlib.contextmanager
def unnamed_file(path: Path, directory: int) -> Iterator[UnnamedFile]:
    """A file of mode 0600 in `path`'s directory, open as `directory`; gone at the end if it was not linked."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(path.parent, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _NO_UNNAMED_FILES:
            raise
    else:
        with os.fdopen(descriptor, "wb") as file:
            yield _unnamed(file, path, directory, f"/proc/self/fd/{descriptor}")
        return
    part = f".{path.name}.{secrets.token_hex(8)}.part"
    descriptor = os.open(part, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield _unnamed(file, path, directory, part)
    finally:
        os.unlink(part, dir_fd=directory)


def _unnamed(file: BinaryIO, path: Path, directory: int, source: str) -> UnnamedFile:
    return UnnamedFile(file=file, name=path.name, directory=directory, source=source)


def _taken(path: Path) -> ExportError:
    return ExportError(f"{path} exists already; name another file")
