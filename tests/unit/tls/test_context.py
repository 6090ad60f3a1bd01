"""Contexts from tls.context in real handshakes, in memory: each refusal beside the handshake that succeeds."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support.certificates import Flaw, Issuer
from tls.context import PeerName, client_context, peer_certificate_pem, server_context
from tls.errors import ContextError, PeerRefusedError, RefusalReason
from tls.material import TLSMaterial, load_material, load_trust
from tls.policy import PeerVerifier
from tls.settings import TLS12_EXCEPTION, TLS13_ONLY, CipherSuite
from tls.trust import TrustStore

HOST = "edge.example"


@dataclass
class Pair:
    """A client and a server joined by two buffers."""

    client: ssl.SSLObject
    server: ssl.SSLObject
    to_client: ssl.MemoryBIO
    to_server: ssl.MemoryBIO


def join(
    client: ssl.SSLContext, server: ssl.SSLContext, host: str = HOST, session: ssl.SSLSession | None = None
) -> Pair:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    return Pair(
        client=client.wrap_bio(to_client, to_server, server_hostname=host, session=session),
        server=server.wrap_bio(to_server, to_client, server_side=True),
        to_client=to_client,
        to_server=to_server,
    )


def step(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def shake_hands(pair: Pair) -> None:
    """Run both ends to the end, then a byte each way: a TLS 1.3 client learns of its refusal only by reading."""
    client_done = server_done = False
    for _ in range(6):
        client_done = client_done or step(pair.client)
        server_done = server_done or step(pair.server)
    assert client_done
    assert server_done
    pair.server.write(b"s")
    assert pair.client.read(1) == b"s"
    pair.client.write(b"c")
    assert pair.server.read(1) == b"c"


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def server_material(issuer: Issuer) -> TLSMaterial:
    return load_material(issuer.material("edge", HOST), now=issuer.now)


@pytest.fixture
def client_material(issuer: Issuer) -> TLSMaterial:
    return load_material(issuer.material("peer", "peer.example"), now=issuer.now)


@pytest.fixture
def client(client_material: TLSMaterial) -> ssl.SSLContext:
    return client_context(client_material.trust, peer_name=PeerName.HTTPS, material=client_material)


@pytest.fixture
def server(server_material: TLSMaterial) -> ssl.SSLContext:
    return server_context(server_material)


def test_mutual_tls_1_3(client: ssl.SSLContext, server: ssl.SSLContext, client_material: TLSMaterial) -> None:
    pair = join(client, server)
    shake_hands(pair)
    assert (pair.client.version(), pair.server.version()) == ("TLSv1.3", "TLSv1.3")
    cipher = pair.server.cipher()
    assert cipher is not None
    assert cipher[0] in {suite.name for suite in TLS13_ONLY.cipher_suites}
    seen = peer_certificate_pem(pair.server)
    assert ssl.PEM_cert_to_DER_cert(seen) == ssl.PEM_cert_to_DER_cert(
        client_material.certificate_pem.decode()
    )


def test_every_context_states_its_own_limits(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Even those that are the library's default today."""
    for context in (client, server):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.maximum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST
        assert context.security_level >= 2
        for option in (ssl.OP_NO_TICKET, ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION):
            assert context.options & option
    assert client.check_hostname
    assert not client.hostname_checks_common_name
    assert server.num_tickets == 0


