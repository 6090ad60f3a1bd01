"""Rotation, disabling, destruction and moving of slots at real key services, seen from outside: what still opens."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import pytest

from recording.format.slots import SlotProvider
from recording.keys.administration import KeyAdministration, build_administration
from recording.keys.build import build_mover, build_provider
from recording.keys.errors import (
    ContextMismatchError,
    KeyConfigurationError,
    KeyOperationError,
    UnknownKeyError,
)
from recording.keys.local import create_kek
from recording.keys.provider import KeyContext, KeyProvider
from recording.keys.rewrap import Outcome, rewrap_all
from recording.settings import AWSKMSKeySettings, KeySettings, LocalKeySettings, PKCS11KeySettings
from recording.sinks.local import LocalSink
from support.kms import REGION, TEST_CREDENTIALS, MotoKMS
from support.openbao import OpenBao, vault_settings
from support.softhsm import SoftHSM
from support.stored import PCM, read_with, store

ADMINISTRATOR = """
path "transit/keys/{key}" {{ capabilities = ["read", "delete"] }}
path "transit/keys/{key}/rotate" {{ capabilities = ["update"] }}
path "transit/keys/{key}/config" {{ capabilities = ["update"] }}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Two keys of one service: their users' settings, and the administrator's of the first."""

    keys: dict[str, KeySettings]
    administrator: KeySettings
    has_versions: bool
    moves_between_keys: bool

    @property
    def old(self) -> KeyProvider:
        return build_provider("old", self.keys["old"])

    @property
    def new(self) -> KeyProvider:
        return build_provider("new", self.keys["new"])

    @property
    def administration(self) -> KeyAdministration:
        return build_administration("old", self.administrator)


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoKMS]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TEST_CREDENTIALS.items():
            patch.setenv(name, value)
        with MotoKMS(tmp_path_factory.mktemp("moto-administration")) as server:
            yield server


def local_case(request: pytest.FixtureRequest, directory: Path) -> Case:
    del request
    keys: dict[str, KeySettings] = {}
    for name in ("old", "new"):
        create_kek(directory / name)
        keys[name] = LocalKeySettings(kek_path=directory / name)
    return Case(keys=keys, administrator=keys["old"], has_versions=False, moves_between_keys=True)


def aws_case(request: pytest.FixtureRequest, directory: Path) -> Case:
    del directory
    moto: MotoKMS = request.getfixturevalue("moto")
    keys: dict[str, KeySettings] = {name: moto.settings(moto.create_key()) for name in ("old", "new")}
    return Case(keys=keys, administrator=keys["old"], has_versions=False, moves_between_keys=True)


def vault_case(request: pytest.FixtureRequest, directory: Path) -> Case:
    openbao: OpenBao = request.getfixturevalue("openbao")
    keys: dict[str, KeySettings] = {}
    for name in ("old", "new"):
        key = f"{name}-{secrets.token_hex(8)}"
        openbao.create_key(key)
        keys[name] = vault_settings(openbao, key, directory / name)
        if name == "old":
            administrator = vault_settings(openbao, key, directory / "administrator", policy=ADMINISTRATOR)
    return Case(keys=keys, administrator=administrator, has_versions=True, moves_between_keys=False)


def token_case(request: pytest.FixtureRequest, directory: Path) -> Case:
    del directory
    softhsm: SoftHSM = request.getfixturevalue("softhsm")
    keys: dict[str, KeySettings] = {}
    for name in ("old", "new"):
        keys[name] = softhsm.settings(f"{name}-{secrets.token_hex(8)}")
        build_administration(name, keys[name]).rotate()
    return Case(keys=keys, administrator=keys["old"], has_versions=True, moves_between_keys=True)


CASES: dict[str, Callable[[pytest.FixtureRequest, Path], Case]] = {
    "local-dev": local_case,
    "aws-kms": aws_case,
    "vault-transit": vault_case,
    "pkcs11-aes-kw": token_case,
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return CASES[request.param](request, tmp_path)


@pytest.fixture
def context() -> KeyContext:
    return KeyContext(file_id=os.urandom(16), tenant_handle=os.urandom(16))


def test_rotation_makes_a_version_and_what_was_wrapped_before_still_opens(
    case: Case, context: KeyContext
) -> None:
    key = case.old.new_key(context)
    versions = len(case.old.lifecycle().versions)
    if isinstance(case.administrator, LocalKeySettings):
        with pytest.raises(KeyOperationError, match="keys retire old --to NAME --rewrap"):
            case.administration.rotate()
        assert len(case.old.lifecycle().versions) == versions
    else:
        assert case.administration.rotate()
        assert len(case.old.lifecycle().versions) == versions + 1
    assert case.old.unwrap(key.slot, context) == key.dek


def test_a_key_of_another_owner_cannot_be_rotated_by_a_provider(case: Case) -> None:
    """The recorder's object has no such operation, whatever its credentials."""
    for operation in ("rotate", "disable", "disable_older", "destroy", "manage"):
        assert not hasattr(case.old, operation)
        assert not hasattr(case.administration, "unwrap")


