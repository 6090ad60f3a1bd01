"""In-dialog requests stay on the peer's own connection, whatever its Contact says; nothing is sent elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cryptography import x509

from support.pj_attack import Authority, Identity, Peer, Target, client_context, header_of, offer, status_of
from support.pj_process import ChildError, PjProcess
from support.pj_sip import Dialog, answer

NO_SUCH_HOST = 70018
SESSION_INSECURE = 171142
CONTACTS = {
    "no transport": "<sip:peer@127.0.0.1:{port}>",
    "tls": "<sip:peer@127.0.0.1:{port};transport=tls>",
    "udp": "<sip:peer@127.0.0.1:{port};transport=udp>",
    "tcp": "<sip:peer@127.0.0.1:{port};transport=tcp>",
    "sips": "<sips:peer@127.0.0.1:{port}>",
    "sips over tcp": "<sips:peer@127.0.0.1:{port};transport=tcp>",
    "no port": "<sip:peer@127.0.0.1;transport=tls>",
    "a port that nobody listens on": "<sip:peer@127.0.0.1:{closed};transport=tls>",
    "a private address": "<sip:peer@192.0.2.7:5061;transport=tls>",
    "a name that does not resolve": "<sip:peer@nowhere.example;transport=tls>",
    "maddr": "<sip:peer@127.0.0.1:{port};transport=tls;maddr=192.0.2.8>",
    "header parameters": "<sip:peer@127.0.0.1:{port}>;expires=60",
}


@dataclass
class Rig:
    pj: PjProcess
    authority: Authority
    client: Identity
    port: int
    transport_id: int
    target: Target

    def connect(self) -> Peer:
        return Peer.connect(client_context(self.authority, self.client), self.port)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Rig]:
    server, client = authority.issue("server"), authority.issue("client")
    far = authority.issue("far", sans=[x509.DNSName("peer.example")])
    with PjProcess(tmp_path_factory.mktemp("pj")) as pj, Target(authority, far) as target:
        pj.call("guard")
        pj.call("native_call", name="hosts_set", arguments=[{"peer.example": ["127.0.0.1"]}])
        transport_id, port = pj.call(
            "listen",
            certificate_path=str(server.cert),
            private_key_path=str(server.key),
            trust_path=str(authority.path),
        )
        pj.call("account", transport_id=transport_id)
        yield Rig(pj, authority, client, port, transport_id, target)
        assert pj.events("refused") == []


def contact_of(form: str, port: int) -> str:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        closed = unused.getsockname()[1]
    return CONTACTS[form].format(port=port, closed=closed)


@pytest.mark.parametrize("form", CONTACTS)
def test_bye_reaches_a_caller_on_its_connection(rig: Rig, form: str) -> None:
    with rig.connect() as peer:
        dialog = Dialog(peer, contact=contact_of(form, peer.local_port))
        final = dialog.invite()
        assert status_of(final) == "200"
        dialog.acknowledge(final)
        call_id = rig.pj.wait_event("incoming")["id"]
        rig.pj.wait_event("call", id=call_id, state="CONFIRMED")
        rig.pj.call("hang_up", call_id=call_id)
        bye = peer.receive()
        assert bye.startswith("BYE sip"), bye
        peer.send(answer(bye, "200 OK"))
        rig.pj.wait_event("call", id=call_id, state="DISCONNECTED")


@pytest.mark.parametrize("form", CONTACTS)
def test_ack_and_bye_reach_a_callee_on_its_connection(rig: Rig, form: str) -> None:
    call_id = rig.pj.call("dial", uri=f"sip:peer@peer.example:{rig.target.port};transport=tls")
    with rig.target.accept() as peer:
        invite = peer.receive()
        peer.send(answer(invite, "200 OK", contact=contact_of(form, rig.target.port), body=offer()))
        assert peer.receive().startswith("ACK sip")
        rig.pj.call("hang_up", call_id=call_id)
        bye = peer.receive()
        assert bye.startswith("BYE sip"), bye
        peer.send(answer(bye, "200 OK"))
        rig.pj.wait_event("call", id=call_id, state="DISCONNECTED")
        close(rig, peer)


def close(rig: Rig, peer: Peer) -> None:
    """The next call would reuse this connection, and the next test accepts a new one."""
    peer.socket.close()
    rig.pj.wait_event("disconnected", incoming=False)


@pytest.mark.parametrize("parameter", ["", ";transport=udp", ";transport=tls"])
def test_a_proxy_that_recorded_its_route_gets_it_back_over_tls(rig: Rig, parameter: str) -> None:
    with rig.connect() as peer:
        near = f"<sip:127.0.0.1:{peer.local_port}{parameter};lr>"
        routes = f"Record-Route: {near}\r\nRecord-Route: <sip:far.example;lr>\r\n"
        dialog = Dialog(peer, contact="<sip:peer@192.0.2.7:5060>", headers=routes)
        final = dialog.invite()
        assert status_of(final) == "200"
        dialog.acknowledge(final)
        call_id = rig.pj.wait_event("incoming")["id"]
        rig.pj.wait_event("call", id=call_id, state="CONFIRMED")
        rig.pj.call("hang_up", call_id=call_id)
        bye = peer.receive()
        assert bye.startswith("BYE sip:peer@192.0.2.7:5060 SIP/2.0"), bye
        assert f"sip:127.0.0.1:{peer.local_port};" in header_of(bye, "Route")
        peer.send(answer(bye, "200 OK"))
        rig.pj.wait_event("call", id=call_id, state="DISCONNECTED")


def test_a_callees_last_recorded_route_is_the_next_hop(rig: Rig) -> None:
    call_id = rig.pj.call("dial", uri=f"sip:peer@peer.example:{rig.target.port};transport=tls")
    with rig.target.accept() as peer:
        invite = peer.receive()
        routes = "Record-Route: <sip:far.example;transport=udp;lr>\r\n"
        routes += f"Record-Route: <sip:peer.example:{rig.target.port};lr>\r\n"
        peer.send(answer(invite, "200 OK", contact="<sip:peer@192.0.2.7>", body=offer(), headers=routes))
        ack = peer.receive()
        assert ack.startswith("ACK sip:peer@192.0.2.7 SIP/2.0")
        assert "transport=udp" in ack, "a route beyond the next hop was changed"
        rig.pj.call("hang_up", call_id=call_id)
        bye = peer.receive()
        assert bye.startswith("BYE sip:peer@192.0.2.7 SIP/2.0")
        peer.send(answer(bye, "200 OK"))
        rig.pj.wait_event("call", id=call_id, state="DISCONNECTED")
        close(rig, peer)


def test_a_server_nobody_vouches_for_gets_no_byte(rig: Rig) -> None:
    rig.pj.events("connected")
    uri = f"sip:peer@peer.example:{rig.target.port};transport=tls"
    rig.pj.call("set_tokens", tokens=[0, 1])
    call_id = rig.pj.call("dial", uri=uri)
    with rig.target.accept() as peer:
        assert peer.receive() == ""
    ended = rig.pj.wait_event("disconnected", incoming=False)
    assert ended["token"] == 0
    rig.pj.wait_event("call", id=call_id, state="DISCONNECTED")

    call_id = rig.pj.call("dial", uri=uri)
    with rig.target.accept() as peer:
        invite = peer.receive()
        assert invite.startswith("INVITE ")
        peer.send(answer(invite, "486 Busy Here"))
        assert peer.receive().startswith("ACK ")
        rig.pj.wait_event("call", id=call_id, state="DISCONNECTED", code=486)
        close(rig, peer)


def test_a_name_outside_the_table_does_not_resolve(rig: Rig) -> None:
    with pytest.raises(ChildError, match=f"^Error: {NO_SUCH_HOST} "):
        rig.pj.call("dial", uri=f"sip:peer@other.example:{rig.target.port};transport=tls")
    rig.pj.call(
        "native_call", name="hosts_set", arguments=[{"OTHER.example": ["127.0.0.1"], "six.example": ["::1"]}]
    )
    call_id = rig.pj.call("dial", uri=f"sip:peer@other.example:{rig.target.port};transport=tls")
    with rig.target.accept() as peer:
        assert peer.socket.version() == "TLSv1.3"
        assert peer.receive() == "", "the certificate names another host"
    rig.pj.wait_event("call", id=call_id, state="DISCONNECTED")
    rig.pj.wait_event("disconnected", incoming=False, token=0)
    rig.pj.call("native_call", name="hosts_set", arguments=[{"peer.example": ["127.0.0.1"]}])
    call_id = rig.pj.call("dial", uri=f"sip:peer@peer.example:{rig.target.port};transport=tls")
    with rig.target.accept() as peer:
        assert peer.receive().startswith("INVITE ")
        close(rig, peer)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"a.example": ["10.0.0.256"]}, "no IP address"),
        ({"a.example": []}, "has 0 addresses"),
        ({"": ["127.0.0.1"]}, "no host name"),
        (["a.example"], "a dict"),
    ],
    ids=str,
)
def test_a_wrong_table_is_refused_and_the_old_one_stays(rig: Rig, table: object, text: str) -> None:
    with pytest.raises(ChildError, match=text):
        rig.pj.call("native_call", name="hosts_set", arguments=[table])
    rig.pj.call("dial", uri=f"sip:peer@peer.example:{rig.target.port};transport=tls")
    with rig.target.accept() as peer:
        assert peer.receive().startswith("INVITE ")
        close(rig, peer)


def refused_send(rig: Rig, uri: str) -> None:
    with pytest.raises(ChildError, match=f"^Error: {SESSION_INSECURE} "):
        rig.pj.call("message", uri=uri)
    refused = rig.pj.wait_event("refused")
    assert (refused["reason"], refused["method"], refused["token"]) == ("unverified_send", "MESSAGE", 0)


def test_nothing_is_sent_over_udp(rig: Rig) -> None:
    rig.pj.call("plain_transport", kind="udp")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind(("127.0.0.1", 0))
        plain.settimeout(1)
        refused_send(rig, f"sip:peer@127.0.0.1:{plain.getsockname()[1]}")
        with pytest.raises(TimeoutError):
            plain.recv(65536)
    the_same_goes_over_tls(rig)


def test_nothing_is_sent_over_tcp(rig: Rig) -> None:
    rig.pj.call("plain_transport", kind="tcp")
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(5)
        refused_send(rig, f"sip:peer@127.0.0.1:{plain.getsockname()[1]};transport=tcp")
        stream, _ = plain.accept()
        with stream:
            stream.settimeout(5)
            assert stream.recv(65536) == b""
    assert rig.pj.wait_event("refused")["reason"] == "plaintext_transport"
    the_same_goes_over_tls(rig)


def the_same_goes_over_tls(rig: Rig) -> None:
    rig.pj.call("message", uri=f"sip:peer@peer.example:{rig.target.port};transport=tls")
    with rig.target.accept() as peer:
        assert peer.receive().startswith("MESSAGE ")
        close(rig, peer)
