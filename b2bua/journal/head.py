"""Where a chained log stands: which line was its last, and which write is under way.

The file has two slots, written in turn, each with a checksum: a torn write spoils one and leaves the other. It holds
hashes, sizes and random ids, nothing of what the lines say. Whoever appends holds its lock, so that several processes
append to one chain.

Before records are written the head claims them: where they go and what the chain is then. A writer that dies in between
leaves the claim, and the file's size tells whether the records got there, without a key.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from b2bua.errors import JournalError
from b2bua.journal.chain import HASH_BYTES, ChainHead, genesis

NAME: Final = "head"
SEGMENT_GLOB: Final = "*.crec*"
LOCK_WAIT_S: Final = 5.0
"""A commit takes some ms; a lock held for longer is held by a process that hangs."""
_LOCK_RETRY_S: Final = 0.002
_SLOT_BYTES: Final = 4096
_DIGEST_BYTES: Final = 2 * HASH_BYTES
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Records about to be written: the file's size before and after them, and the chain before them."""

    file_id: bytes
    size_before: int
    size_after: int
    previous: ChainHead


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """`segments`: files begun so far; the next one's number. `last_file_id`: the file that was begun last."""

    log_id: bytes
    generation: int
    chain: ChainHead
    segments: int = 0
    last_file_id: bytes | None = None
    claim: Claim | None = None


class HeadFile:
    """The head of one directory. Not for several threads."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, directory: Path) -> Self:
        """The head of a log, made where the directory is new (mode 0700).

        Raises:
            JournalError: the directory can't be used or others may enter it; or it holds segments and no head.
        """
        path = directory / NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = directory.stat().st_mode
            if mode & 0o077:
                raise JournalError(
                    f"{directory} has mode {mode & 0o7777:04o}, others may enter it; run: chmod 700 {directory}"
                )
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror}; the log needs a directory of its own") from error
        file = cls(path, descriptor)
        try:
            with file.locked():
                file._make(directory)
        except BaseException:
            file.close()
            raise
        return file

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock. Raises JournalError where another process does not let go of it."""
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise JournalError(
                        f"{self._path} is locked by another process that does not go on"
                    ) from None
                time.sleep(_LOCK_RETRY_S)
            except OSError as error:
                raise JournalError(f"{self._path}: {error.strerror}") from error
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def read(self) -> Head:
        """The newer slot that is whole. Raises JournalError where neither is."""
        try:
            found = [slot for at in (0, 1) if (slot := parse_slot(self._slot(at))) is not None]
        except OSError as error:
            raise JournalError(f"{self._path}: {error.strerror}") from error
        if not found:
            raise JournalError(
                f"{self._path} can't be read; restore it from a backup, or move the directory away to begin a new log"
            )
        return max(found, key=lambda head: head.generation)

    def write(self, head: Head, *, sync: bool) -> None:
        """Replace the older slot. `head.generation` must be one more than the other slot's. Raises OSError."""
        text = json.dumps(_as_json(head), separators=(",", ":")).encode()
        data = hashlib.sha256(text).hexdigest().encode() + text
        assert len(data) <= _SLOT_BYTES, "ids, sizes and hashes have a bounded length"
        written = os.pwrite(
            self._descriptor, data.ljust(_SLOT_BYTES, b"\n"), _SLOT_BYTES * (head.generation % 2)
        )
        if written != _SLOT_BYTES:
            raise OSError(28, os.strerror(28))
        if sync:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file. Does nothing twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _make(self, directory: Path) -> None:
        try:
            if os.fstat(self._descriptor).st_size:
                self.read()
                return
            if any(directory.glob(SEGMENT_GLOB)):
                raise JournalError(
                    f"{directory} holds segments but no head; judge a copy (b2bua audit verify --directory COPY), then "
                    f"restore {NAME} from a backup, or move them away"
                )
            log_id = secrets.token_bytes(16)
            head = Head(log_id=log_id, generation=0, chain=genesis(log_id))
            self.write(head, sync=True)
            sync_directory(directory)
        except OSError as error:
            raise JournalError(f"{self._path}: {error.strerror}") from error

    def _slot(self, number: int) -> bytes:
        return os.pread(self._descriptor, _SLOT_BYTES, number * _SLOT_BYTES)


def read_head_file(directory: Path) -> Head | None:
    """The head of a log for whoever only reads it; None where there is none.

    Raises:
        JournalError: it can't be read.
    """
    try:
        descriptor = os.open(directory / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"{directory / NAME}: {error.strerror}") from error
    file = HeadFile(directory / NAME, descriptor)
    try:
        return file.read()
    finally:
        file.close()


def sync_directory(directory: Path) -> None:
    """Make names in `directory` durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_json(head: Head) -> dict[str, object]:
    claim = head.claim
    return {
        "v": _VERSION,
        "log": head.log_id.hex(),
        "generation": head.generation,
        "chain": head.chain.as_json(),
        "segments": head.segments,
        "last": None if head.last_file_id is None else head.last_file_id.hex(),
        "claim": None
        if claim is None
        else {
            "file": claim.file_id.hex(),
            "before": claim.size_before,
            "after": claim.size_after,
            "previous": claim.previous.as_json(),
        },
    }


def parse_slot(data: bytes) -> Head | None:
    """The head that a slot of the file holds; None where the slot is not whole, or of another version."""
    digest, text = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:].rstrip(b"\n")
    if not text or hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    try:
        found = json.loads(text)
        if found["v"] != _VERSION:
            return None
        claim = found["claim"]
        return Head(
            log_id=bytes.fromhex(found["log"]),
            generation=_whole(found["generation"]),
            chain=_chain(found["chain"]),
            segments=_whole(found["segments"]),
            last_file_id=None if found["last"] is None else bytes.fromhex(found["last"]),
            claim=None
            if claim is None
            else Claim(
                file_id=bytes.fromhex(claim["file"]),
                size_before=_whole(claim["before"]),
                size_after=_whole(claim["after"]),
                previous=_chain(claim["previous"]),
            ),
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _chain(found: dict[str, Any]) -> ChainHead:
    return ChainHead(sequence=_whole(found["sequence"]), hash=bytes.fromhex(found["hash"]))


def _whole(value: object) -> int:
    """A number as it is written here; JSON also has infinities."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("not a whole number")
    return value
