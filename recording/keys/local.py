"""The development key provider: AES-KW under a key-encryption key in a local file.

Source: RFC 3394 (AES key wrap). Nothing binds a slot to its file here; the commitment refuses a transplanted
one (docs/recording-format.md, Key slots).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from recording.format.slots import KeySlot, SlotProvider
from recording.keys.errors import ContextMismatchError, KeyConfigurationError
from recording.keys.provider import (
    DEK_BYTES,
    DataKey,
    KeyContext,
    KeyLifecycle,
    KeyVersion,
    require_own,
)
from recording.keys.secret_file import read_secret
from recording.settings import LocalKeySettings, RecordingSettings

KEK_BYTES: Final = 32
WRAPPED_BYTES: Final = DEK_BYTES + 8  # RFC 3394: one 64-bit block more than what is wrapped

_PRIVATE_MODE: Final = 0o600


class LocalKeyProvider:
    """Wraps under one key-encryption key, held in memory for the life of the process. Any thread."""

    def __init__(self, name: str, settings: LocalKeySettings) -> None:
        """Read the key-encryption key.

        Raises:
            KeyConfigurationError: missing, of a wrong size, readable by others, or owned by another user.
        """
        self.name = name
        self._path = settings.kek_path
        self._kek = read_kek(self._path)
        self.slot_provider: int = SlotProvider.LOCAL_DEV
        self.slot_key_id = key_id(self._kek)

    def new_key(self, context: KeyContext) -> DataKey:
        del context  # AES-KW has no associated data
        dek = bytearray(secrets.token_bytes(DEK_BYTES))
        return DataKey(dek=dek, slot=self._wrap(dek))

    def unwrap(self, slot: KeySlot, context: KeyContext) -> bytearray:
        del context
        require_own(self, slot)
        if len(slot.wrapped) != WRAPPED_BYTES:
            raise ContextMismatchError(
                f"a data key wrapped by AES-KW has {WRAPPED_BYTES} bytes, this one {len(slot.wrapped)}"
            )
        try:
            return bytearray(aes_key_unwrap(self._kek, slot.wrapped))
        except InvalidUnwrap as error:
            raise ContextMismatchError(
                "the wrapped data key was altered, or another key wrapped it"
            ) from error

    def rewrap(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        """AES-KW is deterministic: under the same key this is the slot itself, once it was shown to open."""
        dek = self.unwrap(slot, context)
        try:
            return self._wrap(dek)
        finally:
            dek[:] = bytes(len(dek))

    def move(self, slot: KeySlot, context: KeyContext, *, to: LocalKeyProvider) -> KeySlot:
        """Under another key file. The data key is in this process meanwhile, as both key-encryption keys are."""
        dek = self.unwrap(slot, context)
        try:
            return to._wrap(dek)
        finally:
            dek[:] = bytes(len(dek))

    def describe(self) -> dict[str, str]:
        return {
            "kind": "local-dev",
            "key_id": self.slot_key_id.decode(),
            "path": str(self._path),
            "fit_for_production": "no",
        }

    def lifecycle(self) -> KeyLifecycle:
        """One version, as old as its file, which is never written again."""
        try:
            created_at = datetime.fromtimestamp(self._path.stat().st_mtime, UTC)
        except OSError as error:
            raise KeyConfigurationError(f"{self._path}: {error.strerror}; put the key back") from error
        return KeyLifecycle(versions=(KeyVersion(number=1, created_at=created_at),))

    def health(self) -> None:
        """The file must still hold the key in use: who restarts without it can read nothing."""
        if not hmac.compare_digest(read_kek(self._path), self._kek):
            raise KeyConfigurationError(
                f"{self._path} now holds another key than the one in use; "
                f"put key {self.slot_key_id.decode()} back or restart"
            )

    def _wrap(self, dek: bytearray) -> KeySlot:
        return KeySlot(
            provider=SlotProvider.LOCAL_DEV,
            key_id=self.slot_key_id,
            wrapped=aes_key_wrap(self._kek, bytes(dek)),
        )


def key_id(kek: bytes) -> bytes:
    """16 hex digits that name a key-encryption key without telling anything of it."""
    return hmac.digest(kek, b"id", hashlib.sha256)[:8].hex().encode()


def read_kek(path: Path) -> bytes:
    """The key-encryption key in `path`.

    Owner and mode are those of the file that was opened, not of a name looked up twice.

    Raises:
        KeyConfigurationError: says which rule the file breaks.
    """
    kek = read_secret(path, setting="kek_path", cure="make a key with `b2bua init`", most_bytes=KEK_BYTES)
    if len(kek) != KEK_BYTES:
        raise KeyConfigurationError(
            f"{path}: a key-encryption key has exactly {KEK_BYTES} bytes; make one with `b2bua init`"
        )
    return kek


def create_kek(path: Path) -> bytes:
    """Make a new key-encryption key in `path`, mode 0600, durable on return.

    Never overwrites. Returns its key id.

    Raises:
        KeyConfigurationError: the file exists, or the directory cannot be written.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_MODE)
    except FileExistsError as error:
        raise KeyConfigurationError(
            f"{path} exists; overwriting a key-encryption key makes its recordings unreadable: move it away first"
        ) from error
    except OSError as error:
        raise KeyConfigurationError(f"{path}: {error.strerror}; the key file cannot be made there") from error
    kek = secrets.token_bytes(KEK_BYTES)
    with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
        os.fchmod(fd, _PRIVATE_MODE)
        file.write(kek)
        file.flush()
        os.fsync(fd)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return key_id(kek)


def check_environment(settings: RecordingSettings, *, production: bool) -> tuple[str, ...]:
    """What is wrong with the key sections for this environment; empty when nothing is.

    A local key lies beside the data it protects, so production refuses it.
    """
    if not production:
        return ()
    return tuple(
        f'keys.{name}: a local key is for development, production refuses it; use kind = "aws-kms"'
        for name, key in settings.keys.items()
        if isinstance(key, LocalKeySettings)
    )
