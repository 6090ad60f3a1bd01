"""A SIP user agent over TLS 1.3 with SRTP media: caller and callee of the demonstration, the tests and the bench.

It uses Python's `ssl`, its own SIP, SDP and RTP, and pylibsrtp; nothing of the engine it talks to.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Final

from b2bua.demo.call import Call
from b2bua.demo.connection import SHUTDOWN_S, Connection, Transcript
from b2bua.demo.dialog import contact_value, new_branch, new_tag, response_to, via_value
from b2bua.demo.errors import ConnectionClosedError, DemoError, SIPParseError
from b2bua.demo.incoming import Answering, IncomingCall
from b2bua.demo.outgoing import OMIT, Invitation, OutgoingCall, build_invite
from b2bua.demo.pump import MediaPump
from b2bua.demo.sdp import AEAD_SUITES, SRTPSuite
from b2bua.demo.session import MediaSession
from b2bua.demo.sip_message import Header, SIPMessage, SIPRequest, SIPResponse
from b2bua.demo.stream import MediaStream
from b2bua.demo.transaction import ClientTransaction, OnResponse
from b2bua.demo.watch import WAIT_S, Watched

_BACKLOG: Final = 1024
_CONNECT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """What an endpoint is. `port` 0 takes a free one; without a server context it does not listen.

    The contexts come from `b2bua.demo.tls_context` or from a test that wants something worse.
    """

    user: str
    client_context: ssl.SSLContext | None = None
    server_context: ssl.SSLContext | None = None
    address: str = "127.0.0.1"
    port: int = 0
    suites: tuple[SRTPSuite, ...] = AEAD_SUITES
    encodings: tuple[str, ...] = ("PCMU/8000",)
    answering: Answering | None = None
    """None: incoming calls wait for `next_call` and are answered by hand."""
    keep_audio: bool = True


class Endpoint(Watched):
    """One user agent. An async context manager; leaving it closes connections and media.

    `pump` may be shared by any number of endpoints. Belongs to the event loop it was entered on.
    """

    def __init__(self, settings: EndpointSettings, pump: MediaPump) -> None:
        super().__init__()
        self.settings = settings
        self.pump = pump
        self.transcript = Transcript()
        self.connections: list[Connection] = []
        self.answering = settings.answering
        self.calls: list[Call] = []
        """Calls that have not ended."""
        self.incoming: list[IncomingCall] = []
        """Every call that ever came in, in order."""
        self._taken = 0
        self._server: asyncio.Server | None = None
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._transactions: dict[tuple[str | None, str], ClientTransaction] = {}
        self._acks: dict[tuple[str, int], SIPRequest] = {}

    async def __aenter__(self) -> Endpoint:
        if self.settings.server_context is not None:
            self._server = await asyncio.start_server(
                self._accept, self.settings.address, self.settings.port, ssl=self.settings.server_context,
                backlog=_BACKLOG, ssl_shutdown_timeout=SHUTDOWN_S,
            )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close everything; a failure inside a task of this endpoint is raised here.

        Raises:
            DemoError: a task failed; the first failure is its cause.
        """
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*(connection.close() for connection in self.connections))
        for call in list(self.calls):
            await call.stream.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failures:
            raise DemoError("a task of the endpoint failed") from self._failures[0]

    @property
    def port(self) -> int:
        """The listening port.

        Raises:
            DemoError: this endpoint does not listen.
        """
        if self._server is None:
            raise DemoError("the endpoint does not listen")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def connect(
        self, host: str, port: int, *, server_name: str | None = None, context: ssl.SSLContext | None = None
    ) -> Connection:
        """Open a TLS connection. `server_name` is checked against the peer's certificate (default: `host`).

        Raises:
            ssl.SSLError, OSError: the handshake or the connection failed, as `ssl` words it.
            DemoError: there is no client context.
        """
        chosen = context or self.settings.client_context
        if chosen is None:
            raise DemoError("the endpoint has no client TLS context")
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(
                host, port, ssl=chosen, server_hostname=server_name or host, ssl_shutdown_timeout=SHUTDOWN_S
            ),
            _CONNECT_S,
        )
        connection = self._adopt(reader, writer, accepted=False)
        self._spawn(self._serve(connection))
        return connection

    async def invite(self, connection: Connection, invitation: Invitation) -> OutgoingCall:
        """Send an INVITE and return at once; wait with the call's own methods."""
        session = self._new_session(invitation.suites, invitation.encodings)
        session.hook, session.source = invitation.sdp_hook, invitation.source
        offer = b""
        if invitation.offer:
            made = session.offer(direction=invitation.direction)
            offer = made if invitation.body is None else invitation.body
        else:
            session.local = replace(session.local, direction=invitation.direction)
        contact = self._contact(invitation.contact, invitation.uri, connection)
        invite = build_invite(
            invitation, connection=connection, from_uri=self._own_uri(invitation.uri, connection), contact=contact,
            offer=offer,
        )  # fmt: skip
        call = OutgoingCall(self, connection, invite, session, contact, invitation)
        self.calls.append(call)
        return call

    async def request(
        self, connection: Connection, method: str, uri: str, *, headers: Sequence[Header] = (), body: bytes = b"",
        max_forwards: int = 70, timeout_s: float = WAIT_S,
    ) -> SIPResponse:  # fmt: skip
        """Send any request outside a dialog and return its final response."""
        message = SIPRequest(
            method=method, uri=uri, body=body,
            headers=(
                Header("Via", via_value(connection.sent_by, new_branch())),
                Header("Max-Forwards", str(max_forwards)),
                Header("From", f"<{self._own_uri(uri, connection)}>;tag={new_tag()}"),
                Header("To", f"<{uri}>"),
                Header("Call-ID", new_tag()),
                Header("CSeq", f"1 {method}"),
                Header("Contact", contact_value(self._own_uri(uri, connection))),
                *headers,
            ),
        )  # fmt: skip
        return await self.begin(connection, message).final(timeout_s=timeout_s)

    async def options(self, connection: Connection, uri: str, *, timeout_s: float = WAIT_S) -> SIPResponse:
        """Send OPTIONS outside a dialog and return its final response."""
        return await self.request(connection, "OPTIONS", uri, timeout_s=timeout_s)

    async def next_call(self, *, timeout_s: float = WAIT_S) -> IncomingCall:
        """The next incoming call, each once."""
        number = self._taken
        self._taken += 1
        await self.until(lambda: len(self.incoming) > number, "incoming call", timeout_s=timeout_s)
        return self.incoming[number]

    def begin(
        self, connection: Connection, request: SIPRequest, *, on_response: OnResponse | None = None
    ) -> ClientTransaction:
        """Send a request and follow its responses."""
        transaction = ClientTransaction(connection, request, on_response=on_response)
        self._transactions[(request.branch, request.method)] = transaction
        connection.send(request)
        return transaction

    def remember_ack(self, invite: SIPRequest, ack: SIPRequest) -> None:
        """Keep the ACK of a 2xx for its retransmissions."""
        self._acks[(invite.call_id, invite.cseq.number)] = ack

    def repeat_ack(self, connection: Connection, response: SIPResponse) -> None:
        """Answer a retransmitted 2xx with the ACK sent before, if there was one."""
        ack = self._acks.get((response.call_id, response.cseq.number))
        if ack is not None:
            connection.send(ack)

    def forget(self, call: Call) -> None:
        """Drop an ended call."""
        if call in self.calls:
            self.calls.remove(call)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._serve(self._adopt(reader, writer, accepted=True)))

    def _adopt(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, accepted: bool
    ) -> Connection:
        try:
            connection = Connection(
                number=next(self._numbers), accepted=accepted, reader=reader, writer=writer,
                transcript=self.transcript, on_message=self._on_message,
            )  # fmt: skip
        except ConnectionClosedError:  # refused before its facts could be read: nobody else has the writer
            writer.close()
            raise
        self.connections.append(connection)
        self.changed()
        return connection

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            for call in list(self.calls):
                call.connection_lost(connection)
            for transaction in self._transactions.values():
                transaction.changed()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and error not in self._failures:
            self._failures.append(error)

    async def _on_message(self, connection: Connection, message: SIPMessage) -> None:
        try:
            if isinstance(message, SIPResponse):
                await self._on_response(connection, message)
            else:
                await self._on_request(connection, message)
        except ConnectionClosedError:
            pass  # the answer has nowhere to go; the reader ends next

    async def _on_response(self, connection: Connection, response: SIPResponse) -> None:
        transaction = self._transactions.get((response.branch, response.cseq.method))
        if transaction is None:
            raise SIPParseError("a response belongs to no request of this endpoint")
        known = transaction.final_response is not None and response.status >= 200
        if known and response.cseq.method == "INVITE" and response.status < 300:
            self.repeat_ack(connection, response)
            return
        await transaction.on_response(connection, response)

    async def _on_request(self, connection: Connection, request: SIPRequest) -> None:
        if request.method == "CANCEL":
            await self._on_cancel(connection, request)
            return
        if request.to_tag is not None:
            await self._on_dialog_request(connection, request)
        elif request.method == "INVITE":
            self._on_invite(connection, request)
        elif request.method == "OPTIONS":
            allow = Header("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO")
            connection.send(response_to(request, 200, "OK", to_tag=new_tag(), headers=[allow]))
        elif request.method != "ACK":
            connection.send(response_to(request, 405, "Method Not Allowed", to_tag=new_tag()))

    async def _on_dialog_request(self, connection: Connection, request: SIPRequest) -> None:
        for call in self.calls:
            if call.dialog is not None and call.dialog.matches(request):
                await call.on_request(connection, request)
                return
        if request.method != "ACK":
            connection.send(response_to(request, 481, "Call/Transaction Does Not Exist"))

    async def _on_cancel(self, connection: Connection, request: SIPRequest) -> None:
        for call in self.incoming:
            if call.invite.branch == request.branch and call.invite.call_id == request.call_id:
                await call.on_cancel(connection, request)
                return
        connection.send(response_to(request, 481, "Call/Transaction Does Not Exist", to_tag=new_tag()))

    def _on_invite(self, connection: Connection, invite: SIPRequest) -> None:
        if invite.contact_uri is None:
            connection.send(response_to(invite, 400, "Missing Contact", to_tag=new_tag()))
            return
        plan = self.answering
        if plan is None:
            session = self._new_session(None, None)
            contact = self._contact(None, invite.uri, connection)
        else:
            session = self._new_session(plan.suites, plan.encodings)
            session.hook = plan.sdp_hook
            contact = self._contact(plan.contact, invite.uri, connection)
        call = IncomingCall(self, connection, invite, session, contact)
        self.calls.append(call)
        self.incoming.append(call)
        self.changed()
        if plan is not None:
            self._spawn(call.follow(plan))

    def _new_session(
        self, suites: tuple[SRTPSuite, ...] | None, encodings: tuple[str, ...] | None
    ) -> MediaSession:
        stream = MediaStream(self.pump, self.settings.address, keep_audio=self.settings.keep_audio)
        return MediaSession(
            stream, suites=suites or self.settings.suites, encodings=encodings or self.settings.encodings
        )

    def _contact(self, wanted: str | None, request_uri: str, connection: Connection) -> str | None:
        if wanted == OMIT:
            return None
        return wanted or contact_value(self._own_uri(request_uri, connection))

    def _own_uri(self, request_uri: str, connection: Connection) -> str:
        """This endpoint's URI in the scheme of a request: `sips`, or `sip` with the transport named."""
        port = connection.local[1] if self._server is None else self.port
        place = f"{self.settings.user}@{self.settings.address}:{port}"
        return f"sips:{place}" if request_uri.startswith("sips:") else f"sip:{place};transport=tls"
