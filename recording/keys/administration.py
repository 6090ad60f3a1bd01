"""What a key administrator may do to a key-encryption key: renew it, take it out of use, destroy it.

These objects are built by the commands that need them, with the administrator's credentials, and never by the recorder:
a provider cannot be made to rotate or destroy, and an administrator here cannot wrap or open a data key.
"""

from __future__ import annotations

import os
from typing import Final, Protocol, assert_never

from recording.keys.errors import KeyConfigurationError, KeyOperationError, UnknownKeyError
from recording.keys.local import KEK_BYTES, read_kek
from recording.keys.transit import Transit, check_key_name
from recording.settings import (
    AWSKMSKeySettings,
    KeySettings,
    LocalKeySettings,
    PKCS11KeySettings,
    RSAKeySettings,
    VaultTransitKeySettings,
)

DISABLED_SUFFIX: Final = ".disabled"


class KeyAdministration(Protocol):
    """Each operation reads back what it did and returns it in words. May block; raises errors of recording.keys."""

    name: str

    def rotate(self) -> str:
        """Give the key a new version, which wraps from now on. What older versions wrapped still opens."""
        ...

    def disable(self) -> str:
        """Let nothing that the key wrapped be opened. An administrator of the key service can take it back."""
        ...

    def disable_older(self) -> str:
        """Let only the newest version open anything. An administrator of the key service can take it back."""
        ...

    def destroy(self) -> str:
        """Destroy the key in all its versions: nobody can open what it wrapped, ever."""
        ...


def build_administration(name: str, settings: KeySettings) -> KeyAdministration:
    """The administration of one key section. No request is sent.

    Raises:
        KeyConfigurationError: the section cannot be used.
        KeyOperationError: keys of this kind are looked after elsewhere; says where.
    """
    match settings:
        case LocalKeySettings():
            return LocalKeyAdministration(name, settings)
        case AWSKMSKeySettings():
            from recording.keys.aws_administration import (  # noqa: PLC0415  # boto3 takes a second to load
                AWSKMSAdministration,
            )

            return AWSKMSAdministration(name, settings)
        case VaultTransitKeySettings():
            return VaultAdministration(name, settings)
        case PKCS11KeySettings():
            from recording.keys.pkcs11_administration import PKCS11Administration  # noqa: PLC0415  # needed by few

            return PKCS11Administration(name, settings)
        case RSAKeySettings():
            raise KeyOperationError(
                f"keys.{name}: a key pair has one version and is looked after where its private part is; make another "
                "pair, add a [keys.NAME] with its public part, and give that to the tenants"
            )
        case _:
            assert_never(settings)


class VaultAdministration:
    """A key of a transit mount. `disable` makes a version that wraps nothing and lets no older one decrypt."""

    def __init__(self, name: str, settings: VaultTransitKeySettings) -> None:
        """No request is sent, no token is read. Raises KeyConfigurationError."""
        check_key_name(name, settings.key)
        self.name = name
        self._key = settings.key
        self._transit = Transit(name, settings.server)

    def rotate(self) -> str:
        before = self._newest()
        self._transit.manage("POST", self._key, "rotate", {})
        after = self._newest()
        if after <= before:
            raise KeyOperationError(f"keys.{self.name}: the server took the order and made no new version")
        return f"version {after} wraps from now on"

    def disable(self) -> str:
        self.rotate()
        return self.disable_older()

    def disable_older(self) -> str:
        newest = self._newest()
        self._transit.manage("POST", self._key, "config", {"min_decryption_version": newest})
        if self._transit.read_key(self._key).get("min_decryption_version") != newest:
            raise KeyOperationError(
                f"keys.{self.name}: the server took the order and still serves old versions"
            )
        return f"no version before {newest} decrypts"

    def destroy(self) -> str:
        """Raises KeyOperationError where the server still has the key afterwards."""
        self._transit.manage("POST", self._key, "config", {"deletion_allowed": True})
        self._transit.manage("DELETE", self._key)
        try:
            self._transit.read_key(self._key)
        except UnknownKeyError:
            return "the key is gone from the server; so it must be from the server's backups"
        raise KeyOperationError(f"keys.{self.name}: the server confirmed the deletion and still has the key")

    def _newest(self) -> int:
        return self._transit.lifecycle(self._key).versions[-1].number


class LocalKeyAdministration:
    """A key file. It has no versions."""

    def __init__(self, name: str, settings: LocalKeySettings) -> None:
        """Reads nothing."""
        self.name = name
        self._path = settings.kek_path

    def rotate(self) -> str:
        raise KeyOperationError(
            f"keys.{self.name}: a local key has one version; add another [keys.NAME], give it to the tenant, "
            f"and run: b2bua keys retire {self.name} --to NAME --rewrap"
        )

    def disable(self) -> str:
        read_kek(self._path)
        target = self._path.with_name(self._path.name + DISABLED_SUFFIX)
        if target.exists():
            raise KeyOperationError(f"{target} exists; it may be a key that is needed: move it away first")
        try:
            self._path.rename(target)
            _sync(self._path.parent)
        except OSError as error:
            raise KeyConfigurationError(f"{self._path}: {error.strerror}; check the directory") from error
        return f"the file is {target} now"

    def disable_older(self) -> str:
        raise KeyOperationError(f"keys.{self.name}: a local key has one version; retire it to another key")

    def destroy(self) -> str:
        """Overwrites the file, then removes it. A file system or disk that keeps old blocks may still have it."""
        read_kek(self._path)
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.write(fd, os.urandom(KEK_BYTES))
                os.fsync(fd)
            finally:
                os.close(fd)
            self._path.unlink()
            _sync(self._path.parent)
        except OSError as error:
            raise KeyConfigurationError(f"{self._path}: {error.strerror}; check the directory") from error
        return "the key file was overwritten and removed; so must be its backups"


def _sync(directory: os.PathLike[str]) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
