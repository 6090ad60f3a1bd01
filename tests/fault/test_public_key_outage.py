"""A key pair of which the writer has one part: what it can do with no network, and what each wrong file is told."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

from recording.errors import RecordingError
from recording.format.slots import KeySlot, SlotProvider
from recording.keys.errors import (
    ContextMismatchError,
    KeyConfigurationError,
    KeyUnavailableError,
    NotPermittedError,
    UnknownKeyError,
)
from recording.keys.provider import KeyContext
from recording.keys.public_key import RSAPublicKeyProvider
from recording.settings import RSAKeySettings
from support.key_pairs import private_key, private_pem, public_pem, rsa_files, rsa_transit
from support.openbao import OpenBao

CONTEXT = KeyContext(file_id=b"F" * 16, tenant_handle=b"T" * 16)


def test_a_writer_needs_the_public_part_alone_and_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = rsa_files(tmp_path, "main")
    writer = RSAPublicKeyProvider("main", replace(settings, private_key_path=None))

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("the writer opened a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    key = writer.new_key(CONTEXT)
    writer.health()
    assert writer.describe()["unwraps_with"] == "public part alone"
    assert writer.describe()["fit_for_production"] == "yes"
    for ask in (writer.unwrap, writer.rewrap):
        with pytest.raises(NotPermittedError, match="public part"):
            ask(key.slot, CONTEXT)
    reader = RSAPublicKeyProvider("main", replace(settings, public_key_path=None))
    assert reader.slot_key_id == writer.slot_key_id
    assert reader.unwrap(key.slot, CONTEXT) == key.dek
    assert reader.describe()["fit_for_production"] == "no"


@pytest.mark.parametrize("kind", ["rsa-3072", "rsa-4096"])
def test_what_was_wrapped_offline_is_opened_by_transit(openbao: OpenBao, tmp_path: Path, kind: str) -> None:
    settings = rsa_transit(openbao, tmp_path, "offline", kind=kind)
    key = RSAPublicKeyProvider("main", replace(settings, transit=None)).new_key(CONTEXT)
    reader = RSAPublicKeyProvider("main", settings)
    assert reader.unwrap(key.slot, CONTEXT) == key.dek
    reader.health()
    assert reader.lifecycle().versions[0].created_at is not None


def test_the_version_with_our_public_part_is_asked_after_a_rotation(openbao: OpenBao, tmp_path: Path) -> None:
    name = f"rotated-{secrets.token_hex(8)}"
    openbao.create_key(name, derived=False, type="rsa-3072")
    settings = rsa_transit(openbao, tmp_path, "main")
    assert settings.transit is not None
    settings = replace(settings, transit=replace(settings.transit, key=name))
    openbao.token_file(tmp_path / "main.token", 'path "transit/*" { capabilities = ["update", "read"] }')
    with pytest.raises(UnknownKeyError, match="no version"):
        RSAPublicKeyProvider("main", settings).health()
    openbao.rotate_key(name)
    told = openbao.admin("GET", f"transit/keys/{name}")["data"]["keys"]
    slots = []
    for number in ("1", "2"):
        (tmp_path / "main.pub").write_text(told[number]["public_key"])
        reader = RSAPublicKeyProvider("main", settings)
        key = reader.new_key(CONTEXT)
        slots.append(key.slot)
        assert reader.unwrap(key.slot, CONTEXT) == key.dek
        assert [version.number for version in reader.lifecycle().versions] == [int(number)]
    assert slots[0].key_id != slots[1].key_id


def test_a_transit_server_that_is_sealed_or_refuses(openbao: OpenBao, tmp_path: Path) -> None:
    settings = rsa_transit(openbao, tmp_path, "main")
    reader = RSAPublicKeyProvider("main", settings)
    key = reader.new_key(CONTEXT)
    openbao.seal()
    try:
        with pytest.raises(KeyUnavailableError, match="sealed"):
            reader.unwrap(key.slot, CONTEXT)
        assert reader.new_key(CONTEXT), "wrapping goes on"
    finally:
        openbao.unseal()
    assert reader.unwrap(key.slot, CONTEXT) == key.dek
    openbao.revoke((tmp_path / "main.token").read_text().strip())
    with pytest.raises(NotPermittedError):
        reader.unwrap(key.slot, CONTEXT)


def test_a_slot_that_holds_no_data_key_is_refused(tmp_path: Path) -> None:
    reader = RSAPublicKeyProvider("main", rsa_files(tmp_path, "main"))
    public = private_key("main").public_key()

    def slot(data: bytes, scheme: padding.AsymmetricPadding) -> KeySlot:
        return KeySlot(
            provider=SlotProvider.RSA_OAEP_SHA256,
            key_id=reader.slot_key_id,
            wrapped=public.encrypt(data, scheme),
        )

    sha256 = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    sha1 = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
    labelled = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=b"x")
    assert reader.unwrap(slot(bytes(32), sha256), CONTEXT) == bytes(32)
    for data, scheme in (
        (bytes(31), sha256),
        (bytes(33), sha256),
        (b"", sha256),
        (bytes(32), sha1),
        (bytes(32), labelled),
        (bytes(32), padding.PKCS1v15()),
    ):
        with pytest.raises(ContextMismatchError):
            reader.unwrap(slot(data, scheme), CONTEXT)


def curve_private() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def curve_public() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip


def sealed_private() -> bytes:
    return private_key("main").private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: b"", "no PEM"),
        (lambda: b"\xff" * 100, "no PEM"),
        (lambda: private_pem(private_key("main")), "private"),
        (lambda: public_pem(private_key("short", 2048).public_key()), "2048"),
        (curve_public, "RSA"),
        (lambda: public_pem(private_key("main").public_key())[:-80], "no PEM"),
        (lambda: b"x" * 100_000, "no PEM"),
    ],
)
def test_a_public_key_file_that_cannot_be_used(
    tmp_path: Path, data: Callable[[], bytes], message: str
) -> None:
    settings = replace(rsa_files(tmp_path, "main"), private_key_path=None)
    RSAPublicKeyProvider("main", settings)
    (tmp_path / "main.pub").write_bytes(data())
    with pytest.raises(KeyConfigurationError, match=message):
        RSAPublicKeyProvider("main", settings)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.chmod(0o640), "0640"),
        (lambda path: path.unlink(), "private_key"),
        (lambda path: path.write_bytes(b""), "no unencrypted"),
        (lambda path: path.write_bytes(sealed_private()), "no unencrypted"),
        (lambda path: path.write_bytes(curve_private()), "RSA"),
        (lambda path: path.write_bytes(private_pem(private_key("short", 2048))), "2048"),
        (lambda path: path.write_bytes(private_pem(private_key("other"))), "pair"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "regular"),
    ],
)
def test_a_private_key_file_that_cannot_be_used(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    settings = rsa_files(tmp_path, "main")
    RSAPublicKeyProvider("main", settings)
    damage(tmp_path / "main.key")
    with pytest.raises(KeyConfigurationError, match=message):
        RSAPublicKeyProvider("main", settings)


def test_a_section_without_any_key_file_is_refused() -> None:
    with pytest.raises(RecordingError, match="public_key"):
        RSAPublicKeyProvider("main", RSAKeySettings())
