"""RTP ports: a call gets past any number of taken ones, and a range that is used up refuses without harm."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from b2bua.demo.incoming import Answering
from b2bua.initialise import InitResult
from support.edge import Edge, edge
from support.endpoint import LOCALHOST, run


def rtp_range(made: InitResult) -> range:
    first, last = re.search(r'rtp_ports = "(\d+)-(\d+)"', made.configuration.read_text()).groups()  # type: ignore[union-attr]
    return range(int(first), int(last) + 1)


@contextlib.contextmanager
def taken(ports: range) -> Iterator[None]:
    """Other sockets on all these ports, as long calls would have them."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            held = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            held.bind((LOCALHOST, port))
        yield


async def call_status(served: Edge) -> int:
    async with served.parties(Answering()) as p:
        call = await p.invite()
        final = await call.wait_final()
        if final.status == 200:
            await call.stream.wait_heard(0.3, timeout_s=5)
            await call.hang_up()
        return final.status


def test_a_call_gets_past_more_than_a_hundred_taken_ports(tmp_path: Path) -> None:
    with edge(tmp_path, max_calls=200) as served:
        with taken(rtp_range(served.made)[:600]):
            assert run(call_status(served)) == 200
        assert served.stop() == 0


def test_a_used_up_range_refuses_and_recovers(tmp_path: Path) -> None:
    with edge(tmp_path, max_calls=10) as served:
        with taken(rtp_range(served.made)):
            assert run(call_status(served)) >= 500
        assert run(call_status(served)) == 200
        assert served.stop() == 0
