"""HTTPS to an object store: names verified, one deadline for each exchange, answers of bounded size, read whole."""

from __future__ import annotations

import io
import ssl
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util import Timeout

from recording.settings import TLSFloor
from recording.sinks.sink import SinkRefusedError, SinkUnavailableError
from recording.timed_socket import TimedSocket, ending_by

ANSWER_MAX_BYTES: Final = (
    8 << 20
)  # above the longest range that is read, and above a listing of 1,000 versions
SLOWEST_BYTES_PER_S: Final = 64 << 10  # a transfer slower than that for all of a part has failed
_READ_BYTES: Final = 64 << 10
_VERSIONS: Final = {TLSFloor.TLS_1_3: ssl.TLSVersion.TLSv1_3, TLSFloor.TLS_1_2: ssl.TLSVersion.TLSv1_2}
# Where TLS 1.2 is spoken by exception: forward secrecy and AEAD only. Source: RFC 9325 section 4.2.
_SUITES_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class AnswerBody(io.BytesIO):
    """An answer's content, for those who read it through urllib3's methods."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAnswer:
    """An answer, read whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)


class StoreTransport:
    """Sends requests of any thread. No redirects, no proxies, no retries: those are the caller's policy."""

    def __init__(
        self, *, host: str, ca_path: Path | None, floor: TLSFloor, timeout_s: float, connections: int
    ) -> None:
        """`host`: requests go there or to names below it, and nowhere else. `ca_path` None: the platform's anchors.

        Raises:
            SinkRefusedError: the trust anchors cannot be read.
        """
        self._host = host
        self._timeout_s = timeout_s
        self.versions: Counter[str] = Counter()  # connections by negotiated TLS version
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = _VERSIONS[floor]
        context.set_ciphers(_SUITES_1_2)
        context.sslsocket_class = _counting(self.versions)
        try:
            if ca_path is None:
                context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            else:
                context.load_verify_locations(cafile=ca_path)
        except OSError as error:  # ssl.SSLError is one
            raise SinkRefusedError(
                f"recording.sink.ca {ca_path}: {error}; it must name a PEM file of certificates", reason="ca"
            ) from error
        self._pool = urllib3.PoolManager(
            num_pools=2, maxsize=connections, ssl_context=context, retries=False, ca_certs=None
        )

    def send(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes) -> StoreAnswer:
        """One exchange.

        Raises:
            SinkUnavailableError: no connection, a certificate that does not verify, no whole answer in time.
            SinkRefusedError: the request would leave the configured host.
        """
        self._check_url(url)
        deadline = time.monotonic() + self._timeout_s + len(body) / SLOWEST_BYTES_PER_S
        try:
            with ending_by(deadline):
                response = self._pool.request(
                    method,
                    url,
                    headers=dict(headers),
                    body=body or None,
                    timeout=Timeout(connect=self._timeout_s, read=self._timeout_s),
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
                try:
                    content = _read(response)
                except BaseException:
                    response.close()  # what is left of the answer must not be taken for the next one
                    raise
                response.release_conn()
        except (HTTPError, OSError) as error:
            raise SinkUnavailableError(
                f"{self._host}: {type(error).__name__}: {_reason(error)}", reason=_label(error)
            ) from error
        return StoreAnswer(status=response.status, headers=dict(response.headers), content=content)

    def _check_url(self, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme != "https" or not (host == self._host or host.endswith(f".{self._host}")):
            raise SinkRefusedError(
                f"the store points to {parts.scheme}://{host}, which is not the configured endpoint; "
                "check recording.sink.region and endpoint_url",
                reason="bucket",
            )


def _counting(versions: Counter[str]) -> type[TimedSocket]:
    """Sockets that count the TLS version of each handshake."""

    class CountingSocket(TimedSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            versions[self.version() or "none"] += 1

    return CountingSocket


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    parts = bytearray()
    while chunk := response.read(_READ_BYTES):
        parts += chunk
        if len(parts) > ANSWER_MAX_BYTES:
            raise SinkUnavailableError(
                f"the answer is longer than {ANSWER_MAX_BYTES} bytes", reason="bad_answer"
            )
    return bytes(parts)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(getattr(error, "reason", None), BaseException):
        error = error.reason  # type: ignore[attr-defined]
    return error


def _reason(error: BaseException) -> str:
    """The innermost cause, which is where TLS says what it disliked."""
    return str(_innermost(error))[:200]


def _label(error: BaseException) -> str:
    inner = _innermost(error)
    if isinstance(inner, (ssl.SSLError, urllib3.exceptions.SSLError)):
        return "tls"
    if isinstance(inner, NewConnectionError):  # urllib3 counts a refused connection among the time-outs
        return "unreachable"
    if isinstance(inner, (TimeoutError, urllib3.exceptions.TimeoutError)):
        return "timeout"
    return "unreachable"
