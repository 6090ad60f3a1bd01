"""The contract that every key provider passes, whoever keeps the key-encryption key."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pkcs11 import SecretKey

from recording.errors import UnwrapError
from recording.format.slots import KeySlot, SlotProvider
from recording.keys import pkcs11
from recording.keys.aws_kms import AWSKMSProvider
from recording.keys.errors import ContextMismatchError, NotPermittedError, UnknownKeyError
from recording.keys.https import HTTPSAnswer, HTTPSTransport
from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.pkcs11 import PKCS11Provider
from recording.keys.pkcs11_administration import PKCS11Administration
from recording.keys.provider import DEK_BYTES, KeyContext, KeyProvider
from recording.keys.public_key import RSAPublicKeyProvider
from recording.keys.vault import VaultTransitProvider
from recording.settings import LocalKeySettings
from support.key_pairs import rsa_files, rsa_transit
from support.kms import TEST_CREDENTIALS, MotoKMS
from support.openbao import OpenBao, vault_settings
from support.softhsm import SoftHSM


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A provider, one of the same kind under another key, and what the kind can do.

    `sees_key_on_rewrap`: the data key passes through this process then, as the kind's documentation says.
    """

    provider: KeyProvider
    stranger: KeyProvider
    slot_provider: SlotProvider
    binds_context: bool
    sees_key_on_rewrap: bool = False
    dates_versions: bool = True


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoKMS]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TEST_CREDENTIALS.items():
            patch.setenv(name, value)
        with MotoKMS(tmp_path_factory.mktemp("moto")) as server:
            yield server


def local_case(request: pytest.FixtureRequest, directory: Path) -> Case:
    del request
    create_kek(directory / "kek")
    create_kek(directory / "other")
    return Case(
        provider=LocalKeyProvider("main", LocalKeySettings(kek_path=directory / "kek")),
        stranger=LocalKeyProvider("other", LocalKeySettings(kek_path=directory / "other")),
        slot_provider=SlotProvider.LOCAL_DEV,
        binds_context=False,
        sees_key_on_rewrap=True,
    )


def aws_case(request: pytest.FixtureRequest, directory: Path) -> Case:
    del directory
    moto: MotoKMS = request.getfixturevalue("moto")
    return Case(
        provider=AWSKMSProvider("main", moto.settings(moto.create_key())),
        stranger=AWSKMSProvider("other", moto.settings(moto.create_key())),
        slot_provider=SlotProvider.AWS_KMS,
        binds_context=True,
    )


def vault_case(request: pytest.FixtureRequest, directory: Path) -> Case:
    """Tokens that may do all that the protocol asks, so that what is refused is refused by the key."""
    openbao: OpenBao = request.getfixturevalue("openbao")

    def provider(name: str) -> VaultTransitProvider:
        key = f"{name}-{secrets.token_hex(8)}"
        openbao.create_key(key)
        return VaultTransitProvider(name, vault_settings(openbao, key, directory / name))

    return Case(
        provider=provider("main"),
        stranger=provider("other"),
        slot_provider=SlotProvider.VAULT_TRANSIT,
        binds_context=True,
    )


def token_case(request: pytest.FixtureRequest, directory: Path) -> Case:
    del directory
    softhsm: SoftHSM = request.getfixturevalue("softhsm")

    def provider(name: str) -> PKCS11Provider:
        settings = softhsm.settings(f"{name}-{secrets.token_hex(8)}")
        PKCS11Administration(name, settings).rotate()
        return PKCS11Provider(name, settings)

    return Case(
        provider=provider("main"),
        stranger=provider("other"),
        slot_provider=SlotProvider.PKCS11_AES_KW,
        binds_context=False,
    )


def rsa_case(request: pytest.FixtureRequest, directory: Path) -> Case:
    """With the private part in a file."""
    del request
    return Case(
        provider=RSAPublicKeyProvider("main", rsa_files(directory, "main")),
        stranger=RSAPublicKeyProvider("other", rsa_files(directory, "other")),
        slot_provider=SlotProvider.RSA_OAEP_SHA256,
        binds_context=False,
        sees_key_on_rewrap=True,
        dates_versions=False,
    )


