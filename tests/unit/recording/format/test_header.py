"""The head parser: what it accepts, and which field and offset it names when it refuses."""

from __future__ import annotations

import struct

import pytest

from recording.errors import FormatError, NotARecordingError, UnsupportedVersionError
from recording.format import header, slots


def core(**changes: object) -> header.CoreHeader:
    fields: dict[str, object] = {"file_id": b"F" * 16, "salt": b"S" * 32, "tenant_handle": b"T" * 16}
    return header.CoreHeader(**(fields | changes))  # type: ignore[arg-type]


def head(core_header: header.CoreHeader, *, generation: int = 0) -> bytes:
    area = slots.build_area([], core_len=core_header.core_len)
    return header.build_head(core_header, commitment=b"C" * 32, slots_area=area, slots_generation=generation)


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def test_a_built_head_parses_back_field_by_field() -> None:
    built = core(chunk_size=65536, segment_no=7, minor=3)
    data = head(built, generation=9)

    parsed = header.parse_head(data + b"body")

    assert parsed.core == built
    assert parsed.core_bytes == data[:96]
    assert parsed.commitment == b"C" * 32
    assert parsed.slots_generation == 9
    assert parsed.slots_area == bytes(3960)
    assert parsed.body_offset == len(data) == 4096
    assert parsed.record_offset(2) == 4096 + 2 * 65552


def test_bytes_past_the_known_fields_are_kept_and_belong_to_the_core() -> None:
    data = head(core(extension=b"later minor version"))
    parsed = header.parse_head(data)
    assert parsed.core.extension == b"later minor version"
    assert parsed.core_bytes.endswith(b"later minor version")
    assert parsed.body_offset % 4096 == 0


def test_reserved_bytes_are_ignored() -> None:
    data = patched(head(core()), 92, b"\xff\xff\xff\xff")
    assert header.parse_head(data).core == core()


@pytest.mark.parametrize("core_len", [96, 4096])
def test_both_bounds_of_core_len_are_inside(core_len: int) -> None:
    data = head(core(extension=bytes(core_len - 96)))
    assert header.parse_head(data).core.core_len == core_len


@pytest.mark.parametrize("offset", range(8))
def test_each_magic_byte_counts(offset: int) -> None:
    data = bytearray(head(core()))
    data[offset] ^= 1
    with pytest.raises(NotARecordingError) as caught:
        header.parse_head(bytes(data))
    assert (caught.value.field, caught.value.offset) == ("magic", 0)


@pytest.mark.parametrize(
    ("offset", "value", "field", "error"),
    [
        (8, b"\x02", "major", UnsupportedVersionError),
        (8, b"\x00", "major", UnsupportedVersionError),
        (10, b"\x00\x02", "suite", UnsupportedVersionError),
        (10, b"\x00\x00", "suite", UnsupportedVersionError),
        (12, struct.pack(">I", 95), "core_len", FormatError),
        (12, struct.pack(">I", 4097), "core_len", FormatError),
        (12, b"\xff\xff\xff\xff", "core_len", FormatError),
        (80, struct.pack(">I", 4095), "chunk_size", FormatError),
        (80, struct.pack(">I", 0), "chunk_size", FormatError),
        (80, struct.pack(">I", 131072), "chunk_size", FormatError),
        (88, b"\x00\x00\x00\x01", "flags", UnsupportedVersionError),
        (88, b"\x80\x00\x00\x00", "flags", UnsupportedVersionError),
        (128, struct.pack(">I", 65536 + 3960), "slots_len", FormatError),
        (128, struct.pack(">I", 3961), "slots_len", FormatError),
        (128, struct.pack(">I", 0), "slots_len", FormatError),
    ],
)
def test_a_field_out_of_bounds_is_refused_by_name_and_offset(
    offset: int, value: bytes, field: str, error: type[FormatError]
) -> None:
    with pytest.raises(error) as caught:
        header.parse_head(patched(head(core()), offset, value) + bytes(70_000))
    assert (type(caught.value), caught.value.field, caught.value.offset) == (error, field, offset)


def test_slots_len_may_reach_its_greatest_aligned_value() -> None:
    area = bytes(61440 + 3960)  # 65,400: the most that is both <= 65,536 and aligned
    data = header.build_head(core(), commitment=bytes(32), slots_area=area)
    assert len(header.parse_head(data).slots_area) == 65400


def test_the_reader_learns_step_by_step_how_much_to_read() -> None:
    data = head(core(extension=b"x" * 10))
    assert header.head_len_needed(data[:8]) == 16
    assert header.head_len_needed(data[:16]) == 96 + 10 + 40
    assert header.head_len_needed(data[: 96 + 10 + 40]) == 4096


@pytest.mark.parametrize("length", [8, 15, 16, 95, 135, 136, 4095])
def test_a_head_cut_short_says_where_it_ends(length: int) -> None:
    with pytest.raises(FormatError) as caught:
        header.parse_head(head(core())[:length])
    assert (caught.value.field, caught.value.offset) == ("head", length)


@pytest.mark.parametrize("length", range(8))
def test_less_than_the_magic_is_not_a_recording(length: int) -> None:
    with pytest.raises(NotARecordingError):
        header.parse_head(head(core())[:length])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"file_id": b"F" * 15}, "file_id"),
        ({"salt": b"S" * 33}, "salt"),
        ({"tenant_handle": b""}, "tenant_handle"),
        ({"chunk_size": 8191}, "chunk_size"),
        ({"extension": bytes(4001)}, "core_len"),
    ],
)
def test_a_core_header_that_could_not_be_read_back_is_not_made(
    changes: dict[str, object], field: str
) -> None:
    with pytest.raises(FormatError) as caught:
        core(**changes)
    assert caught.value.field == field


def test_building_refuses_an_area_that_leaves_the_body_unaligned() -> None:
    with pytest.raises(FormatError) as caught:
        header.build_head(core(), commitment=bytes(32), slots_area=bytes(3961))
    assert caught.value.field == "slots_len"


def test_building_refuses_a_commitment_of_another_length() -> None:
    with pytest.raises(FormatError) as caught:
        header.build_head(core(), commitment=bytes(31), slots_area=bytes(3960))
    assert caught.value.field == "commitment"
