"""Nothing that a peer writes into a message makes the process send anything anywhere but over a verified connection.

Each test names a port where a plain UDP socket and a plain TCP listener wait. The call that follows each attack is the
positive twin, and also the moment by which anything misdirected would have arrived.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from b2bua.demo.call import Reoffer
from b2bua.demo.dialog import new_branch, new_tag
from b2bua.demo.incoming import Answering
from b2bua.demo.sdp import Direction
from b2bua.demo.sip_message import Header, SIPRequest
from b2bua.initialise import identity_of
from support.edge import Edge, Parties
from support.endpoint import LOCALHOST, run

ANSWER = Answering()


class PlainEars:
    """A UDP socket and a TCP listener on one port of the loopback."""

    def __init__(self) -> None:
        while True:  # the other protocol's socket of that port may be somebody else's
            self.tcp = socket.create_server((LOCALHOST, 0))
            self.port = int(self.tcp.getsockname()[1])
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self.udp.bind((LOCALHOST, self.port))
                break
            except OSError:
                self.tcp.close()
                self.udp.close()
        self.tcp.setblocking(False)
        self.udp.setblocking(False)

    def datagram(self) -> bytes:
        try:
            return self.udp.recv(65536)
        except BlockingIOError:
            return b""

    def streams(self) -> list[bytes]:
        """The first bytes of each connection that was made."""
        heard = []
        while True:
            try:
                connection, _ = self.tcp.accept()
            except BlockingIOError:
                return heard
            with connection:
                connection.settimeout(5)
                try:
                    heard.append(connection.recv(65536))
                except ConnectionError:
                    heard.append(b"")

    def close(self) -> None:
        self.tcp.close()
        self.udp.close()


@pytest.fixture
def ears() -> Iterator[PlainEars]:
    with contextlib.closing(PlainEars()) as made:
        yield made


def assert_hears(ears: PlainEars) -> None:
    """The ears do hear what is sent to them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.sendto(b"over UDP", (LOCALHOST, ears.port))
    with socket.create_connection((LOCALHOST, ears.port)) as mouth:
        mouth.sendall(b"over TCP")
    assert (ears.datagram(), ears.streams()) == (b"over UDP", [b"over TCP"])


async def assert_service(p: Parties) -> None:
    p.callee.answering = ANSWER
    call, other = await p.established()
    await call.hang_up()
    await other.wait_ended()


async def assert_silence_and_service(p: Parties, ears: PlainEars) -> None:
    await assert_service(p)
    assert (ears.datagram(), ears.streams()) == (b"", [])
    assert_hears(ears)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("status", [300, 302, 305])
def test_a_redirection_is_not_followed(served: Edge, ears: PlainEars, status: int, transport: str) -> None:
    contact = Header("Contact", f"<sip:2001@{LOCALHOST}:{ears.port};transport={transport}>")

    async def scenario() -> None:
        plan = Answering(provisional=(), status=status, reason="Moved", headers=(contact,))
        async with served.parties(plan) as p:
            call = await p.invite()
            assert (await call.wait_final()).status == 502
            await p.callee.next_call()
            await assert_silence_and_service(p, ears)
            assert len(p.callee.incoming) == 2, "the call that was redirected, and the one that follows it"

    run(scenario())


def test_a_redirection_to_another_trunk_is_not_followed(served: Edge, ears: PlainEars) -> None:
    """Even a target that we would connect to and could verify."""
    place = f"<sips:1001@{identity_of('caller')}:{served.made.caller_port}>"

    async def scenario() -> None:
        plan = Answering(provisional=(), status=302, reason="Moved", headers=(Header("Contact", place),))
        async with served.parties(plan) as p:
            call = await p.invite()
            assert (await call.wait_final()).status == 502
            await p.callee.next_call()
            await assert_silence_and_service(p, ears)
            assert p.caller.incoming == []
            assert len(p.callee.incoming) == 2

    run(scenario())


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("by_caller", [True, False], ids=["caller", "callee"])
def test_refer_in_a_call_is_refused_and_nothing_is_dialled(
    served: Edge, ears: PlainEars, by_caller: bool, transport: str
) -> None:
    refer_to = Header("Refer-To", f"<sip:2001@{LOCALHOST}:{ears.port};transport={transport}>")

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            one = call if by_caller else other
            refused = await one.request("REFER", headers=[refer_to])
            assert refused.status == 405
            assert "REFER" not in next(h.value for h in refused.headers if h.name == "Allow")
            assert (await call.reinvite()).status == 200
            await call.hang_up()
            await other.wait_ended()
            assert len(p.callee.incoming) == 1
            await assert_silence_and_service(p, ears)

    run(scenario())


