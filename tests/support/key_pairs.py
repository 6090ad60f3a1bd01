"""RSA key pairs for tests: in files, or in a real transit engine with the public part in a file."""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from recording.settings import RSAKeySettings
from support.openbao import OpenBao, vault_settings

READER_POLICY = """
path "transit/decrypt/{key}" {{ capabilities = ["update"] }}
path "transit/keys/{key}" {{ capabilities = ["read"] }}
"""


@cache
def private_key(name: str, bits: int = 3072) -> rsa.RSAPrivateKey:
    """One key per name and size for the whole run: making one takes a while."""
    del name
    return rsa.generate_private_key(65537, bits)


def private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def rsa_files(directory: Path, name: str) -> RSAKeySettings:
    """Both parts of a pair in files of `directory`."""
    key = private_key(name)
    private_path, public_path = directory / f"{name}.key", directory / f"{name}.pub"
    private_path.touch(mode=0o600)
    private_path.write_bytes(private_pem(key))
    public_path.write_bytes(public_pem(key.public_key()))
    return RSAKeySettings(public_key_path=public_path, private_key_path=private_path)


@cache
def _transit_key(server: OpenBao, name: str, kind: str) -> str:
    """One per name and kind for a server's life: it may take a server seconds to find the primes."""
    key = f"{name}-{secrets.token_hex(8)}"
    server.create_key(key, derived=False, type=kind)
    return key


def rsa_transit(server: OpenBao, directory: Path, name: str, *, kind: str = "rsa-3072") -> RSAKeySettings:
    """The private part in the server, the public one, read there by its administrator, in a file."""
    key = _transit_key(server, name, kind)
    told = server.admin("GET", f"transit/keys/{key}")["data"]["keys"]["1"]
    public_path = directory / f"{name}.pub"
    public_path.write_text(told["public_key"])
    return RSAKeySettings(
        public_key_path=public_path,
        transit=vault_settings(server, key, directory / f"{name}.token", policy=READER_POLICY),
    )
