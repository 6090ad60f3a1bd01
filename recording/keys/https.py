"""HTTPS to a key service.

TLS 1.3 at least unless the configuration makes an exception, names verified, one deadline for the whole
exchange, answers of bounded size.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from recording.keys.errors import KeyAnswerError, KeyConfigurationError, KeyUnavailableError
from recording.settings import TLSFloor
from recording.timed_socket import TimedSocket, ending_by

ANSWER_MAX_BYTES: Final = 64 * 1024  # the longest real answer, a wrapped key in base64, is about 9 KiB
_VERSIONS: Final = {TLSFloor.TLS_1_2: ssl.TLSVersion.TLSv1_2, TLSFloor.TLS_1_3: ssl.TLSVersion.TLSv1_3}
# Where TLS 1.2 is spoken by exception: forward secrecy and AEAD only. Source: RFC 9325 section 4.2.
_SUITES_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_CONNECTIONS: Final = 8
_READ_BYTES: Final = 8192


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
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = _VERSIONS[floor]
        context.set_ciphers(_SUITES_1_2)
        context.sslsocket_class = TimedSocket
        try:
            if ca_path is None:
                context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            else:
                context.load_verify_locations(cafile=ca_path)
        except OSError as error:  # ssl.SSLError is one
            raise KeyConfigurationError(
                f"ca_path {ca_path}: {error}; it must name a PEM file of certificates"
            ) from error
        self._pool = urllib3.PoolManager(
            num_pools=1, maxsize=_CONNECTIONS, ssl_context=context, retries=False, ca_certs=None
        )

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, deadline: float
    ) -> HTTPSAnswer:
        """One exchange.

        Args:
            method: of HTTP.
            url: begins with https.
            headers: all that are sent.
            body: sent as it is.
            deadline: `time.monotonic()` seconds by which the answer must be there.

        Raises:
            KeyUnavailableError: no connection, a certificate that does not verify, a time-out.
            KeyAnswerError: the answer is longer than `ANSWER_MAX_BYTES`.
        """
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise KeyUnavailableError(f"{url}: no answer in time")
        try:
            with ending_by(deadline):
                response = self._pool.request(
                    method,
                    url,
                    headers=dict(headers),
                    body=body,
                    timeout=Timeout(total=remaining),
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
                try:
                    content = _read(response, url)
                except BaseException:
                    response.close()  # what is left of the answer must not be taken for the next one
                    raise
                response.release_conn()
        except (HTTPError, OSError) as error:
            raise KeyUnavailableError(f"{url}: {type(error).__name__}: {_reason(error)}") from error
        return HTTPSAnswer(status=response.status, headers=dict(response.headers), content=content)


def _read(response: urllib3.BaseHTTPResponse, url: str) -> bytes:
    parts = bytearray()
    while chunk := response.read(_READ_BYTES):
        parts += chunk
        if len(parts) > ANSWER_MAX_BYTES:
            raise KeyAnswerError(f"{url}: the answer is longer than {ANSWER_MAX_BYTES} bytes")
    return bytes(parts)


def _reason(error: BaseException) -> str:
    """The innermost cause, which is where TLS says what it disliked."""
    while isinstance(getattr(error, "reason", None), BaseException):
        error = error.reason  # type: ignore[attr-defined]
    return str(error)[:200]