def state_in_kms(case: Case) -> str:
    """moto decrypts under a key that is disabled or about to be deleted: its state is what there is to see."""
    settings = case.administrator
    assert isinstance(settings, AWSKMSKeySettings)
    client = boto3.session.Session().client(
        "kms", region_name=REGION, endpoint_url=settings.endpoint_url, verify=str(settings.ca_path)
    )
    try:
        state: str = client.describe_key(KeyId=settings.key_id)["KeyMetadata"]["KeyState"]
    finally:
        client.close()
    return state


def test_what_a_destroyed_key_wrapped_does_not_open(case: Case, context: KeyContext) -> None:
    provider, other = case.old, case.new
    key, kept = provider.new_key(context), other.new_key(context)
    assert provider.unwrap(key.slot, context) == key.dek
    assert case.administration.destroy()
    if key.slot.provider == SlotProvider.AWS_KMS:
        assert state_in_kms(case) == "PendingDeletion"
    else:
        with pytest.raises((UnknownKeyError, KeyConfigurationError)):
            case.old.unwrap(key.slot, context)
    assert other.unwrap(kept.slot, context) == kept.dek


def test_what_a_disabled_key_wrapped_does_not_open(case: Case, context: KeyContext) -> None:
    key = case.old.new_key(context)
    assert case.administration.disable()
    if key.slot.provider == SlotProvider.AWS_KMS:
        assert state_in_kms(case) == "Disabled"
        return
    with pytest.raises((ContextMismatchError, UnknownKeyError, KeyConfigurationError)):
        case.old.unwrap(key.slot, context)


def test_older_versions_go_out_of_use_where_a_key_has_versions(case: Case, context: KeyContext) -> None:
    provider = case.old
    key = provider.new_key(context)
    if not case.has_versions:
        with pytest.raises(KeyOperationError):
            case.administration.disable_older()
        assert provider.unwrap(key.slot, context) == key.dek
        return
    case.administration.rotate()
    newest = provider.rewrap(key.slot, context)
    assert provider.unwrap(key.slot, context) == key.dek
    case.administration.disable_older()
    with pytest.raises((ContextMismatchError, UnknownKeyError)):
        provider.unwrap(key.slot, context)
    assert provider.unwrap(newest, context) == key.dek


def test_recordings_move_to_another_key_of_the_service_or_the_refusal_says_what_to_do(
    case: Case, tmp_path: Path
) -> None:
    sink = LocalSink(tmp_path / "store")
    stored = [store(sink, case.old, tmp_path) for _ in range(5)]
    if not case.moves_between_keys:
        with pytest.raises(KeyOperationError, match="keys retire old --to old --rewrap"):
            build_mover("old", "new", case.keys)
        return
    mover = build_mover("old", "new", case.keys)
    assert [outcome for _, outcome in rewrap_all(sink, mover, [each.task for each in stored])] == [
        Outcome.MOVED
    ] * 5
    assert [outcome for _, outcome in rewrap_all(sink, mover, [each.task for each in stored])] == [
        Outcome.DONE_BEFORE
    ] * 5
    assert all(read_with(sink, each, case.new) == PCM for each in stored)


