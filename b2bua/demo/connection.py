"""A TLS connection that carries SIP, what its handshake agreed on, and the transcript of every message."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from b2bua.demo.errors import ConnectionClosedError, SIPParseError
from b2bua.demo.sip_message import SIPMessage, SIPRequest, SIPResponse, StreamFramer
from b2bua.demo.watch import WAIT_S, Watched

_READ_BYTES: Final = 65_536
SHUTDOWN_S: Final = 0.1
"""How long a closing side waits for the other's close_notify before it cuts the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFacts:
    """What a handshake agreed on, in OpenSSL's names ("TLSv1.3", "TLS_AES_256_GCM_SHA384")."""

    version: str
    cipher: str
    peer_names: tuple[str, ...]
    """Subject alternative names of the peer's certificate as `KIND:value`; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A message in the transcript. `connection_id` counts the endpoint's connections from 1; time is monotonic ns."""

    at_ns: int
    connection_id: int
    sent: bool
    message: SIPMessage


class Transcript(Watched):
    """Every message an endpoint sent or received, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []

    def add(self, seen: Seen) -> None:
        """Append one message and wake whoever waits for it."""
        self.seen.append(seen)
        self.changed()

    def requests(self, method: str, *, sent: bool = False) -> list[Seen]:
        """Requests of one method, received ones unless `sent`."""
        return [
            seen for seen in self.seen
            if seen.sent is sent and isinstance(seen.message, SIPRequest) and seen.message.method == method
        ]  # fmt: skip

    def responses(self, method: str, *, status: int | None = None, sent: bool = False) -> list[Seen]:
        """Responses to one method, received ones unless `sent`, all or of one status."""
        return [
            seen for seen in self.seen
            if seen.sent is sent and isinstance(seen.message, SIPResponse) and seen.message.cseq.method == method
            and status in (None, seen.message.status)
        ]  # fmt: skip

    async def wait_request(self, method: str, *, count: int = 1, timeout_s: float = WAIT_S) -> Seen:
        """Wait for the `count`-th received request of a method."""
        await self.until(
            lambda: len(self.requests(method)) >= count, f"{method} request", timeout_s=timeout_s
        )
        return self.requests(method)[count - 1]


class Connection(Watched):
    """A TLS connection of an endpoint. Its reader task hands over messages one at a time and in order."""

    def __init__(
        self, *, number: int, accepted: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
        transcript: Transcript, on_message: Callable[[Connection, SIPMessage], Awaitable[None]],
    ) -> None:  # fmt: skip
        super().__init__()
        self.id = number
        self.accepted = accepted
        self.closed = False
        self.parse_error: SIPParseError | None = None
        self.tls = _tls_facts(writer.get_extra_info("ssl_object"))
        self.local: tuple[str, int] = writer.get_extra_info("sockname")[:2]
        self.peer: tuple[str, int] = writer.get_extra_info("peername")[:2]
        self._reader = reader
        self._writer = writer
        self._framer = StreamFramer()
        self._transcript = transcript
        self._on_message = on_message

    @property
    def sent_by(self) -> str:
        """This end's `host:port` for a Via."""
        return f"{self.local[0]}:{self.local[1]}"

    def send(self, message: SIPMessage) -> None:
        """Send one message.

        Raises:
            ConnectionClosedError: the connection has ended.
        """
        self.send_raw(message.build())
        self._transcript.add(
            Seen(at_ns=time.monotonic_ns(), connection_id=self.id, sent=True, message=message)
        )

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are; the transcript does not know them.

        Raises:
            ConnectionClosedError: the connection has ended.
        """
        if self.closed or self._writer.is_closing():
            raise ConnectionClosedError(f"connection {self.id} has ended")
        self._writer.write(data)

    async def run(self) -> None:
        """Read until the connection ends; unparseable bytes end it."""
        try:
            while data := await self._reader.read(_READ_BYTES):
                for message in self._framer.feed(data):
                    seen = Seen(at_ns=time.monotonic_ns(), connection_id=self.id, sent=False, message=message)
                    self._transcript.add(seen)
                    await self._on_message(self, message)
        except SIPParseError as error:
            self.parse_error = error
        except (ConnectionError, ssl.SSLError, TimeoutError):
            pass  # a reset is an end like any other: `closed` tells it
        finally:
            self._writer.close()
            self.closed = True
            self.changed()

    async def close(self) -> None:
        """Close this end; returns when it is closed."""
        self._writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            await self._writer.wait_closed()
        self.closed = True
        self.changed()

    def abort(self) -> None:
        """Cut the connection without TLS or TCP manners, as a crash would."""
        self._writer.transport.abort()

    async def wait_closed(self, *, timeout_s: float = WAIT_S) -> None:
        """Wait until the far end has closed the connection."""
        await self.until(lambda: self.closed, f"end of connection {self.id}", timeout_s=timeout_s)


def _tls_facts(tls: ssl.SSLObject) -> TLSFacts:
    cipher = tls.cipher()
    try:
        certificate = tls.getpeercert() or {}
    except ValueError as error:  # the far end refused us before anybody could ask
        raise ConnectionClosedError("the connection ended during its handshake") from error
    names = certificate.get("subjectAltName", ())
    return TLSFacts(
        version=tls.version() or "", cipher=cipher[0] if cipher else "",
        peer_names=tuple(f"{entry[0]}:{entry[1]}" for entry in names if isinstance(entry, tuple)),
    )  # fmt: skip