@pytest.mark.parametrize("hidden", [False, True], ids=["in the open", "behind a bare line feed"])
def test_an_invite_that_replaces_a_live_call_is_refused(served: Edge, hidden: bool) -> None:
    """The tags are right. pjsip ends a line at a bare line feed, our own reader does not: both lines must hold."""

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            dialog = call.dialog
            assert dialog is not None
            value = f"{dialog.call_id};to-tag={dialog.remote_tag};from-tag={dialog.local_tag}"
            header = Header("Subject", f"x\nReplaces: {value}") if hidden else Header("Replaces", value)
            thief = await p.invite(headers=(header,))
            assert (await thief.wait_final()).status == 403
            before = (await call.stream.stats()).received
            await call.stream.wait_for(lambda s: s.hearing.received > before + 10, "audio", timeout_s=5)
            assert len(p.callee.incoming) == 1
            assert (await call.hang_up()).status == 200
            await other.wait_ended()
            call, other = await p.established(headers=(Header("Subject", "x"),))
            await call.hang_up()
            await other.wait_ended()

    run(scenario())


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_route_of_the_caller_leads_nowhere(served: Edge, ears: PlainEars, transport: str) -> None:
    route = Header("Route", f"<sip:{LOCALHOST}:{ears.port};transport={transport};lr>")

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established(headers=(route,))
            assert not [h for h in other.invite.headers if h.name in ("Route", "Record-Route")]
            await call.hang_up()
            await other.wait_ended()
            await assert_silence_and_service(p, ears)

    run(scenario())


def recorded(text: str) -> Header:
    return Header("Record-Route", text)


def foreign_routes(ears: PlainEars) -> dict[str, Header]:
    """Routes to where somebody listens who is not the peer."""
    place = f"sip:{LOCALHOST}:{ears.port}"
    maddr = f"sip:{identity_of('caller')}:{ears.port};maddr={LOCALHOST}"
    return {
        "udp": recorded(f"<{place};transport=udp;lr>"),
        "tcp": recorded(f"<{place};transport=tcp;lr>"),
        "tls": recorded(f"<{place};transport=tls;lr>"),
        "sips": recorded(f"<sips:{LOCALHOST}:{ears.port};lr>"),
        "no transport": recorded(f"<{place};lr>"),
        "strict": recorded(f"<{place}>"),
        "maddr": recorded(f"<{maddr};transport=tls;lr>"),
        "a name": recorded("<sip:nowhere.example.test;transport=tls;lr>"),
    }


FOREIGN = ["udp", "tcp", "tls", "sips", "no transport", "strict", "maddr", "a name"]


def routes_refused(served: Edge) -> int:
    return sum(line.get("reason") == "foreign_route" for line in served.audit())


@pytest.mark.parametrize("form", FOREIGN)
def test_a_caller_cannot_have_us_connect_to_whom_it_names(served: Edge, ears: PlainEars, form: str) -> None:
    before = routes_refused(served)

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call = await p.invite(headers=(foreign_routes(ears)[form],))
            assert (await call.wait_final()).status == 403
            assert p.callee.incoming == []
            await assert_silence_and_service(p, ears)

    run(scenario())
    served.wait_audit(lambda line: line.get("reason") == "foreign_route" and routes_refused(served) > before)


@pytest.mark.parametrize("form", FOREIGN)
def test_a_callee_cannot_either_and_its_dialog_stays_on_its_connection(
    served: Edge, ears: PlainEars, form: str
) -> None:
    """Here already the ACK would go there."""
    before = routes_refused(served)

    async def scenario() -> None:
        async with served.parties(Answering(headers=(foreign_routes(ears)[form],))) as p:
            call, other = await p.established()
            assert other.acknowledged == 1
            assert (await call.hang_up()).status == 200
            await other.wait_ended()
            _, bye = await other.wait_received("BYE")
            assert not [header for header in bye.headers if header.name == "Route"]
            await assert_silence_and_service(p, ears)

    run(scenario())
    assert routes_refused(served) > before


