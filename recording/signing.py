"""Signatures over manifests and checkpoints: ES256 in compact JWS, by a key in a file, verified by public keys.

Source: RFC 7515 (JWS, compact serialisation), RFC 7518 section 3.4 (ES256), RFC 8725 (one algorithm, explicit types).
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from recording.keys.errors import KeyConfigurationError

ALGORITHM: Final = "ES256"
TOKEN_MAX: Final = 8192
_HALF: Final = 32
_FILE_MAX: Final = 65_536
_PART: Final = re.compile(rb"[A-Za-z0-9_-]+")
_ECDSA: Final = ec.ECDSA(SHA256())


class Standing(enum.Enum):
    """What a signature is worth. `signed`: by a configured key, over just this. `wrong`: there is one, and it isn't."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"
    WRONG = "wrong"


class SigningKey:
    """A P-256 key that signs. Any thread."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())
        self.kid = self.public.kid

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read an unencrypted PEM key of mode 0600.

        Raises:
            KeyConfigurationError: it can't be read, is readable by others, or is no P-256 key; says the cure.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                mode = os.fstat(descriptor).st_mode
                data = file.read(_FILE_MAX)
        except OSError as error:
            raise KeyConfigurationError(
                f"{path}: {error.strerror}; name the key that signs manifests"
            ) from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyConfigurationError(f"{path} may be used by others; run: chmod 600 {path}")
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError) as error:
            raise KeyConfigurationError(
                f"{path} holds no private key in PEM; make one with: b2bua init"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise KeyConfigurationError(
                f"{path} is no P-256 key; make one: openssl ecparam -genkey -name prime256v1"
            )
        return cls(key)

    def sign(self, payload: bytes, *, typ: str) -> bytes:
        """The compact JWS over `payload`."""
        header = {"alg": ALGORITHM, "kid": self.kid, "typ": typ}
        signed = _encode(json.dumps(header, separators=(",", ":")).encode()) + b"." + _encode(payload)
        r, s = decode_dss_signature(self._key.sign(signed, _ECDSA))
        return signed + b"." + _encode(r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big"))


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies. `kid`: the first 16 hex digits of SHA-256 over its SubjectPublicKeyInfo."""

    key: ec.EllipticCurvePublicKey = field(repr=False)

    @property
    def kid(self) -> str:
        der = self.key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(der).hexdigest()[:16]

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """Read a PEM public key. Raises KeyConfigurationError."""
        try:
            with path.open("rb") as file:
                key = serialization.load_pem_public_key(file.read(_FILE_MAX))
        except OSError as error:
            raise KeyConfigurationError(f"{path}: {error.strerror}; name a public key") from error
        except (ValueError, TypeError) as error:
            raise KeyConfigurationError(
                f"{path} holds no public key in PEM; make it: openssl pkey -in KEY -pubout"
            ) from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise KeyConfigurationError(f"{path} is no P-256 public key; only ES256 is verified")
        return cls(key)

    def pem(self) -> bytes:
        """For the configuration of whoever verifies."""
        return self.key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


class Verifier:
    """Verifies by the keys that the configuration names, several while one is being replaced. Any thread."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._keys = {key.kid: key for key in keys}

    @property
    def has_keys(self) -> bool:
        return bool(self._keys)

    def verify(self, token: bytes, *, typ: str) -> tuple[bytes | None, str]:
        """The payload and the signing key's id; or None and what is wrong with the token."""
        parts = token.strip().split(b".")
        if len(token) > TOKEN_MAX or len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
            return None, "it is no compact JWS"
        try:
            header = json.loads(_decode(parts[0]))
            signature = _decode(parts[2])
            payload = _decode(parts[1])
        except (ValueError, RecursionError):
            return None, "it is no compact JWS"
        if not isinstance(header, dict) or header.get("alg") != ALGORITHM or "crit" in header:
            return None, f"its algorithm is not {ALGORITHM}"
        if header.get("typ") != typ:
            return None, f"it is signed for something else than a {typ}"
        kid = header.get("kid")
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            return None, "it is signed by a key that is not configured"
        if len(signature) != 2 * _HALF:
            return None, "its signature has another length"
        der = encode_dss_signature(
            int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
        )
        try:
            key.key.verify(der, parts[0] + b"." + parts[1], _ECDSA)
        except InvalidSignature:
            return None, f"its signature by {key.kid} does not verify"
        return payload, key.kid


def create_signing_key(path: Path) -> PublicKey:
    """Make a P-256 key in a new file of mode 0600, and its public half in `<path>.pub`.

    Raises:
        KeyConfigurationError: a file is there already, or can't be made.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = PublicKey(key.public_key())
    try:
        for place, data, mode in ((path, private, 0o600), (public_path(path), public.pem(), 0o644)):
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
    except OSError as error:
        raise KeyConfigurationError(f"{path}: {error.strerror}; the key can't be made there") from error
    return public


def public_path(path: Path) -> Path:
    """Where the public half of a key lies that `create_signing_key` made."""
    return path.with_name(f"{path.name}.pub")


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(part: bytes) -> bytes:
    """Raises ValueError for what is no canonical base64url without padding."""
    try:
        data = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if _encode(data) != part:
        raise ValueError("not canonical base64url")
    return data
