"""TLS of the patched pjproject: no resumption, versions per context, renewal without closing, server identity."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from support.pj_attack import Authority, Identity, Peer, Target, Victim, client_context, invite, offer

TLS_1_2, TLS_1_3 = 1 << 4, 1 << 5
CERTIFICATE_REFUSED = 171173


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), name="another authority")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Identity:
    return authority.issue("server", sans=[x509.DNSName("server.example")])


@pytest.fixture(scope="module")
def client(authority: Authority) -> Identity:
    return authority.issue("client")


@pytest.fixture
def victim(authority: Authority, server: Identity) -> Iterator[Victim]:
    with Victim(ca=authority.path, cert=server.cert, key=server.key) as running:
        yield running


def test_refused_certificate_stays_refused_when_its_session_comes_back(
    victim: Victim, authority: Authority, stranger: Authority
) -> None:
    context = client_context(authority, stranger.issue("intruder"))
    session = None
    for _ in range(3):
        start = len(victim.lines)
        peer = Peer.connect(context, victim.port, session=session)
        assert peer.options() == ""
        assert not peer.socket.session_reused
        session = peer.socket.session
        peer.socket.close()
        victim.wait_for(rf"TRANSPORT 1 status={CERTIFICATE_REFUSED} verify=[1-9]", start=start)
    assert not any(line.startswith("TRANSPORT 0") for line in victim.lines)


def test_accepted_certificate_is_verified_again_on_each_connection(
    victim: Victim, authority: Authority, client: Identity
) -> None:
    context = client_context(authority, client)
    session = None
    for _ in range(2):
        with Peer.connect(context, victim.port, session=session) as peer:
            assert peer.options() == "200"
            assert not peer.socket.session_reused
            session = peer.socket.session


@pytest.mark.parametrize(("proto", "floor"), [(TLS_1_2, "TLSv1.3"), (TLS_1_3, "TLSv1.2")])
def test_context_has_its_own_versions(
    authority: Authority, server: Identity, client: Identity, tmp_path: Path, proto: int, floor: str
) -> None:
    """The process-wide floor excludes TLS 1.2, or allows it: the listener speaks what it was told, and no other."""
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(
        f"openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nMinProtocol = {floor}\n"
    )
    wanted = ssl.TLSVersion.TLSv1_2 if proto == TLS_1_2 else ssl.TLSVersion.TLSv1_3
    other = ssl.TLSVersion.TLSv1_3 if proto == TLS_1_2 else ssl.TLSVersion.TLSv1_2
    with Victim(
        ca=authority.path, cert=server.cert, key=server.key, proto=proto, openssl_conf=configuration
    ) as victim:
        context = client_context(authority, client)
        context.minimum_version = context.maximum_version = wanted
        with Peer.connect(context, victim.port) as peer:
            assert peer.options() == "200"
        context = client_context(authority, client)
        context.minimum_version = context.maximum_version = other
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            Peer.connect(context, victim.port)


def serial_of(peer: Peer) -> int:
    der = peer.socket.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def serial_in(identity: Identity) -> int:
    return x509.load_pem_x509_certificate(identity.cert.read_bytes()).serial_number


def test_renewed_certificate_serves_new_connections_and_old_ones_go_on(
    victim: Victim, authority: Authority, server: Identity, client: Identity
) -> None:
    renewed = authority.issue("renewed", sans=[x509.DNSName("server.example")])
    context = client_context(authority, client)
    with Peer.connect(context, victim.port) as before:
        assert serial_of(before) == serial_in(server)
        assert victim.command(f"renew {authority.path} {renewed.cert} {renewed.key}") == 0
        with Peer.connect(context, victim.port) as after:
            assert serial_of(after) == serial_in(renewed)
            assert after.options() == "200"
        assert before.options() == "200"


def test_renewed_authority_decides_who_gets_in(
    victim: Victim, authority: Authority, stranger: Authority, server: Identity, client: Identity
) -> None:
    newcomer = stranger.issue("newcomer")
    assert victim.command(f"renew {stranger.path} {server.cert} {server.key}") == 0
    with Peer.connect(client_context(authority, newcomer), victim.port) as peer:
        assert peer.options() == "200"
    with Peer.connect(client_context(authority, client), victim.port) as peer:
        assert peer.options() == ""


@pytest.mark.parametrize(
    "fault", ["foreign key", "no certificate", "no key", "no authority", "garbled authority"]
)
def test_faulty_renewal_is_refused_and_changes_nothing(
    victim: Victim, authority: Authority, server: Identity, client: Identity, tmp_path: Path, fault: str
) -> None:
    renewed = authority.issue("renewed")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    parts = {"ca": authority.path, "cert": renewed.cert, "key": renewed.key}
    part, path = {
        "foreign key": ("key", client.key),
        "no certificate": ("cert", tmp_path / "absent"),
        "no key": ("key", tmp_path / "absent"),
        "no authority": ("ca", tmp_path / "absent"),
        "garbled authority": ("ca", garbage),
    }[fault]
    parts[part] = path
    assert victim.command(f"renew {parts['ca']} {parts['cert']} {parts['key']}") != 0
    with Peer.connect(client_context(authority, client), victim.port) as peer:
        assert serial_of(peer) == serial_in(server)
        assert peer.options() == "200"


def test_renewed_certificate_is_shown_on_outgoing_connections(victim: Victim, authority: Authority) -> None:
    renewed = authority.issue("outgoing")
    target = authority.issue("target", sans=[x509.DNSName("localhost")])
    assert victim.command(f"renew {authority.path} {renewed.cert} {renewed.key}") == 0
    with Target(authority, target) as listener:
        victim.command(f"call sip:x@localhost:{listener.port};transport=tls")
        with listener.accept() as peer:
            assert serial_of(peer) == serial_in(renewed)
            assert peer.receive().startswith("INVITE ")


def test_no_connection_is_refused_through_twenty_renewals(
    victim: Victim, authority: Authority, server: Identity, client: Identity
) -> None:
    """50 connections per second, each with a request and its response."""
    identities = [server, authority.issue("second", sans=[x509.DNSName("server.example")])]
    context = client_context(authority, client)
    failures: list[str] = []
    seen: set[int] = set()
    stop = threading.Event()

    def connect(shift: float) -> None:
        begin = time.monotonic() + shift
        count = 0
        while not stop.is_set():
            try:
                with Peer.connect(context, victim.port) as peer:
                    seen.add(serial_of(peer))
                    if peer.options() != "200":
                        failures.append("no response")
            except OSError as error:
                failures.append(repr(error))
            count += 1
            stop.wait(max(0.0, begin + count * 0.08 - time.monotonic()))

    with Peer.connect(context, victim.port) as steady:
        threads = [threading.Thread(target=connect, args=(shift * 0.02,)) for shift in range(4)]
        for thread in threads:
            thread.start()
        for turn in range(20):
            chosen = identities[(turn + 1) % 2]
            assert victim.command(f"renew {authority.path} {chosen.cert} {chosen.key}") == 0
            stop.wait(0.2)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert seen == {serial_in(identity) for identity in identities}
        assert steady.options() == "200"


@pytest.mark.parametrize(
    ("names", "common_name", "accepted"),
    [
        ([x509.DNSName("localhost")], "x", True),
        ([x509.UniformResourceIdentifier("sip:localhost")], "x", True),
        ([x509.DNSName("localhost\x00.evil.example")], "x", False),
        ([x509.UniformResourceIdentifier("sip:localhost\x00.evil.example")], "x", False),
        ([x509.UniformResourceIdentifier("sip:user@localhost")], "x", False),
        ([x509.DNSName("other.example")], "localhost", False),
        ([], "localhost", False),
        ([x509.DNSName("*")], "x", False),
    ],
    ids=[
        "dns",
        "uri",
        "dns with NUL",
        "uri with NUL",
        "user uri",
        "other name and CN",
        "CN only",
        "wildcard",
    ],
)
def test_server_is_known_by_its_alternative_names_alone(
    victim: Victim, authority: Authority, names: list[x509.GeneralName], common_name: str, accepted: bool
) -> None:
    """A server that is not who we called never receives a byte of SIP."""
    identity = authority.issue("callee", sans=names, common_name=common_name)
    with Target(authority, identity) as listener:
        victim.command(f"call sip:x@localhost:{listener.port};transport=tls")
        with listener.accept() as peer:
            received = peer.receive()
    assert received.startswith("INVITE ") if accepted else received == ""
    victim.wait_for("TRANSPORT 0" if accepted else f"TRANSPORT 1 status={CERTIFICATE_REFUSED}")


def test_call_is_answered_over_tls(victim: Victim, authority: Authority, client: Identity) -> None:
    """The twin of every refusal here: the same peer, with nothing wrong, has a call."""
    with Peer.connect(client_context(authority, client), victim.port) as peer:
        assert invite(peer, offer()).startswith("SIP/2.0 200")
    assert victim.finish() == 0