def rsa_transit_case(request: pytest.FixtureRequest, directory: Path) -> Case:
    """With the private part in a real transit engine."""
    openbao: OpenBao = request.getfixturevalue("openbao")
    return Case(
        provider=RSAPublicKeyProvider("main", rsa_transit(openbao, directory, "main")),
        stranger=RSAPublicKeyProvider("other", rsa_transit(openbao, directory, "other")),
        slot_provider=SlotProvider.RSA_OAEP_SHA256,
        binds_context=False,
        sees_key_on_rewrap=True,
    )


CASES: dict[str, Callable[[pytest.FixtureRequest, Path], Case]] = {
    "local-dev": local_case,
    "aws-kms": aws_case,
    "vault-transit": vault_case,
    "pkcs11-aes-kw": token_case,
    "rsa-oaep-sha256": rsa_case,
    "rsa-oaep-sha256 in transit": rsa_transit_case,
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return CASES[request.param](request, tmp_path_factory.mktemp("case"))


@pytest.fixture
def context() -> KeyContext:
    return KeyContext(file_id=os.urandom(16), tenant_handle=os.urandom(16))


def test_new_key_is_256_bits_and_its_slot_opens_to_it(case: Case, context: KeyContext) -> None:
    key = case.provider.new_key(context)
    assert len(key.dek) == DEK_BYTES
    assert key.slot.provider == case.slot_provider
    assert bytes(key.dek) not in key.slot.wrapped
    assert case.provider.unwrap(key.slot, context) == key.dek


def test_every_new_key_differs(case: Case, context: KeyContext) -> None:
    keys = {bytes(case.provider.new_key(context).dek) for _ in range(3)}
    assert len(keys) == 3


def test_unwrapped_key_is_the_callers_to_wipe(case: Case, context: KeyContext) -> None:
    key = case.provider.new_key(context)
    first = case.provider.unwrap(key.slot, context)
    first[:] = bytes(DEK_BYTES)
    assert case.provider.unwrap(key.slot, context) == key.dek


def test_a_slot_of_another_key_is_refused(case: Case, context: KeyContext) -> None:
    foreign = case.stranger.new_key(context).slot
    assert case.stranger.unwrap(foreign, context)
    with pytest.raises(UnknownKeyError):
        case.provider.unwrap(foreign, context)
    with pytest.raises(UnknownKeyError):
        case.provider.rewrap(foreign, context)


def test_a_transplanted_key_id_does_not_open_another_keys_slot(case: Case, context: KeyContext) -> None:
    own, foreign = case.provider.new_key(context).slot, case.stranger.new_key(context).slot
    # AWS says IncorrectKeyException; moto lets its policy check answer first.
    with pytest.raises((UnwrapError, NotPermittedError)):
        case.provider.unwrap(replace(foreign, key_id=own.key_id), context)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 0x7E, 0x7F, 0xFFFF])
def test_a_slot_of_another_kind_is_refused(case: Case, context: KeyContext, number: int) -> None:
    slot = case.provider.new_key(context).slot
    if number == case.slot_provider:
        assert case.provider.unwrap(slot, context)
        return
    with pytest.raises(UnknownKeyError):
        case.provider.unwrap(replace(slot, provider=number), context)
    with pytest.raises(UnknownKeyError):
        case.provider.rewrap(replace(slot, provider=number), context)


@pytest.mark.parametrize("change", ["flip", "cut", "empty", "random", "oversize"])
def test_an_altered_wrapped_key_is_refused(case: Case, context: KeyContext, change: str) -> None:
    slot = case.provider.new_key(context).slot
    flipped = bytearray(slot.wrapped)
    flipped[-1] ^= 1
    wrapped = {
        "flip": bytes(flipped),
        "cut": slot.wrapped[:-1],
        "empty": b"",
        "random": os.urandom(len(slot.wrapped)),
        "oversize": slot.wrapped + os.urandom(60_000),
    }[change]
    with pytest.raises(ContextMismatchError):
        case.provider.unwrap(replace(slot, wrapped=wrapped), context)
    assert len(case.provider.unwrap(slot, context)) == DEK_BYTES


@pytest.mark.parametrize("key_id", [b"", b"\xff\xfe", b"alias/anything", b"0" * 16, b"x" * 60_000])
def test_a_garbage_key_id_is_refused(case: Case, context: KeyContext, key_id: bytes) -> None:
    slot = case.provider.new_key(context).slot
    with pytest.raises(UnknownKeyError):
        case.provider.unwrap(KeySlot(provider=slot.provider, key_id=key_id, wrapped=slot.wrapped), context)


