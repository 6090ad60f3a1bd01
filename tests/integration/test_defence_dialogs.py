"""Nobody reaches into another's call: not with its Call-ID, nor from outside with its tags."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from b2bua.demo.dialog import in_dialog_request, new_branch, new_tag, via_value
from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import OutgoingCall
from b2bua.demo.sip_message import Header, SIPRequest
from b2bua.initialise import InitResult, identity_of
from support.certificates import Issuer
from support.edge import CALLER_USER, Edge, Parties, edge
from support.endpoint import LOCALHOST, contexts, run
from tls.settings import TLSMaterialSettings

ANSWER = Answering()


def with_headers(request: SIPRequest, **changed: str) -> SIPRequest:
    """The request with some headers' values changed; `_` in a name stands for `-`."""
    names = {name.replace("_", "-").lower(): value for name, value in changed.items()}
    return replace(
        request, headers=tuple(Header(h.name, names.get(h.name.lower(), h.value)) for h in request.headers)
    )


async def assert_alive(call: OutgoingCall) -> None:
    before = (await call.stream.stats()).received
    await call.stream.wait_for(lambda s: s.hearing.received > before + 10, "audio goes on", timeout_s=5)


def second_invite(p: Parties, call: OutgoingCall, *, call_id: str) -> SIPRequest:
    """An INVITE of the callee's trunk to the caller."""
    return replace(
        with_headers(
            call.invite,
            call_id=call_id,
            via=via_value(f"{LOCALHOST}:{p.callee.port}", new_branch()),
            **{"from": f"<sips:2001@{LOCALHOST}:{p.callee.port}>;tag={new_tag()}"},
            contact=f"<sips:2001@{LOCALHOST}:{p.callee.port}>",
        ),
        uri=p.edge.uri(user=CALLER_USER),
    )


@pytest.mark.parametrize("own_trunk", [False, True], ids=["another trunk", "the same trunk"])
def test_a_second_call_with_a_live_calls_call_id_is_refused(served: Edge, own_trunk: bool) -> None:
    """A Call-ID stands for one call at a time; a second one must not take the first one's place."""

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            p.caller.answering = ANSWER
            call, other = await p.established()
            assert call.dialog is not None
            endpoint, connection = p.callee, await served.connect(p.callee)
            invite = second_invite(p, call, call_id=call.dialog.call_id)
            if own_trunk:
                endpoint, connection = p.caller, p.connection
                invite = replace(invite, uri=served.uri())
            refused = await endpoint.begin(connection, invite).final()
            assert refused.status == 482
            await assert_alive(call)
            assert (await call.hang_up()).status == 200
            await other.wait_ended()

            second = second_invite(p, call, call_id=new_tag())
            if own_trunk:
                second = replace(second, uri=served.uri())
            accepted = await endpoint.begin(connection, second).final()
            assert accepted.status == 200

    run(scenario())


def test_a_call_id_is_free_again_when_its_call_is_over(served: Edge) -> None:
    """RFC 3261 section 8.1.3.5: a caller that was refused tries again under the same Call-ID."""

    async def scenario() -> None:
        async with served.parties(Answering(provisional=(), status=486, reason="Busy Here")) as p:
            refused = await p.invite()
            assert (await refused.wait_final()).status == 486
            again = with_headers(
                refused.invite, via=via_value(p.connection.sent_by, new_branch()), cseq="2 INVITE"
            )
            assert (await p.caller.begin(p.connection, again).final()).status == 486
            assert len(p.callee.incoming) == 2

    run(scenario())


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Edge]:
    """An edge that trusts the issuer too, so that a valid certificate of no trunk can be made."""

    def prepare(made: InitResult) -> None:
        with made.edge.trust_path.open("ab") as trust:
            trust.write(issuer.trust_path.read_bytes())

    with edge(tmp_path_factory.mktemp("trusting"), prepare=prepare) as running:
        yield running
        assert running.process.poll() is None


def said_to(served: Edge, material: TLSMaterialSettings, message: bytes) -> bytes:
    """What comes back for a message sent at once after the handshake; nothing when the connection is closed."""
    context, _ = contexts(material)
    with (
        socket.create_connection((LOCALHOST, served.made.sip_port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=identity_of("edge")) as tls,
    ):
        try:
            tls.sendall(message)
            return tls.recv(4096)
        except OSError:
            return b""


@pytest.mark.parametrize("known_authority", [True, False], ids=["no trunk", "untrusted"])
def test_a_bye_with_the_right_tags_from_a_stranger_is_not_read(
    trusting: Edge, issuer: Issuer, tmp_path: Path, known_authority: bool
) -> None:
    source = issuer if known_authority else Issuer(tmp_path / "other")
    material = source.material("stranger", "stranger.example.test")
    stranger = TLSMaterialSettings(
        certificate_path=material.certificate_path,
        private_key_path=material.private_key_path,
        trust_path=trusting.made.caller.trust_path,
    )

    async def scenario() -> None:
        async with trusting.parties(ANSWER) as p:
            call, other = await p.established()
            assert call.dialog is not None
            bye = in_dialog_request(call.dialog, "BYE", cseq=7, via=p.connection.sent_by).build()
            assert said_to(trusting, stranger, bye) == b""
            await assert_alive(call)
            assert other.ending is None
            assert said_to(trusting, trusting.made.caller, bye).startswith(b"SIP/2.0 200 ")
            await other.wait_ended()

    run(scenario())
