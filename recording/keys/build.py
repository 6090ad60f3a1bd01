"""Providers from their settings. boto3 is loaded only where a section asks for KMS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from recording.keys.local import LocalKeyProvider
from recording.keys.provider import KeyProvider
from recording.keys.vault import VaultTransitProvider
from recording.settings import AWSKMSKeySettings, KeySettings, LocalKeySettings, VaultTransitKeySettings
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
        case _:
            assert_never(settings)


def slot_keys(providers: Iterable[KeyProvider]) -> list[SlotKey]:
    """What a reader may open recordings with: the keys that the configuration names, and no others."""
    return [
        SlotKey(provider=provider.slot_provider, key_id=provider.slot_key_id, unwrap=provider.unwrap)
        for provider in providers
    ]
