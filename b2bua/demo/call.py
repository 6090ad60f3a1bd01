"""A call of the demonstration endpoint, either end of it: what happened so far, and everything that can be done in it.

Every action sends at once and returns the answer it waited for; every wait has a limit. Refusals are results, not
exceptions, except where a test would only go on after success (`wait_answered`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from b2bua.demo.connection import Connection
from b2bua.demo.dialog import Dialog, in_dialog_request, new_tag, response_to
from b2bua.demo.errors import DemoError, SDPError
from b2bua.demo.sdp import Direction
from b2bua.demo.session import MediaSession
from b2bua.demo.sip_message import Header, SIPRequest, SIPResponse
from b2bua.demo.stream import MediaSource, MediaStream
from b2bua.demo.watch import WAIT_S, Watched

if TYPE_CHECKING:
    from b2bua.demo.endpoint import Endpoint

SDP_TYPE = Header("Content-Type", "application/sdp")
_STALE_OFFER = (488, "Not Acceptable Here")


class EndCause(Enum):
    """How a call ended."""

    BYE = "bye"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    CONNECTION_LOST = "connection-lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a call. `connection_id` is where the ending message came or went; `status` is 0 for a BYE."""

    cause: EndCause
    by_remote: bool
    connection_id: int
    status: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reoffer:
    """How to answer the far end's re-INVITEs and UPDATEs: accept with the mirrored direction, or refuse."""

    status: int = 200
    reason: str = "OK"
    headers: tuple[Header, ...] = ()


