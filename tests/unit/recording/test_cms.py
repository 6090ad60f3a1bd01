"""Sealing to certificates: stock OpenSSL opens what we seal, refuses what was altered, and bad recipients are named."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from recording import cms
from recording.cms import CMSSealer, RecipientError, parse_recipient, seal
from recording.errors import RecordingError
from support.recipients import DAY, NOW, Key, RecipientFiles, make_recipient

RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, Key] = {
    "rsa": RSA,
    "p256": P256,
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
}


def sealed_to(path: Path, content: bytes, *files: RecipientFiles, step: int = 10_000) -> Path:
    recipients = [parse_recipient(each.certificate.read_bytes(), now=NOW) for each in files]
    parts = (memoryview(content)[at : at + step] for at in range(0, len(content), step))
    path.write_bytes(b"".join(seal(parts, recipients)))
    return path


@pytest.mark.parametrize("key_id", [True, False], ids=["key id", "issuer and serial"])
@pytest.mark.parametrize("kind", KEYS)
def test_openssl_opens_what_was_sealed(tmp_path: Path, kind: str, key_id: bool) -> None:
    files = make_recipient(tmp_path, kind, KEYS[kind], key_id=key_id)
    content = os.urandom(200_001)
    message, out = sealed_to(tmp_path / "m.p7m", content, files), tmp_path / "out"
    done = files.open(message, out)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == content
    assert content[:64] not in message.read_bytes()


@pytest.mark.parametrize("size", [0, 1, cms.PIECE_BYTES - 1, cms.PIECE_BYTES, 3 * cms.PIECE_BYTES + 5])
@pytest.mark.parametrize("step", [1 << 30, 999])
def test_any_size_in_any_pieces(tmp_path: Path, size: int, step: int) -> None:
    files = make_recipient(tmp_path, "rsa", RSA)
    content, out = os.urandom(size), tmp_path / "out"
    done = files.open(sealed_to(tmp_path / "m.p7m", content, files, step=step), out)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == content


def test_each_of_several_recipients_opens_it_and_nobody_else(tmp_path: Path) -> None:
    files = [make_recipient(tmp_path, kind, key) for kind, key in KEYS.items()]
    other = make_recipient(tmp_path, "other", rsa.generate_private_key(65537, 2048))
    message, out = sealed_to(tmp_path / "m.p7m", b"said in confidence", *files), tmp_path / "out"
    for each in files:
        assert each.open(message, out).returncode == 0
        assert out.read_bytes() == b"said in confidence"
    assert other.open(message, tmp_path / "none").returncode != 0
    assert b"confidence" not in (tmp_path / "none").read_bytes()


@pytest.mark.parametrize("where", ["content", "tag", "wrapped key", "last piece cut"])
def test_openssl_refuses_an_altered_message(tmp_path: Path, where: str) -> None:
    files = make_recipient(tmp_path, "p256", P256)
    message, out = sealed_to(tmp_path / "m.p7m", bytes(100_000), files), tmp_path / "out"
    assert files.open(message, out).returncode == 0
    data = bytearray(message.read_bytes())
    if where == "last piece cut":
        # A whole piece less, the structure still sound: only the tag can tell.
        head = len(data) - (4 + 100_000 - cms.PIECE_BYTES) - (4 + 18 + 6)
        del data[head : len(data) - (4 + 18 + 6)]
    else:
        at = {
            "content": len(data) // 2,
            "tag": len(data) - 8,
            "wrapped key": data.index(b"\x30\x80\x06\x09\x2a") - 5,
        }
        data[at[where]] ^= 1
    message.write_bytes(data)
    assert files.open(message, out).returncode != 0


def test_openssl_shows_the_structure_that_was_meant(tmp_path: Path) -> None:
    files = make_recipient(tmp_path, "rsa", RSA)
    message = sealed_to(tmp_path / "m.p7m", b"x", files)
    shown = subprocess.run(
        ["openssl", "cms", "-cmsout", "-print", "-inform", "DER", "-in", str(message)],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    for words in ("id-smime-ct-authEnvelopedData", "aes-256-gcm", "rsaesOaep", "sha256"):
        assert words in shown


def test_two_messages_share_neither_key_nor_nonce(tmp_path: Path) -> None:
    files = make_recipient(tmp_path, "rsa", RSA)
    one, other = (sealed_to(tmp_path / name, bytes(1000), files).read_bytes() for name in ("a", "b"))
    assert one[-1100:-40] != other[-1100:-40]
    nonces = {data[data.index(b"\x30\x11\x04\x0c") + 4 :][:12] for data in (one, other)}
    assert len(nonces) == 2


def test_memory_does_not_grow_with_the_content(tmp_path: Path) -> None:
    recipient = parse_recipient(make_recipient(tmp_path, "p256", P256).certificate.read_bytes(), now=NOW)
    sealer, part, size = CMSSealer([recipient]), bytes(300_000), 0
    sealer.update(part)
    tracemalloc.start()
    for _ in range(200):
        size += len(sealer.update(part))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 59_000_000
    assert peak < 2_000_000


def test_content_beyond_what_one_nonce_may_carry_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipient = parse_recipient(make_recipient(tmp_path, "p256", P256).certificate.read_bytes(), now=NOW)
    monkeypatch.setattr(cms, "CONTENT_MAX", 1000)
    sealer = CMSSealer([recipient])
    sealer.update(bytes(1000))
    with pytest.raises(RecordingError, match="64 GiB"):
        sealer.update(b"x")


REFUSED: dict[str, tuple[Callable[[], Key], dict[str, Any], str]] = {
    "expired": (lambda: RSA, {"start": NOW - 9 * DAY, "end": NOW - DAY}, "expired at"),
    "not yet": (lambda: RSA, {"start": NOW + DAY}, "not valid before"),
    "authority": (lambda: P256, {"ca": True}, "certification authority"),
    "rsa to sign": (lambda: RSA, {"usages": ["digital_signature", "key_agreement"]}, "key encipherment"),
    "ec to sign": (lambda: P256, {"usages": ["digital_signature"]}, "key agreement"),
    "no usage": (lambda: P256, {"usages": None}, "states no key usage"),
    "short": (lambda: rsa.generate_private_key(65537, 1024), {}, "1024 bits"),
    "curve": (lambda: ec.generate_private_key(ec.SECP256K1()), {}, "secp256k1"),
    "signature only": (ed25519.Ed25519PrivateKey.generate, {}, "neither an RSA nor"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_a_certificate_that_must_not_be_sealed_to(tmp_path: Path, why: str) -> None:
    key, changes, words = REFUSED[why]
    bad = make_recipient(tmp_path, "bad", key(), **changes)
    with pytest.raises(RecipientError, match=words):
        parse_recipient(bad.certificate.read_bytes(), now=NOW)


def test_every_rule_that_a_certificate_breaks_is_named_at_once(tmp_path: Path) -> None:
    short = rsa.generate_private_key(65537, 1024)
    bad = make_recipient(tmp_path, "bad", short, ca=True, usages=None, start=NOW - 9 * DAY, end=NOW - DAY)
    with pytest.raises(RecipientError) as caught:
        parse_recipient(bad.certificate.read_bytes(), now=NOW)
    for words in ("expired at", "1024 bits", "certification authority", "states no key usage"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        (RSA, {"usages": ["key_encipherment"], "ca": None}),
        (P256, {"usages": ["key_agreement"]}),
        (P256, {"end": NOW + DAY}),
    ],
)
def test_a_certificate_that_may_be_sealed_to(tmp_path: Path, key: Key, changes: dict[str, Any]) -> None:
    good = make_recipient(tmp_path, "good", key, **changes)
    recipient = parse_recipient(good.certificate.read_bytes(), now=NOW)
    assert len(recipient.fingerprint) == 64
    with pytest.raises(RecipientError, match="expired"):
        parse_recipient(good.certificate.read_bytes(), now=NOW + 400 * DAY)


def test_one_certificate_and_nothing_else(tmp_path: Path) -> None:
    good = make_recipient(tmp_path, "good", RSA)
    pem = good.certificate.read_bytes()
    with pytest.raises(RecipientError, match="2 certificates"):
        parse_recipient(pem + pem, now=NOW)
    for other in (b"", b"no certificate", good.key.read_bytes()):
        with pytest.raises(RecipientError, match="PEM"):
            parse_recipient(other, now=NOW)


def test_a_message_for_nobody_is_not_made() -> None:
    with pytest.raises(ValueError, match="recipient"):
        CMSSealer([])
