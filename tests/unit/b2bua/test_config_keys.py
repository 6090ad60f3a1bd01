"""The tables `[keys.NAME]` and what tenants say of them: good ones reach the settings, faults are told one by one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from b2bua.settings import KeyOutagePolicy
from recording.settings import (
    PKCS11KeySettings,
    RSAKeySettings,
    TLSFloor,
    TransitSettings,
    VaultTransitKeySettings,
)
from support.configuration import ConfigurationFile, make_configuration
from support.key_pairs import private_key, private_pem, rsa_files

TEXT = """
[keys.vault]
provider = "vault-transit"
address = "https://vault.example.test:8200"
key = "recordings"
token_file = "keys/vault.token"

[keys.vault-in-full]
provider = "vault-transit"
address = "https://10.0.0.5"
key = "recordings"
token_file = "keys/vault.token"
mount = "teams/transit"
namespace = "clinic"
server_id = "vault.example.test"
ca = "tls/vault-ca.pem"
timeout_s = 2
tls_floor = "1.2"

[keys.token]
provider = "pkcs11-aes-kw"
module = "keys/module.so"
token_label = "clinic"
key = "recordings"
pin_file = "keys/clinic.pin"

[keys.escrow]
provider = "rsa-oaep-sha256"
public_key = "keys/escrow.pub"

[keys.reader]
provider = "rsa-oaep-sha256"
private_key = "keys/escrow.key"

[keys.service]
provider = "rsa-oaep-sha256"
public_key = "keys/escrow.pub"
[keys.service.transit]
address = "https://vault.example.test:8200/"
key = "offline"
token_file = "keys/vault.token"
tls_floor = "1.2"

