"""Bytes that wait on disk for a moment, unreadable: an unnamed file under a key that only this process ever has.

Encoders go back to a file's beginning once they know its length, while what is sealed or piped can only go forward. So
the first block stays in memory and may be rewritten; each later block is sealed once, when it is full.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recording.errors import ExportError

BLOCK_BYTES: Final = 256 * 1024
_TAG_LEN: Final = 16


class Scratch:
    """A file to be written from front to back, but for its first block; then given out once, front to back.

    Not for several threads. Its memory is two blocks, whatever it holds.
    """

    def __init__(self, directory: Path) -> None:
        """Raises OSError where no file can be made in `directory`."""
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115  # closed by `close`
        self._cipher = AESGCM(os.urandom(32))
        self._first = bytearray()
        self._open = bytearray()
        self._sealed = 0
        self._at = 0

    def close(self) -> None:
        """Let the file go; nothing of it can be read without the key."""
        self._file.close()

    @property
    def size(self) -> int:
        return len(self._first) + self._sealed * BLOCK_BYTES + len(self._open)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """At the place of the last `seek` or `write`.

        Raises:
            ExportError: that is neither within the first block nor at the end.
            OSError: the disk.
        """
        view = memoryview(data).cast("B")
        if self._at < len(self._first):
            kept = view[: len(self._first) - self._at]
            self._first[self._at : self._at + len(kept)] = kept
            self._at += len(kept)
            view = view[len(kept) :]
        if view:
            self._append(view)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        """As a file's."""
        return self._at

    def blocks(self) -> Iterator[bytes]:
        """Everything, from the front. Nothing is written afterwards."""
        yield bytes(self._first)
        self._file.seek(0)
        for number in range(self._sealed):
            yield self._cipher.decrypt(_nonce(number), self._read(BLOCK_BYTES + _TAG_LEN), None)
        yield bytes(self._open)

    def _append(self, view: memoryview) -> None:
        if self._at != self.size:
            raise ExportError(
                f"the encoder writes at byte {self._at} of {self.size}, which was sealed already"
            )
        self._at += len(view)
        room = BLOCK_BYTES - len(self._first)
        self._first += view[:room]
        self._open += view[room:]
        while len(self._open) >= BLOCK_BYTES:
            self._seal(bytes(self._open[:BLOCK_BYTES]))
            del self._open[:BLOCK_BYTES]

    def _seal(self, block: bytes) -> None:
        left = memoryview(self._cipher.encrypt(_nonce(self._sealed), block, None))
        self._sealed += 1
        while left:
            left = left[self._file.write(left) or 0 :]

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length and (more := self._file.read(length - len(data))):
            data += more
        return data


def _nonce(number: int) -> bytes:
    """Each block has its number, once, under a key of this object's own."""
    return number.to_bytes(12, "big")
