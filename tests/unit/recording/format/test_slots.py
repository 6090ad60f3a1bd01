"""Key slots: the area in the head, and sidecars."""

from __future__ import annotations

import struct

import pytest

from recording.errors import FormatError
from recording.format.slots import (
    KeySlot,
    Sidecar,
    build_area,
    build_slots,
    parse_area,
    parse_sidecar,
    sidecar_generation,
)

FILE_ID = bytes(range(16))
SLOTS = (
    KeySlot(provider=1, key_id=b"arn:aws:kms:eu-central-1:1:key/2", wrapped=b"w" * 184),
    KeySlot(provider=0x7F, key_id=b"0123456789abcdef", wrapped=b"v" * 40),
)


def test_slots_come_back_in_order_from_a_padded_area() -> None:
    area = build_area(SLOTS)
    assert len(area) == 3960
    assert parse_area(area) == SLOTS


def test_the_bytes_are_those_of_the_specification() -> None:
    built = build_slots([KeySlot(provider=0x7F, key_id=b"ID", wrapped=b"WRAP")])
    assert built == b"\x00\x01" + b"\x00\x7f" + b"\x00\x02" + b"\x00\x04" + b"ID" + b"WRAP"


def test_the_area_grows_by_pages() -> None:
    big = [KeySlot(provider=4, key_id=b"k", wrapped=bytes(4000))]
    area = build_area(big)
    assert len(area) == 3960 + 4096
    assert parse_area(area) == tuple(big)


def test_an_area_of_zeros_has_no_slots() -> None:
    assert parse_area(bytes(3960)) == ()


def test_a_provider_unknown_here_is_kept() -> None:
    slot = KeySlot(provider=999, key_id=b"k", wrapped=b"w")
    assert parse_area(build_area([slot])) == (slot,)


def test_sixteen_slots_fit_and_a_seventeenth_does_not() -> None:
    slot = KeySlot(provider=1, key_id=b"k", wrapped=b"w")
    assert len(parse_area(build_area([slot] * 16))) == 16
    with pytest.raises(FormatError) as caught:
        build_area([slot] * 17)
    assert caught.value.field == "count"


def test_slots_too_large_for_any_area_are_refused() -> None:
    with pytest.raises(FormatError) as caught:
        build_area([KeySlot(provider=1, key_id=b"", wrapped=bytes(0xFFFF))])
    assert caught.value.field == "slots_len"


@pytest.mark.parametrize(
    "changes", [{"wrapped": bytes(0x10000)}, {"key_id": bytes(0x10000)}, {"provider": -1}]
)
def test_a_slot_that_16_bits_cannot_describe_is_not_made(changes: dict[str, object]) -> None:
    fields: dict[str, object] = {"provider": 1, "key_id": b"", "wrapped": b""}
    with pytest.raises(FormatError):
        KeySlot(**(fields | changes))  # type: ignore[arg-type]


def test_a_wrapped_key_is_not_shown_by_repr() -> None:
    assert "wrapped" not in repr(SLOTS[0])


@pytest.mark.parametrize(
    ("area", "field", "offset"),
    [
        (b"\x00", "count", 0),
        (b"\x00\x11" + bytes(100), "count", 0),
        (b"\x00\x01\x00\x01\x00", "slot[0]", 2),
        (struct.pack(">HHHH", 1, 1, 4, 4) + b"IDIDWRA", "slot[0]", 2),
        (struct.pack(">HHHH", 2, 1, 1, 1) + b"IW" + struct.pack(">HHH", 1, 0xFFFF, 0), "slot[1]", 10),
        (build_slots(SLOTS) + b"\x00\x01", "padding", len(build_slots(SLOTS))),
    ],
)
def test_an_area_that_lies_is_refused_by_name_and_offset(area: bytes, field: str, offset: int) -> None:
    with pytest.raises(FormatError) as caught:
        parse_area(area)
    assert (caught.value.field, caught.value.offset) == (field, offset)


def test_a_sidecar_comes_back() -> None:
    sidecar = Sidecar(file_id=FILE_ID, generation=12, slots=SLOTS)
    data = sidecar.build()
    assert data[:8] == b"\x89CRES\r\n\x1a"
    assert data[8:32] == FILE_ID + struct.pack(">II", 12, len(data) - 32)
    assert parse_sidecar(data, file_id=FILE_ID) == sidecar
    assert sidecar.name == "000102030405060708090a0b0c0d0e0f.12.slots"
    assert sidecar_generation(sidecar.name, file_id=FILE_ID) == 12


GOOD = Sidecar(file_id=FILE_ID, generation=1, slots=SLOTS).build()


@pytest.mark.parametrize(
    ("data", "field", "offset"),
    [
        (GOOD[:31], "sidecar", 31),
        (b"\x89CREC\r\n\x1a" + GOOD[8:], "magic", 0),
        (GOOD[:8] + bytes(16) + GOOD[24:], "file_id", 8),
        (GOOD + b"\0", "length", 28),
        (GOOD[:-1], "length", 28),
        (GOOD[:28] + struct.pack(">I", len(GOOD) - 32 + 2) + GOOD[32:] + b"\0\0", "slots", len(GOOD)),
    ],
)
def test_a_damaged_sidecar_is_refused_by_name_and_offset(data: bytes, field: str, offset: int) -> None:
    with pytest.raises(FormatError) as caught:
        parse_sidecar(data, file_id=FILE_ID)
    assert (caught.value.field, caught.value.offset) == (field, offset)


@pytest.mark.parametrize(
    "name",
    [
        f"{bytes(16).hex()}.1.slots",
        f"{FILE_ID.hex()}.slots",
        f"{FILE_ID.hex()}.01.slots",
        f"{FILE_ID.hex()}.-1.slots",
        f"{FILE_ID.hex()}.4294967296.slots",
        f"{FILE_ID.hex()}.1.slots.tmp",
        f"{FILE_ID.hex().upper()}.1.slots",
    ],
)
def test_other_names_are_no_sidecars_of_this_file(name: str) -> None:
    assert sidecar_generation(name, file_id=FILE_ID) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"generation": -1}, "generation"),
        ({"generation": 0x1_0000_0000}, "generation"),
        ({"file_id": FILE_ID[:15]}, "file_id"),
        ({"file_id": FILE_ID + b"\0"}, "file_id"),
    ],
)
def test_a_sidecar_that_its_header_cannot_describe_is_not_made(
    changes: dict[str, object], field: str
) -> None:
    fields: dict[str, object] = {"file_id": FILE_ID, "generation": 0xFFFFFFFF, "slots": ()}
    assert Sidecar(**fields).build()  # type: ignore[arg-type]
    with pytest.raises(FormatError) as caught:
        Sidecar(**(fields | changes))  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_sidecar_longer_than_a_reader_takes_is_not_built() -> None:
    fits = KeySlot(provider=1, key_id=b"", wrapped=bytes(0x10000 - 2 - 6 - 6 - 1))
    sidecar = Sidecar(
        file_id=FILE_ID, generation=1, slots=(fits, KeySlot(provider=1, key_id=b"", wrapped=b"x"))
    )
    assert parse_sidecar(sidecar.build(), file_id=FILE_ID) == sidecar
    longer = Sidecar(
        file_id=FILE_ID, generation=1, slots=(*sidecar.slots, KeySlot(provider=1, key_id=b"", wrapped=b""))
    )
    with pytest.raises(FormatError) as caught:
        longer.build()
    assert caught.value.field == "length"
