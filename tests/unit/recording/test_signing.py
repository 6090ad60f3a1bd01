"""ES256 signatures: what signs, what verifies, and everything that does not."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from recording.keys.errors import KeyConfigurationError
from recording.signing import PublicKey, SigningKey, Verifier, create_signing_key, public_path

TYPE = "crec-manifest"
KEY = SigningKey(ec.generate_private_key(ec.SECP256R1()))
VERIFIER = Verifier([KEY.public])


def encoded(value: object) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def forged(header: dict[str, Any], payload: bytes = b"{}") -> bytes:
    """A token with any header, truly signed by our key."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    signed = encoded(header) + b"." + encoded(payload)
    r, s = decode_dss_signature(KEY._key.sign(signed, ec.ECDSA(SHA256())))
    return signed + b"." + encoded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


GOOD = {"alg": "ES256", "kid": KEY.kid, "typ": TYPE}


@given(st.binary(min_size=1, max_size=200))
def test_what_was_signed_verifies(payload: bytes) -> None:
    assert VERIFIER.verify(KEY.sign(payload, typ=TYPE), typ=TYPE) == (payload, KEY.kid)
    assert VERIFIER.verify(forged(GOOD, payload), typ=TYPE) == (payload, KEY.kid)


@given(st.data())
def test_no_changed_bit_verifies(data: st.DataObject) -> None:
    token = bytearray(KEY.sign(b'{"a":1}', typ=TYPE))
    at = data.draw(st.integers(0, len(token) - 1))
    token[at] ^= 1 << data.draw(st.integers(0, 7))
    assert VERIFIER.verify(bytes(token), typ=TYPE)[0] is None


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (GOOD | {"alg": "none"}, "ES256"),
        (GOOD | {"alg": "HS256"}, "ES256"),
        (GOOD | {"alg": "ES384"}, "ES256"),
        (GOOD | {"crit": ["exp"]}, "ES256"),
        (GOOD | {"typ": "crec-checkpoint"}, "something else"),
        ({"alg": "ES256", "kid": KEY.kid}, "something else"),
        (GOOD | {"kid": "0" * 16}, "not configured"),
        (GOOD | {"kid": 7}, "not configured"),
        (GOOD | {"kid": ["x"]}, "not configured"),
        ({"alg": "ES256", "typ": TYPE}, "not configured"),
    ],
)
def test_another_header_is_refused_though_it_is_signed(header: dict[str, Any], what: str) -> None:
    payload, why = VERIFIER.verify(forged(header), typ=TYPE)
    assert payload is None
    assert what in why


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"a.b",
        b"a.b.c.d",
        b"..",
        b"====.a.a",
        b"e30.e30.",
        b"a" * 9000,
        encoded(b"[" * 5000) + b".e30.AA",
        encoded([1]) + b".e30.AA",
        encoded(GOOD) + b".e30." + encoded(b"0" * 63),
        encoded(GOOD) + b".e30." + encoded(bytes(64)),
        encoded(GOOD) + b".e30." + encoded(b"\xff" * 64),
    ],
)
def test_what_is_no_token_is_refused(token: bytes) -> None:
    assert VERIFIER.verify(token, typ=TYPE)[0] is None


def test_several_keys_may_verify_while_one_is_replaced() -> None:
    new = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    both = Verifier([KEY.public, new.public])
    for key in (KEY, new):
        assert both.verify(key.sign(b"{}", typ=TYPE), typ=TYPE) == (b"{}", key.kid)
    assert Verifier([new.public]).verify(KEY.sign(b"{}", typ=TYPE), typ=TYPE)[0] is None
    assert not Verifier([]).has_keys
    assert both.has_keys


def test_openssl_verifies_it_too(tmp_path: Path) -> None:
    """The signature as a stranger checks it: DER of its two halves, over the first two parts."""
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature  # noqa: PLC0415

    create_signing_key(tmp_path / "key.pem")
    token = SigningKey.load(tmp_path / "key.pem").sign(b'{"a":1}', typ=TYPE)
    head, payload, signature = token.split(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    (tmp_path / "signed").write_bytes(head + b"." + payload)
    (tmp_path / "signature").write_bytes(
        encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    )
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pem.pub", "-signature", "signature", "signed"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "Verified OK")
    (tmp_path / "signed").write_bytes(head + b"." + payload + b"x")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0


# --- files


def test_a_new_key_is_private_and_its_public_half_beside_it(tmp_path: Path) -> None:
    public = create_signing_key(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    key = SigningKey.load(tmp_path / "key.pem")
    assert key.kid == public.kid == PublicKey.load(public_path(tmp_path / "key.pem")).kid
    assert len(key.kid) == 16
    with pytest.raises(KeyConfigurationError, match="File exists"):
        create_signing_key(tmp_path / "key.pem")


def test_a_private_key_that_does_not_do(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(KeyConfigurationError, match="No such file"):
        SigningKey.load(path)
    create_signing_key(path)
    path.chmod(0o640)
    with pytest.raises(KeyConfigurationError, match="chmod 600"):
        SigningKey.load(path)
    path.chmod(0o600)
    SigningKey.load(path)
    path.write_bytes(public_path(path).read_bytes())
    with pytest.raises(KeyConfigurationError, match="no private key"):
        SigningKey.load(path)
    for other in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
        path.write_bytes(
            other.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        with pytest.raises(KeyConfigurationError, match="no P-256 key"):
            SigningKey.load(path)


def test_a_public_key_that_does_not_do(tmp_path: Path) -> None:
    path = tmp_path / "key.pub"
    with pytest.raises(KeyConfigurationError, match="No such file"):
        PublicKey.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(KeyConfigurationError, match="no public key"):
        PublicKey.load(path)
    path.write_bytes(
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(KeyConfigurationError, match="only ES256"):
        PublicKey.load(path)
    path.write_bytes(KEY.public.pem())
    assert PublicKey.load(path).kid == KEY.kid