def limited(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = version
    context.maximum_version = version
    return context


def test_tls_1_2_is_refused_by_the_server(
    issuer: Issuer, server: ssl.SSLContext, client_material: TLSMaterial
) -> None:
    def stranger(version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(issuer.trust_path))
        paths = client_material.settings
        context.load_cert_chain(paths.certificate_path, paths.private_key_path)
        return limited(context, version)

    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|PROTOCOL_VERSION"):
        shake_hands(join(stranger(ssl.TLSVersion.TLSv1_2), server))
    shake_hands(join(stranger(ssl.TLSVersion.TLSv1_3), server))


def test_tls_1_2_is_refused_by_the_client(
    issuer: Issuer, client: ssl.SSLContext, server_material: TLSMaterial
) -> None:
    def stranger(version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        paths = server_material.settings
        context.load_cert_chain(paths.certificate_path, paths.private_key_path)
        return limited(context, version)

    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|PROTOCOL_VERSION"):
        shake_hands(join(client, stranger(ssl.TLSVersion.TLSv1_2)))
    shake_hands(join(client, stranger(ssl.TLSVersion.TLSv1_3)))


def test_a_client_without_a_certificate_is_refused(
    client: ssl.SSLContext, server: ssl.SSLContext, client_material: TLSMaterial
) -> None:
    bare = client_context(client_material.trust, peer_name=PeerName.HTTPS)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(join(bare, server))
    shake_hands(join(client, server))


def test_a_client_of_another_ca_is_refused(
    issuer: Issuer, client: ssl.SSLContext, server: ssl.SSLContext, tmp_path: Path
) -> None:
    stranger = Issuer(tmp_path / "stranger", name=issuer.name)
    material = load_material(stranger.material("peer", "peer.example"), now=issuer.now)
    trust = load_trust(issuer.material("any"), now=issuer.now)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(join(client_context(trust, peer_name=PeerName.HTTPS, material=material), server))
    shake_hands(join(client, server))


def test_a_server_of_another_ca_is_refused(
    client: ssl.SSLContext, server: ssl.SSLContext, client_material: TLSMaterial, tmp_path: Path
) -> None:
    trust = TrustStore(anchors=(Issuer(tmp_path / "stranger", name="Stranger").root.certificate,))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(join(client_context(trust, peer_name=PeerName.HTTPS, material=client_material), server))
    shake_hands(join(client, server))


def test_an_https_client_checks_the_name(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname"):
        shake_hands(join(client, server, host="other.example"))
    shake_hands(join(client, server, host=HOST))


def test_the_common_name_is_no_name(issuer: Issuer, client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    files = issuer.material("cn", HOST, flaw=Flaw.CN_ONLY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate_path, files.private_key_path)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname"):
        shake_hands(join(client, context))
    shake_hands(join(client, server))


def test_a_sip_client_leaves_the_name_to_the_verifier(
    issuer: Issuer, client_material: TLSMaterial, server: ssl.SSLContext
) -> None:
    context = client_context(client_material.trust, peer_name=PeerName.SIP, material=client_material)
    pair = join(context, server, host="other.example")
    shake_hands(pair)
    verifier = PeerVerifier(client_material.trust, clock=lambda: issuer.now)
    chain = [peer_certificate_pem(pair.client)]
    with pytest.raises(PeerRefusedError) as caught:
        verifier.verify_server(chain, "other.example")
    assert caught.value.reason is RefusalReason.WRONG_IDENTITY
    assert verifier.verify_server(chain, HOST).has_identity(HOST)


def test_no_session_is_ever_resumed(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    first = join(client, server)
    shake_hands(first)
    session = first.client.session
    assert session is not None
    assert not session.has_ticket
    second = join(client, server, session=session)
    shake_hands(second)
    assert not second.client.session_reused
    assert second.server.getpeercert() is not None


def test_that_test_would_see_a_resumption(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """With tickets left on, the same two handshakes do resume."""
    server.options &= ~ssl.OP_NO_TICKET
    server.num_tickets = 2
    client.options &= ~ssl.OP_NO_TICKET
    first = join(client, server)
    shake_hands(first)
    second = join(client, server, session=first.client.session)
    shake_hands(second)
    assert second.client.session_reused


def test_a_client_whose_verification_failed_does_not_get_in_the_second_time(
    issuer: Issuer, client: ssl.SSLContext, server: ssl.SSLContext, tmp_path: Path
) -> None:
    stranger = Issuer(tmp_path / "stranger", name="Stranger")
    material = load_material(stranger.material("peer", "peer.example"), now=issuer.now)
    trust = load_trust(issuer.material("any"), now=issuer.now)
    context = client_context(trust, peer_name=PeerName.HTTPS, material=material)
    session = None
    for _ in range(3):
        pair = join(context, server, session=session)
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(pair)
        session = pair.client.session
    shake_hands(join(client, server))


def test_revoked_peers_are_refused_in_the_handshake(issuer: Issuer, client_material: TLSMaterial) -> None:
    good = load_material(issuer.material("good", "peer.example"), now=issuer.now)
    issuer.revoke("peer")
    settings = issuer.material("edge", HOST, crl_path=issuer.write_crl())
    server = server_context(load_material(settings, now=issuer.now))
    revoked = client_context(good.trust, peer_name=PeerName.HTTPS, material=client_material)
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake_hands(join(revoked, server))
    shake_hands(join(client_context(good.trust, peer_name=PeerName.HTTPS, material=good), server))


def test_an_intermediate_is_no_anchor(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path, depth=1)
    material = load_material(issuer.material("edge", HOST), now=issuer.now)
    other = Issuer(tmp_path / "other", name="Other")
    lower = issuer.intermediates[0].certificate
    without_root = TrustStore(anchors=(other.root.certificate,), intermediates=(lower,))
    server = server_context(material)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(join(client_context(without_root, peer_name=PeerName.HTTPS, material=material), server))
    shake_hands(join(client_context(material.trust, peer_name=PeerName.HTTPS, material=material), server))


def test_a_weak_peer_is_refused_in_the_handshake(issuer: Issuer, client: ssl.SSLContext) -> None:
    def stranger(flaw: Flaw | None) -> ssl.SSLContext:
        files = issuer.material("weak", HOST, flaw=flaw)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.load_cert_chain(files.certificate_path, files.private_key_path)
        return context

    with pytest.raises(ssl.SSLCertVerificationError, match="too weak"):
        shake_hands(join(client, stranger(Flaw.WEAK_RSA)))
    shake_hands(join(client, stranger(None)))


def test_the_bytes_that_were_judged_are_loaded(
    issuer: Issuer, server_material: TLSMaterial, client: ssl.SSLContext
) -> None:
    for path in (server_material.settings.certificate_path, server_material.settings.private_key_path):
        path.write_bytes(b"replaced after it was read")
    pair = join(client, server_context(server_material))
    shake_hands(pair)
    seen = ssl.PEM_cert_to_DER_cert(peer_certificate_pem(pair.client))
    assert seen == ssl.PEM_cert_to_DER_cert(server_material.certificate_pem.decode())


def test_a_profile_other_than_tls_1_3_is_not_built(server_material: TLSMaterial) -> None:
    with pytest.raises(ContextError, match=r"tls12-exception is not TLS 1\.3 only"):
        server_context(server_material, profile=TLS12_EXCEPTION)
    with pytest.raises(ContextError, match=r"tls12-exception is not TLS 1\.3 only"):
        client_context(server_material.trust, peer_name=PeerName.SIP, profile=TLS12_EXCEPTION)
    server_context(server_material, profile=TLS13_ONLY)


def test_suites_beyond_the_profile_stop_the_context(server_material: TLSMaterial) -> None:
    narrow = replace(TLS13_ONLY, name="narrow", cipher_suites=(CipherSuite.TLS_AES_256_GCM_SHA384,))
    with pytest.raises(ContextError, match="TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256"):
        server_context(server_material, profile=narrow)
    with pytest.raises(ContextError, match="TLS_AES_128_GCM_SHA256"):
        client_context(server_material.trust, peer_name=PeerName.SIP, profile=narrow)


def test_material_that_openssl_refuses(server_material: TLSMaterial, client_material: TLSMaterial) -> None:
    with pytest.raises(ContextError, match="KEY_VALUES_MISMATCH"):
        server_context(replace(server_material, private_key_pem=client_material.private_key_pem))
    server_context(server_material)


def test_no_anchor_no_context(server_material: TLSMaterial) -> None:
    with pytest.raises(ContextError, match="no trust anchor"):
        server_context(server_material, trust=TrustStore(anchors=()))
    with pytest.raises(ContextError, match="no trust anchor"):
        client_context(TrustStore(anchors=()), peer_name=PeerName.HTTPS)


def test_a_peer_without_a_certificate_is_reported(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    server.verify_mode = ssl.CERT_NONE
    pair = join(client, server)
    shake_hands(pair)
    with pytest.raises(PeerRefusedError) as caught:
        peer_certificate_pem(pair.server)
    assert caught.value.reason is RefusalReason.NO_CERTIFICATE
