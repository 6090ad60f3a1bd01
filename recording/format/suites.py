"""Cipher suites: what turns a data key into the keys of one segment.

Source: RFC 5869 (HKDF), NIST SP 800-38D section 8.2.1 (deterministic nonce), docs/recording-format.md, Keys.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DEK_LEN: Final = 32
_INFO_PREFIX: Final = b"crec/v1/"


class Suite(enum.IntEnum):
    """Suites that this version reads and writes.

    0x0002 is reserved for nonces that a module makes and the record stores.
    """

    AES_256_GCM_HKDF_SHA256 = 0x0001


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentKeys:
    """What one data key yields for one core header: the record cipher, the public commitment to the key."""

    body: AESGCM = field(repr=False)
    commitment: bytes

    def match(self, commitment: bytes) -> bool:
        """Whether the file commits to this key; takes the same time wherever the values differ."""
        return hmac.compare_digest(self.commitment, commitment)


def derive_keys(dek: bytes | bytearray, *, salt: bytes, core: bytes) -> SegmentKeys:
    """The keys of the segment whose core header is `core`, every byte of it.

    Borrows `dek`, which stays the caller's to wipe.
    """
    if len(dek) != DEK_LEN:
        raise ValueError(f"a data key has {DEK_LEN} bytes, not {len(dek)}")
    core_hash = hashlib.sha256(core).digest()
    body_key = bytearray(DEK_LEN)
    try:
        _derive(dek, salt, b"body", core_hash, body_key)
        body = AESGCM(body_key)
    finally:
        wipe(body_key)
    commitment = bytearray(DEK_LEN)
    _derive(dek, salt, b"commit", core_hash, commitment)
    return SegmentKeys(body=body, commitment=bytes(commitment))


def wipe(secret: bytearray | memoryview) -> None:
    """Overwrite with zeros. Best effort: copies within the runtime or the cipher library are out of reach."""
    secret[:] = bytes(len(secret))


def _derive(dek: bytes | bytearray, salt: bytes, label: bytes, core_hash: bytes, out: bytearray) -> None:
    HKDF(
        algorithm=SHA256(), length=len(out), salt=salt, info=_INFO_PREFIX + label + b"\0" + core_hash
    ).derive_into(dek, out)
