"""What pjsip reports reaches us a line at a time, bounded, at the levels asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pj_attack import Authority, Peer, client_context
from support.pj_process import ChildError, PjProcess
from support.pj_sip import request

ROOM = 32
WARNING = 2


@pytest.fixture
def pj(tmp_path: Path) -> Iterator[PjProcess]:
    with PjProcess(tmp_path) as running:
        yield running


def taken(pj: PjProcess) -> tuple[list[list[object]], int]:
    lines, dropped = pj.call("native_call", name="log_take", arguments=[])
    return lines, dropped


def make_it_report(pj: PjProcess, directory: Path, times: int) -> None:
    """A listener that cannot read its certificate, so many times."""
    missing = str(directory / "no.pem")
    for _ in range(times):
        with pytest.raises(ChildError):
            pj.call(
                "listen",
                certificate_path=missing,
                private_key_path=missing,
                trust_path=missing,
                ciphers=[0x1302],
            )


def test_a_warning_is_kept_with_its_module_and_told_once(pj: PjProcess, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    server = authority.issue("server")
    pj.call("guard")
    pj.call("native_call", name="log_keep", arguments=[WARNING])
    _, port = pj.call(
        "listen",
        certificate_path=str(server.cert),
        private_key_path=str(server.key),
        trust_path=str(authority.path),
        ciphers=[0x1302],
    )
    assert taken(pj) == ([], 0)
    with Peer.connect(client_context(authority, authority.issue("client")), port) as peer:
        peer.send(request("OPTIONS", peer.local_port, headers="no colon\r\nsecond line\r\n"))
        assert peer.receive() == ""
    ((level, line),), dropped = taken(pj)
    assert (level, dropped) == (WARNING, 0)
    module, _, text = str(line).strip().partition(" ")
    assert module == "sip_transport.c"
    assert text.strip().startswith("Dropping ")
    assert "\n" not in str(line)
    assert taken(pj) == ([], 0)


@pytest.mark.parametrize(("times", "level"), [(ROOM, 2), (ROOM + 3, 2), (5, 0)])
def test_what_finds_no_room_is_counted_and_nothing_is_kept_that_was_not_asked_for(
    pj: PjProcess, tmp_path: Path, times: int, level: int
) -> None:
    pj.call("guard")
    pj.call("native_call", name="log_keep", arguments=[level])
    make_it_report(pj, tmp_path, 1)
    each = len(taken(pj)[0])
    make_it_report(pj, tmp_path, times)
    lines, dropped = taken(pj)
    assert (each > 0) == (level > 0)
    assert len(lines) == min(times * each, ROOM)
    assert dropped == max(0, times * each - ROOM)
    assert all("\n" not in str(line) for _, line in lines)


def test_a_level_that_is_not_compiled_in_is_refused(pj: PjProcess) -> None:
    with pytest.raises(ChildError, match="2 is the highest"):
        pj.call("native_call", name="log_keep", arguments=[3])