[tenants.ward]
handle = "00112233445566778899aabbccddeeff"
key = "vault"
fallback_key = "escrow"
on_key_outage = "connect-unrecorded"
"""


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "etc")
    keys = made.made.directory / "keys"
    for name in ("vault.token", "clinic.pin"):
        (keys / name).touch(mode=0o600)
        (keys / name).write_text("s.something\n")
    (keys / "module.so").touch()
    rsa_files(keys, "escrow")
    shutil.copy(made.made.authority, made.made.directory / "tls" / "vault-ca.pem")
    made.append(TEXT)
    return made


def test_every_kind_of_key_reaches_the_settings(file: ConfigurationFile) -> None:
    settings = file.load()
    directory = file.made.directory
    keys = settings.recording.keys
    server = TransitSettings(
        address="https://vault.example.test:8200", token_path=directory / "keys/vault.token"
    )
    assert keys["vault"] == VaultTransitKeySettings(key="recordings", server=server)
    assert keys["vault-in-full"] == VaultTransitKeySettings(
        key="recordings",
        server=TransitSettings(
            address="https://10.0.0.5",
            token_path=directory / "keys/vault.token",
            mount="teams/transit",
            namespace="clinic",
            server_id="vault.example.test",
            ca_path=directory / "tls/vault-ca.pem",
            timeout_s=2.0,
            tls_floor=TLSFloor.TLS_1_2,
        ),
    )
    assert keys["token"] == PKCS11KeySettings(
        module_path=directory / "keys/module.so",
        token="clinic",
        key="recordings",
        pin_path=directory / "keys/clinic.pin",
    )
    public, private = directory / "keys/escrow.pub", directory / "keys/escrow.key"
    assert keys["escrow"] == RSAKeySettings(public_key_path=public)
    assert keys["reader"] == RSAKeySettings(private_key_path=private)
    service = keys["service"]
    assert isinstance(service, RSAKeySettings)
    assert service.transit is not None
    assert (service.transit.key, service.transit.server.tls_floor) == ("offline", TLSFloor.TLS_1_2)
    assert service.transit.server.address == "https://vault.example.test:8200"
    assert settings.recording.tls_floor_exceptions == ("keys.service", "keys.vault-in-full")
    ward = settings.tenants["ward"]
    assert (ward.fallback_key, ward.on_key_outage) == ("escrow", KeyOutagePolicy.CONNECT_UNRECORDED)
    clinic = settings.tenants["clinic"]
    assert (clinic.fallback_key, clinic.on_key_outage) == (None, KeyOutagePolicy.REJECT)


VAULT = '[keys.vault]\nprovider = "vault-transit"\n'
FULL_VAULT = '[keys.vault-in-full]\nprovider = "vault-transit"\n'
FAULTS = {
    "http": ('address = "https://10.0.0.5"', 'address = "http://10.0.0.5"', "keys.vault-in-full.address", "plain http"),
    "http in a nested table": (
        'address = "https://vault.example.test:8200/"', 'address = "http://127.0.0.1:8200"',
        "keys.service.transit.address", "plain http",
    ),
    "address with a path": ('"https://10.0.0.5"', '"https://10.0.0.5/v1"', "keys.vault-in-full.address", "path"),
    "mount": ('"teams/transit"', '"../sys"', "keys.vault-in-full.mount", "form"),
    "namespace": ('namespace = "clinic"', 'namespace = "a b"', "keys.vault-in-full.namespace", "form"),
    "server id": ('server_id = "vault.example.test"', 'server_id = "a/b"', "keys.vault-in-full.server_id", "form"),
    "no key name": (VAULT, VAULT + "# ", "keys.vault.address", "missing"),
    "floor": (
        'timeout_s = 2\ntls_floor = "1.2"', 'timeout_s = 2\ntls_floor = "1.1"', "keys.vault-in-full.tls_floor",
        "'1.1'",
    ),
    "time": ("timeout_s = 2", "timeout_s = 100", "keys.vault-in-full.timeout_s", "above"),
    "authority": ('"tls/vault-ca.pem"', '"tls/none.pem"', "keys.vault-in-full.ca", "no such file"),
    "authority without a certificate": ('"tls/vault-ca.pem"', '"keys/escrow.pub"', "keys.vault-in-full.ca", "PEM"),
    "token in the file": ("timeout_s = 2", 'token = "s.x"', "keys.vault-in-full.token", "secret"),
    "pin in the file": (
        'pin_file = "keys/clinic.pin"', 'pin_file = "keys/clinic.pin"\npin = "1234"', "keys.token.pin", "secret",
    ),
    "module": ('"keys/module.so"', '"keys/none.so"', "keys.token.module", "no file"),
    "token label": ('token_label = "clinic"', 'token_label = "a/b"', "keys.token.token_label", "form"),
    "pin file": ('"keys/clinic.pin"', '"keys/none.pin"', "keys.token.pin_file", "No such file"),
    "public key": (
        '[keys.escrow]\nprovider = "rsa-oaep-sha256"\npublic_key = "keys/escrow.pub"',
        '[keys.escrow]\nprovider = "rsa-oaep-sha256"\npublic_key = "keys/vault.token"',
        "keys.escrow.public_key", "no PEM public key",
    ),
    "private key": ('"keys/escrow.key"', '"keys/vault.token"', "keys.reader.private_key", "no unencrypted"),
    "no part at all": ('private_key = "keys/escrow.key"', "", "keys.reader.public_key", "missing"),
    "two holders": (
        'public_key = "keys/escrow.pub"\n[keys.service.transit]',
        'public_key = "keys/escrow.pub"\nprivate_key = "keys/escrow.key"\n[keys.service.transit]',
        "keys.service.transit", "twice",
    ),
    "unknown key in a nested table": (
        'key = "offline"', 'key = "offline"\nmounts = "x"', "keys.service.transit.mounts", "unknown key",
    ),
    "missing key in a nested table": ('key = "offline"', "", "keys.service.transit.key", "missing"),
    "fallback that is not there": (
        'fallback_key = "escrow"', 'fallback_key = "none"', "tenants.ward.fallback_key", "no [keys.none]",
    ),
    "fallback that needs a service": (
        'fallback_key = "escrow"', 'fallback_key = "token"', "tenants.ward.fallback_key", "may be away",
    ),
    "fallback to itself": (
        'key = "vault"\nfallback', 'key = "escrow"\nfallback', "tenants.ward.fallback_key", "itself",
    ),
    "outage": ('"connect-unrecorded"', '"connect"', "tenants.ward.on_key_outage", "'connect'"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "key", "what"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told(file: ConfigurationFile, old: str, new: str, key: str, what: str) -> None:
    file.load()
    file.replace(old, new)
    found = {problem.key: problem for problem in file.problems()}
    assert key in found, found
    assert what in found[key].what
    assert found[key].cure
    assert found[key].line is not None or "missing" in what


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("vault.token", "keys.vault.token_file"),
        ("vault.token", "keys.service.transit.token_file"),
        ("clinic.pin", "keys.token.pin_file"),
        ("escrow.key", "keys.reader.private_key"),
    ],
)
def test_a_secret_that_others_may_read_is_refused(file: ConfigurationFile, name: str, key: str) -> None:
    file.load()
    (file.made.directory / "keys" / name).chmod(0o640)
    assert "0640" in {problem.key: problem.what for problem in file.problems()}[key]


def test_a_private_key_in_the_place_of_the_public_one_is_refused(file: ConfigurationFile) -> None:
    (file.made.directory / "keys" / "escrow.pub").write_bytes(private_pem(private_key("escrow")))
    assert "private" in {problem.key: problem.what for problem in file.problems()}["keys.escrow.public_key"]
