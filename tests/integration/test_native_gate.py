"""The gate: each request once, refused by C itself; a response's body taken before pjsip sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from support.pj_attack import Authority, Identity, Peer, Target, client_context, header_of, offer, status_of
from support.pj_process import SUITE, PjProcess
from support.pj_sip import Dialog, answer, request

WARNING = '399 b2bua "plain RTP is not accepted"'
REFUSAL = [488, "Not Acceptable Here", [["Warning", WARNING], ["X-Second", "yes"]]]


@dataclass
class Rig:
    """A listening process with an account that answers, and a server that it can call."""

    pj: PjProcess
    authority: Authority
    client: Identity
    port: int
    target: Target

    def connect(self) -> Peer:
        return Peer.connect(client_context(self.authority, self.client), self.port)

    def gate(self, method: str, verdict: Any, *, is_request: bool = True) -> None:
        self.pj.call("set_gate", rules=[{"method": method, "answer": verdict, "is_request": is_request}])

    def dial(self) -> tuple[int, Peer]:
        call_id = self.pj.call("dial", uri=f"sip:peer@peer.example:{self.target.port};transport=tls")
        return call_id, self.accept()

    def accept(self) -> Peer:
        """The child's SIP loop runs while it waits for a command, so the handshake goes on."""
        return self.target.accept()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def rig(tmp_path: Path, authority: Authority) -> Iterator[Rig]:
    server, client = authority.issue("server"), authority.issue("client")
    far = authority.issue("far", sans=[x509.DNSName("peer.example")])
    with PjProcess(tmp_path) as pj, Target(authority, far) as target:
        pj.call("guard")
        pj.call("native_call", name="hosts_set", arguments=[{"peer.example": ["127.0.0.1"]}])
        transport_id, port = pj.call(
            "listen",
            certificate_path=str(server.cert),
            private_key_path=str(server.key),
            trust_path=str(authority.path),
        )
        pj.call("account", transport_id=transport_id)
        yield Rig(pj, authority, client, port, target)


def test_the_gate_sees_each_request_as_it_came(rig: Rig) -> None:
    body = offer()
    with rig.connect() as peer:
        message = request("OPTIONS", peer.local_port, body=body, call_id="one")
        peer.send(message)
        assert status_of(peer.final()) == "200"
    hnd = rig.pj.wait_event("connected")["hnd"]
    seen = rig.pj.wait_event("gate")
    assert (seen["token"], seen["hnd"], seen["is_request"], seen["method"]) == (1, hnd, True, "OPTIONS")
    assert (seen["status"], seen["initial"], seen["sip_call_id"]) == (0, True, "one")
    assert (seen["content_type"], seen["body"], seen["message"]) == (
        "application/sdp",
        body,
        message.decode(),
    )


def test_a_multipart_body_comes_whole(rig: Rig) -> None:
    body = "--cut\r\nContent-Type: application/sdp\r\n\r\n" + offer() + "\r\n--cut--\r\n"
    with rig.connect() as peer:
        peer.send(request("OPTIONS", peer.local_port, body=body, content_type="multipart/mixed;boundary=cut"))
        assert status_of(peer.final()) == "200"
    seen = rig.pj.wait_event("gate")
    assert (seen["content_type"], seen["body"]) == ("multipart/mixed", body)


def test_a_refused_invite_is_answered_and_its_ack_absorbed(rig: Rig) -> None:
    rig.gate("INVITE", REFUSAL)
    with rig.connect() as peer:
        dialog = Dialog(peer)
        final = dialog.invite()
        assert final.startswith("SIP/2.0 488 Not Acceptable Here\r\n")
        assert header_of(final, "Warning") == WARNING
        assert header_of(final, "X-Second") == "yes"
        dialog.acknowledge(final)
        assert peer.options() == "200"
    assert [event["method"] for event in rig.pj.events("gate")] == ["INVITE", "OPTIONS"]
    assert rig.pj.events("incoming") == []


def test_a_retransmitted_invite_is_not_asked_about_again(rig: Rig) -> None:
    rig.gate("INVITE", REFUSAL)
    with rig.connect() as peer:
        dialog = Dialog(peer)
        assert status_of(dialog.invite()) == "488"
        assert status_of(dialog.invite()) == "488"
        dialog.acknowledge("")
    assert [event["method"] for event in rig.pj.events("gate")] == ["INVITE"]


