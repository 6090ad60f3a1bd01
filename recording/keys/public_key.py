"""RSA-OAEP with SHA-256 as key provider: whoever has the public key wraps, with no network at all.

The recorder needs nothing else, so a tenant's recordings go on while its key service is away. Nothing binds a slot to
its file here; the commitment refuses a transplanted one. A forged whole file is its manifest's matter.

Source: RFC 8017 section 7.1 (RSAES-OAEP; SHA-256 for the hash and for MGF1, no label); NIST SP 800-57 part 1,
table 2 (3072 bits); docs/recording-format.md, Key slots.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from recording.format.slots import KeySlot, SlotProvider
from recording.keys.errors import (
    ContextMismatchError,
    KeyConfigurationError,
    NotPermittedError,
    UnknownKeyError,
)
from recording.keys.provider import (
    DEK_BYTES,
    DataKey,
    KeyContext,
    KeyLifecycle,
    KeyVersion,
    require_own,
)
from recording.keys.secret_file import read_secret
from recording.keys.transit import Transit, check_key_name, decoded_dek
from recording.settings import RSAKeySettings

LEAST_BITS: Final = 3072
MOST_BITS: Final = 8192
_PEM_MAX_BYTES: Final = 16 * 1024  # a PEM private key of 8192 bits has about 6.4 KiB


class RSAPublicKeyProvider:
    """One RSA key pair, of which this configuration may have the public part alone. Any thread."""

    def __init__(self, name: str, settings: RSAKeySettings) -> None:
        """Read the key files; no request is sent.

        Raises:
            KeyConfigurationError: no key file, one that holds no fit RSA key, parts that are not a pair, a private
            key that others may read, a transit section that cannot be used.
        """
        self.name = name
        private_path, public_path = settings.private_key_path, settings.public_key_path
        self._path = private_path or public_path
        self._private = None if private_path is None else read_private_key(private_path)
        if public_path is not None:
            self._public = read_public_key(public_path)
        elif self._private is not None:
            self._public = self._private.public_key()
        else:
            raise KeyConfigurationError(f"keys.{name}: name `public_key`, or `private_key` where it is kept")
        encoded = _encoded(self._public)
        if self._private is not None and _encoded(self._private.public_key()) != encoded:
            raise KeyConfigurationError(
                f"keys.{name}: `private_key` is not the private part of `public_key`; name two files of one pair"
            )
        self._transit = None if settings.transit is None else _TransitHolder(name, settings, encoded)
        self.slot_provider: int = SlotProvider.RSA_OAEP_SHA256
        self.slot_key_id = hashlib.sha256(encoded).hexdigest().encode()

    def new_key(self, context: KeyContext) -> DataKey:
        del context  # OAEP's label is not used: not every key service can be given one
        dek = bytearray(secrets.token_bytes(DEK_BYTES))
        return DataKey(dek=dek, slot=self._wrap(dek))

    def unwrap(self, slot: KeySlot, context: KeyContext) -> bytearray:
        """Raises NotPermittedError where this configuration has the public part alone."""
        del context
        require_own(self, slot)
        if self._private is None and self._transit is None:
            raise NotPermittedError(
                f"keys.{self.name} has the public part alone; open it where the private part is"
            )
        if len(slot.wrapped) != self._public.key_size // 8:
            raise ContextMismatchError(
                f"a data key under this RSA key has {self._public.key_size // 8} bytes, this one {len(slot.wrapped)}"
            )
        if self._private is None:
            assert self._transit is not None
            return self._transit.unwrap(slot.wrapped)
        return _decrypted(self._private, slot.wrapped)

    def rewrap(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        """The holder of the private part opens the slot and wraps anew; the data key passes through this process."""
        dek = self.unwrap(slot, context)
        try:
            return self._wrap(dek)
        finally:
            dek[:] = bytes(len(dek))

    def lifecycle(self) -> KeyLifecycle:
        """One version. Only a transit server knows since when; a file's age says nothing of its key's."""
        if self._transit is not None:
            return self._transit.lifecycle()
        return KeyLifecycle(versions=(KeyVersion(number=1, created_at=None),))

    def describe(self) -> dict[str, str]:
        """A private part in a file is whoever's who can read the file: not what production keeps keys in."""
        is_in_file = self._private is not None
        told = {
            "kind": "rsa-oaep-sha256",
            "key_id": self.slot_key_id.decode(),
            "bits": str(self._public.key_size),
            "path": str(self._path),
            "unwraps_with": "private key file" if is_in_file else "public part alone",
            "fit_for_production": "no" if is_in_file else "yes",
        }
        if self._transit is not None and not is_in_file:
            told |= self._transit.describe()
        return told

    def health(self) -> None:
        """The files were read at the start; a transit server is asked whether it has the key."""
        if self._transit is not None:
            self._transit.version()

    def _wrap(self, dek: bytearray) -> KeySlot:
        return KeySlot(
            provider=self.slot_provider,
            key_id=self.slot_key_id,
            wrapped=self._public.encrypt(bytes(dek), _oaep()),
        )


