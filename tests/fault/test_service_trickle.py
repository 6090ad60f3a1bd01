"""A service that trickles its answer: the time that was given is over all the same, wherever the answer stands."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from recording.keys.errors import KeyUnavailableError
from recording.keys.https import HTTPSTransport
from recording.settings import TLSFloor
from recording.sinks.https import StoreTransport
from recording.sinks.sink import SinkUnavailableError
from support.kms import ServerFiles, issue_server_files

GIVEN_S = 0.4
STEP_S = 0.02
HEAD = b"HTTP/1.1 200 OK\r\n"
LENGTH = HEAD + b"Content-Length: 1000\r\n\r\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ServerFiles:
    return issue_server_files(tmp_path_factory.mktemp("trickle"))


@contextlib.contextmanager
def trickling(
    files: ServerFiles, first: bytes, drop: bytes, count: int, context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A TLS server that answers one request with `first` and then `drop`, `count` times, one every `STEP_S`."""
    context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate_path, files.key_path)
    stopping = threading.Event()

    def serve() -> None:
        with (
            contextlib.suppress(OSError),
            listener.accept()[0] as plain,
            context.wrap_socket(plain, server_side=True) as connection,
        ):
            request = b""
            while not request.endswith(
                b"\r\n\r\n{}"
            ):  # what is left unread would cut the connection at its end
                request += connection.recv(65536)
            connection.sendall(first)
            for _ in range(count):
                if stopping.wait(STEP_S):
                    return
                connection.sendall(drop)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            stopping.set()
            thread.join(10)
            assert not thread.is_alive()


Send = Callable[[str, ServerFiles, float], bytes]


def ask_key_service(url: str, files: ServerFiles, given_s: float) -> bytes:
    transport = HTTPSTransport(ca_path=files.ca_path)
    deadline = time.monotonic() + given_s
    return transport.send("POST", url, headers={}, body=b"{}", deadline=deadline).content


def ask_store(url: str, files: ServerFiles, given_s: float) -> bytes:
    transport = StoreTransport(
        host="127.0.0.1", ca_path=files.ca_path, floor=TLSFloor.TLS_1_3, timeout_s=given_s, connections=1
    )
    return transport.send("PUT", url, headers={}, body=b"{}").content


SERVICES = pytest.mark.parametrize("send", [ask_key_service, ask_store], ids=["key service", "store"])


@SERVICES
@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (HEAD, b"X"),
        (HEAD, b"X: 1\r\n"),
        (LENGTH, b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["continue", "header", "headers", "body", "chunks"],
)
def test_a_trickled_answer_ends_with_the_time_that_was_given(
    files: ServerFiles, send: Send, first: bytes, drop: bytes
) -> None:
    with trickling(files, first, drop, count=1000) as url:
        started = time.monotonic()
        with pytest.raises((KeyUnavailableError, SinkUnavailableError)):
            send(url, files, GIVEN_S)
        assert GIVEN_S * 0.9 < time.monotonic() - started < GIVEN_S + 2


@SERVICES
def test_a_trickled_answer_that_ends_in_time_is_taken(files: ServerFiles, send: Send) -> None:
    with trickling(files, HEAD + b"Content-Length: 5\r\n\r\n", b"x", count=5) as url:
        assert send(url, files, 10) == b"xxxxx"


@pytest.mark.parametrize(
    ("suite", "is_taken"), [("ECDHE-ECDSA-AES256-GCM-SHA384", True), ("ECDHE-ECDSA-AES256-SHA384", False)]
)
def test_tls_1_2_by_exception_is_spoken_with_authenticated_ciphers_alone(
    files: ServerFiles, suite: str, is_taken: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)
    with trickling(files, HEAD + b"Content-Length: 2\r\n\r\n", b"x", count=2, context=context) as url:
        transport = StoreTransport(
            host="127.0.0.1", ca_path=files.ca_path, floor=TLSFloor.TLS_1_2, timeout_s=10, connections=1
        )
        if is_taken:
            assert transport.send("PUT", url, headers={}, body=b"{}").content == b"xx"
            assert transport.versions == {"TLSv1.2": 1}
        else:
            with pytest.raises(SinkUnavailableError, match="SSL"):
                transport.send("PUT", url, headers={}, body=b"{}")
