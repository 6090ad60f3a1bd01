"""Every vector of tests/data/crec: the verdict that its own head expects, from both readers."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from recording.errors import (
    FormatError,
    MissingSlotError,
    NotARecordingError,
    RecordingError,
    TruncatedRecordingError,
    UnsupportedVersionError,
    UnwrapError,
    WrongKeyError,
)
from recording.format.header import parse_head
from recording.format.record import open_record
from recording.format.slots import KeySlot
from recording.format.suites import derive_keys
from recording.keys.provider import KeyContext
from recording.reader import RecordingReader, open_recording, open_with_dek
from recording.unlock import SlotKey
from recording.verify import verify
from support import node

DIRECTORY = Path(__file__).parent.parent / "data" / "crec"
NAMES = sorted(path.stem for path in DIRECTORY.glob("*.vector"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    expect: str
    file: bytes = field(repr=False)
    dek: bytes | None
    kek: bytes | None
    sidecars: tuple[bytes, ...]


def load(name: str) -> Vector:
    head, _, data = (DIRECTORY / f"{name}.vector").read_bytes().partition(b"\n\n")
    kind, *lines = head.decode().split("\n")
    assert kind == "crec test vector 1"
    pairs = [line.split(": ", 1) for line in lines]
    values = dict(pairs)
    return Vector(
        expect=values["expect"],
        file=data,
        dek=bytes.fromhex(values["dek"]) if "dek" in values else None,
        kek=bytes.fromhex(values["kek"]) if "kek" in values else None,
        sidecars=tuple(bytes.fromhex(value) for key, value in pairs if key == "sidecar"),
    )


def local_key(kek: bytes) -> SlotKey:
    def unwrap(slot: KeySlot, _context: KeyContext) -> bytearray:
        try:
            return bytearray(aes_key_unwrap(kek, slot.wrapped))
        except InvalidUnwrap as error:
            raise UnwrapError("not wrapped by this key") from error

    return SlotKey(provider=0x7F, key_id=generator().key_id(kek), unwrap=unwrap)


def opened(vector: Vector) -> RecordingReader:
    file = io.BytesIO(vector.file)
    if vector.kek is not None:
        return open_recording(file, keys=[local_key(vector.kek)], sidecars=vector.sidecars)
    assert vector.dek is not None
    return open_with_dek(file, vector.dek)


def outcome(vector: Vector) -> str:
    try:
        verdict = verify(opened(vector))
    except RecordingError as error:
        return f"refused {reason(error)}"
    return "complete" if verdict.is_complete else f"{verdict.state.value} {verdict.records}"


def reason(error: RecordingError) -> str:
    match error:
        case NotARecordingError():
            return "not-a-recording"
        case UnsupportedVersionError(field=name):
            return f"version {name}"
        case FormatError(field=name):
            return f"malformed {name}"
        case WrongKeyError():
            return "wrong-key"
        case MissingSlotError():
            return "missing-slot"
        case TruncatedRecordingError():
            return "head-cut"
        case _:
            raise error


def generator() -> ModuleType:
    """The script that makes the vectors, as a module."""
    name = "crec_vector_generator"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, DIRECTORY / "generate.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_is_the_expected_one(name: str) -> None:
    vector = load(name)
    assert outcome(vector) == vector.expect


def test_the_reader_in_javascript_gives_every_expected_verdict() -> None:
    found = node.run("crec_reader.mjs", "vectors", str(DIRECTORY))
    assert found == {name: load(name).expect for name in NAMES}


def test_the_vectors_are_those_that_the_script_makes() -> None:
    made = {vector.name: vector.text() for vector in generator().vectors()}
    assert sorted(made) == NAMES
    assert [name for name in NAMES if made[name] != (DIRECTORY / f"{name}.vector").read_bytes()] == []


def test_the_hashes_on_record_are_those_of_the_files() -> None:
    lines = (DIRECTORY / "SHA256SUMS").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256((DIRECTORY / f'{name}.vector').read_bytes()).hexdigest()}  {name}.vector"
        for name in NAMES
    ]


def test_the_seed_has_the_published_hashes() -> None:
    data = load("seed").file
    head = parse_head(data)
    assert head.commitment.hex() == "b1bbe245e610faf1b6b4419a2ea4f2a408046ed0f43a3816482862f982fc23bd"
    assert (len(data), len(head.slots_area), any(head.slots_area)) == (16432, 3960, False)
    assert (
        hashlib.sha256(data).hexdigest() == "ad511667705c2f141ae5232dec85e694871a71fcfa2386a6d249c943c0920f1e"
    )
    records = list(opened(load("seed")).records())
    assert [(record.type, record.position, len(record.payload)) for record in records] == [
        (2, 0, 2), (1, 0, 4080), (0x7F, 2040, 10),
    ]  # fmt: skip


def test_only_the_commitment_tells_the_two_keys_of_the_collision_apart() -> None:
    right, other = load("collision-first-key"), load("collision-second-key")
    assert right.file == other.file
    assert right.dek is not None
    assert other.dek is not None
    assert right.dek != other.dek
    head = parse_head(right.file)
    sealed = right.file[head.record_offset(0) : head.record_offset(1)]
    keys = [derive_keys(dek, salt=head.core.salt, core=head.core_bytes) for dek in (right.dek, other.dek)]
    first, second = (open_record(each.body, index=0, sealed=sealed) for each in keys)
    assert bytes(first.payload) == b"{}"
    assert bytes(second.payload) != bytes(first.payload)
    assert [each.match(head.commitment) for each in keys] == [True, False]