@pytest.mark.parametrize("field", ["file_id", "tenant_handle"])
def test_another_context_is_refused_where_it_is_bound(case: Case, context: KeyContext, field: str) -> None:
    if field == "file_id":
        other = replace(context, file_id=os.urandom(16))
    else:
        other = replace(context, tenant_handle=os.urandom(16))
    key = case.provider.new_key(context)
    if not case.binds_context:
        assert (
            case.provider.unwrap(key.slot, other) == key.dek
        )  # the commitment's task, which format's tests show
        return
    with pytest.raises(ContextMismatchError):
        case.provider.unwrap(key.slot, other)
    with pytest.raises(ContextMismatchError):
        case.provider.rewrap(key.slot, other)


def test_a_rewrapped_slot_opens_to_the_same_key(case: Case, context: KeyContext) -> None:
    key = case.provider.new_key(context)
    slot = case.provider.rewrap(key.slot, context)
    assert (slot.provider, slot.key_id) == (key.slot.provider, key.slot.key_id)
    assert case.provider.unwrap(slot, context) == key.dek


def test_a_rewrapped_slot_leaves_the_old_one_as_it_was(case: Case, context: KeyContext) -> None:
    key = case.provider.new_key(context)
    case.provider.rewrap(key.slot, context)
    again = case.provider.rewrap(case.provider.rewrap(key.slot, context), context)
    assert case.provider.unwrap(key.slot, context) == case.provider.unwrap(again, context) == key.dek


@pytest.mark.parametrize("change", ["flip", "cut", "empty", "random"])
def test_an_altered_slot_is_not_rewrapped(case: Case, context: KeyContext, change: str) -> None:
    slot = case.provider.new_key(context).slot
    flipped = bytearray(slot.wrapped)
    flipped[len(flipped) // 2] ^= 1
    wrapped = {
        "flip": bytes(flipped),
        "cut": slot.wrapped[:-1],
        "empty": b"",
        "random": os.urandom(len(slot.wrapped)),
    }[change]
    with pytest.raises(ContextMismatchError):
        case.provider.rewrap(replace(slot, wrapped=wrapped), context)
    assert case.provider.rewrap(slot, context)


def test_rewrap_shows_the_data_key_to_nobody(
    case: Case, context: KeyContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on the wire, where TLS ends in this process, nor out of the token; those that must see it say so."""
    key = case.provider.new_key(context)
    seen: list[bytes] = []
    send, value = HTTPSTransport.send, pkcs11.checked_dek

    def heard(self: HTTPSTransport, *arguments: Any, **named: Any) -> HTTPSAnswer:
        answer = send(self, *arguments, **named)
        seen.extend((named["body"], answer.content))
        return answer

    def read(held: SecretKey) -> bytearray:
        seen.append(bytes(found := value(held)))
        return found

    monkeypatch.setattr(HTTPSTransport, "send", heard)
    monkeypatch.setattr(pkcs11, "checked_dek", read)

    def is_shown() -> bool:
        dek = bytes(key.dek)
        return any(form in data for data in seen for form in (dek, base64.b64encode(dek), dek.hex().encode()))

    case.provider.rewrap(key.slot, context)
    if case.sees_key_on_rewrap:
        return
    assert not is_shown()
    case.provider.unwrap(key.slot, context)
    assert is_shown(), "the test sees what it looks for"


def test_description_and_repr_tell_no_key(case: Case, context: KeyContext) -> None:
    key = case.provider.new_key(context)
    case.provider.health()
    description = case.provider.describe()
    assert description["kind"] in CASES
    assert case.provider.lifecycle().facts()["version"] == "1"
    text = repr(description) + repr(key) + repr(case.provider)
    assert bytes(key.dek).hex() not in text
    assert repr(bytes(key.dek)) not in text


def test_the_lifecycle_tells_versions_and_their_ages(case: Case) -> None:
    lifecycle = case.provider.lifecycle()
    newest = lifecycle.versions[-1]
    assert [version.number for version in lifecycle.versions] == [1]
    if not case.dates_versions:
        assert newest.created_at is None
        return
    assert newest.created_at is not None
    assert abs(datetime.now(UTC) - newest.created_at) < timedelta(minutes=5)
    assert case.provider.lifecycle().facts()["version_created_at"] == newest.created_at.isoformat()
