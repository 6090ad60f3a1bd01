"""The probe against real servers on loopback: what it reports is what the server was told to do."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tls
from support.certificates import Issuer
from tls.context import server_context
from tls.errors import ProbeError, RefusalReason
from tls.material import TLSMaterial, load_material
from tls.openssl_conf import openssl_configuration
from tls.policy import PeerVerifier
from tls.probe import Answer, ClientCertificateDemand, FindingCode, ProbeReport, probe
from tls.settings import TLS13_ONLY, TLSVersion

HOST = "edge.example"
PATIENCE_S = 0.3


class Server:
    """A TLS server on loopback; `serve` decides what it does with an accepted socket."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="probe-target", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            with stream:
                stream.settimeout(5)
                try:
                    self._serve(stream)
                except OSError:
                    continue

    def close(self) -> None:
        # shutdown() wakes the thread in accept(); close() alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    server = Server(serve)
    try:
        yield server.port
    finally:
        server.close()


def with_context(context: ssl.SSLContext) -> Callable[[socket.socket], None]:
    def serve(stream: socket.socket) -> None:
        with context.wrap_socket(stream, server_side=True) as connection:
            connection.settimeout(5)
            while connection.recv(1024):
                pass
            # A server that does not say goodbye drops the session, and would pass for one that does not resume.
            connection.unwrap()

    return serve


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def material(issuer: Issuer) -> TLSMaterial:
    return load_material(issuer.material("edge", HOST), now=issuer.now)


@pytest.fixture
def ours(issuer: Issuer) -> TLSMaterial:
    return load_material(issuer.material("probe", "probe.example"), now=issuer.now)