class _TransitHolder:
    """The private part as a key of a transit server, found there by its public part."""

    def __init__(self, name: str, settings: RSAKeySettings, encoded: bytes) -> None:
        assert settings.transit is not None
        check_key_name(name, settings.transit.key)
        self._name = name
        self._key = settings.transit.key
        self._server = Transit(name, settings.transit.server)
        self._encoded = encoded
        self._version: int | None = None

    def unwrap(self, wrapped: bytes) -> bytearray:
        ciphertext = f"vault:v{self.version()}:{base64.b64encode(wrapped).decode()}"
        answer = self._server.post("decrypt", self._key, {"ciphertext": ciphertext})
        return decoded_dek(answer)

    def version(self) -> int:
        """Which version of the server's key has our public part; it never changes. Raises UnknownKeyError: none."""
        if self._version is None:
            keys = self._server.read_key(self._key).get("keys")
            self._version = next(
                (
                    int(number)
                    for number, told in (keys.items() if isinstance(keys, dict) else ())
                    if isinstance(number, str)
                    and number.isdecimal()
                    and len(number) < 10
                    and self._is_ours(told)
                ),
                None,
            )
        if self._version is None:
            raise UnknownKeyError(
                f"no version of key {self._key} of {self._server.address} is the private part of keys.{self._name}"
            )
        return self._version

    def lifecycle(self) -> KeyLifecycle:
        number = self.version()
        found = self._server.lifecycle(self._key)
        return KeyLifecycle(versions=tuple(version for version in found.versions if version.number == number))

    def describe(self) -> dict[str, str]:
        return {
            "unwraps_with": self._server.key_id(self._key).decode(),
            "endpoint": self._server.address,
            "tls_floor": self._server.tls_floor.value,
        }

    def _is_ours(self, told: object) -> bool:
        pem = told.get("public_key") if isinstance(told, Mapping) else None
        if not isinstance(pem, str):
            return False
        try:
            key = serialization.load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm):
            return False
        return isinstance(key, rsa.RSAPublicKey) and _encoded(key) == self._encoded


def read_public_key(path: Path) -> rsa.RSAPublicKey:
    """The RSA public key of a PEM file. Raises KeyConfigurationError: says what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(_PEM_MAX_BYTES + 1)
    except OSError as error:
        raise KeyConfigurationError(f"{path}: {error.strerror}; mend `public_key`") from error
    if b"PRIVATE KEY" in data:
        raise KeyConfigurationError(
            f"{path} holds a private key; `public_key` must name the public part alone"
        )
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyConfigurationError(
            f"{path} holds no PEM public key; make one with: openssl pkey -in KEY -pubout"
        ) from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise KeyConfigurationError(f"{path} holds no RSA key; RSA-OAEP needs one")
    _require_fit(path, key)
    return key


def read_private_key(path: Path) -> rsa.RSAPrivateKey:
    """The RSA private key of an unencrypted PEM file, mode 0600. Raises KeyConfigurationError."""
    data = read_secret(path, setting="private_key", cure="put the key there", most_bytes=_PEM_MAX_BYTES)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise KeyConfigurationError(
            f"{path} holds no unencrypted PEM private key; write it as PKCS #8"
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyConfigurationError(f"{path} holds no RSA key; RSA-OAEP needs one")
    _require_fit(path, key.public_key())
    return key


def _require_fit(path: Path, key: rsa.RSAPublicKey) -> None:
    exponent = key.public_numbers().e
    if not LEAST_BITS <= key.key_size <= MOST_BITS or key.key_size % 8 or exponent < 65537:
        raise KeyConfigurationError(
            f"{path}: an RSA key of {key.key_size} bits with exponent {exponent}; "
            f"use one of {LEAST_BITS} to {MOST_BITS} bits and exponent 65537"
        )


def _encoded(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _oaep() -> padding.OAEP:
    return padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


def _decrypted(key: rsa.RSAPrivateKey, wrapped: bytes) -> bytearray:
    try:
        dek = bytearray(key.decrypt(wrapped, _oaep()))
    except ValueError as error:
        raise ContextMismatchError("the wrapped data key was altered, or another key wrapped it") from error
    if len(dek) != DEK_BYTES:
        dek[:] = bytes(len(dek))
        raise ContextMismatchError(f"what was wrapped is no data key of {DEK_BYTES} bytes")
    return dek
