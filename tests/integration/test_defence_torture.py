"""Odd and malformed messages over a verified connection: the process lives, the next call works, nothing is told."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from b2bua.demo.incoming import Answering
from b2bua.initialise import identity_of
from support.discreet import assert_discreet
from support.edge import Edge, edge
from support.endpoint import LOCALHOST, contexts, run
from support.torture import CLOSED, KEY, MESSAGES, NUMBER, SILENCE, message

QUIET_S = 0.5
ANSWER_S = 6.0
"""Less than the 10 s after which a connection that says nothing is closed anyhow."""
CONNECTIONS = 200
HANDSHAKE_LIMIT_S = 12.0
"""The process gives a handshake 5 s."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge that logs as much as it can."""

    def edit(text: str) -> str:
        limits = "[limits]\ndrain_deadline_s = 1\n"
        return text.replace("[limits]\n", limits) + '\n[log]\nlevel = "debug"\n'

    with edge(tmp_path_factory.mktemp("torture"), edit=edit) as running:
        yield running
        assert running.process.poll() is None
        assert running.stop() == 0
        assert [line for line in running.audit() if line["event"] == "fault"] == []


@contextlib.contextmanager
def connected(served: Edge) -> Iterator[ssl.SSLSocket]:
    context, _ = contexts(served.made.caller)
    with (
        socket.create_connection((LOCALHOST, served.made.sip_port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=identity_of("edge")) as tls,
    ):
        yield tls


def outcome(connection: ssl.SSLSocket, *, quiet_s: float) -> str:
    """The status of the first final response, CLOSED, or SILENCE when nothing comes for `quiet_s`."""
    received = b""
    connection.settimeout(quiet_s)
    while True:
        finals = re.findall(rb"(?m)^SIP/2\.0 ([2-6]\d\d) ", received)
        if finals:
            return str(finals[0].decode())
        try:
            chunk = connection.recv(65536)
        except TimeoutError:
            return SILENCE
        except OSError:
            return CLOSED
        if not chunk:
            return CLOSED
        received += chunk


@pytest.mark.parametrize("name", MESSAGES)
def test_the_message_is_answered_or_ends_its_connection(served: Edge, name: str) -> None:
    torture = MESSAGES[name]
    with connected(served) as connection:
        connection.sendall(torture.build())
        seen = outcome(connection, quiet_s=QUIET_S if SILENCE in torture.outcomes else ANSWER_S)
        assert seen in torture.outcomes
        if seen != CLOSED:
            connection.sendall(message())
            assert outcome(connection, quiet_s=ANSWER_S) == "200"
    with connected(served) as connection:
        connection.sendall(message())
        assert outcome(connection, quiet_s=ANSWER_S) == "200"


async def one_call(served: Edge) -> None:
    async with served.parties(Answering()) as p:
        call, other = await p.established()
        await call.stream.wait_heard(0.3, timeout_s=5)
        assert (await call.hang_up()).status == 200
        await other.wait_ended()


def test_a_call_works_after_all_of_it(served: Edge) -> None:
    run(one_call(served))


def test_connections_that_never_shake_hands_stop_no_call_and_are_closed(served: Edge) -> None:
    """Half of them say nothing at all, half begin a handshake and leave it."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        idle = []
        for number in range(CONNECTIONS):
            connection = stack.enter_context(
                socket.create_connection((LOCALHOST, served.made.sip_port), timeout=5)
            )
            if number % 2:
                connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            idle.append(connection)
        run(one_call(served))
        for connection in idle:
            connection.settimeout(max(0.1, began + HANDSHAKE_LIMIT_S - time.monotonic()))
            with contextlib.suppress(ConnectionError):
                assert connection.recv(100) in (b"", b"\x15\x03\x03\x00\x02\x02\x32")
    run(one_call(served))


def test_nothing_of_it_is_in_the_log_or_the_audit(served: Edge) -> None:
    for name in MESSAGES:
        with connected(served) as connection:
            connection.sendall(MESSAGES[name].build())
            connection.settimeout(QUIET_S)
            with contextlib.suppress(OSError):
                connection.recv(65536)
    text = served.stderr.read_text() + served.audit_text()
    assert "peer_accepted" in text
    assert "garbled" in text
    assert "pjsip_report" in text
    assert_discreet(text)


@pytest.mark.parametrize("leak", [f"to +{NUMBER}", f"a=crypto:1 X inline:{KEY}", "sips:1@x", "user=2001"])
def test_the_search_would_find_it(leak: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(f"at=2026-01-01 level=info event=x {leak}\n")
    with pytest.raises(AssertionError):
        assert_discreet(path.read_text())
    assert_discreet("at=2026-01-01 level=info event=x trunk=caller")
