"""One record: a fixed-size chunk under AES-256-GCM.

Source: docs/recording-format.md, Records; NIST SP 800-38D section 8.2.1.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recording.errors import FormatError
from recording.format import limits

_NONCE: Final = struct.Struct(">BBHQ")
_INNER: Final = struct.Struct(">BBHIQ")
_COUNT: Final = struct.Struct(">Q")
_NONCE_KIND: Final = 0x01
COUNT_LEN: Final = _COUNT.size  # the record count at the start of a FINAL payload


class RecordType(enum.IntEnum):
    """What a record carries. Readers skip other values."""

    AUDIO = 1
    META = 2
    EVENT = 3
    DATA = 4
    FINAL = 0x7F


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An opened record.

    `type` is a plain number where the type is unknown. `payload` is a view of the decrypted chunk.
    """

    index: int
    type: int
    position: int
    payload: memoryview = field(repr=False)

    @property
    def is_final(self) -> bool:
        return self.type == RecordType.FINAL


def nonce(index: int, *, final: bool) -> bytes:
    """The nonce of record `index`.

    Each (key, index) pair is sealed once, so that no nonce repeats under a key.
    """
    return _NONCE.pack(_NONCE_KIND, final, 0, index)


def payload_capacity(chunk_size: int) -> int:
    """Payload bytes that a record of this chunk size holds."""
    return chunk_size - limits.INNER_HEADER_LEN


def write_inner_header(inner: bytearray, *, record_type: RecordType, payload_len: int, position: int) -> None:
    """Fill the first 16 bytes of a chunk in place."""
    _INNER.pack_into(inner, 0, record_type, 0, 0, payload_len, position)


def seal_inner(body: AESGCM, *, index: int, inner: bytearray) -> bytes:
    """Encrypt a whole chunk (header, payload, zeros).

    The caller has never sealed `index` under this key, and never will again.
    """
    return body.encrypt(nonce(index, final=inner[0] == RecordType.FINAL), inner, None)


def open_record(body: AESGCM, *, index: int, sealed: bytes | memoryview) -> Record:
    """Authenticate and open one record of the file.

    Raises:
        FormatError: it does not authenticate at this index, or what authenticates breaks a rule. `offset`
            counts within the record.
    """
    final = False
    try:
        inner = body.decrypt(nonce(index, final=False), sealed, None)
    except InvalidTag:
        final = True
        try:
            inner = body.decrypt(nonce(index, final=True), sealed, None)
        except InvalidTag as error:
            raise FormatError("does not authenticate", field=f"record {index}", offset=0) from error
    record_type, _, _, payload_len, position = _INNER.unpack_from(inner)
    if final != (record_type == RecordType.FINAL):
        raise FormatError(f"type {record_type:#x} under {final=}", field=f"record {index} type", offset=0)
    if payload_len > len(inner) - limits.INNER_HEADER_LEN:
        raise FormatError(
            f"{payload_len} is more than the chunk holds", field=f"record {index} payload_len", offset=4
        )
    payload = memoryview(inner)[limits.INNER_HEADER_LEN : limits.INNER_HEADER_LEN + payload_len]
    return Record(index=index, type=record_type, position=position, payload=payload)


def build_final(count: int, text: bytes) -> bytes:
    """A FINAL payload: the number of records in the file, this one included, then JSON."""
    return _COUNT.pack(count) + text


def final_count(record: Record) -> int | None:
    """The count that a FINAL record states, None where its payload is too short to hold one."""
    if len(record.payload) < COUNT_LEN:
        return None
    (count,) = _COUNT.unpack_from(record.payload)
    assert isinstance(count, int)
    return count
