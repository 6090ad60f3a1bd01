"""The metrics endpoint over real loopback TLS: who gets in, who doesn't, and what each path answers."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from b2bua import https
from b2bua.errors import MetricsError
from b2bua.metrics import Metrics, MetricsServer
from b2bua.settings import MetricsSettings
from support.certificates import Flaw, Issuer
from tls.errors import MaterialError
from tls.material import load_material
from tls.settings import TLSMaterialSettings

SERVER, CLIENT = "edge.example.test", "prometheus.example.test"
TIMEOUT_S = 10


@dataclass
class Endpoint:
    """A running server and what its clients need."""

    server: MetricsServer
    metrics: Metrics
    issuer: Issuer
    client: TLSMaterialSettings
    ready: bool = True
    alive: bool = True

    def context(self, material: TLSMaterialSettings | None = None) -> ssl.SSLContext:
        used = material or self.client
        context = ssl.create_default_context(cafile=str(self.client.trust_path))
        context.load_cert_chain(used.certificate_path, used.private_key_path)
        return context

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=TIMEOUT_S)

    def exchange(self, request: bytes, context: ssl.SSLContext | None = None) -> bytes:
        """What comes back, until the server's end; errors of TLS come through."""
        with (
            self.connect() as plain,
            (context or self.context()).wrap_socket(plain, server_hostname=SERVER) as secured,
        ):
            secured.sendall(request)
            return b"".join(iter(lambda: secured.recv(65536), b""))

    def get(self, path: str, context: ssl.SSLContext | None = None) -> tuple[int, str]:
        answer = self.exchange(f"GET {path} HTTP/1.1\r\nHost: {SERVER}\r\n\r\n".encode(), context)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        return int(head.split()[1]), body.decode()


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(https, "_MATERIAL_CHECK_S", 0.05)
    monkeypatch.setattr(https, "_ACCEPT_TIMEOUT_S", 0.05)
    issuer = Issuer(tmp_path / "ca", now=datetime.now(UTC))
    metrics = Metrics()
    made: list[Endpoint] = []
    server = MetricsServer(
        settings_for(issuer.material("edge", SERVER)),
        metrics,
        is_ready=lambda: made[0].ready,
        is_alive=lambda: made[0].alive,
    )
    made.append(
        Endpoint(server=server, metrics=metrics, issuer=issuer, client=issuer.material("client", CLIENT))
    )
    server.start()
    yield made[0]
    server.stop()


def settings_for(tls: TLSMaterialSettings) -> MetricsSettings:
    return MetricsSettings(address="127.0.0.1", port=0, tls=tls, client_identities=frozenset({CLIENT}))


# --- what it says


def test_metrics_are_served(endpoint: Endpoint) -> None:
    endpoint.metrics.refused("no_route")
    status, body = endpoint.get("/metrics")
    assert status == 200
    assert 'sealtrunk_refusals_total{reason="no_route"} 1.0' in body
    until = load_material(endpoint.issuer.material("edge-copy", SERVER), now=datetime.now(UTC)).not_after
    (expiry,) = re.findall(r'sealtrunk_certificate_expiry_timestamp_seconds\{name="metrics"\} (\S+)', body)
    assert abs(float(expiry) - until.timestamp()) < 60


def test_liveness_and_readiness_follow_the_process(endpoint: Endpoint) -> None:
    assert endpoint.get("/livez") == (200, "200 OK\n")
    assert endpoint.get("/readyz") == (200, "200 OK\n")
    endpoint.ready = False
    assert endpoint.get("/readyz")[0] == 503
    assert endpoint.get("/livez")[0] == 200
    endpoint.alive = False
    assert endpoint.get("/livez")[0] == 503


