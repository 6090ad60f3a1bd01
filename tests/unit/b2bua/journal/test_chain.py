"""The chain of an audit log: whatever is cut, changed, moved, doubled or put in does not follow."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from b2bua.journal.chain import ChainHead, genesis, link, read_line
from recording.errors import MalformedContentError

LOG = b"L" * 16

values = st.dictionaries(
    st.text("abcdef_", min_size=1, max_size=8).filter(lambda name: name not in {"seq", "hash"}),
    st.text(max_size=8) | st.integers() | st.none(),
    min_size=1,
    max_size=4,
)
logs = st.lists(values, min_size=2, max_size=12)


def stored(lines: list[dict[str, object]]) -> tuple[list[bytes], ChainHead]:
    return link(genesis(LOG), [json.dumps(line).encode() for line in lines])


def is_chain(lines: list[bytes], end: ChainHead) -> bool:
    """Whether the lines lead from the beginning of the log to `end`."""
    head = genesis(LOG)
    for text in lines:
        try:
            line = read_line(text)
        except MalformedContentError:
            return False
        if not line.follows(head):
            return False
        head = line.head
    return head == end


@given(logs)
def test_what_is_linked_follows_and_keeps_its_values(lines: list[dict[str, object]]) -> None:
    linked, end = stored(lines)
    assert is_chain(linked, end)
    assert [read_line(text).values for text in linked] == lines
    assert [read_line(text).sequence for text in linked] == list(range(1, len(lines) + 1))


def test_a_stranger_can_follow_it_with_sha256_alone() -> None:
    linked, _ = stored([{"event": "fault"}, {"event": "call_ended", "status": 200}])
    digest = hashlib.sha256(b"crec/v1/chain\0" + LOG).digest()
    for text in linked:
        body = text.rstrip(b"\n")[: -len(',"hash":""}') - 64] + b"}"
        digest = hashlib.sha256(digest + body).digest()
        assert json.loads(text)["hash"] == digest.hex()
    assert list(json.loads(linked[1])) == ["seq", "event", "status", "hash"]


def test_linking_in_parts_gives_the_same_chain() -> None:
    lines = [json.dumps({"n": number}).encode() for number in range(5)]
    whole, end = link(genesis(LOG), lines)
    first, middle = link(genesis(LOG), lines[:2])
    rest, same_end = link(middle, lines[2:])
    assert (first + rest, same_end) == (whole, end)


@given(logs, st.data())
def test_every_changed_bit_shows(lines: list[dict[str, object]], data: st.DataObject) -> None:
    linked, end = stored(lines)
    number = data.draw(st.integers(0, len(linked) - 1))
    at = data.draw(st.integers(0, len(linked[number]) - 2))  # the newline is not part of the line
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(linked[number])
    changed[at] ^= 1 << bit
    assume(bytes(changed).rstrip(b"\n") != linked[number].rstrip(b"\n"))
    assert not is_chain([*linked[:number], bytes(changed), *linked[number + 1 :]], end)


@given(logs, st.data())
def test_every_line_taken_out_shows(lines: list[dict[str, object]], data: st.DataObject) -> None:
    linked, end = stored(lines)
    number = data.draw(st.integers(0, len(linked) - 1))
    assert not is_chain(linked[:number] + linked[number + 1 :], end)


@given(logs, st.data())
def test_every_line_doubled_or_moved_shows(lines: list[dict[str, object]], data: st.DataObject) -> None:
    linked, end = stored(lines)
    number = data.draw(st.integers(0, len(linked) - 1))
    to = data.draw(st.integers(0, len(linked) - 1).filter(lambda place: place != number))
    assert not is_chain([*linked[:number], linked[number], *linked[number:]], end)
    moved = linked[:number] + linked[number + 1 :]
    moved.insert(to, linked[number])
    assert not is_chain(moved, end)


@given(logs, values)
def test_a_line_put_in_shows_even_if_it_is_linked(
    lines: list[dict[str, object]], new: dict[str, object]
) -> None:
    linked, end = stored(lines)
    forged, _ = link(read_line(linked[0]).head, [json.dumps(new).encode()])
    assume(forged[0] != linked[1])
    assert not is_chain([linked[0], *forged, *linked[1:]], end)
    assert not is_chain([linked[0], *forged, *linked[2:]], end)


def test_another_log_begins_elsewhere() -> None:
    linked, _ = link(genesis(b"M" * 16), [b'{"event":"fault"}'])
    assert read_line(linked[0]).follows(genesis(b"M" * 16))
    assert not read_line(linked[0]).follows(genesis(LOG))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"null",
        b'{"event":"fault"}',
        b'{"seq":1,"event":"fault","hash":"00"}',
        b'{"seq":0,"event":"fault","hash":"' + b"0" * 64 + b'"}',
        b'{"seq":true,"event":"fault","hash":"' + b"0" * 64 + b'"}',
        b'{"seq":1.0,"event":"fault","hash":"' + b"0" * 64 + b'"}',
        b'{"event":"fault","seq":1,"hash":"' + b"0" * 64 + b'"}',
        b'{"seq":1,"event":"fault","hash":"' + b"x" * 64 + b'"}',
        b'[1,"hash":"' + b"0" * 64 + b'"}',
        b'{"seq":1,' + b"[" * 5000 + b',"hash":"' + b"0" * 64 + b'"}',
    ],
)
def test_what_is_no_stored_line_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedContentError):
        read_line(text)
