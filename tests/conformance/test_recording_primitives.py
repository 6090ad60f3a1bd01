"""The primitives that records rest on, as installed, against NIST's AES-GCM and RFC 5869's HKDF vectors.

Provenance: the `cryptography-vectors` package. The product uses AES-256 with 96-bit nonces and 128-bit tags only, so
those are the sets that count here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ROOT = Path(cryptography_vectors.__file__).parent


def blocks(text: str) -> Iterator[dict[str, str]]:
    """`name = value` lines, gathered until `Count` or `COUNT` starts the next; section lines give defaults."""
    current: dict[str, str] = {}
    section: dict[str, str] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"\[(\w+) = (\d+)\]", line):
            section[match[1]] = match[2]
        elif line.startswith(("Count", "COUNT")):
            if current:
                yield current
            current = dict(section)
        elif line == "FAIL":
            current["FAIL"] = ""
        elif match := re.fullmatch(r"(\w+)\s*= ?(\w*)", line):
            current[match[1]] = match[2]
    yield current


def gcm_cases(name: str) -> list[dict[str, bytes | bool]]:
    cases = []
    for block in blocks((ROOT / "ciphers" / "AES" / "GCM" / name).read_text()):
        if (block["IVlen"], block["Taglen"]) != ("96", "128"):
            continue
        case: dict[str, bytes | bool] = {
            key: bytes.fromhex(block[key]) for key in ("Key", "IV", "CT", "AAD", "Tag")
        }
        case["PT"] = bytes.fromhex(block.get("PT", ""))
        case["FAIL"] = "FAIL" in block
        cases.append(case)
    return cases


def test_sealing_gives_the_ciphertext_and_tag_of_nist() -> None:
    cases = gcm_cases("gcmEncryptExtIV256.rsp")
    assert len(cases) == 375
    for case in cases:
        assert AESGCM(case["Key"]).encrypt(case["IV"], case["PT"], case["AAD"]) == case["CT"] + case["Tag"]  # type: ignore[arg-type, operator]


def test_opening_gives_the_plaintext_of_nist_or_refuses_as_nist_says() -> None:
    cases = gcm_cases("gcmDecrypt256.rsp")
    refused = 0
    for case in cases:
        opened = _opened(case)
        assert (opened is None) == case["FAIL"]
        assert opened is None or opened == case["PT"]
        refused += opened is None
    assert (len(cases), refused) == (375, 191)


def _opened(case: dict[str, bytes | bool]) -> bytes | None:
    try:
        return AESGCM(case["Key"]).decrypt(case["IV"], case["CT"] + case["Tag"], case["AAD"])  # type: ignore[arg-type, operator]
    except InvalidTag:
        return None


def test_derivation_gives_the_keys_of_rfc_5869() -> None:
    count = 0
    for block in blocks((ROOT / "KDF" / "rfc-5869-HKDF-SHA256.txt").read_text()):
        fields = {key: bytes.fromhex(block.get(key, "")) for key in ("IKM", "salt", "info", "OKM")}
        length = int(block["L"])
        derived = HKDF(algorithm=SHA256(), length=length, salt=fields["salt"], info=fields["info"])
        buffer = bytearray(length)
        derived.derive_into(fields["IKM"], buffer)
        assert buffer == fields["OKM"]
        count += 1
    assert count == 3


def test_a_tag_cut_short_is_refused() -> None:
    case = gcm_cases("gcmEncryptExtIV256.rsp")[-1]
    assert isinstance(case["CT"], bytes)
    assert isinstance(case["Tag"], bytes)
    with pytest.raises(InvalidTag):
        AESGCM(case["Key"]).decrypt(case["IV"], case["CT"] + case["Tag"][:12], case["AAD"])  # type: ignore[arg-type]