def test_recordings_move_to_the_newest_version_where_there_are_versions(case: Case, tmp_path: Path) -> None:
    if not case.has_versions:
        with pytest.raises(KeyOperationError, match="--to"):
            build_mover("old", "old", case.keys)
        return
    sink = LocalSink(tmp_path / "store")
    stored = [store(sink, case.old, tmp_path) for _ in range(5)]
    tasks = [each.task for each in stored]
    case.administration.rotate()
    mover = build_mover("old", "old", case.keys)
    assert [outcome for _, outcome in rewrap_all(sink, mover, tasks)] == [Outcome.MOVED] * 5
    assert [outcome for _, outcome in rewrap_all(sink, mover, tasks)] == [Outcome.DONE_BEFORE] * 5
    case.administration.disable_older()
    assert all(b"v1:" in each.slot.wrapped for each in stored)
    assert all(read_with(sink, each, case.old) == PCM for each in stored), "by their sidecars"


def test_a_move_binds_the_slot_to_its_own_file(case: Case, context: KeyContext) -> None:
    other = replace(context, file_id=os.urandom(16))
    provider = case.old
    slot = provider.new_key(context).slot
    if case.has_versions:
        case.administration.rotate()
    mover = build_mover("old", "old" if case.has_versions else "new", case.keys)
    assert mover.move(slot, context)
    if isinstance(case.administrator, LocalKeySettings | PKCS11KeySettings):
        # AES key wrap binds nothing: the commitment refuses a transplanted slot, as the format's tests show.
        assert mover.move(slot, other) == mover.move(slot, context)
        return
    with pytest.raises(ContextMismatchError):
        mover.move(slot, other)


def test_keys_of_different_services_are_not_moved_between(tmp_path: Path, moto: MotoKMS) -> None:
    create_kek(tmp_path / "kek")
    keys: dict[str, KeySettings] = {
        "local": LocalKeySettings(kek_path=tmp_path / "kek"),
        "cloud": moto.settings(moto.create_key()),
    }
    for source, target in (("local", "cloud"), ("cloud", "local")):
        with pytest.raises(KeyOperationError, match="different services"):
            build_mover(source, target, keys)
    twin = {**keys, "twin": keys["cloud"]}
    with pytest.raises(KeyOperationError, match="one and the same"):
        build_mover("cloud", "twin", twin)


def test_destroying_twice_is_refused_where_nothing_is_left(case: Case) -> None:
    case.administration.destroy()
    if isinstance(case.administrator, AWSKMSKeySettings):
        assert state_in_kms(case) == "PendingDeletion"
        return
    with pytest.raises((UnknownKeyError, KeyConfigurationError)):
        case.administration.destroy()


def test_disabling_twice_and_destroying_what_is_doomed_changes_nothing(case: Case) -> None:
    """As when a run was killed before it could write down what it did."""
    if isinstance(case.administrator, LocalKeySettings):
        return  # its file has another name then, and no section finds it
    case.administration.disable()
    assert case.administration.disable()
    if isinstance(case.administrator, AWSKMSKeySettings):
        first = case.administration.destroy()
        assert case.administration.destroy() == first
        assert state_in_kms(case) == "PendingDeletion"


def test_a_disabled_local_key_is_not_written_over_another(tmp_path: Path) -> None:
    create_kek(tmp_path / "kek")
    (tmp_path / "kek.disabled").write_bytes(b"an older key")
    with pytest.raises(KeyOperationError, match="exists"):
        build_administration("dev", LocalKeySettings(kek_path=tmp_path / "kek")).disable()
    assert (tmp_path / "kek").exists()
    assert (tmp_path / "kek.disabled").read_bytes() == b"an older key"
