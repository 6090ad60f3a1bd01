"""A file that appears under its name when it is whole, readable by its owner alone, and never in place of another."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
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
        with _new_file(path, directory) as (file, link_from):
            yield file
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(link_from, path.name, src_dir_fd=directory, dst_dir_fd=directory)
            except FileExistsError as error:
                raise _taken(path) from error
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def _new_file(path: Path, directory: int) -> Iterator[tuple[BinaryIO, str]]:
    """A file of mode 0600 in `path`'s directory, and what to link its name from; gone at the end if nothing did."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(path.parent, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _NO_UNNAMED_FILES:
            raise
    else:
        with os.fdopen(descriptor, "wb") as file:
            yield file, f"/proc/self/fd/{descriptor}"
        return
    part = f".{path.name}.{secrets.token_hex(8)}.part"
    descriptor = os.open(part, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, part
    finally:
        os.unlink(part, dir_fd=directory)


def _taken(path: Path) -> ExportError:
    return ExportError(f"{path} exists already; name another file")
