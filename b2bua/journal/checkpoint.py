"""Signed heads of an audit log, to be kept elsewhere: they show that a whole log was put back to an older state.

One compact JWS a line, appended to a file that may lie on another system. Each says that the chain had reached a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from b2bua.errors import JournalError
from b2bua.journal.chain import HASH_BYTES, ChainHead
from b2bua.journal.verify import Anchor
from recording.errors import MalformedContentError
from recording.signing import SigningKey, Verifier

CHECKPOINT_TYPE: Final = "crec-checkpoint"
"""`typ` in the signature's header, so that a manifest's signature is none over a checkpoint."""
_VERSION: Final = 1
_LOG_ID_BYTES: Final = 16
_READ_MAX: Final = 256 * 1024 * 1024
"""Some 500,000 checkpoints: five years of one every five minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """That the chain of a log had reached `chain` when `files` files had been begun, at `at` (aware UTC)."""

    log_id: bytes
    chain: ChainHead
    files: int
    at: datetime

    def build(self) -> bytes:
        """The JSON that is signed."""
        document = {
            "v": _VERSION,
            "log": self.log_id.hex(),
            **self.chain.as_json(),
            "files": self.files,
            "at": self.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Raises MalformedContentError for what `build` did not write."""
        try:
            found = json.loads(payload)
            if found["v"] != _VERSION:
                raise MalformedContentError(
                    f"a checkpoint of version {found['v']!r}; this program knows {_VERSION}"
                )
            checkpoint = cls(
                log_id=bytes.fromhex(found["log"]),
                chain=ChainHead(sequence=_number(found["sequence"]), hash=bytes.fromhex(found["hash"])),
                files=_number(found["files"]),
                at=datetime.fromisoformat(found["at"]),
            )
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise MalformedContentError("a checkpoint that can't be read") from error
        if len(checkpoint.log_id) != _LOG_ID_BYTES or len(checkpoint.chain.hash) != HASH_BYTES:
            raise MalformedContentError("a checkpoint with ids of another length")
        return checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """What a file of checkpoints holds: heads that are vouched for, and what is wrong with other lines."""

    anchors: tuple[Anchor, ...] = ()
    problems: tuple[str, ...] = ()


def append_checkpoint(path: Path, checkpoint: Checkpoint, key: SigningKey) -> None:
    """Sign it and add it to the file, durably; the file is made (mode 0600) where it is missing. Raises OSError."""
    line = key.sign(checkpoint.build(), typ=CHECKPOINT_TYPE) + b"\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(28, os.strerror(28))
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoints(path: Path, verifier: Verifier) -> Checkpoints:
    """The checkpoints of a file; none where it is missing. A last line without its end is what a crash left.

    Raises:
        JournalError: the file can't be read.
    """
    try:
        with path.open("rb") as file:
            lines = file.read(_READ_MAX).split(b"\n")[:-1]
    except FileNotFoundError:
        return Checkpoints()
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error
    anchors: list[Anchor] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        source = f"checkpoint {number} of {path.name}"
        found = _anchor(line, verifier, source)
        if isinstance(found, str):
            problems.append(f"{source}: {found}")
        else:
            anchors.append(found)
    return Checkpoints(anchors=tuple(anchors), problems=tuple(problems))


def latest(anchors: Sequence[Anchor]) -> int:
    """The highest line that is vouched for, 0 if none is."""
    return max((anchor.chain.sequence for anchor in anchors), default=0)


def _anchor(line: bytes, verifier: Verifier, source: str) -> Anchor | str:
    payload, why = verifier.verify(line, typ=CHECKPOINT_TYPE)
    if payload is None:
        return why
    try:
        checkpoint = Checkpoint.parse(payload)
    except MalformedContentError as error:
        return str(error)
    return Anchor(log_id=checkpoint.log_id, chain=checkpoint.chain, source=source)


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("counts are whole numbers")
    return value