def careless(material: TLSMaterial) -> ssl.SSLContext:
    """Python's defaults, which nobody restricted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(material.settings.certificate_path, material.settings.private_key_path)
    return context


def codes(report: ProbeReport) -> set[FindingCode]:
    return {finding.code for finding in report.findings}


def ask(port: int, material: TLSMaterial | None = None, verifier: PeerVerifier | None = None) -> ProbeReport:
    return probe(
        "127.0.0.1", port, material=material, verifier=verifier, server_name=HOST, patience_s=PATIENCE_S
    )


def test_our_own_server_has_no_findings(issuer: Issuer, material: TLSMaterial, ours: TLSMaterial) -> None:
    verifier = PeerVerifier(material.trust, clock=lambda: issuer.now)
    with serving(with_context(server_context(material))) as port:
        report = ask(port, ours, verifier)
    assert report.findings == ()
    assert report.accepted_versions == {TLSVersion.TLS_1_3}
    assert [each.answer for each in report.versions] == [Answer.REFUSED] * 3 + [Answer.ACCEPTED]
    assert set(report.cipher_suites) == set(TLS13_ONLY.cipher_suites)
    assert report.client_certificate is ClientCertificateDemand.REQUIRED
    assert report.our_certificate_accepted is True
    assert (report.tickets, report.resumed) == (0, False)
    assert report.chain[0] == material.leaf
    assert report.fingerprint == material.fingerprint
    assert report.not_after == material.not_after
    assert {identity.host for identity in report.identities} == {HOST}
    assert report.refusal is None
    assert "client certificate: required" in report.lines()


def test_a_careless_server_is_found_out(issuer: Issuer, material: TLSMaterial) -> None:
    verifier = PeerVerifier(material.trust, clock=lambda: issuer.now)
    with serving(with_context(careless(material))) as port:
        report = ask(port, verifier=verifier)
    assert codes(report) == {
        FindingCode.OLD_VERSION,
        FindingCode.CLIENT_CERTIFICATE_NOT_REQUIRED,
        FindingCode.TICKETS_ISSUED,
        FindingCode.SESSION_RESUMED,
    }
    assert report.accepted_versions == {TLSVersion.TLS_1_2, TLSVersion.TLS_1_3}
    assert report.client_certificate is ClientCertificateDemand.NOT_REQUESTED
    assert report.our_certificate_accepted is None
    assert report.tickets == 2
    assert report.refusal is None
    assert any(line.startswith("FINDING old-version: TLSv1.2") for line in report.lines())


def test_an_optional_certificate_is_no_demand(material: TLSMaterial, ours: TLSMaterial) -> None:
    context = server_context(material)
    context.verify_mode = ssl.CERT_OPTIONAL
    with serving(with_context(context)) as port:
        report = ask(port, ours)
    assert codes(report) == {FindingCode.CLIENT_CERTIFICATE_NOT_REQUIRED}
    assert report.client_certificate is ClientCertificateDemand.REQUESTED


def test_tickets_alone_are_found(material: TLSMaterial, ours: TLSMaterial) -> None:
    context = server_context(material)
    context.num_tickets = 1
    with serving(with_context(context)) as port:
        report = ask(port, ours)
    assert codes(report) == {FindingCode.TICKETS_ISSUED, FindingCode.SESSION_RESUMED}
    assert report.tickets == 1


def test_a_server_that_does_not_want_our_certificate(
    issuer: Issuer, material: TLSMaterial, tmp_path: Path
) -> None:
    stranger = Issuer(tmp_path / "stranger", name="Stranger")
    theirs = load_material(stranger.material("probe", "probe.example"), now=issuer.now)
    with serving(with_context(server_context(material))) as port:
        report = ask(port, theirs)
    assert codes(report) == {FindingCode.OUR_CERTIFICATE_REFUSED}
    assert report.our_certificate_accepted is False


def test_a_server_that_verifies_after_the_handshake_and_closes(material: TLSMaterial) -> None:
    """As pjsip does: the handshake succeeds, then the connection is closed without an alert."""
    context = server_context(material)
    context.verify_mode = ssl.CERT_OPTIONAL

    def serve(stream: socket.socket) -> None:
        with context.wrap_socket(stream, server_side=True) as connection:
            if connection.getpeercert() is None:
                return
            connection.recv(1)

    with serving(serve) as port:
        report = ask(port)
    assert report.client_certificate is ClientCertificateDemand.REQUIRED


def test_the_servers_certificate_is_judged(issuer: Issuer, material: TLSMaterial, ours: TLSMaterial) -> None:
    verifier = PeerVerifier(ours.trust, clock=lambda: issuer.now)
    with serving(with_context(server_context(material))) as port:
        good = ask(port, ours, verifier)
        other = probe("127.0.0.1", port, material=ours, verifier=verifier, patience_s=PATIENCE_S)
    assert good.refusal is None
    assert codes(other) == {FindingCode.PEER_REFUSED}
    assert other.refusal is not None
    assert other.refusal.reason is RefusalReason.WRONG_IDENTITY


def test_a_server_of_tls_1_2_only(material: TLSMaterial) -> None:
    context = careless(material)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(with_context(context)) as port:
        report = ask(port)
    assert FindingCode.NO_TLS_1_3 in codes(report)
    assert report.cipher_suites == ()
    assert report.chain == material.chain
    assert report.group is None


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ProbeError, match="cannot be reached"):
        ask(port)


def test_a_server_without_tls() -> None:
    def serve(stream: socket.socket) -> None:
        stream.sendall(b"SIP/2.0 400 Bad Request\r\n\r\n")

    with serving(serve) as port, pytest.raises(ProbeError, match="takes up no version of TLS"):
        ask(port)


def test_a_server_that_says_nothing() -> None:
    done = threading.Event()

    def serve(stream: socket.socket) -> None:
        done.wait(5)

    with serving(serve) as port:
        with pytest.raises(ProbeError, match="no answer in time"):
            probe("127.0.0.1", port, handshake_limit_s=0.05)
        done.set()


PROBE_IN_A_PROCESS = """
import sys
from tls.probe import probe
report = probe("127.0.0.1", int(sys.argv[1]), server_name="edge.example", patience_s=0.3)
print(",".join(sorted(version.label for version in report.accepted_versions)))
"""


def test_our_own_floor_does_not_answer_for_the_server(material: TLSMaterial, tmp_path: Path) -> None:
    """With the product's OPENSSL_CONF in effect the probe still offers, and finds, TLS 1.2."""
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(openssl_configuration())
    environment = {
        **os.environ,
        "OPENSSL_CONF": str(configuration),
        "PYTHONPATH": str(Path(tls.__file__).parent.parent),
    }
    with serving(with_context(careless(material))) as port:
        outcome = subprocess.run(
            [sys.executable, "-c", PROBE_IN_A_PROCESS, str(port)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert outcome.stdout == "TLSv1.2,TLSv1.3\n"
