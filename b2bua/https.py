"""A small HTTPS server for WSGI applications: TLS 1.3, client certificates, bounds on what a client can make grow.

One request a connection. It serves scrapers and probes, a few a second; it is no web server.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

import structlog

from b2bua.errors import MetricsError
from tls.certificate import Usage
from tls.context import peer_certificate_pem, server_context
from tls.errors import PeerRefusedError, RefusalReason, TLSError
from tls.material import load_material
from tls.policy import PeerVerifier, VerifiedPeer
from tls.rotation import MaterialWatcher, RotationOffered, RotationRefused
from tls.settings import TLSMaterialSettings

_log = structlog.get_logger(__name__)

WORKERS = 4
MAX_CONNECTIONS = 32
"""Open at once, those that wait for a worker included; one more is closed without a word."""
MAX_HEAD_BYTES = 8192
DEADLINE_S = 10.0
"""From accept to the last byte, so that a client that trickles holds a worker no longer than this."""
_ACCEPT_TIMEOUT_S = 0.5
_MATERIAL_CHECK_S = 5.0
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_SERVER_USAGE = frozenset({Usage.SERVER})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """What connections accepted from now on are served with; replaced as one when the files change."""

    context: ssl.SSLContext
    verifier: PeerVerifier


class _BadRequestError(Exception):
    """The head isn't HTTP that this server takes; `status` says so to the client."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class HTTPSServer:
    """Listens from construction, serves between `start` and `stop`. The certificate files are watched and reloaded."""

    def __init__(
        self,
        application: WSGIApplication,
        *,
        address: str,
        port: int,
        tls: TLSMaterialSettings,
        client_identities: frozenset[str],
        name: str,
    ) -> None:
        """Load the material and bind.

        Args:
            application: called by a worker thread, several at a time.
            address: IP literal to bind.
            port: 0 lets the kernel choose; `port` then says which.
            tls: our certificate, and who vouches for clients.
            client_identities: host names, one of which a client's certificate must carry.
            name: of the threads, and in log lines.

        Raises:
            MaterialError, ContextError: the files don't do.
            MetricsError: the address can't be bound.
        """
        self._application = application
        self._client_identities = client_identities
        self._name = name
        material = load_material(tls, now=datetime.now(UTC), usages=_SERVER_USAGE)
        self._watcher = MaterialWatcher(material, usages=_SERVER_USAGE)
        self._identity = _Identity(context=server_context(material), verifier=PeerVerifier(material.trust))
        self._listener = _listen(address, port)
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix=f"{name}-worker")
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._accept_loop, name=name, daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.getsockname()[1])

    @property
    def certificate_not_after(self) -> datetime:
        """When the certificate in use ends, aware UTC."""
        return self._watcher.material.not_after

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Close the listener and wait for the requests in progress. Does nothing twice."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            self._thread.join()
        self._listener.close()
        self._workers.shutdown(wait=True, cancel_futures=True)

    # --- the accepting thread

    def _accept_loop(self) -> None:
        check_at = time.monotonic() + _MATERIAL_CHECK_S
        while not self._is_stopping.is_set():
            with contextlib.suppress(TimeoutError):
                self._accept()
            if time.monotonic() >= check_at:
                self._check_material()
                check_at = time.monotonic() + _MATERIAL_CHECK_S

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            raise
        except OSError as error:
            if self._is_stopping.is_set():
                return
            # Out of descriptors, or a client that went before it was accepted: neither may end the loop or spin it.
            _log.warning("accept_failed", server=self._name, error=error.strerror)
            self._is_stopping.wait(_ACCEPT_TIMEOUT_S)
            return
        if not self._slots.acquire(blocking=False):
            connection.close()
            _log.warning("connection_refused", server=self._name, reason="too_many")
            return
        deadline = time.monotonic() + DEADLINE_S
        self._workers.submit(self._serve_and_close, connection, deadline)

    def _check_material(self) -> None:
        match self._watcher.check():
            case RotationOffered(material=material):
                try:
                    context = server_context(material)
                except TLSError as error:
                    _log.error("certificate_reload_failed", server=self._name, problem=str(error))
                    return
                self._identity = _Identity(context=context, verifier=PeerVerifier(material.trust))
                _log.info("certificate_reloaded", server=self._name, fingerprint=material.fingerprint)
            case RotationRefused(error=refusal):
                _log.error("certificate_reload_refused", server=self._name, problems=str(refusal))
            case None:
                pass

    # --- a worker

    def _serve_and_close(self, connection: socket.socket, deadline: float) -> None:
        try:
            with connection:
                self._serve(connection, deadline)
        except (PeerRefusedError, ssl.SSLError) as error:
            reason = error.reason.value if isinstance(error, PeerRefusedError) else _ssl_reason(error)
            _log.warning("client_refused", server=self._name, reason=reason)
        except OSError as error:
            _log.info("client_gone", server=self._name, error=type(error).__name__)
        finally:
            self._slots.release()

    def _serve(self, connection: socket.socket, deadline: float) -> None:
        identity = self._identity
        connection.settimeout(_left(deadline))
        with identity.context.wrap_socket(connection, server_side=True) as secured:
            self._require_client(secured, identity.verifier)
            try:
                environ = _environ(_read_head(secured, deadline), self.port)
            except _BadRequestError as error:
                answer = _Answer()
                answer.start_response(error.status, [])
                answer.body = [f"{error.status}\n".encode()]
            else:
                answer = _Answer()
                answer.body = self._application(environ, answer.start_response)
            secured.settimeout(_left(deadline))
            secured.sendall(answer.build())
            # Without the closing exchange a client can't tell the end of the answer from a cut.
            with contextlib.suppress(OSError):
                secured.unwrap()

    def _require_client(self, secured: ssl.SSLSocket, verifier: PeerVerifier) -> VerifiedPeer:
        """A second verification, by our own rules, before a byte of the request is read."""
        peer = verifier.verify_client([peer_certificate_pem(secured)])
        if not any(peer.has_identity(host) for host in self._client_identities):
            raise PeerRefusedError(
                RefusalReason.WRONG_IDENTITY, "the certificate names none of the configured clients"
            )
        return peer


