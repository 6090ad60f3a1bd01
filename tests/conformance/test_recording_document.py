"""The worked example of docs/recording-format.md, value by value, against what the code computes."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from recording.format import limits, record
from recording.format.content import EventKind, FinalInfo, RecordingEvent, RecordingKind, RecordingMeta
from recording.format.header import MAGIC, CoreHeader, build_head
from recording.format.record import RecordType
from recording.format.slots import SIDECAR_MAGIC, SlotProvider, build_area
from recording.format.suites import derive_keys
from support.crec import DEK

PAGE = (Path(__file__).parents[2] / "docs" / "recording-format.md").read_text()
CORE = CoreHeader(file_id=b"F" * 16, salt=b"S" * 32, tenant_handle=b"T" * 16, chunk_size=4096)
KEYS = derive_keys(DEK, salt=CORE.salt, core=CORE.build())


def sealed(index: int, record_type: RecordType, payload: bytes, position: int) -> tuple[bytes, bytes]:
    """The chunk in clear and the record."""
    inner = bytearray(4096)
    record.write_inner_header(inner, record_type=record_type, payload_len=len(payload), position=position)
    inner[16 : 16 + len(payload)] = payload
    return bytes(inner), record.seal_inner(KEYS.body, index=index, inner=inner)


def test_the_core_header_and_the_keys_are_on_the_page() -> None:
    words = CORE.build().hex(" ", 4)
    assert words in PAGE.replace("\n", " ")
    core_hash = hashlib.sha256(CORE.build()).digest()
    secret = hmac.digest(CORE.salt, DEK, "sha256")
    body_key = hmac.digest(secret, b"crec/v1/body\0" + core_hash + b"\1", "sha256")
    for name, value in (
        ("h           ", core_hash),
        ("HKDF extract", secret),
        ("commitment  ", KEYS.commitment),
        ("K_body      ", body_key),
    ):
        assert f"{name} {value.hex()}\n" in PAGE
    info = b"crec/v1/".hex(), b"commit".hex(), "00", core_hash.hex()
    assert " ".join(info) in PAGE


def test_the_records_of_the_example_are_on_the_page() -> None:
    rows = [
        (RecordType.META, b"{}", 0),
        (RecordType.AUDIO, bytes(4080), 0),
        (RecordType.FINAL, record.build_final(3, b"{}"), 2040),
    ]
    data = build_head(CORE, commitment=KEYS.commitment, slots_area=build_area([]))
    for index, (record_type, payload, position) in enumerate(rows):
        inner, sealed_record = sealed(index, record_type, payload, position)
        data += sealed_record
        start = f"`{inner[:4].hex()} {inner[4:8].hex()} {inner[8:16].hex()}`"
        nonce = record.nonce(index, final=record_type is RecordType.FINAL).hex()
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {index} {record_type.name} |")]
        assert start in row
        for value in (nonce, sealed_record[:16].hex(), sealed_record[-16:].hex()):
            assert f"`{value}`" in row
    assert f"its SHA-256 is `{hashlib.sha256(data).hexdigest()}`" in PAGE
    assert f"{len(data):,} bytes" in PAGE


def test_every_number_and_word_of_the_format_is_on_the_page() -> None:
    for magic in (MAGIC, SIDECAR_MAGIC):
        assert magic.hex(" ").upper() in PAGE
    for size in limits.CHUNK_SIZES:
        assert f"{size:,}" in PAGE
    for record_type in RecordType:
        number = "0x7F" if record_type is RecordType.FINAL else str(int(record_type))
        assert f"{number} {record_type.name}" in PAGE
    for provider in SlotProvider:
        number = "0x7F" if provider is SlotProvider.LOCAL_DEV else str(int(provider))
        assert f"\n| {number} | " in PAGE.split("## Key slots")[1]
    for word in (*EventKind, *RecordingKind):
        assert f"`{word.value}`" in PAGE


def test_every_key_of_the_json_is_on_the_page() -> None:
    names = {"from_": "from"}
    for content, section in (
        (RecordingMeta, "### META"),
        (RecordingEvent, "### EVENT"),
        (FinalInfo, "### FINAL"),
    ):
        text = PAGE.split(section)[1].split("##")[0]
        for attribute in content.__dataclass_fields__:
            if attribute not in {"extra", "count"}:
                assert f"`{names.get(attribute, attribute)}`" in text


def command_of(provider: str) -> str:
    """The command that the page shows for a provider's slots."""
    section = PAGE.split("What gives the data key of a slot")[1]
    (row,) = [line for line in section.splitlines() if line.startswith(f"| {provider} | `openssl")]
    return row.split("`")[1].replace("\\|", "|")


def opened(directory: Path, command: str) -> bytes:
    done = subprocess.run(["bash", "-c", command], cwd=directory, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_local_slot_opens_with_the_command_on_the_page(tmp_path: Path) -> None:
    kek = bytes(range(64, 96))
    (tmp_path / "dev.kek").write_bytes(kek)
    (tmp_path / "wrapped").write_bytes(aes_key_wrap(kek, DEK))
    assert opened(tmp_path, command_of("0x7F")) == DEK


def test_a_public_key_slot_opens_with_the_command_on_the_page(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 3072)
    (tmp_path / "private.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    (tmp_path / "wrapped").write_bytes(key.public_key().encrypt(DEK, oaep))
    assert opened(tmp_path, command_of("4")) == DEK
