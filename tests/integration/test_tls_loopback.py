"""Our own contexts on real sockets: what pjsip is known to get wrong does not happen here, reload included."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.certificates import DAY, Issuer
from tls.context import PeerName, client_context, peer_certificate_pem, server_context
from tls.errors import PeerRefusedError, RefusalReason
from tls.material import TLSMaterial, load_material
from tls.policy import PeerVerifier
from tls.rotation import MaterialWatcher, RotationOffered

HOST = "edge.example"
LIMIT_S = 5.0


class EchoServer:
    """Answers each connection with the SIP hosts of its certificate; the context can be swapped while it runs."""

    def __init__(self, context: ssl.SSLContext, verifier: PeerVerifier) -> None:
        self.context = context
        self.refusals: list[RefusalReason] = []
        self.failures: list[str] = []
        self._verifier = verifier
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="echo-server", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            stream.settimeout(LIMIT_S)
            with stream:
                self._serve(stream)

    def _serve(self, stream: socket.socket) -> None:
        try:
            with self.context.wrap_socket(stream, server_side=True) as connection:
                if (hosts := self._hosts(connection)) is not None:
                    connection.sendall(hosts)
                    connection.recv(1)
        except ssl.SSLError as error:
            self.failures.append(error.reason)
        except OSError:
            self.failures.append("connection lost")

    def _hosts(self, connection: ssl.SSLSocket) -> bytes | None:
        try:
            peer = self._verifier.verify_client([peer_certificate_pem(connection)])
        except PeerRefusedError as error:
            # Noted before the connection closes, so that a client that saw the close finds the note.
            self.refusals.append(error.reason)
            return None
        return ",".join(sorted(each.host for each in peer.identities)).encode()

    def close(self) -> None:
        # shutdown() wakes the thread in accept(); close() alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def material(issuer: Issuer) -> TLSMaterial:
    return load_material(issuer.material("edge", HOST), now=issuer.now)


@pytest.fixture
def server(issuer: Issuer, material: TLSMaterial) -> Iterator[EchoServer]:
    running = EchoServer(server_context(material), PeerVerifier(material.trust, clock=lambda: issuer.now))
    yield running
    running.close()


@pytest.fixture
def connect(server: EchoServer) -> Callable[..., tuple[str, ssl.SSLSession | None]]:
    def call(
        context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> tuple[str, ssl.SSLSession | None]:
        stream = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
        with context.wrap_socket(stream, server_hostname=HOST, session=session) as connection:
            answer = connection.recv(1024).decode()
            assert not connection.session_reused
            return answer, connection.session

    return call


Connect = Callable[..., tuple[str, ssl.SSLSession | None]]


def peer(issuer: Issuer, name: str, trust_of: TLSMaterial) -> ssl.SSLContext:
    own = load_material(issuer.material(name, f"{name}.example"), now=issuer.now)
    return client_context(trust_of.trust, peer_name=PeerName.HTTPS, material=own)


def test_a_known_peer_is_recognised(issuer: Issuer, material: TLSMaterial, connect: Connect) -> None:
    assert connect(peer(issuer, "carrier", material))[0] == "carrier.example"


def test_a_saved_session_never_skips_verification(
    issuer: Issuer, material: TLSMaterial, connect: Connect
) -> None:
    context = peer(issuer, "carrier", material)
    answer, session = connect(context)
    for _ in range(3):
        assert session is not None
        assert not session.has_ticket
        answer, session = connect(context, session)
        assert answer == "carrier.example"


def test_an_untrusted_peer_stays_out_however_often_it_comes_back(
    issuer: Issuer, material: TLSMaterial, server: EchoServer, connect: Connect, tmp_path: Path
) -> None:
    stranger = peer(Issuer(tmp_path / "stranger", name="Stranger"), "carrier", material)
    session = None
    for _ in range(3):
        stream = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
        with stranger.wrap_socket(stream, server_hostname=HOST, session=session) as connection:
            with pytest.raises(OSError, match=r"(?i)unknown.ca|reset|eof"):
                connection.recv(1024)
            session = connection.session
    assert connect(peer(issuer, "carrier", material))[0] == "carrier.example"
    assert server.failures == ["CERTIFICATE_VERIFY_FAILED"] * 3


def test_tls_1_2_and_a_missing_certificate_are_refused(
    issuer: Issuer, material: TLSMaterial, server: EchoServer, connect: Connect
) -> None:
    old = ssl.create_default_context(cafile=str(issuer.trust_path))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        connect(old)
    bare = client_context(material.trust, peer_name=PeerName.HTTPS)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        connect(bare)
    assert connect(peer(issuer, "carrier", material))[0] == "carrier.example"
    assert server.failures == ["UNSUPPORTED_PROTOCOL", "PEER_DID_NOT_RETURN_A_CERTIFICATE"]


def test_a_peer_the_handshake_accepts_may_still_be_refused_by_policy(
    issuer: Issuer, material: TLSMaterial, server: EchoServer, connect: Connect
) -> None:
    """OpenSSL's chain check has no opinion on names; ours has."""
    wild = issuer.issue("wild", [])
    files = issuer.write("wild", wild)
    context = peer(issuer, "carrier", material)
    context.load_cert_chain(files.certificate_path, files.private_key_path)
    assert connect(context)[0] == ""
    assert server.refusals == [RefusalReason.NO_IDENTITY]
    assert connect(peer(issuer, "carrier", material))[0] == "carrier.example"


def test_certificates_are_replaced_under_load_and_nobody_is_refused(
    issuer: Issuer, material: TLSMaterial, server: EchoServer
) -> None:
    watcher = MaterialWatcher(material, clock=lambda: issuer.now)
    context = peer(issuer, "carrier", material)
    seen: list[bytes] = []
    failures: list[OSError] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                stream = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
                with context.wrap_socket(stream, server_hostname=HOST) as connection:
                    assert connection.recv(1024) == b"carrier.example"
                    seen.append(connection.getpeercert(binary_form=True) or b"")
            except OSError as error:
                failures.append(error)

    thread = threading.Thread(target=load, name="load")
    thread.start()
    fingerprints = set()
    for _ in range(10):
        issuer.material("edge", HOST)
        rotation = watcher.check()
        assert isinstance(rotation, RotationOffered)
        fingerprints.add(rotation.material.fingerprint)
        before = len(seen)
        server.context = server_context(rotation.material)
        while len(seen) < before + 3 and thread.is_alive() and not failures:
            stop.wait(0.005)
    stop.set()
    thread.join(timeout=10)
    assert failures == []
    assert len(fingerprints) == 10
    assert len(set(seen)) >= 10


def test_an_expired_peer_is_refused_by_the_second_verification(
    issuer: Issuer, material: TLSMaterial, server: EchoServer, connect: Connect
) -> None:
    """The verifier's clock is ahead of OpenSSL's: only the second verification can notice."""
    context = peer(issuer, "carrier", material)
    assert connect(context)[0] == "carrier.example"
    issuer.now += 31 * DAY
    assert connect(context)[0] == ""
    assert server.refusals == [RefusalReason.EXPIRED]
