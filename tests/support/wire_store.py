"""A TLS server that answers each request with bytes it is told: what no real store does on demand."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

from support.kms import ServerFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request. `target` is path and query."""

    method: str
    target: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Bytes that go out as they are; then the connection is held until `hold` is set, and closed."""

    raw: bytes
    hold: threading.Event | None = None


Answer = Callable[[Asked], Said]


def said(
    body: bytes = b"", *, status: int = 200, length: int | None = None, headers: dict[str, str] | None = None
) -> Said:
    """An answer in the form of HTTP; `length` is what Content-Length says, whatever comes."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Connection: close"]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return Said(raw="\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def refusal(code: str, status: int) -> Said:
    return said(f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(), status=status)


class WireStore:
    """Counts what it was asked. `answer` may be replaced at any time."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.url = ""

    def serve(self, connection: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(30)
            connection.do_handshake()
            asked = _read(connection)
            if asked is None:
                return
            self.asked.append(asked)
            answer = self.answer(asked)
            connection.sendall(answer.raw)
            if answer.hold is not None:
                answer.hold.wait(30)


@contextlib.contextmanager
def wire_store(
    files: ServerFiles, answer: Answer, *, maximum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> Iterator[WireStore]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = maximum_version
    context.load_cert_chain(files.certificate_path, files.key_path)
    store = WireStore(answer)
    listener = socket.create_server(("127.0.0.1", 0))
    store.url = f"https://127.0.0.1:{listener.getsockname()[1]}"

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            wrapped = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=store.serve, args=(wrapped,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def _read(connection: ssl.SSLSocket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (block := connection.recv(65536)):
            return None
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    length = 0
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    while len(body) < length:
        if not (block := connection.recv(65536)):
            return None
        body += block
    method, target, _ = lines[0].split(" ")
    return Asked(method=method, target=target, body=body)
