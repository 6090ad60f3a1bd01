"""Targets for what the program wrote itself and finds again: files beside the spool, the audit log, the control socket.

They lie in directories of mode 0700, and yet a disk, an operator or somebody else may have been at them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime

from b2bua.control.protocol import Command, Request, parse_answer, parse_request
from b2bua.errors import ControlError
from b2bua.journal.chain import genesis, link, read_line
from b2bua.journal.head import Head, parse_slot
from recording.errors import MalformedContentError
from recording.index import IndexState
from recording.sinks.upload_state import Part, UploadState
from recording.spool_state import SpoolError, SpoolState

UINT32 = 1 << 32
INT64 = 1 << 63


def check_spool_state(data: bytes) -> None:
    """A state that is taken can be written again, named, and put into the index."""
    try:
        state = SpoolState.parse(data)
    except SpoolError:
        return
    assert SpoolState.parse(state.build()) == state
    assert state.object_name.key.endswith(".crec")
    entry = state.entry(IndexState.INCOMPLETE)
    assert 0 <= entry.segment < UINT32
    assert 0 <= entry.provider < 1 << 16
    assert state.ended is None or 0 <= state.ended < INT64


def spool_state_seeds() -> Iterator[bytes]:
    """One under way, one that ended, and numbers that are none."""
    state = SpoolState(
        file_id=b"F" * 16,
        owner="0" * 32,
        recording=b"R" * 16,
        segment=1,
        call_uid="c" * 32,
        tenant_handle=b"T" * 16,
        provider=1,
        key_id="arn",
        started_hour=datetime(2026, 3, 1, 12, tzinfo=UTC),
        ended=None,
    )
    document = json.loads(state.build())
    for changes in (
        {},
        {"ended": 7},
        {"segment": 1e999},
        {"provider": -1},
        {"segment": 10**30},
        {"ended": 1.5},
    ):
        yield json.dumps({**document, **changes}).encode()


def check_upload_state(data: bytes) -> None:
    """An upload that is taken can be written again, and its parts have a size."""
    try:
        state = UploadState.parse(data)
    except ValueError:
        return
    assert UploadState.parse(state.build()) == state
    assert 0 < state.part_bytes < INT64
    assert all(0 <= part.size_bytes < INT64 for part in state.parts)


def upload_state_seeds() -> Iterator[bytes]:
    """Some parts, none, and numbers that are none."""
    state = UploadState(bucket="b", key="k", upload_id="u", part_bytes=5 << 20)
    with_part = state.with_part(Part(etag="e", md5="d41d8cd98f00b204e9800998ecf8427e", size_bytes=5 << 20))
    yield state.build()
    yield with_part.build()
    yield with_part.build().replace(b"5242880", b"Infinity")
    yield state.build().replace(b"5242880", b"1e999")


def check_journal(data: bytes) -> None:
    """Lines and heads of an audit log: what is taken holds together."""
    with contextlib.suppress(MalformedContentError):
        line = read_line(data)
        assert line.sequence >= 1
        assert data.rstrip(b"\n").endswith(line.hash.hex().encode() + b'"}')
    signed = hashlib.sha256(data.rstrip(b"\n")).hexdigest().encode() + data
    for slot in (data, signed):
        head = parse_slot(slot)
        assert head is None or isinstance(head, Head)


def journal_seeds() -> Iterator[bytes]:
    """A line, and the content of a head with and without a claim; one with a number that is none."""
    lines, chain = link(genesis(b"L" * 16), [b'{"event":"service_started"}'])
    yield lines[0]
    claim = {"file": "46" * 16, "before": 0, "after": 4112, "previous": chain.as_json()}
    for found in (None, claim, {**claim, "after": float("inf")}):
        yield json.dumps(
            {
                "v": 1,
                "log": "4c" * 16,
                "generation": 3,
                "chain": chain.as_json(),
                "segments": 1,
                "last": None,
                "claim": found,
            }
        ).encode()


def check_control(data: bytes) -> None:
    """A request that is taken says what it says when it is built again."""
    with contextlib.suppress(ControlError):
        request = parse_request(data)
        assert parse_request(request.build()) == request
    with contextlib.suppress(ControlError):
        parse_answer(data)


def control_seeds() -> Iterator[bytes]:
    """One of each command, and an answer."""
    for command in Command:
        yield Request(
            command=command,
            call_uid="" if command is Command.LIST else "c" * 32,
            reason="card_number" if command.changes else "",
        ).build()
    yield b'{"ok": true, "calls": []}'
