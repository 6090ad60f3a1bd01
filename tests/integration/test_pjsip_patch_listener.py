"""The TLS listener of the patched pjproject: bound or an error, back after a failed restart, room in its queue."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from support.pj_attack import (
    Authority,
    Identity,
    Peer,
    Target,
    Victim,
    client_context,
    offer,
    request,
    status_of,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> dict[str, Path]:
    server = authority.issue("server", sans=[x509.DNSName("server.example")])
    return {"ca": authority.path, "cert": server.cert, "key": server.key}


@pytest.fixture(scope="module")
def client(authority: Authority) -> Identity:
    return authority.issue("client")


@pytest.fixture
def occupied() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield int(taken.getsockname()[1])


def test_listener_on_an_occupied_port_is_an_error(occupied: int, files: dict[str, Path]) -> None:
    victim = Victim(port=occupied, **files)
    try:
        victim.wait_for(r"FAILED transport \d+ .*in use")
        assert victim.finish() == 3
    finally:
        victim.__exit__(None, None, None)


def test_factory_outlives_a_failed_restart(
    authority: Authority, client: Identity, occupied: int, files: dict[str, Path]
) -> None:
    """Outgoing connections go on, and the next restart listens again."""
    target = authority.issue("target", sans=[x509.DNSName("localhost")])
    with Victim(**files) as victim, Target(authority, target) as listener:
        assert victim.command(f"restart {occupied}") != 0
        assert victim.command(f"call sip:x@localhost:{listener.port};transport=tls") == 0
        with listener.accept() as peer:
            assert peer.receive().startswith("INVITE ")
        assert victim.command(f"restart {victim.port}") == 0
        with Peer.connect(client_context(authority, client), victim.port) as peer:
            assert peer.options() == "200"


def test_queue_of_the_listener_holds_two_hundred_connections(files: dict[str, Path]) -> None:
    """They connect while the process stands still, as it does while it is busy."""
    with Victim(**files) as victim:
        victim.process.send_signal(signal.SIGSTOP)
        waiting: list[socket.socket] = []
        try:
            while len(waiting) < 200:
                waiting.append(socket.create_connection(("127.0.0.1", victim.port), timeout=2))
        finally:
            victim.process.send_signal(signal.SIGCONT)
            for connection in waiting:
                connection.close()
        assert victim.finish() == 0


def test_call_without_ack_ends_with_a_bye_at_shutdown(
    authority: Authority, client: Identity, files: dict[str, Path]
) -> None:
    with Victim(**files) as victim, Peer.connect(client_context(authority, client), victim.port) as peer:
        peer.send(request("INVITE", peer.local_port, body=offer(), call_id="unacknowledged"))
        assert status_of(peer.final()) == "200"
        stopping = threading.Thread(target=victim.finish)
        stopping.start()
        received = peer.receive()
        while received.startswith("SIP/2.0 200"):
            received = peer.receive()
        stopping.join()
        assert received.startswith("BYE ")
        assert victim.process.returncode == 0