class Call(Watched):
    """State and actions both ends share."""

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        invite: SIPRequest,
        session: MediaSession,
        contact: str | None,
    ) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.connection = connection
        """Where requests of this end go. A test may replace it; the answer to a request goes back on its own."""
        self.invite = invite
        self.session = session
        self.contact = contact
        self.dialog: Dialog | None = None
        self.local_tag = new_tag()
        self.cseq = invite.cseq.number
        self.answered = False
        self.acknowledged = 0
        self.ending: Ending | None = None
        self.reoffer = Reoffer()
        self.received: list[tuple[int, SIPRequest]] = []
        """Requests of the far end inside this dialog, each with the id of the connection it came on."""
        self.refusals: list[SDPError] = []
        """Descriptions of the far end this side could not take."""
        self._reoffer_open = False

    @property
    def stream(self) -> MediaStream:
        """The call's media."""
        return self.session.stream

    @property
    def suite_name(self) -> str:
        """The SRTP suite agreed on.

        Raises:
            DemoError: none yet.
        """
        if self.session.plan is None:
            raise DemoError("the call has no media yet")
        return self.session.plan.suite.sdp_name

    async def request(
        self, method: str, *, headers: Sequence[Header] = (), body: bytes = b"", timeout_s: float = WAIT_S
    ) -> SIPResponse:
        """Send any request but INVITE inside the dialog and return its final response."""
        message = self._next_request(method, headers=headers, body=body)
        transaction = self.endpoint.begin(self.connection, message)
        return await transaction.final(timeout_s=timeout_s)

    async def hang_up(self, *, headers: Sequence[Header] = (), timeout_s: float = WAIT_S) -> SIPResponse:
        """Send BYE, stop the media, and return the answer to the BYE."""
        response = await self.request("BYE", headers=headers, timeout_s=timeout_s)
        await self.end(Ending(cause=EndCause.BYE, by_remote=False, connection_id=self.connection.id))
        return response

    async def reinvite(
        self, *, direction: Direction | None = None, body: bytes | None = None, rekey: bool = False,
        headers: Sequence[Header] = (), timeout_s: float = WAIT_S,
    ) -> SIPResponse:  # fmt: skip
        """Send a re-INVITE, acknowledge its answer, follow the answer's media, and return the final response.

        `body` replaces the offer as a whole (b"" sends none and answers the far end's offer in the ACK).
        """
        offer = self.session.offer(direction=direction, rekey=rekey) if body is None else body
        extra = [*self._contact_header(), *headers, *([SDP_TYPE] if offer else [])]
        message = self._next_request("INVITE", headers=extra, body=offer)
        response = await self.endpoint.begin(self.connection, message).final(timeout_s=timeout_s)
        if response.status >= 300:  # the transaction has acknowledged it
            self.session.withdraw()
            return response
        self._refresh_target(response.contact_uri)
        answer = b""
        if body == b"" and response.body:
            answer = await self.session.answer(response.body)
        self.acknowledge(message, answer)
        if body is None:
            await self._take_answer(response.body)
        return response

    async def update(
        self, *, direction: Direction | None = None, body: bytes | None = None, headers: Sequence[Header] = ()
    ) -> SIPResponse:
        """Send an UPDATE with an offer (`body` replaces it, b"" sends none) and follow its answer."""
        offer = self.session.offer(direction=direction) if body is None else body
        extra = [*self._contact_header(), *headers, *([SDP_TYPE] if offer else [])]
        response = await self.request("UPDATE", headers=extra, body=offer)
        if response.status >= 300:
            self.session.withdraw()
        elif body is None:
            await self._take_answer(response.body)
        return response

    async def hold(self, direction: Direction = Direction.SENDONLY) -> SIPResponse:
        """Hold by re-INVITE, `sendonly` or `inactive`."""
        return await self.reinvite(direction=direction)

    async def resume(self) -> SIPResponse:
        """Take the call back from hold."""
        return await self.reinvite(direction=Direction.SENDRECV)

    async def say(self, source: MediaSource) -> None:
        """Say something else from now on.

        Raises:
            DemoError: the call has no media yet.
        """
        if self.session.plan is None:
            raise DemoError("the call has no media yet")
        await self.stream.start(self.session.plan, source)

    async def wait_ended(self, *, timeout_s: float = WAIT_S) -> Ending:
        """Wait for the end of the call and return how it ended."""
        await self.until(lambda: self.ending is not None, "end of the call", timeout_s=timeout_s)
        if self.ending is None:
            raise DemoError("the call came back to life")
        return self.ending

    async def wait_received(self, method: str, *, timeout_s: float = WAIT_S) -> tuple[int, SIPRequest]:
        """Wait for a request of the far end inside this dialog; the first of the method and its connection's id."""
        await self.until(
            lambda: self._first(method) is not None, f"{method} in the dialog", timeout_s=timeout_s
        )
        first = self._first(method)
        if first is None:
            raise DemoError("a received request was forgotten")
        return first

    async def end(self, ending: Ending) -> None:
        """Record the end and close the media; the first end counts."""
        if self.ending is None:
            self.ending = ending
            await self.stream.close()
            self.endpoint.forget(self)
            self.changed()

    def connection_lost(self, connection: Connection) -> None:
        """Tell waiters that the call's connection is gone; the far end may still use another one."""
        if connection is self.connection:
            self.changed()

    async def on_request(self, connection: Connection, request: SIPRequest) -> None:
        """Take a request of the far end inside the dialog."""
        self.received.append((connection.id, request))
        if request.method == "ACK":
            await self._on_ack(request)
        elif request.method == "BYE":
            self._respond(connection, request, 200, "OK")
            await self.end(Ending(cause=EndCause.BYE, by_remote=True, connection_id=connection.id))
        elif request.method in ("INVITE", "UPDATE"):
            await self._on_reoffer(connection, request)
        elif request.method in ("OPTIONS", "INFO", "MESSAGE", "NOTIFY"):
            self._respond(connection, request, 200, "OK")
        else:
            self._respond(connection, request, 405, "Method Not Allowed")
        self.changed()

    def acknowledge(self, invite: SIPRequest, answer: bytes = b"") -> None:
        """Send the ACK of a 2xx, a transaction of its own."""
        message = in_dialog_request(
            self._require_dialog(), "ACK", cseq=invite.cseq.number, via=self.connection.sent_by,
            headers=[SDP_TYPE] if answer else [], body=answer,
        )  # fmt: skip
        self.endpoint.remember_ack(invite, message)
        self.connection.send(message)

    def _next_request(self, method: str, *, headers: Sequence[Header], body: bytes) -> SIPRequest:
        self.cseq += 1
        return in_dialog_request(
            self._require_dialog(),
            method,
            cseq=self.cseq,
            via=self.connection.sent_by,
            headers=headers,
            body=body,
        )

    def _require_dialog(self) -> Dialog:
        if self.dialog is None:
            raise DemoError("the call has no dialog yet")
        return self.dialog

    def _contact_header(self) -> list[Header]:
        return [] if self.contact is None else [Header("Contact", self.contact)]

    def _refresh_target(self, uri: str | None) -> None:
        self.dialog = self._require_dialog().retargeted(uri)

    def _respond(
        self, connection: Connection, request: SIPRequest, status: int, reason: str, *,
        headers: Sequence[Header] = (), body: bytes = b"",
    ) -> None:  # fmt: skip
        connection.send(
            response_to(request, status, reason, to_tag=self.local_tag, headers=headers, body=body)
        )

    async def _on_reoffer(self, connection: Connection, request: SIPRequest) -> None:
        reply = self.reoffer
        if reply.status >= 300:
            self._respond(connection, request, reply.status, reply.reason, headers=reply.headers)
            return
        self._refresh_target(request.contact_uri)
        body = b""
        try:
            if request.body:
                body = await self.session.answer(request.body)
            elif request.method == "INVITE":
                body = self.session.offer()
                self._reoffer_open = True
        except SDPError as error:
            self.refusals.append(error)
            self._respond(connection, request, *_STALE_OFFER)
            return
        headers = [*self._contact_header(), *reply.headers, *([SDP_TYPE] if body else [])]
        self._respond(connection, request, reply.status, reply.reason, headers=headers, body=body)

    async def _on_ack(self, request: SIPRequest) -> None:
        self.acknowledged += 1
        if self._reoffer_open and request.body:
            self._reoffer_open = False
            await self._take_answer(request.body)

    async def _take_answer(self, body: bytes) -> None:
        try:
            await self.session.answered(body)
        except SDPError as error:
            self.refusals.append(error)

    def _first(self, method: str) -> tuple[int, SIPRequest] | None:
        return next((entry for entry in self.received if entry[1].method == method), None)
