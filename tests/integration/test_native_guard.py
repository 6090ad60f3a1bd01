"""The guard against real connections: who may speak at all, and how much at once."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.pj_attack import Authority, Identity, Peer, client_context, header_of, status_of
from support.pj_process import ALLOWED, PjProcess
from support.pj_sip import request

CERTIFICATE_REFUSED = 171173
MAX_PACKET = 16384
TLS_1_2_CIPHER = 0xC02C
"""On the list so that a TLS 1.2 client fails by its version and not for want of a cipher."""


@dataclass
class Rig:
    """A listening process and the means to reach it."""

    pj: PjProcess
    authority: Authority
    client: Identity
    port: int
    transport_id: int

    def connect(self, identity: Identity | None = None) -> Peer:
        return Peer.connect(client_context(self.authority, identity or self.client), self.port)

    def counters(self) -> dict[str, int]:
        counted: dict[str, int] = self.pj.call("native_call", name="guard_counters", arguments=[])
        return counted

    def token(self, hnd: int) -> int:
        return int(self.pj.call("native_call", name="transport_token", arguments=[hnd]))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def client(authority: Authority) -> Identity:
    return authority.issue("client")


@pytest.fixture
def rig(tmp_path: Path, authority: Authority, client: Identity) -> Iterator[Rig]:
    server = authority.issue("server")
    with PjProcess(tmp_path) as pj:
        pj.call("guard")
        transport_id, port = pj.call(
            "listen",
            certificate_path=str(server.cert),
            private_key_path=str(server.key),
            trust_path=str(authority.path),
            ciphers=[0x1302, 0x1303, TLS_1_2_CIPHER],
        )
        yield Rig(pj, authority, client, port, transport_id)


def test_a_vouched_for_connection_is_described_and_served(rig: Rig) -> None:
    with rig.connect() as peer:
        seen = rig.pj.wait_event("connected")
        assert seen["incoming"] is True
        assert seen["remote"] == f"127.0.0.1:{peer.local_port}"
        assert seen["protocol"] == 0x0304
        assert seen["cipher"] in (0x1302, 0x1303)
        assert seen["verify_status"] == 0
        assert seen["chain"][0].strip() == rig.client.cert.read_text().strip()
        assert rig.token(seen["hnd"]) == 1
        assert peer.options() == "200"
    ended = rig.pj.wait_event("disconnected")
    assert (ended["hnd"], ended["token"], ended["incoming"]) == (seen["hnd"], 1, True)
    assert ended["remote"] == seen["remote"]
    assert rig.pj.events("refused") == []
    deadline = time.monotonic() + 10
    while rig.token(seen["hnd"]) != 0:
        assert time.monotonic() < deadline, "the mark outlived the transport"


@pytest.mark.parametrize("verdict", [0, -1, "raise"])
def test_a_connection_nobody_vouches_for_is_closed_unread(rig: Rig, verdict: int | str) -> None:
    rig.pj.call("set_tokens", tokens=[verdict])
    with rig.connect() as peer:
        assert peer.options() == ""
    seen = rig.pj.wait_event("connected")
    ended = rig.pj.wait_event("disconnected")
    assert (ended["hnd"], ended["token"]) == (seen["hnd"], 0)
    assert rig.pj.events("gate") == []
    assert rig.counters()["callback_failed"] == (1 if verdict == "raise" else 0)
    rig.pj.call("set_tokens", tokens=[1])
    with rig.connect() as peer:
        assert peer.options() == "200"


def test_a_mark_is_never_inherited_by_the_next_connection(rig: Rig) -> None:
    expected = ["200", "", "200", "200", ""] * 6
    rig.pj.call("set_tokens", tokens=[1 if status else 0 for status in expected] + [0])
    handles = []
    for status in expected:
        with rig.connect() as peer:
            assert peer.options() == status
        handles.append(rig.pj.wait_event("connected")["hnd"])
        rig.pj.wait_event("disconnected", hnd=handles[-1])
    assert len(set(handles)) < len(handles), "no transport address came back, so the test proved nothing"


def test_an_untrusted_certificate_is_refused_first_and_resumed(rig: Rig, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger", name="another authority").issue("intruder")
    context = client_context(rig.authority, stranger)
    session = None
    for _ in range(3):
        with Peer.connect(context, rig.port, session=session) as peer:
            assert peer.options() == ""
            assert not peer.socket.session_reused
            session = peer.socket.session
        ended = rig.pj.wait_event("disconnected")
        assert (ended["token"], ended["status"]) == (0, CERTIFICATE_REFUSED)
    assert rig.pj.events("connected") == []
    with rig.connect() as peer:
        assert peer.options() == "200"


def test_a_client_without_a_certificate_is_refused_and_reported(rig: Rig) -> None:
    context = client_context(rig.authority, None)
    with Peer.connect(context, rig.port) as peer:
        assert peer.options() == ""
    ended = rig.pj.wait_event("disconnected")
    assert (ended["hnd"], ended["token"], ended["incoming"]) == (0, 0, True)
    assert ended["remote"] == f"127.0.0.1:{peer.local_port}"
    assert ended["status"] != 0
    assert rig.pj.events("connected") == []


def test_tls_1_2_is_refused(rig: Rig) -> None:
    context = client_context(rig.authority, rig.client)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Peer.connect(context, rig.port)
    with rig.connect() as peer:
        assert peer.socket.version() == "TLSv1.3"


def test_udp_and_tcp_are_not_answered(rig: Rig) -> None:
    message = request("OPTIONS", 5060)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind(("127.0.0.1", 0))
        plain.settimeout(1)
        plain.sendto(message, ("127.0.0.1", rig.pj.call("plain_transport", kind="udp")))
        assert rig.pj.wait_event("refused")["reason"] == "plaintext_transport"
        with pytest.raises(TimeoutError):
            plain.recv(65536)
    with socket.create_connection(
        ("127.0.0.1", rig.pj.call("plain_transport", kind="tcp")), timeout=5
    ) as plain:
        assert rig.pj.wait_event("refused")["reason"] == "plaintext_transport"
        plain.sendall(message)
        assert closed_without_a_word(plain)
    assert rig.pj.events("gate") == []


def closed_without_a_word(stream: socket.socket) -> bool:
    try:
        return stream.recv(65536) == b""
    except ConnectionError:
        return True


def test_transport_shutdown_closes_and_knows_only_live_connections(rig: Rig) -> None:
    with rig.connect() as peer:
        hnd = rig.pj.wait_event("connected")["hnd"]
        assert peer.options() == "200"
        rig.pj.call("native_call", name="transport_shutdown", arguments=[hnd])
        assert closed_without_a_word(peer.socket)
    rig.pj.wait_event("disconnected", hnd=hnd)
    with pytest.raises(Exception, match="no such transport"):
        rig.pj.call("native_call", name="transport_shutdown", arguments=[hnd + 8])


def smuggled(port: int, at: int) -> bytes:
    """An OPTIONS whose body holds another request exactly where the read buffer ends."""
    inner = request("OPTIONS", port, call_id="smuggled")
    head = request("OPTIONS", port, headers="Content-Type: text/plain\r\n", content_length="30000")
    return (head + b"x" * (at - len(head)) + inner + b"x" * 30000)[: len(head) + 30000]


def test_a_request_hidden_in_an_oversize_body_is_not_answered(rig: Rig) -> None:
    with rig.connect() as peer:
        peer.send(smuggled(peer.local_port, MAX_PACKET))
        assert peer.receive() == ""
    refused = rig.pj.wait_event("refused")
    assert (refused["reason"], refused["token"]) == ("content_length", 1)
    assert rig.pj.events("gate") == []


def test_a_large_request_within_the_limit_is_answered(rig: Rig) -> None:
    with rig.connect() as peer:
        peer.send(request("OPTIONS", peer.local_port, body="x" * 13000, content_type="text/plain"))
        assert status_of(peer.final()) == "200"
        assert peer.options() == "200"
    assert len(rig.pj.wait_event("gate")["body"]) == 13000
    assert rig.pj.events("refused") == []


def test_headers_and_body_count_together(rig: Rig) -> None:
    """The process was given 14000 bytes as its limit."""
    with rig.connect() as peer:
        peer.send(request("OPTIONS", peer.local_port, body="x" * 13900, content_type="text/plain"))
        assert peer.receive() == ""
    assert rig.pj.wait_event("refused")["reason"] == "content_length"


def test_headers_without_an_end_close_the_connection(rig: Rig) -> None:
    with rig.connect() as peer:
        peer.send(b"OPTIONS sip:b2bua@127.0.0.1 SIP/2.0\r\n" + b"X-Filler: " + b"x" * 20000)
        assert peer.receive() == ""
    assert rig.pj.wait_event("refused")["reason"] == "oversize"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("garbled", (b"Call-ID:", b"X-Call-ID:")),
        ("garbled", (b"SIP/2.0/TLS", b"SIP-2.0-TLS")),
        ("garbled", (b"Content-Length: 0", b"Content-Length: none")),
        ("garbled", (b"Content-Length: 0\r\n", b"")),
        ("garbled", (b"Max-Forwards: 70\r\n", b"Max-Forwards: 70\r\n\n")),
        ("garbled", (b"Content-Length: 0\r\n", b"Content-Length: 0\r\n\n")),
        ("garbled", (b"To: <sip:b2bua@127.0.0.1>", b"To:")),
        ("garbled", (b"OPTIONS sip:b2bua@127.0.0.1;transport=tls SIP/2.0", b"SIP/2.0 099 Low")),
        ("garbled", (b"OPTIONS sip:b2bua@127.0.0.1;transport=tls SIP/2.0", b"SIP/2.0 700 High")),
        ("content_length", (b"Content-Length: 0", b"Content-Length: 99999999999999999999")),
        ("content_length", (b"Content-Length: 0", b"l: 4\r\nContent-Length: 0")),
        (None, (b"Content-Length: 0", b"l: 0\r\nContent-Length: 0")),
        (None, (b"Call-ID: ", b"i:\r\n ")),
        (None, (b"Content-Length: 0", b"L :\r\n\t0")),
        (None, (b"", b"")),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else None,
)
def test_a_garbled_message_closes_the_connection(
    rig: Rig, reason: str | None, change: tuple[bytes, bytes]
) -> None:
    with rig.connect() as peer:
        peer.send(
            request("OPTIONS", peer.local_port).replace(*change, 1) + request("OPTIONS", peer.local_port)
        )
        if reason is None:
            assert status_of(peer.final()) == "200"
            assert status_of(peer.final()) == "200"
        else:
            assert peer.receive() == "", "the message after the garbled one was answered"
            assert rig.pj.wait_event("refused")["reason"] == reason
            assert rig.pj.events("gate") == []
    with rig.connect() as peer:
        assert peer.options() == "200"


NUMBER = "+4915112345678"
GARBLED = [
    (b"Call-ID:", b"X-Call-ID:"),
    (b"Content-Length: 0", b"Content-Length: none"),
    (b"To: <sip:b2bua@127.0.0.1>", b"To:"),
    (b"OPTIONS sip:b2bua@127.0.0.1;transport=tls SIP/2.0", b"SIP/2.0 700 High"),
    (b"Content-Length: 0\r\n", b"X: " + b"x" * 20000),
]


def numbered(port: int, change: tuple[bytes, bytes]) -> bytes:
    return request("OPTIONS", port, headers=f"Subject: call {NUMBER}\r\n").replace(*change, 1)


def test_what_a_garbled_message_said_is_not_logged(rig: Rig) -> None:
    for change in GARBLED:
        with rig.connect() as peer:
            peer.send(numbered(peer.local_port, change))
            assert peer.receive() == ""
        assert rig.pj.wait_event("refused")["reason"] in ("garbled", "oversize")
    assert rig.pj.finish() == 0
    assert NUMBER not in rig.pj.log


def test_without_the_guard_pjsip_logs_that_it_came_and_not_what_it_said(tmp_path: Path) -> None:
    with PjProcess(tmp_path) as pj, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.sendto(numbered(5060, GARBLED[0]), ("127.0.0.1", pj.call("plain_transport", kind="udp")))
        for _ in range(10):  # each call runs the SIP loop
            pj.events("none")
        assert pj.finish() == 0
        assert "Error processing packet" in pj.log
        assert NUMBER not in pj.log


def test_a_message_may_come_in_pieces(rig: Rig) -> None:
    with rig.connect() as peer:
        message = request("OPTIONS", peer.local_port, body="x" * 300, content_type="text/plain")
        for start in range(0, len(message), 97):
            peer.send(message[start : start + 97])
        assert status_of(peer.final()) == "200"


def test_a_keepalive_is_answered(rig: Rig) -> None:
    with rig.connect() as peer:
        peer.socket.settimeout(5)
        peer.send(b"\r\n\r\n")
        assert peer.socket.recv(100) == b"\r\n"
        assert peer.options() == "200"
    assert rig.counters()["keepalives_answered"] == 1


@pytest.mark.parametrize(
    ("method", "status"),
    [("OPTIONS", "200"), ("REGISTER", "405"), ("MESSAGE", "405"), ("FROBNICATE", "501"), ("options", "501")],
)
def test_only_methods_on_the_list_pass(rig: Rig, method: str, status: str) -> None:
    with rig.connect() as peer:
        peer.send(request(method, peer.local_port))
        message = peer.final()
        assert status_of(message) == status
        assert peer.options() == "200"
    if status == "200":
        assert rig.pj.events("refused") == []
        return
    assert header_of(message, "Allow") == ", ".join(ALLOWED)
    refused = rig.pj.wait_event("refused")
    reason = "method_not_allowed" if status == "405" else "method_unknown"
    assert (refused["reason"], refused["method"], refused["status"]) == (reason, method, int(status))
    assert [event["method"] for event in rig.pj.events("gate")] == ["OPTIONS"]


def test_counters_name_every_refusal(rig: Rig) -> None:
    with rig.connect() as peer:
        peer.send(request("REGISTER", peer.local_port))
        assert status_of(peer.final()) == "405"
    counted = rig.counters()
    assert counted["method_not_allowed"] == 1
    assert counted["connections_verified"] == 1
    assert counted["method_unknown"] == 0