@dataclass(slots=True)
class _Answer:
    """Collects what a WSGI application says."""

    status: str = "500 Internal Server Error"
    headers: list[tuple[str, str]] | None = None
    body: Iterable[bytes] = ()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        del exc_info
        self.status, self.headers = status, headers
        return _no_write

    def build(self) -> bytes:
        """The whole response."""
        body = b"".join(self.body)
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in self.headers or ())]
        lines += [f"Content-Length: {len(body)}", "Connection: close", "Cache-Control: no-store", "", ""]
        return "\r\n".join(lines).encode("latin-1") + body


def _no_write(_: bytes) -> object:
    raise AssertionError("an application returns its body")


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(MAX_CONNECTIONS)
        listener.settimeout(_ACCEPT_TIMEOUT_S)
    except OSError as error:
        listener.close()
        raise MetricsError(
            f"{address}:{port} can't be listened on ({error.strerror}); choose another metrics.listen"
        ) from error
    return listener


def _left(deadline: float) -> float:
    """Seconds until the deadline. Raises TimeoutError past it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _ssl_reason(error: ssl.SSLError) -> str:
    return (error.reason or "tls_failed").lower()


def _read_head(stream: ssl.SSLSocket, deadline: float) -> str:
    """Request line and headers, without the empty line. A body, if one follows, is never read."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > MAX_HEAD_BYTES:
            raise _BadRequestError("431 Request Header Fields Too Large")
        stream.settimeout(_left(deadline))
        more = stream.recv(MAX_HEAD_BYTES)
        if not more:
            raise ConnectionResetError
        data += more
    return data.partition(b"\r\n\r\n")[0].decode("latin-1")


def _environ(head: str, port: int) -> WSGIEnvironment:
    """The request as WSGI has it. Source: PEP 3333, environ Variables."""
    first, *rest = head.split("\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise _BadRequestError("400 Bad Request")
    path, _, query = match[2].partition("?")
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": match[1],
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon or _HEADER_NAME.fullmatch(name) is None:
            raise _BadRequestError("400 Bad Request")
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value.strip()
    return environ
