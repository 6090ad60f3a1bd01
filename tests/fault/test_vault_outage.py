"""A transit engine that is away, sealed, busy, denied or wrong, on a real OpenBao: one typed error each, then good
service again.
"""

from __future__ import annotations

import base64
import collections
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from recording.keys.errors import (
    ContextMismatchError,
    KeyConfigurationError,
    KeyUnavailableError,
    NotPermittedError,
    UnknownKeyError,
)
from recording.keys.vault import VaultTransitProvider
from recording.settings import TLSFloor
from support.kms import issue_server_files
from support.openbao import OpenBao, vault_settings
from support.told import CONTEXT

# --- a real server


@pytest.fixture
def key(openbao: OpenBao) -> str:
    name = f"outage-{secrets.token_hex(8)}"
    openbao.create_key(name)
    return name


@pytest.fixture
def real(openbao: OpenBao, key: str, tmp_path: Path) -> VaultTransitProvider:
    return VaultTransitProvider("main", vault_settings(openbao, key, tmp_path / "token"))


def test_a_sealed_server_is_away_until_it_is_unsealed(openbao: OpenBao, real: VaultTransitProvider) -> None:
    slot = real.new_key(CONTEXT).slot
    openbao.seal()
    try:
        for ask in (lambda: real.new_key(CONTEXT), lambda: real.unwrap(slot, CONTEXT), real.health):
            with pytest.raises(KeyUnavailableError, match="sealed"):
                ask()
    finally:
        openbao.unseal()
    real.health()
    assert len(real.unwrap(slot, CONTEXT)) == 32


def test_a_server_that_is_gone_and_comes_back(openbao: OpenBao, real: VaultTransitProvider) -> None:
    key = real.new_key(CONTEXT)
    openbao.stop()
    try:
        with pytest.raises(KeyUnavailableError):
            real.new_key(CONTEXT)
        with pytest.raises(KeyUnavailableError):
            real.health()
    finally:
        openbao.start()
    assert real.unwrap(key.slot, CONTEXT) == key.dek


def consume(made: Iterable[object]) -> None:
    collections.deque(made, maxlen=0)


def test_a_server_that_is_asked_too_often_says_so(openbao: OpenBao, real: VaultTransitProvider) -> None:
    real.new_key(CONTEXT)
    openbao.admin("POST", "sys/quotas/rate-limit/test", {"path": "transit", "rate": 1, "interval": "60s"})
    try:
        with pytest.raises(KeyUnavailableError, match="too often"):
            consume(real.new_key(CONTEXT) for _ in range(3))
    finally:
        openbao.admin("DELETE", "sys/quotas/rate-limit/test")
    assert len(real.new_key(CONTEXT).dek) == 32


WRITER = """
path "transit/datakey/plaintext/{key}" {{ capabilities = ["update"] }}
path "transit/keys/{key}" {{ capabilities = ["read"] }}
"""
READER = 'path "transit/decrypt/{key}" {{ capabilities = ["update"] }}'
REWRAPPER = 'path "transit/rewrap/{key}" {{ capabilities = ["update"] }}'


@pytest.mark.parametrize(
    ("policy", "allowed"), [(WRITER, {"new_key"}), (READER, {"unwrap"}), (REWRAPPER, {"rewrap"})]
)
def test_each_right_allows_one_thing(
    openbao: OpenBao, key: str, real: VaultTransitProvider, tmp_path: Path, policy: str, allowed: set[str]
) -> None:
    slot = real.new_key(CONTEXT).slot
    narrow = VaultTransitProvider("main", vault_settings(openbao, key, tmp_path / "narrow", policy=policy))
    requests: dict[str, Callable[[], object]] = {
        "new_key": lambda: narrow.new_key(CONTEXT),
        "unwrap": lambda: narrow.unwrap(slot, CONTEXT),
        "rewrap": lambda: narrow.rewrap(slot, CONTEXT),
    }
    for name, ask in requests.items():
        if name in allowed:
            assert ask()
        else:
            with pytest.raises(NotPermittedError):
                ask()


