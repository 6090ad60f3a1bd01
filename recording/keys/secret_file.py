"""Files that only this process's user may read: key-encryption keys, tokens, PINs, private keys."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from recording.keys.errors import KeyConfigurationError

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_LINE_MAX_BYTES: Final = 4096


def read_secret(path: Path, *, setting: str, cure: str, most_bytes: int) -> bytes:
    """What is in `path`, up to `most_bytes` + 1 bytes: one more than is allowed, so that the caller sees it.

    Owner and mode are those of the file that was opened, not of a name looked up twice. `setting` and `cure`
    tell an operator which key of the configuration names the file and what to do if it is not there.

    Raises:
        KeyConfigurationError: says which rule the file breaks.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyConfigurationError(f"{path}: {error.strerror}; {cure} or mend `{setting}`") from error
    try:
        _check(path, os.fstat(fd), setting)
        return _read(fd, most_bytes + 1)
    except OSError as error:
        raise KeyConfigurationError(f"{path}: {error.strerror}; the file cannot be read") from error
    finally:
        os.close(fd)


def _read(fd: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count and (piece := os.read(fd, count - len(data))):
        data += piece
    return bytes(data)


def _check(path: Path, status: os.stat_result, setting: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyConfigurationError(f"{path} is not a regular file; `{setting}` must name the file itself")
    if status.st_mode & _OTHERS:
        raise KeyConfigurationError(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, others may use it; run: chmod 600 {path}"
        )
    if status.st_uid != os.geteuid():
        raise KeyConfigurationError(
            f"{path} belongs to user {status.st_uid}, this process runs as {os.geteuid()}; "
            f"run: chown {os.geteuid()} {path}"
        )


class SecretLine:
    """One line of printable ASCII in a file, read again whenever the file has changed.

    Whoever renews a token replaces the file; nothing needs to be restarted. Any thread.
    """

    def __init__(self, path: Path, *, setting: str) -> None:
        """Nothing is read yet."""
        self.path = path
        self._setting = setting
        self._stamp: tuple[int, ...] | None = None
        self._text = ""

    def read(self) -> str:
        """The line without its end.

        Raises:
            KeyConfigurationError: missing, readable by others, of another user, empty, or more than a line.
        """
        stamp = self.stamp()
        if stamp is None or stamp != self._stamp:
            self._text = self._load()
            self._stamp = stamp
        return self._text

    def stamp(self) -> tuple[int, ...] | None:
        """Differs when the file was written or replaced; None while there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )  # fmt: skip

    def _load(self) -> str:
        data = read_secret(
            self.path, setting=self._setting, cure="put it there, mode 0600,", most_bytes=_LINE_MAX_BYTES
        )
        text = data.removesuffix(b"\n").decode("ascii", "replace")
        if not text or len(data) > _LINE_MAX_BYTES or not text.isascii() or not text.isprintable():
            raise KeyConfigurationError(
                f"{self.path} must hold one line of printable ASCII; write it again without anything else"
            )
        return text
