"""A key service that trickles its answer: the time that was given is over all the same, wherever the answer stands."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from recording.keys.errors import KeyUnavailableError
from recording.keys.https import HTTPSTransport
from support.kms import ServerFiles, issue_server_files

GIVEN_S = 0.4
STEP_S = 0.02
HEAD = b"HTTP/1.1 200 OK\r\n"
LENGTH = HEAD + b"Content-Length: 1000\r\n\r\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ServerFiles:
    return issue_server_files(tmp_path_factory.mktemp("trickle"))


@contextlib.contextmanager
def trickling(files: ServerFiles, first: bytes, drop: bytes, count: int) -> Iterator[str]:
    """A TLS server that answers one request with `first` and then `drop`, `count` times, one every `STEP_S`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate_path, files.key_path)
    stopping = threading.Event()

    def serve() -> None:
        with (
            contextlib.suppress(OSError),
            listener.accept()[0] as plain,
            context.wrap_socket(plain, server_side=True) as connection,
        ):
            connection.recv(65536)
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


def send(url: str, files: ServerFiles, given_s: float) -> bytes:
    transport = HTTPSTransport(ca_path=files.ca_path)
    deadline = time.monotonic() + given_s
    return transport.send("POST", url, headers={}, body=b"{}", deadline=deadline).content


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
    files: ServerFiles, first: bytes, drop: bytes
) -> None:
    with trickling(files, first, drop, count=1000) as url:
        started = time.monotonic()
        with pytest.raises(KeyUnavailableError):
            send(url, files, GIVEN_S)
        assert GIVEN_S * 0.9 < time.monotonic() - started < GIVEN_S + 2


def test_a_trickled_answer_that_ends_in_time_is_taken(files: ServerFiles) -> None:
    with trickling(files, HEAD + b"Content-Length: 5\r\n\r\n", b"x", count=5) as url:
        assert send(url, files, 10) == b"xxxxx"