def test_a_revoked_token_is_refused_and_a_new_one_is_taken_without_a_restart(
    openbao: OpenBao, key: str, tmp_path: Path
) -> None:
    settings = vault_settings(openbao, key, tmp_path / "token")
    provider = VaultTransitProvider("main", settings)
    provider.new_key(CONTEXT)
    openbao.revoke((tmp_path / "token").read_text().strip())
    with pytest.raises(NotPermittedError, match="token"):
        provider.new_key(CONTEXT)
    vault_settings(openbao, key, tmp_path / "renewed")
    (tmp_path / "renewed").rename(tmp_path / "token")
    assert len(provider.new_key(CONTEXT).dek) == 32


def test_a_key_or_mount_that_is_not_there(openbao: OpenBao, key: str, tmp_path: Path) -> None:
    settings = vault_settings(
        openbao, key, tmp_path / "token", policy='path "*" {{ capabilities = ["update", "read"] }}'
    )
    good = VaultTransitProvider("main", settings)
    slot = good.new_key(CONTEXT).slot
    for wrong in (
        replace(settings, key="no-such-key"),
        replace(settings, server=replace(settings.server, mount="elsewhere/transit")),
    ):
        provider = VaultTransitProvider("main", wrong)
        with pytest.raises(UnknownKeyError):
            provider.new_key(CONTEXT)
        with pytest.raises(UnknownKeyError):
            provider.health()
        with pytest.raises(UnknownKeyError):
            provider.unwrap(replace(slot, key_id=provider.slot_key_id), CONTEXT)
    good.health()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"derived": False}, "derived"),
        ({"exportable": True}, "exportable"),
        ({"allow_plaintext_backup": True}, "allow_plaintext_backup"),
    ],
)
def test_a_key_that_does_not_bind_or_keep_is_not_used(
    openbao: OpenBao, tmp_path: Path, parameters: dict[str, object], message: str
) -> None:
    name = f"outage-{secrets.token_hex(8)}"
    openbao.create_key(name, **parameters)
    provider = VaultTransitProvider("main", vault_settings(openbao, name, tmp_path / "token"))
    with pytest.raises(KeyConfigurationError, match=message):
        provider.new_key(CONTEXT)
    with pytest.raises(KeyConfigurationError, match=message):
        provider.health()


def test_rotation_and_rewrap_move_slots_to_the_new_version(
    openbao: OpenBao, key: str, real: VaultTransitProvider
) -> None:
    made = real.new_key(CONTEXT)
    assert made.slot.wrapped.startswith(b"vault:v1:")
    openbao.rotate_key(key)
    openbao.admin("POST", f"transit/keys/{key}/config", {"auto_rotate_period": "2160h"})
    lifecycle = real.lifecycle()
    assert [version.number for version in lifecycle.versions] == [1, 2]
    assert lifecycle.rotation_period_s == 90 * 86400
    moved = real.rewrap(made.slot, CONTEXT)
    assert moved.wrapped.startswith(b"vault:v2:")
    assert real.unwrap(made.slot, CONTEXT) == real.unwrap(moved, CONTEXT) == made.dek
    openbao.admin("POST", f"transit/keys/{key}/config", {"min_decryption_version": 2})
    with pytest.raises(ContextMismatchError):
        real.unwrap(made.slot, CONTEXT)
    assert real.unwrap(moved, CONTEXT) == made.dek


def test_a_changed_bit_inside_the_wrapped_key_is_found_by_the_server(real: VaultTransitProvider) -> None:
    slot = real.new_key(CONTEXT).slot
    prefix, _, text = slot.wrapped.rpartition(b":")
    for at in (0, 20, 59):
        raw = bytearray(base64.b64decode(text))
        raw[at] ^= 1
        altered = replace(slot, wrapped=prefix + b":" + base64.b64encode(raw))
        with pytest.raises(ContextMismatchError):
            real.unwrap(altered, CONTEXT)
        with pytest.raises(ContextMismatchError):
            real.rewrap(altered, CONTEXT)
    assert real.unwrap(slot, CONTEXT)


