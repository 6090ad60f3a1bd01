"""Untrusted bytes into every parser: a typed error or a result, never another exception, never unbounded work."""

from __future__ import annotations

import io
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recording.errors import FormatError, MalformedContentError, RecordingError
from recording.format.content import parse_event, parse_final, parse_meta
from recording.format.header import Head, head_len_needed, parse_head
from recording.format.record import Record, open_record
from recording.format.slots import KeySlot, Sidecar, build_area, build_slots, parse_area, parse_sidecar
from recording.reader import open_with_dek
from recording.verify import verify
from support.crec import DEK, RECORD, ramp, recording

GOOD = recording(ramp(3000))
HEAD = GOOD[:4096]
SLOTS = (KeySlot(provider=1, key_id=b"key", wrapped=b"w" * 60), KeySlot(provider=4, key_id=b"", wrapped=b""))
SIDECAR = Sidecar(file_id=b"F" * 16, generation=3, slots=SLOTS).build()
KEY = AESGCM(bytes(32))
MANY = settings(max_examples=300, deadline=None)


def mutated(base: bytes) -> st.SearchStrategy[bytes]:
    """`base` with some bytes overwritten, cut, or continued: near enough to valid to get deep into a parser."""

    def apply(changes: list[tuple[int, bytes]], cut: int, tail: bytes) -> bytes:
        data = bytearray(base)
        for at, value in changes:
            data[at : at + len(value)] = value
        return bytes(data[: len(data) - cut]) + tail

    change = st.tuples(st.integers(0, len(base) - 1), st.binary(min_size=1, max_size=4))
    return st.builds(
        apply, st.lists(change, max_size=4), st.integers(0, min(200, len(base))), st.binary(max_size=40)
    )


@MANY
@given(st.one_of(st.binary(max_size=300), mutated(HEAD), mutated(HEAD[:140])))
def test_a_head_parses_or_is_refused_with_an_offset_inside_it(data: bytes) -> None:
    try:
        head = parse_head(data)
    except FormatError as error:
        assert 0 <= error.offset <= max(len(data), 4096 + 32)  # noqa: PT017 - holds of either outcome
        assert error.field  # noqa: PT017 - holds of either outcome
        return
    assert isinstance(head, Head)
    assert head.body_offset <= len(data)
    assert head.body_offset % 4096 == 0
    rebuilt = head.core.build()
    assert rebuilt[:92] + head.core_bytes[92:96] + rebuilt[96:] == head.core_bytes


@MANY
@given(st.one_of(st.binary(max_size=200), mutated(HEAD[:140])))
def test_a_reader_never_asks_for_more_than_a_head_can_have(data: bytes) -> None:
    try:
        needed = head_len_needed(data)
    except FormatError:
        return
    assert 16 <= needed <= 4096 + 40 + 65536


@MANY
@given(st.one_of(st.binary(max_size=300), mutated(build_slots(SLOTS)), mutated(build_area(SLOTS)[:200])))
@example(struct.pack(">H", 16) + struct.pack(">HHH", 1, 0xFFFF, 0xFFFF))
def test_slots_parse_or_are_refused_with_an_offset_inside_them(data: bytes) -> None:
    try:
        slots = parse_area(data)
    except FormatError as error:
        assert 0 <= error.offset <= len(data)  # noqa: PT017 - holds of either outcome
        return
    rebuilt = build_slots(slots)
    assert data[: len(rebuilt)] == rebuilt
    assert not any(data[len(rebuilt) :])


@MANY
@given(st.one_of(st.binary(max_size=200), mutated(SIDECAR)))
def test_a_sidecar_parses_to_what_it_was_built_from_or_is_refused(data: bytes) -> None:
    try:
        sidecar = parse_sidecar(data, file_id=b"F" * 16)
    except FormatError:
        return
    assert sidecar.build() == data


@MANY
@given(st.binary(max_size=64), st.binary(max_size=20), st.integers(0, 3), st.booleans())
def test_authentic_nonsense_in_a_record_is_refused_or_stays_inside_the_chunk(
    start: bytes, random_tail: bytes, index: int, final: bool
) -> None:
    inner = start.ljust(4096, b"\0")
    nonce = struct.pack(">BBHQ", 1, final, 0, index)
    try:
        record = open_record(KEY, index=index, sealed=KEY.encrypt(nonce, inner, None))
    except FormatError:
        return
    assert isinstance(record, Record)
    assert record.is_final == final
    assert bytes(record.payload) == inner[16 : 16 + len(record.payload)]
    try:
        open_record(KEY, index=index, sealed=random_tail.ljust(RECORD, b"\1"))
    except FormatError:
        return
    raise AssertionError("forged")


@MANY
@given(
    st.one_of(
        st.binary(max_size=100),
        mutated(b'{"v":1,"from":"x","sip_call_ids":["a"],"started_at":"2026-01-01T00:00:00Z"}'),
    )
)
def test_json_parses_or_is_refused(data: bytes) -> None:
    for parse in (parse_meta, parse_event, parse_final):
        try:
            parse(data)
        except MalformedContentError:
            continue


@settings(max_examples=150, deadline=None)
@given(mutated(GOOD))
def test_a_damaged_file_gives_a_verdict_or_a_typed_error(data: bytes) -> None:
    try:
        opened = open_with_dek(io.BytesIO(data), DEK)
    except RecordingError:
        return
    verdict = verify(opened)
    assert verdict.is_complete == (data[4096:] == GOOD[4096:])
