"""Key services for tests: moto's KMS over HTTPS in a process of its own, and a little HTTPS server that
answers as told.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import ipaddress
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from recording.settings import AWSKMSKeySettings
from support.server import Server, end

REGION = "eu-central-1"
START_TIMEOUT_S = 60.0

# What boto3's chain finds first, so that it never looks for a metadata service.
TEST_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}

_RUNNING = re.compile(rb"Running on https://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFiles:
    """A certificate for 127.0.0.1 and the anchor that issued it."""

    ca_path: Path
    certificate_path: Path
    key_path: Path


def issue_server_files(directory: Path) -> ServerFiles:
    directory.mkdir(parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "KMS test anchor")])

    def builder(subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=2))
        )

    ca = (
        builder(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kms")]), key.public_key())
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    files = ServerFiles(
        ca_path=directory / "ca.pem",
        certificate_path=directory / "server.pem",
        key_path=directory / "server.key",
    )
    files.ca_path.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    files.certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    files.key_path.chmod(0o600)
    return files


class MotoKMS(Server):
    """moto's server in a child process, on a free port of 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        self.files = issue_server_files(directory)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._drain: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Returns when the server listens. A restart comes back on the same port, with no key of before."""
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from moto.server import main; main()",
                "--host",
                "127.0.0.1",
                "--port",
                str(self._port),
                "--ssl-cert",
                str(self.files.certificate_path),
                "--ssl-key",
                str(self.files.key_path),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **TEST_CREDENTIALS, "MOTO_PORT": str(self._port), "PYTHONUNBUFFERED": "1"},
        )
        self._process = process
        listening = threading.Event()

        def drain() -> None:
            assert process.stderr is not None
            with process.stderr as lines:
                for line in lines:
                    if match := _RUNNING.search(line):
                        self._port = int(match[1])
                        listening.set()

        self._drain = threading.Thread(target=drain, name="moto-log", daemon=True)
        self._drain.start()
        if not listening.wait(START_TIMEOUT_S):
            self.stop()
            raise RuntimeError("moto's server did not start listening")

    def stop(self) -> None:
        """End the child by its own pid."""
        if self._process is None:
            return
        end(self._process)
        if self._drain is not None:
            self._drain.join(10)
        self._process = None

    def create_key(self) -> str:
        """A new symmetric key's ARN, as an administrator would make it."""
        client = boto3.session.Session(
            aws_access_key_id="testing", aws_secret_access_key="testing", region_name=REGION
        ).client("kms", endpoint_url=self.url, verify=str(self.files.ca_path))
        try:
            arn: str = client.create_key(KeySpec="SYMMETRIC_DEFAULT")["KeyMetadata"]["Arn"]
        finally:
            client.close()
        return arn

    def settings(self, key_id: str, *, timeout_s: float = 5.0) -> AWSKMSKeySettings:
        return kms_settings(self.url, self.files, key_id=key_id, timeout_s=timeout_s)


def kms_settings(url: str, files: ServerFiles, *, key_id: str, timeout_s: float = 5.0) -> AWSKMSKeySettings:
    return AWSKMSKeySettings(
        key_id=key_id, region=REGION, endpoint_url=url, ca_path=files.ca_path, timeout_s=timeout_s
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the little server answers. `hold` is waited for before a byte is sent."""

    status: int = 200
    body: bytes = b"{}"
    hold: threading.Event | None = None
    headers: tuple[tuple[str, str], ...] = ()


# KMS operation name, else the path, and decoded request -> reply
Answer = Callable[[str, dict[str, object]], Reply]


def json_reply(document: object, *, status: int = 200) -> Reply:
    return Reply(status=status, body=json.dumps(document).encode())


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2] or self.path
        self._reply(self.server.answer(operation, json.loads(body or b"{}")))

    def do_GET(self) -> None:
        self._reply(self.server.answer("GET" if self.path == "/" else self.path, {}))

    def _reply(self, reply: Reply) -> None:
        if reply.hold is not None:
            reply.hold.wait(30)
        try:
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(reply.body)))
            for name, value in reply.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)
        except OSError:
            self.close_connection = True  # the client gave up, as some tests want

    def log_message(self, *arguments: object) -> None:
        del arguments


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, answer: Answer) -> None:
        self.answer = answer
        self.connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        del request, client_address  # handshakes that fail on purpose are the client's to report

    def cut_connections(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def https_server(
    files: ServerFiles,
    answer: Answer,
    *,
    maximum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    port: int = 0,
) -> Iterator[str]:
    """A real HTTPS server, by default on a free port; yields its URL. Connections are cut when it ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = maximum_version
    context.load_cert_chain(files.certificate_path, files.key_path)
    with _Server(port, answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)
            server.cut_connections()
