"""Providers from their settings. boto3 and PKCS#11 are loaded only where a section asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import assert_never

from recording.format.slots import KeySlot, SlotProvider
from recording.keys.administration import require_same_service
from recording.keys.errors import KeyOperationError
from recording.keys.local import LocalKeyProvider
from recording.keys.provider import KeyProvider
from recording.keys.public_key import RSAPublicKeyProvider
from recording.keys.rewrap import BetweenKeys, NewestVersion, SlotMover
from recording.keys.vault import VaultTransitProvider, version_of
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
    providers = (build_provider(source, keys[source]), build_provider(target, keys[target]))
    if source == target:
        return _to_newest_version(source, providers[0])
    if providers[0].slot_key_id == providers[1].slot_key_id:
        raise KeyOperationError(f"keys.{source} and keys.{target} are one and the same key")
    require_same_service(providers[0].describe(), providers[1].describe())
    match providers:
        case (LocalKeyProvider(), LocalKeyProvider()):
            return BetweenKeys(providers[0], providers[1])
        case (VaultTransitProvider(), _):
            raise KeyOperationError(
                f"transit moves slots between versions of one key only; rotate it (b2bua keys rotate {source}), "
                f"then: b2bua keys retire {source} --to {source} --rewrap"
            )
        case (_, _):
            return _between_others(providers)


def _between_others(providers: tuple[KeyProvider, KeyProvider]) -> SlotMover:
    """Loads boto3 or PKCS#11 only where a key of theirs is there, whose module has it loaded already."""
    if providers[0].slot_provider == SlotProvider.AWS_KMS:
        from recording.keys.aws_kms import AWSKMSProvider  # noqa: PLC0415  # boto3 takes a second to load

        source, target = providers
        if isinstance(source, AWSKMSProvider) and isinstance(target, AWSKMSProvider):
            return BetweenKeys(source, target)
    if providers[0].slot_provider == SlotProvider.PKCS11_AES_KW:
        from recording.keys.pkcs11 import PKCS11Provider  # noqa: PLC0415  # needed by few

        old, new = providers
        if isinstance(old, PKCS11Provider) and isinstance(new, PKCS11Provider):
            return BetweenKeys(old, new)
    raise KeyOperationError(
        f"keys.{providers[0].name}: no service takes a data key from this kind of key to another unseen"
    )


def _to_newest_version(name: str, provider: KeyProvider) -> SlotMover:
    versions: dict[int, Callable[[KeySlot], int]] = {SlotProvider.VAULT_TRANSIT: version_of}
    if provider.slot_provider == SlotProvider.PKCS11_AES_KW:
        from recording.keys import pkcs11  # noqa: PLC0415  # needed by few

        versions[SlotProvider.PKCS11_AES_KW] = pkcs11.version_of
    told_by = versions.get(provider.slot_provider)
    if told_by is None:
        raise KeyOperationError(
            f"keys.{name}: older versions of this kind of key cannot be taken out of use; name another key with --to"
        )
    newest = provider.lifecycle().versions[-1].number
    return NewestVersion(provider, is_newest=lambda slot: told_by(slot) == newest)
