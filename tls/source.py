"""Reading a small file once, together with what its inode says, so that no check is about other bytes."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tls.errors import MaterialProblem, ProblemCode

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Far above any chain or bundle (Debian's whole CA bundle is 0.2 MB), far below what would hurt to read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """The bytes of one file and the owner and mode they had when read."""

    path: Path
    data: bytes = field(repr=False)
    mode: int
    owner_uid: int

    @property
    def digest(self) -> bytes:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.data).digest()


def read_source(path: Path) -> SourceFile | MaterialProblem:
    """Read `path` whole, or say why that is impossible. Follows symbolic links; never blocks on a FIFO."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return _problem(ProblemCode.MISSING, path, "there is no such file", "create it or correct the path")
    except OSError as error:
        return _unreadable(path, error)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return _problem(ProblemCode.NOT_A_FILE, path, "it is not a regular file", "name a PEM file")
    try:
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return _unreadable(path, error)
    if len(data) > MAX_FILE_BYTES:
        return _problem(
            ProblemCode.TOO_LARGE, path, f"it is larger than {MAX_FILE_BYTES} bytes", "name a PEM file"
        )
    return SourceFile(path=path, data=data, mode=stat.S_IMODE(status.st_mode), owner_uid=status.st_uid)


def _problem(code: ProblemCode, path: Path, what: str, cure: str) -> MaterialProblem:
    return MaterialProblem(code=code, path=path, what=what, cure=cure)


def _unreadable(path: Path, error: OSError) -> MaterialProblem:
    return _problem(
        ProblemCode.UNREADABLE,
        path,
        f"it cannot be read ({error.strerror})",
        f"let user id {os.geteuid()} read it",
    )
