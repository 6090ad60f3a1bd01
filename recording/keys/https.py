"""HTTPS to a key service.

TLS 1.3 at least unless the configuration makes an exception, names verified, one deadline for the whole
exchange, answers of bounded size. The standard library parses the answers; what a client for everybody does besides
(proxies, redirects, cookies, the environment) is not wanted here and costs more than the rest of a request.
"""

from __future__ import annotations

import http.client
import re
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from recording.keys.errors import KeyAnswerError, KeyConfigurationError, KeyUnavailableError
from recording.settings import TLSFloor
from recording.timed_socket import TimedSocket, ending_by

ANSWER_MAX_BYTES: Final = 64 * 1024  # the longest real answer, a wrapped key in base64, is about 9 KiB
_VERSIONS: Final = {TLSFloor.TLS_1_2: ssl.TLSVersion.TLSv1_2, TLSFloor.TLS_1_3: ssl.TLSVersion.TLSv1_3}
# Where TLS 1.2 is spoken by exception: forward secrecy and AEAD only. Source: RFC 9325 section 4.2.
_SUITES_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_CONNECTIONS: Final = 8
_READ_BYTES: Final = 8192
_HTTPS_PORT: Final = 443
_OURS: Final = frozenset({"host", "content-length"})
_LINE_BREAK: Final = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPSAnswer:
    """An answer read whole. `content` may hold a data key in clear."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)


class HTTPSTransport:
    """Sends one request at a time per thread.

    No redirects, no proxies, no retries: those are the caller's policy.
    """

    def __init__(self, *, ca_path: Path | None, floor: TLSFloor = TLSFloor.TLS_1_3) -> None:
        """`ca_path` None: the platform's trust anchors.

        Raises:
            KeyConfigurationError: the trust anchors cannot be read.
        """
        self.floor = floor
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = _VERSIONS[floor]
        self._context.set_ciphers(_SUITES_1_2)
        self._context.sslsocket_class = TimedSocket
        try:
            if ca_path is None:
                self._context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            else:
                self._context.load_verify_locations(cafile=ca_path)
        except OSError as error:  # ssl.SSLError is one
            raise KeyConfigurationError(
                f"ca_path {ca_path}: {error}; it must name a PEM file of certificates"
            ) from error
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._idle)

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, deadline: float
    ) -> HTTPSAnswer:
        """One exchange.

        Args:
            method: of HTTP.
            url: begins with https.
            headers: all that are sent, but for Host and Content-Length.
            body: sent as it is.
            deadline: `time.monotonic()` seconds by which the answer must be there.

        Raises:
            KeyUnavailableError: no connection, a certificate that does not verify, a time-out.
            KeyAnswerError: the answer is longer than `ANSWER_MAX_BYTES`.
            KeyConfigurationError: a header that no request could carry.
        """
        parts = urlsplit(url)
        assert parts.scheme == "https"
        assert parts.hostname
        place = (parts.hostname, parts.port or _HTTPS_PORT)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = _request(method, target, parts.netloc, headers, body)
        try:
            with ending_by(deadline):
                connection = self._taken(place) or _Connection(self._context, place, deadline)
                try:
                    answer = connection.exchange(method, request)
                except BaseException:
                    connection.close()  # what is left of the answer must not be taken for the next one
                    raise
        except (http.client.HTTPException, OSError) as error:
            reason = str(error)[:200] or "no answer"
            raise KeyUnavailableError(f"{url}: {type(error).__name__}: {reason}") from error
        self._give_back(connection)
        return answer

    def _taken(self, place: tuple[str, int]) -> _Connection | None:
        """A connection that is still good for a request."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.place == place and connection.is_quiet():
                return connection
            connection.close()

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            if connection.is_reusable and len(self._idle) < _CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()


class _Connection:
    """One connection; its user has it alone."""

    def __init__(self, context: ssl.SSLContext, place: tuple[str, int], deadline: float) -> None:
        """Connect and verify. Raises OSError."""
        self.place = place
        self.is_reusable = False
        plain = socket.create_connection(place, timeout=_left(deadline))
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(_left(deadline))
            self._socket = context.wrap_socket(plain, server_hostname=place[0])
        except BaseException:
            plain.close()
            raise

    def exchange(self, method: str, request: bytes) -> HTTPSAnswer:
        """Raises OSError, HTTPException, and KeyAnswerError for a long answer; then this is to be closed."""
        self._socket.sendall(request)
        response = http.client.HTTPResponse(self._socket, method=method)
        try:
            response.begin()
            content = bytearray()
            while chunk := response.read(_READ_BYTES):
                content += chunk
                if len(content) > ANSWER_MAX_BYTES:
                    raise KeyAnswerError(f"the answer is longer than {ANSWER_MAX_BYTES} bytes")
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
        finally:
            response.close()
        self.is_reusable = not response.will_close
        return HTTPSAnswer(
            status=response.status, headers=dict(response.headers.items()), content=bytes(content)
        )

    def is_quiet(self) -> bool:
        """Whether nothing came since the last answer: neither an end nor what nobody asked for."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self._socket.close()


def _request(method: str, target: str, host: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The whole request, so that it goes out in one piece."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in _OURS]
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    if any(map(_LINE_BREAK.search, lines)):
        raise KeyConfigurationError(
            "a header for the key service has a line break in it; check the credentials"
        )
    try:
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    except UnicodeEncodeError as error:
        raise KeyConfigurationError(
            "a header for the key service has characters that no header can have; check the credentials"
        ) from error


def _left(deadline: float) -> float:
    """Seconds until the deadline. Raises TimeoutError past it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def _close_all(connections: list[_Connection]) -> None:
    for connection in connections:
        connection.close()