@pytest.mark.parametrize(
    "verdict",
    [
        "raise",
        "text",
        [200, "OK", []],
        [488, "Not\r\nAcceptable", []],
        [488, "Not Acceptable", [["Warning", "x\r\nX-Injected: y"]]],
        [488, "Not Acceptable", [["Warning"]]],
    ],
    ids=str,
)
def test_a_gate_that_fails_refuses_with_500(rig: Rig, verdict: Any) -> None:
    rig.gate("INVITE", verdict)
    with rig.connect() as peer:
        dialog = Dialog(peer)
        final = dialog.invite()
        assert status_of(final) == "500"
        assert header_of(final, "X-Injected") == ""
        dialog.acknowledge(final)
        rig.gate("INVITE", None)
        assert status_of(Dialog(peer).invite()) == "200"
    counted = rig.pj.call("native_call", name="guard_counters", arguments=[])
    assert counted["callback_failed"] == 1


@pytest.mark.parametrize("refused", [False, True])
def test_a_refused_ack_never_reaches_the_dialog(rig: Rig, refused: bool) -> None:
    rig.gate("ACK", REFUSAL if refused else None)
    with rig.connect() as peer:
        dialog = Dialog(peer)
        final = dialog.invite()
        assert status_of(final) == "200"
        dialog.acknowledge(final)
        if refused:
            assert peer.final() == final, "the 200 is sent again until an ACK comes through"
            assert not [e for e in rig.pj.events("call") if e["state"] == "CONFIRMED"]
        else:
            rig.pj.wait_event("call", state="CONFIRMED")


def test_an_answer_that_passes_makes_a_call_with_srtp_both_ways(rig: Rig) -> None:
    call_id, peer = rig.dial()
    with peer:
        invite = peer.receive()
        peer.send(
            answer(invite, "200 OK", contact=f"<sip:peer@peer.example:{rig.target.port}>", body=offer())
        )
        assert peer.receive().startswith("ACK ")
        rig.pj.wait_event("call", state="CONFIRMED")
        assert rig.pj.wait_event("media")["srtp"] == [True, SUITE, SUITE]
        seen = rig.pj.wait_event("gate", is_request=False)
        assert (seen["method"], seen["status"], seen["body"]) == ("INVITE", 200, offer())
        rig.pj.call("hang_up", call_id=call_id)
        assert peer.receive().startswith("BYE ")


def test_a_refused_answer_reaches_pjsip_without_its_body(rig: Rig) -> None:
    rig.gate("INVITE", REFUSAL, is_request=False)
    _, peer = rig.dial()
    with peer:
        invite = peer.receive()
        peer.send(
            answer(invite, "200 OK", contact=f"<sip:peer@peer.example:{rig.target.port}>", body=offer())
        )
        assert peer.receive().startswith("ACK ")
        assert peer.receive().startswith("BYE ")
    assert rig.pj.events("media") == []
    counted = rig.pj.call("native_call", name="guard_counters", arguments=[])
    assert counted["bodies_stripped_by_gate"] == 1


def test_a_response_without_a_body_is_not_asked_about(rig: Rig) -> None:
    _, peer = rig.dial()
    with peer:
        invite = peer.receive()
        peer.send(answer(invite, "180 Ringing"))
        peer.send(answer(invite, "486 Busy Here"))
        assert peer.receive().startswith("ACK ")
    rig.pj.wait_event("call", state="DISCONNECTED", code=486)
    assert [event for event in rig.pj.events("gate") if not event["is_request"]] == []


def test_the_request_knows_its_transport(rig: Rig) -> None:
    with rig.connect() as first, rig.connect() as second:
        handles = [rig.pj.wait_event("connected")["hnd"] for _ in range(2)]
        for peer, hnd in ((second, handles[1]), (first, handles[0])):
            final = Dialog(peer).invite()
            assert re.match(r"SIP/2\.0 200 ", final)
            assert rig.pj.wait_event("incoming")["hnd"] == hnd
