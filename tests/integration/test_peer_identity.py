"""Who gets in and whom we call: each refused peer beside one with that one thing made right."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from b2bua.demo.endpoint import Endpoint
from b2bua.demo.errors import DemoError
from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import Invitation
from b2bua.initialise import InitResult, identity_of
from support.certificates import Flaw, Issuer
from support.edge import Edge, edge
from support.endpoint import LOCALHOST, contexts, run
from tls.settings import TLSMaterialSettings

CALLER, CALLEE = identity_of("caller"), identity_of("callee")


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Edge]:
    """An edge that also trusts the issuer, which therefore can make good and flawed peers."""

    def prepare(made: InitResult) -> None:
        with made.edge.trust_path.open("ab") as trust:
            trust.write(issuer.trust_path.read_bytes())

    def edit(text: str) -> str:
        only_ten = 'sources = ["10.0.0.0/8"]\nidentities = ["ten.example.test"]\ntenant = "clinic"\nrecording = "off"\n'
        return text.replace("[limits]\n", "[limits]\ndrain_deadline_s = 1\n") + f"\n[trunks.ten]\n{only_ten}"

    with edge(tmp_path_factory.mktemp("trusting"), prepare=prepare, edit=edit) as running:
        yield running
        assert running.process.poll() is None
        assert running.stop() == 0


def trusted(
    served: Edge, issuer: Issuer, name: str, host: str, flaw: Flaw | None = None
) -> TLSMaterialSettings:
    """Material of an issuer's certificate that trusts the edge's authority."""
    material = issuer.material(name, host, flaw=flaw)
    return TLSMaterialSettings(
        certificate_path=material.certificate_path,
        private_key_path=material.private_key_path,
        trust_path=served.made.caller.trust_path,
    )


async def answered(served: Edge, endpoint: Endpoint, context: ssl.SSLContext | None = None) -> bool:
    """Whether OPTIONS over a new connection is answered with 200; False when the connection does not live that long."""
    try:
        connection = await endpoint.connect(
            LOCALHOST, served.made.sip_port, server_name=identity_of("edge"), context=context
        )
        return (await endpoint.options(connection, served.uri(), timeout_s=5)).status == 200
    except (OSError, DemoError):
        return False


def options_from(served: Edge, material: TLSMaterialSettings) -> bool:
    async def scenario() -> bool:
        async with served.endpoint(material, user="1001") as endpoint:
            return await answered(served, endpoint)

    return run(scenario())


CLIENT_FLAWS = [
    Flaw.EXPIRED,
    Flaw.CN_ONLY,
    Flaw.NUL_IN_NAME,
    Flaw.NUL_IN_URI,
    Flaw.WILDCARD,
    Flaw.SERVER_ONLY,
    Flaw.IS_CA,
]


@pytest.mark.parametrize("flaw", CLIENT_FLAWS, ids=lambda flaw: flaw.name)
def test_a_client_with_a_flawed_certificate_is_refused(trusting: Edge, issuer: Issuer, flaw: Flaw) -> None:
    name = flaw.name.lower()
    assert not options_from(trusting, trusted(trusting, issuer, name, CALLER, flaw))
    assert options_from(trusting, trusted(trusting, issuer, "good-" + name, CALLER))
    trusting.wait_audit(lambda line: line["event"] == "peer_refused")


def test_a_valid_certificate_of_nobody_we_know_is_refused(trusting: Edge, issuer: Issuer) -> None:
    assert not options_from(trusting, trusted(trusting, issuer, "stranger", "stranger.example.test"))
    trusting.wait_audit(lambda line: line.get("reason") == "unknown_identity")
    assert options_from(trusting, trusted(trusting, issuer, "friend", CALLER))


def test_a_known_peer_from_another_network_is_refused(trusting: Edge, issuer: Issuer) -> None:
    assert not options_from(trusting, trusted(trusting, issuer, "ten", "ten.example.test"))
    trusting.wait_audit(lambda line: line.get("reason") == "source_not_allowed")
    assert options_from(trusting, trusted(trusting, issuer, "near", CALLER))


def test_an_authority_that_is_not_trusted_is_refused(trusting: Edge, tmp_path: Path) -> None:
    other = Issuer(tmp_path / "other")
    assert not options_from(trusting, trusted(trusting, other, "caller", CALLER))
    assert options_from(trusting, trusting.made.caller)


def client(served: Edge, *, certificate: bool, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(served.made.caller.trust_path)
    context.minimum_version = context.maximum_version = version
    if certificate:
        context.load_cert_chain(served.made.caller.certificate_path, served.made.caller.private_key_path)
    return context


@pytest.mark.parametrize(
    ("certificate", "version", "gets_in"),
    [
        (True, ssl.TLSVersion.TLSv1_3, True),
        (True, ssl.TLSVersion.TLSv1_2, False),
        (False, ssl.TLSVersion.TLSv1_3, False),
    ],
    ids=["as it must be", "TLS 1.2", "no certificate"],
)
def test_tls_1_2_and_a_missing_certificate_are_refused(
    trusting: Edge, certificate: bool, version: ssl.TLSVersion, gets_in: bool
) -> None:
    async def scenario() -> bool:
        async with trusting.endpoint(trusting.made.caller, user="1001") as endpoint:
            context = client(trusting, certificate=certificate, version=version)
            return await answered(trusting, endpoint, context)

    assert run(scenario()) is gets_in


def test_an_untrusted_certificate_does_not_get_in_by_resumption(trusting: Edge, tmp_path: Path) -> None:
    """TLS 1.3 tickets come after the handshake; a resumed session would skip the certificate altogether."""
    other = trusted(trusting, Issuer(tmp_path / "other"), "caller", CALLER)
    context, _ = contexts(other)

    def attempt(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bytes, bool]:
        with (
            socket.create_connection((LOCALHOST, trusting.made.sip_port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=identity_of("edge"), session=session) as tls,
        ):
            tls.settimeout(5)
            try:
                tls.sendall(b"OPTIONS sip:edge SIP/2.0\r\n\r\n")
                received = tls.recv(4096)
            except OSError:
                received = b""
            return tls.session, received, tls.session_reused or False

    session, received, _ = attempt(None)
    assert received == b""
    for _ in range(3):
        session, received, reused = attempt(session)
        assert (received, reused) == (b"", False)
    assert options_from(trusting, trusting.made.caller)


SERVER_FLAWS = [Flaw.CN_ONLY, Flaw.NUL_IN_NAME, Flaw.WILDCARD, Flaw.EXPIRED, Flaw.CLIENT_ONLY]


@pytest.mark.parametrize("flaw", SERVER_FLAWS, ids=lambda flaw: flaw.name)
def test_a_server_that_may_not_be_the_target_never_gets_a_byte_of_sip(
    trusting: Edge, issuer: Issuer, flaw: Flaw
) -> None:
    """The INVITE, with both numbers in it, waits for the connection; a refused one must not carry it."""

    async def scenario() -> None:
        async with trusting.endpoint(trusting.made.caller, user="1001") as caller:
            connection = await trusting.connect(caller)
            invitation = Invitation(uri=trusting.uri())
            bad = trusted(trusting, issuer, f"srv-{flaw.name.lower()}", CALLEE, flaw)
            async with eavesdropper(trusting.made.callee_port, bad) as received:
                call = await caller.invite(connection, invitation)
                assert (await call.wait_final(timeout_s=20)).status == 503
                assert received == []
            good = trusted(trusting, issuer, f"srv-good-{flaw.name.lower()}", CALLEE)
            async with trusting.endpoint(
                good, user="2001", port=trusting.made.callee_port, answering=Answering()
            ):
                call = await caller.invite(connection, invitation)
                await call.wait_answered()
                await call.hang_up()

    run(scenario(), limit_s=60)


@contextlib.asynccontextmanager
async def eavesdropper(port: int, material: TLSMaterialSettings) -> AsyncIterator[list[bytes]]:
    """A TLS server at the callee's port that collects whatever it is sent."""
    received: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                received.append(data)
        except OSError:
            return
        finally:
            writer.close()

    _, context = contexts(material)
    server = await asyncio.start_server(take, LOCALHOST, port, ssl=context)
    try:
        yield received
    finally:
        server.close()
        await server.wait_closed()
