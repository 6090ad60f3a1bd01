"""Providers from their settings. boto3 and PKCS#11 are loaded only where a section asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from recording.keys.errors import KeyOperationError
from recording.keys.local import LocalKeyProvider
from recording.keys.provider import KeyProvider, VersionedProvider
from recording.keys.public_key import RSAPublicKeyProvider
from recording.keys.rewrap import BetweenKeys, MovingProvider, NewestVersion, SlotMover
from recording.keys.vault import VaultTransitProvider
from recording.settings import (
    AWSKMSKeySettings,
    KeySettings,
    LocalKeySettings,
    PKCS11KeySettings,
    RSAKeySettings,
    VaultTransitKeySettings,
)
from recording.unlock import SlotKey


def build_providers(keys: Mapping[str, KeySettings]) -> dict[str, KeyProvider]:
    """One provider per key section, by its name. No request is sent.

    Raises:
        KeyConfigurationError: the first section that cannot be used.
    """
    return {name: build_provider(name, settings) for name, settings in keys.items()}


def build_provider(name: str, settings: KeySettings) -> KeyProvider:
    """The provider of one section. Raises KeyConfigurationError as its class does."""
    match settings:
        case LocalKeySettings():
            return LocalKeyProvider(name, settings)
        case AWSKMSKeySettings():
            from recording.keys.aws_kms import AWSKMSProvider  # noqa: PLC0415  # boto3 takes a second to load

            return AWSKMSProvider(name, settings)
        case VaultTransitKeySettings():
            return VaultTransitProvider(name, settings)
        case PKCS11KeySettings():
            from recording.keys.pkcs11 import PKCS11Provider  # noqa: PLC0415  # needed by few

            return PKCS11Provider(name, settings)
        case RSAKeySettings():
            return RSAPublicKeyProvider(name, settings)
        case _:
            assert_never(settings)


def slot_keys(providers: Iterable[KeyProvider]) -> list[SlotKey]:
    """What a reader may open recordings with: the keys that the configuration names, and no others."""
    return [
        SlotKey(provider=provider.slot_provider, key_id=provider.slot_key_id, unwrap=provider.unwrap)
        for provider in providers
    ]


def build_mover(source: str, target: str, keys: Mapping[str, KeySettings]) -> SlotMover:
    """What takes slots from the key of section `source` to that of `target`; the same one twice: to its newest version.

    Asks a key service for the newest version, where there are several.

    Raises:
        KeyOperationError: no service does this without showing the data key; says what to do instead.
        RecordingError: as `build_provider`, and what the service said.
    """
    old, new = build_provider(source, keys[source]), build_provider(target, keys[target])
    if source == target:
        return _to_newest_version(old)
    if old.slot_key_id == new.slot_key_id:
        raise KeyOperationError(f"keys.{source} and keys.{target} are one and the same key")
    _require_same_service(old.describe(), new.describe())
    if isinstance(old, MovingProvider) and isinstance(new, MovingProvider):
        return BetweenKeys(old, new)
    if isinstance(old, VersionedProvider):
        raise KeyOperationError(
            f"transit moves slots between versions of one key only; rotate it (b2bua keys rotate {source}), "
            f"then: b2bua keys retire {source} --to {source} --rewrap"
        )
    raise KeyOperationError(
        f"keys.{source}: no service takes a data key from this kind of key to another unseen"
    )


def _require_same_service(source: Mapping[str, str], target: Mapping[str, str]) -> None:
    """Two keys, by their descriptions, are of one service, which alone takes slots from one to the other.

    Raises:
        KeyOperationError: they are not; a data key would have to be shown to this process.
    """
    if any(source.get(field) != target.get(field) for field in ("kind", "endpoint")):
        raise KeyOperationError(
            "the keys are of different services, and a data key cannot pass from one to the other unseen; "
            "name a key of the same service and region"
        )


def _to_newest_version(provider: KeyProvider) -> SlotMover:
    if not isinstance(provider, VersionedProvider):
        raise KeyOperationError(
            f"keys.{provider.name}: older versions of this kind of key cannot be taken out of use; "
            "name another key with --to"
        )
    newest = provider.lifecycle().versions[-1].number
    return NewestVersion(provider, is_newest=lambda slot: provider.version_of(slot) == newest)
