"""The chain of an audit log: each line carries its number and a hash over the hash before it and itself. Pure.

A stored line is a JSON object whose first key is `seq` and whose last is `hash`. Without `,"hash":"…"` it is the body
again, and

    hash(n) = SHA-256(hash(n - 1) || body(n)),    hash(0) = SHA-256("crec/v1/chain" || 0x00 || log id)

so that no line can be changed, taken out, put in or moved without changing every hash after it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from recording.errors import MalformedContentError

HASH_BYTES: Final = 32
_LABEL: Final = b"crec/v1/chain\0"
_OPEN, _CLOSE = b',"hash":"', b'"}'
_TAIL: Final = len(_OPEN) + 2 * HASH_BYTES + len(_CLOSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """The last line of a chain: its number, counted from 1 (0: there is none yet), and its hash."""

    sequence: int
    hash: bytes

    def as_json(self) -> dict[str, object]:
        return {"sequence": self.sequence, "hash": self.hash.hex()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainedLine:
    """A line as it was read. `body` is what the hash covers; `values` its JSON, without number and hash."""

    sequence: int
    hash: bytes
    body: bytes
    values: dict[str, Any]

    @property
    def head(self) -> ChainHead:
        return ChainHead(sequence=self.sequence, hash=self.hash)

    def follows(self, previous: ChainHead) -> bool:
        """Whether this line is the one after `previous`, unchanged."""
        return self.sequence == previous.sequence + 1 and hmac.compare_digest(
            self.hash, _hash(previous.hash, self.body)
        )


def genesis(log_id: bytes) -> ChainHead:
    """What the first line of a log follows."""
    return ChainHead(sequence=0, hash=hashlib.sha256(_LABEL + log_id).digest())


def link(head: ChainHead, lines: Iterable[bytes]) -> tuple[list[bytes], ChainHead]:
    """The lines as they are stored, and the head after them.

    Args:
        head: what they follow.
        lines: JSON objects that are not empty, each with or without its newline.
    """
    linked = []
    for line in lines:
        text = line.rstrip(b"\n")
        assert text.startswith(b'{"'), "a line is a JSON object with at least one key"
        sequence = head.sequence + 1
        body = b'{"seq":%d,%s' % (sequence, text[1:])
        head = ChainHead(sequence=sequence, hash=_hash(head.hash, body))
        linked.append(body[:-1] + _OPEN + head.hash.hex().encode() + _CLOSE + b"\n")
    return linked, head


def read_line(stored: bytes) -> ChainedLine:
    """One stored line, with or without its newline; nothing in it is verified yet.

    Raises:
        MalformedContentError: it is not what `link` writes.
    """
    text = stored.rstrip(b"\n")
    body, tail = text[:-_TAIL] + b"}", text[-_TAIL:]
    try:
        values = json.loads(body)
        digest = bytes.fromhex(tail[len(_OPEN) : -len(_CLOSE)].decode("ascii"))
        sequence = values.pop("seq")
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise MalformedContentError("a line of the audit log is not of its form") from error
    is_formed = tail == _OPEN + digest.hex().encode() + _CLOSE and body.startswith(b'{"seq":')
    if not is_formed or type(sequence) is not int or sequence < 1 or len(digest) != HASH_BYTES:
        raise MalformedContentError("a line of the audit log is not of its form")
    return ChainedLine(sequence=sequence, hash=digest, body=body, values=values)


def _hash(previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(previous + body).digest()