def test_a_key_in_a_namespace_is_another_key(openbao: OpenBao, key: str, tmp_path: Path) -> None:
    team = f"team-{secrets.token_hex(4)}"
    openbao.admin("POST", f"sys/namespaces/{team}")
    openbao.admin("POST", f"{team}/sys/mounts/transit", {"type": "transit"})
    openbao.admin("POST", f"{team}/transit/keys/{key}", {"derived": True})
    policy = f'path "{team}/transit/*" {{{{ capabilities = ["update", "read"] }}}}\n' + WRITER
    settings = vault_settings(openbao, key, tmp_path / "token", policy=policy)
    inside = VaultTransitProvider("main", replace(settings, server=replace(settings.server, namespace=team)))
    outside = VaultTransitProvider("main", settings)
    slot = inside.new_key(CONTEXT).slot
    assert inside.slot_key_id.decode() == f"127.0.0.1:{openbao.port}/{team}/transit/{key}"
    assert inside.unwrap(slot, CONTEXT)
    with pytest.raises(UnknownKeyError):
        outside.unwrap(slot, CONTEXT)


def test_a_server_id_keeps_recordings_readable_when_the_address_changes(
    openbao: OpenBao, key: str, tmp_path: Path
) -> None:
    settings = vault_settings(openbao, key, tmp_path / "token", server_id="vault.example.test")
    provider = VaultTransitProvider("main", settings)
    assert provider.slot_key_id.decode() == f"vault.example.test/transit/{key}"
    assert provider.unwrap(provider.new_key(CONTEXT).slot, CONTEXT)


def test_a_server_that_speaks_tls_1_2_only_needs_a_written_exception(tmp_path: Path) -> None:
    with OpenBao(tmp_path, tls=("tls12", "tls12")) as old:
        old.create_key("recordings")
        settings = vault_settings(old, "recordings", tmp_path / "token")
        with pytest.raises(KeyUnavailableError, match=r"(?i)protocol"):
            VaultTransitProvider("main", settings).new_key(CONTEXT)
        exception = replace(settings, server=replace(settings.server, tls_floor=TLSFloor.TLS_1_2))
        provider = VaultTransitProvider("main", exception)
        assert len(provider.new_key(CONTEXT).dek) == 32
        assert provider.describe()["tls_floor"] == "1.2"


def test_a_server_of_another_authority_or_name_is_not_spoken_to(
    openbao: OpenBao, key: str, tmp_path: Path
) -> None:
    settings = vault_settings(openbao, key, tmp_path / "token")
    stranger = issue_server_files(tmp_path / "stranger")
    by_other_ca = replace(settings, server=replace(settings.server, ca_path=stranger.ca_path))
    with pytest.raises(KeyUnavailableError, match="certificate verify failed"):
        VaultTransitProvider("main", by_other_ca).new_key(CONTEXT)
    address = openbao.url.replace("127.0.0.1", "localhost")
    with pytest.raises(KeyUnavailableError, match="localhost"):
        VaultTransitProvider(
            "main", replace(settings, server=replace(settings.server, address=address))
        ).health()
    VaultTransitProvider("main", settings).health()


# --- the token's file


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.chmod(0o640), "0640"),
        (lambda path: path.unlink(), "token_file"),
        (lambda path: path.write_text(""), "one line"),
        (lambda path: path.write_text("one\ntwo\n"), "one line"),
        (lambda path: path.write_text("s.\x00token"), "one line"),
        (lambda path: path.write_text("s.tökèn"), "one line"),
        (lambda path: path.write_text("x" * 5000), "one line"),
        (lambda path: (path.unlink(), path.mkdir()), "regular"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "regular"),
    ],
)
def test_a_token_file_that_cannot_be_used(
    openbao: OpenBao, key: str, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    provider = VaultTransitProvider("main", vault_settings(openbao, key, tmp_path / "token"))
    provider.health()
    damage(tmp_path / "token")
    with pytest.raises(KeyConfigurationError, match=message):
        provider.health()
