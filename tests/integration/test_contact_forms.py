"""Whatever a Contact says, in-dialog requests ride the connection it came on: all forms, both schemes, both legs."""

from __future__ import annotations

import pytest

from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import OMIT
from b2bua.demo.sdp import Direction
from support.edge import Edge
from support.endpoint import run

FORMS = {
    "own": None,
    "no transport": "<{scheme}:1001@127.0.0.1:{port}>",
    "tls": "<{scheme}:1001@127.0.0.1:{port};transport=tls>",
    "udp": "<{scheme}:1001@127.0.0.1:{port};transport=udp>",
    "tcp": "<{scheme}:1001@127.0.0.1:{port};transport=tcp>",
    "another port": "<{scheme}:1001@127.0.0.1:9;transport=tls>",
    "another host": "<{scheme}:1001@192.0.2.1:5061;transport=tls>",
    "a name": "<{scheme}:1001@phone.example.test>",
    "maddr": "<{scheme}:1001@127.0.0.1:{port};maddr=192.0.2.1>",
}


def contact(form: str, scheme: str, port: int) -> str | None:
    text = FORMS[form]
    return None if text is None else text.format(scheme=scheme, port=port)


@pytest.mark.parametrize("scheme", ["sips", "sip"])
@pytest.mark.parametrize("form", FORMS)
def test_the_caller_gets_reinvite_and_bye_on_its_own_connection(
    served_to: Edge, form: str, scheme: str
) -> None:
    async def scenario() -> None:
        async with served_to.parties(Answering()) as p:
            call, other = await p.established(scheme=scheme, contact=contact(form, scheme, p.caller.port))
            assert (await other.hold(Direction.SENDONLY)).status == 200
            assert (await other.hang_up()).status == 200
            await call.wait_ended()
            came_on = {request.method: connection for connection, request in call.received}
            assert came_on["INVITE"] == came_on["BYE"] == p.connection.id
            assert len(p.caller.connections) == 1

    run(scenario())


@pytest.mark.parametrize("form", FORMS)
def test_the_callee_gets_reinvite_and_bye_on_the_connection_of_its_invite(served_to: Edge, form: str) -> None:
    scheme = "sip" if "transport=tls" in served_to.made.configuration.read_text() else "sips"

    async def scenario() -> None:
        async with served_to.parties() as p:
            p.callee.answering = Answering(contact=contact(form, scheme, p.callee.port))
            call, other = await p.established()
            assert (await call.hold(Direction.SENDONLY)).status == 200
            assert (await call.hang_up()).status == 200
            await other.wait_ended()
            came_on = {request.method: connection for connection, request in other.received}
            assert came_on["INVITE"] == came_on["BYE"] == other.connection.id
            assert len(p.callee.connections) == 1

    run(scenario())


def test_an_invite_without_contact_is_refused_and_the_connection_lives_on(served: Edge) -> None:
    """RFC 3261 section 8.1.1.8: a request that may set up a dialog must have one."""

    async def scenario() -> None:
        async with served.parties(Answering()) as p:
            refused = await p.invite(contact=OMIT)
            assert (await refused.wait_final()).status == 400
            call, other = await p.established()
            await call.hang_up()
            await other.wait_ended()

    run(scenario())


def test_a_request_in_another_trunks_dialog_is_refused(served: Edge) -> None:
    """The callee's trunk learned leg A's tags: its BYE must not end the caller's dialog."""

    async def scenario() -> None:
        async with served.parties(Answering()) as p:
            call, other = await p.established()
            stranger = await served.connect(p.callee)
            mine, call.connection = call.connection, stranger
            call.endpoint, own = p.callee, call.endpoint
            assert (await call.request("BYE")).status == 403
            call.connection, call.endpoint = mine, own
            before = (await call.stream.stats()).received
            await call.stream.wait_for(lambda s: s.hearing.received > before + 10, "audio", timeout_s=5)
            assert (await call.hang_up()).status == 200
            await other.wait_ended()

    run(scenario())