@pytest.mark.parametrize("side", ["caller", "callee"])
def test_a_route_that_comes_too_late_does_not_free_a_contact(
    served: Edge, ears: PlainEars, side: str
) -> None:
    """A dialog that began without routes has none, and its target stays on the peer's connection."""
    place = f"<sip:{LOCALHOST}:{ears.port};transport=tls;lr>"

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            one, two = (call, other) if side == "caller" else (other, call)
            one.contact = f"<sips:x@{LOCALHOST}:{ears.port}>"
            assert (await one.reinvite(direction=Direction.SENDONLY, headers=[recorded(place)])).status == 200
            one.reoffer = Reoffer(headers=(recorded(place),))
            assert (await two.reinvite(direction=Direction.SENDONLY)).status == 200
            assert (await two.hang_up()).status == 200
            assert (await one.wait_ended()).by_remote
            await assert_silence_and_service(p, ears)

    run(scenario())


@pytest.mark.parametrize("scheme", ["sips", "sip"])
@pytest.mark.parametrize("side", ["caller", "callee"])
def test_a_route_by_the_peers_own_proxy_is_kept(served: Edge, side: str, scheme: str) -> None:
    """The positive twin: a host that the configuration has, whatever its port."""

    async def scenario() -> None:
        port = served.made.caller_port if side == "caller" else served.made.callee_port
        own = recorded(f"<{scheme}:{identity_of(side)}:{port};transport=tls;lr>")
        answering = Answering(headers=(own,)) if side == "callee" else ANSWER
        async with served.parties(answering) as p:
            call, other = await p.established(headers=(own,) if side == "caller" else ())
            one, two = (call, other) if side == "caller" else (other, call)
            assert (await two.hang_up()).status == 200
            await one.wait_ended()
            _, bye = await one.wait_received("BYE")
            (route,) = (header.value for header in bye.headers if header.name == "Route")
            assert f"{identity_of(side)}:{port}" in route
            await assert_service(p)

    run(scenario())


VIAS = {
    "another host": "SIP/2.0/TLS 192.0.2.1:5061;branch={branch}",
    "a name": "SIP/2.0/TLS phone.example.test;branch={branch}",
    "another port": "SIP/2.0/TLS 127.0.0.1:{port};branch={branch}",
    "udp": "SIP/2.0/UDP 127.0.0.1:{port};branch={branch}",
    "tcp": "SIP/2.0/TCP 127.0.0.1:{port};rport;branch={branch}",
    "maddr": "SIP/2.0/TLS 127.0.0.1:{port};maddr=127.0.0.1;ttl=1;branch={branch}",
    "received": "SIP/2.0/TLS 192.0.2.1:5061;received=127.0.0.1;rport={port};branch={branch}",
}


@pytest.mark.parametrize("form", VIAS)
def test_a_response_comes_back_on_its_connection_whatever_the_via_says(
    served: Edge, ears: PlainEars, form: str
) -> None:
    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            for method, status in (("OPTIONS", 200), ("REGISTER", 405), ("INVITE", 415)):
                message = plain_request(method, served.uri())
                via = VIAS[form].format(port=ears.port, branch=new_branch())
                request = replace(message, headers=(Header("Via", via), *message.headers))
                transaction = p.caller.begin(p.connection, request)
                assert (await transaction.final()).status == status
            await assert_silence_and_service(p, ears)

    run(scenario())


def plain_request(method: str, uri: str) -> SIPRequest:
    """A request without a Via; an INVITE gets a body of a type that is refused."""
    body = b"no session" if method == "INVITE" else b""
    return SIPRequest(
        method=method,
        uri=uri,
        body=body,
        headers=(
            Header("Max-Forwards", "70"),
            Header("From", f"<sips:1001@{LOCALHOST}>;tag={new_tag()}"),
            Header("To", f"<{uri}>"),
            Header("Call-ID", new_tag()),
            Header("CSeq", f"1 {method}"),
            Header("Contact", f"<sips:1001@{LOCALHOST}>"),
            *([Header("Content-Type", "text/plain")] if body else []),
        ),
    )
