"""One record sealed and opened, and the suite's key schedule."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recording.errors import FormatError
from recording.format import record, suites
from recording.format.record import RecordType

CHUNK = 4096
KEY = AESGCM(bytes(32))


def inner(
    record_type: int, payload: bytes = b"", *, position: int = 0, payload_len: int | None = None
) -> bytes:
    length = len(payload) if payload_len is None else payload_len
    fields = bytes([record_type, 0, 0, 0]) + length.to_bytes(4, "big") + position.to_bytes(8, "big")
    return (fields + payload).ljust(CHUNK, b"\0")


def sealed(index: int, plain: bytes, *, final: bool) -> bytes:
    return KEY.encrypt(record.nonce(index, final=final), plain, None)


def test_the_nonce_is_kind_final_zero_and_index() -> None:
    assert record.nonce(0x0102030405060708, final=False).hex() == "010000000102030405060708"
    assert record.nonce(2, final=True).hex() == "010100000000000000000002"


@pytest.mark.parametrize("record_type", list(RecordType))
def test_what_is_sealed_opens_at_its_index(record_type: RecordType) -> None:
    chunk = bytearray(CHUNK)
    record.write_inner_header(chunk, record_type=record_type, payload_len=5, position=2**40)
    chunk[16:21] = b"audio"

    opened = record.open_record(KEY, index=3, sealed=record.seal_inner(KEY, index=3, inner=chunk))

    assert (opened.index, opened.type, opened.position) == (3, record_type, 2**40)
    assert opened.payload == b"audio"
    assert opened.is_final == (record_type is RecordType.FINAL)


def test_the_payload_may_fill_the_chunk() -> None:
    capacity = record.payload_capacity(CHUNK)
    opened = record.open_record(KEY, index=0, sealed=sealed(0, inner(1, b"x" * capacity), final=False))
    assert opened.payload == b"x" * 4080


def test_unknown_types_and_padding_are_let_through() -> None:
    plain = inner(0x55, b"later")[:-1] + b"\xff"
    opened = record.open_record(KEY, index=0, sealed=sealed(0, plain, final=False))
    assert (opened.type, bytes(opened.payload)) == (0x55, b"later")


@pytest.mark.parametrize(
    ("plain", "final", "field"),
    [
        (inner(0x7F), False, "record 0 type"),
        (inner(1), True, "record 0 type"),
        (inner(1, payload_len=CHUNK - 15), False, "record 0 payload_len"),
        (inner(1, payload_len=0xFFFFFFFF), False, "record 0 payload_len"),
    ],
)
def test_an_authentic_record_that_breaks_a_rule_is_refused(plain: bytes, final: bool, field: str) -> None:
    with pytest.raises(FormatError) as caught:
        record.open_record(KEY, index=0, sealed=sealed(0, plain, final=final))
    assert caught.value.field == field


def test_a_record_opens_at_no_other_index_and_under_no_other_key() -> None:
    data = sealed(1, inner(1, b"audio"), final=False)
    with pytest.raises(FormatError, match="does not authenticate"):
        record.open_record(KEY, index=2, sealed=data)
    with pytest.raises(FormatError, match="does not authenticate"):
        record.open_record(AESGCM(b"\1" * 32), index=1, sealed=data)


def test_a_final_record_shorter_than_its_count_has_none() -> None:
    short = record.open_record(KEY, index=0, sealed=sealed(0, inner(0x7F, b"1234567"), final=True))
    assert record.final_count(short) is None
    payload = record.build_final(2**33, b"{}")
    full = record.open_record(KEY, index=0, sealed=sealed(0, inner(0x7F, payload), final=True))
    assert record.final_count(full) == 2**33


def test_each_core_byte_and_the_salt_change_both_keys() -> None:
    def keys(dek: bytes = bytes(32), salt: bytes = bytes(32), core: bytes = bytes(96)) -> suites.SegmentKeys:
        return suites.derive_keys(dek, salt=salt, core=core)

    base = keys()
    data = base.body.encrypt(bytes(12), b"probe", None)
    for other in (keys(dek=b"\1" + bytes(31)), keys(salt=b"\1" + bytes(31)), keys(core=bytes(95) + b"\1")):
        assert other.commitment != base.commitment
        assert other.body.encrypt(bytes(12), b"probe", None) != data
        assert not base.match(other.commitment)
    assert base.match(keys().commitment)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_data_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        suites.derive_keys(bytes(length), salt=bytes(32), core=bytes(96))


def test_wiping_leaves_zeros() -> None:
    secret = bytearray(b"secret")
    suites.wipe(secret)
    assert secret == bytes(6)