def test_other_paths_and_methods(endpoint: Endpoint) -> None:
    assert endpoint.get("/")[0] == 404
    assert endpoint.get("/metrics/../metrics")[0] == 404
    assert endpoint.exchange(b"POST /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /livez\r\n\r\n",
        b"GET http://x/livez HTTP/1.1\r\n\r\n",
        b"get /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nA b: c\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_bad_request(endpoint: Endpoint, request_head: bytes) -> None:
    assert endpoint.exchange(request_head).startswith(b"HTTP/1.1 400 ")
    assert endpoint.get("/livez")[0] == 200


def test_a_head_that_does_not_end_is_refused(endpoint: Endpoint) -> None:
    assert endpoint.exchange(b"GET / HTTP/1.1\r\nX: " + b"x" * 9000).startswith(b"HTTP/1.1 431 ")
    just_fits = b"GET /livez HTTP/1.1\r\nX: " + b"x" * 8000 + b"\r\n\r\n"
    assert endpoint.exchange(just_fits).startswith(b"HTTP/1.1 200 ")


# --- who gets in


def refused(endpoint: Endpoint, context: ssl.SSLContext) -> None:
    """The server says nothing. With TLS 1.3 a client may learn why only when it reads."""
    answer = b""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        answer = endpoint.exchange(b"GET /livez HTTP/1.1\r\n\r\n", context)
    assert answer == b""
    assert endpoint.get("/livez")[0] == 200, "the right client still gets in"


def test_no_certificate(endpoint: Endpoint) -> None:
    refused(endpoint, ssl.create_default_context(cafile=str(endpoint.client.trust_path)))


def test_a_certificate_of_another_authority(endpoint: Endpoint, tmp_path: Path) -> None:
    stranger = Issuer(tmp_path / "other", now=datetime.now(UTC)).material("client", CLIENT)
    refused(endpoint, endpoint.context(stranger))


def test_an_expired_certificate(endpoint: Endpoint, tmp_path: Path) -> None:
    refused(endpoint, endpoint.context(endpoint.issuer.material("late", CLIENT, flaw=Flaw.EXPIRED)))


def test_a_certificate_with_another_name(endpoint: Endpoint) -> None:
    refused(endpoint, endpoint.context(endpoint.issuer.material("other", "somebody.example.test")))


def test_a_name_in_the_subject_only_counts_for_nothing(endpoint: Endpoint) -> None:
    refused(endpoint, endpoint.context(endpoint.issuer.material("cn", CLIENT, flaw=Flaw.CN_ONLY)))


def test_tls_1_2(endpoint: Endpoint) -> None:
    old = endpoint.context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)version"):
        endpoint.get("/livez", old)
    assert endpoint.get("/livez")[0] == 200


def test_plain_http(endpoint: Endpoint) -> None:
    with endpoint.connect() as plain:
        plain.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in plain.recv(65536)
    assert endpoint.get("/metrics")[0] == 200


# --- a client that holds on


def test_a_silent_client_is_let_go_at_the_deadline(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "DEADLINE_S", 0.3)
    began = time.monotonic()
    with (
        endpoint.connect() as plain,
        endpoint.context().wrap_socket(plain, server_hostname=SERVER) as secured,
    ):
        secured.sendall(b"GET /livez HTT")
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert secured.recv(100) == b""
    assert 0.25 < time.monotonic() - began < TIMEOUT_S
    assert endpoint.get("/livez")[0] == 200


def test_connections_beyond_the_bound_are_closed_and_those_within_are_served(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "DEADLINE_S", 1.0)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(endpoint.connect()) for _ in range(https.MAX_CONNECTIONS)]
        one_more = stack.enter_context(endpoint.connect())
        assert one_more.recv(1) == b"", "closed at once"
        assert len(held) == https.MAX_CONNECTIONS
    deadline = time.monotonic() + TIMEOUT_S
    while True:  # the workers let go of those that hung up
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            if endpoint.get("/livez")[0] == 200:
                return
        assert time.monotonic() < deadline


# --- its own life


def test_new_certificate_files_are_taken_without_a_restart(endpoint: Endpoint) -> None:
    def served() -> bytes:
        with (
            endpoint.connect() as plain,
            endpoint.context().wrap_socket(plain, server_hostname=SERVER) as secured,
        ):
            return secured.getpeercert(binary_form=True) or b""

    before = served()
    fresh = endpoint.issuer.material("fresh", SERVER)
    edge = fresh.certificate_path.with_name("edge.pem")
    fresh.private_key_path.replace(edge.with_suffix(".key"))
    fresh.certificate_path.replace(edge)
    deadline = time.monotonic() + 2 * TIMEOUT_S
    while served() == before:
        assert time.monotonic() < deadline
    assert endpoint.get("/livez")[0] == 200


def test_files_that_do_not_do_leave_the_old_certificate_in_force(endpoint: Endpoint) -> None:
    edge = endpoint.issuer.directory / "edge.pem"
    good = edge.read_bytes()
    edge.write_text("no certificate")
    for _ in range(10):
        assert endpoint.get("/livez")[0] == 200
    edge.write_bytes(good)
    assert endpoint.get("/livez")[0] == 200


def test_a_taken_port_is_an_error_that_names_it(endpoint: Endpoint) -> None:
    settings = MetricsSettings(
        address="127.0.0.1",
        port=endpoint.server.port,
        tls=endpoint.issuer.material("edge2", SERVER),
        client_identities=frozenset({CLIENT}),
    )
    with pytest.raises(MetricsError, match=f"127.0.0.1:{endpoint.server.port} can't be listened on"):
        MetricsServer(settings, Metrics(), is_ready=lambda: True)


def test_bad_material_is_an_error_and_nothing_is_bound(endpoint: Endpoint) -> None:
    edge = endpoint.issuer.material("edge3", SERVER)
    edge.private_key_path.chmod(0o644)
    with pytest.raises(MaterialError):
        MetricsServer(settings_for(edge), Metrics(), is_ready=lambda: True)


def test_stop_ends_the_listener_and_can_be_repeated(endpoint: Endpoint) -> None:
    port = endpoint.server.port
    endpoint.server.stop()
    endpoint.server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
