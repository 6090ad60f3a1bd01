"""The callee's end: a call that came in, answered step by step or by a prepared plan."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from b2bua.demo.call import SDP_TYPE, Call, EndCause, Ending
from b2bua.demo.connection import Connection
from b2bua.demo.dialog import dialog_of_callee, response_to
from b2bua.demo.errors import DemoError, SDPError
from b2bua.demo.sdp import SRTPSuite
from b2bua.demo.session import MediaSession, SDPHook
from b2bua.demo.sip_message import Header, SIPRequest
from b2bua.demo.stream import MediaSource
from b2bua.demo.watch import WAIT_S

if TYPE_CHECKING:
    from b2bua.demo.endpoint import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """What to do with an INVITE without being asked again.

    `provisional` statuses are sent at once, 183 with a description and media; then the call waits for `when` (if
    any) and gets `status`.
    """

    provisional: tuple[int, ...] = (180,)
    status: int = 200
    reason: str = "OK"
    headers: tuple[Header, ...] = ()
    when: asyncio.Event | None = None
    source: MediaSource | None = None
    contact: str | None = None
    """Contact value; None: this endpoint's own in the request's scheme."""
    suites: tuple[SRTPSuite, ...] | None = None
    encodings: tuple[str, ...] | None = None
    sdp_hook: SDPHook | None = field(default=None)


REASONS = {180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress"}


class IncomingCall(Call):
    """A call that came to this endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        invite: SIPRequest,
        session: MediaSession,
        contact: str | None,
    ) -> None:
        super().__init__(endpoint, connection, invite, session, contact)
        self.dialog = dialog_of_callee(invite, self.local_tag)
        self.cseq = 0
        self.invite_connection = connection
        self._description: bytes | None = None
        self._answered_offer = False

    @property
    def settled(self) -> bool:
        """Whether the INVITE has its final response."""
        return self.answered or self.ending is not None

    def ring(self, status: int = 180, *, headers: Sequence[Header] = ()) -> None:
        """Send a provisional response without a description."""
        extra = [*self._contact_header(), *headers]
        self._respond(
            self.invite_connection, self.invite, status, REASONS.get(status, "Progress"), headers=extra
        )

    async def early_media(self, source: MediaSource | None = None, *, status: int = 183) -> None:
        """Send a provisional response with a description and start the media.

        Raises:
            SDPError: the offer holds nothing this side may take.
        """
        body = await self._describe(source)
        headers = [*self._contact_header(), SDP_TYPE]
        self._respond(
            self.invite_connection,
            self.invite,
            status,
            REASONS.get(status, "Progress"),
            headers=headers,
            body=body,
        )

    async def answer(self, source: MediaSource | None = None, *, headers: Sequence[Header] = ()) -> None:
        """Send 200 and start the media; an offer that cannot be taken is refused with 488 instead.

        Raises:
            DemoError: the INVITE has its final response already.
        """
        self._require_open()
        try:
            body = await self._describe(source)
        except SDPError as error:
            self.refusals.append(error)
            await self.reject(488, "Not Acceptable Here")
            return
        if self.settled:  # cancelled while the media thread started
            return
        self.answered = True
        extra = [*self._contact_header(), *headers, SDP_TYPE]
        self._respond(self.invite_connection, self.invite, 200, "OK", headers=extra, body=body)
        self.changed()

    async def reject(self, status: int, reason: str, *, headers: Sequence[Header] = ()) -> None:
        """Send a final refusal.

        Raises:
            DemoError: the INVITE has its final response already.
        """
        self._require_open()
        await self._refuse(status, reason, EndCause.REFUSED, headers=headers)

    async def wait_acknowledged(self, *, timeout_s: float = WAIT_S) -> None:
        """Wait for the ACK of the 200."""
        await self.until(lambda: self.acknowledged > 0, "ACK", timeout_s=timeout_s)

    async def follow(self, plan: Answering) -> None:
        """Answer by a plan, until the final response is sent or the caller gives up."""
        for status in plan.provisional:
            if status == 183:
                await self.early_media(plan.source)
            else:
                self.ring(status)
        if plan.when is not None:
            await self._wait_for_cue(plan.when)
        if self.settled:
            return
        if plan.status >= 300:
            await self.reject(plan.status, plan.reason, headers=plan.headers)
        else:
            await self.answer(None if self._description else plan.source, headers=plan.headers)

    async def on_cancel(self, connection: Connection, request: SIPRequest) -> None:
        """Take the caller's CANCEL of the INVITE."""
        self.received.append((connection.id, request))
        connection.send(response_to(request, 200, "OK", to_tag=self.local_tag))
        if not self.settled:
            await self._refuse(487, "Request Terminated", EndCause.CANCELLED)

    async def _on_ack(self, request: SIPRequest) -> None:
        first = not self.acknowledged
        await super()._on_ack(request)
        if first and self._answered_offer:
            await self._take_answer(request.body)

    async def _describe(self, source: MediaSource | None) -> bytes:
        """The description of the 200, the same one after early media: an answer, or an offer if the INVITE had none."""
        if source is not None:
            self.session.source = source
        if self._description is None:
            if self.invite.body:
                self._description = await self.session.answer(self.invite.body)
            else:
                self._answered_offer = True
                self._description = self.session.offer()
        elif source is not None:
            await self.say(source)
        return self._description

    async def _wait_for_cue(self, cue: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(cue.wait()), asyncio.ensure_future(self.wait_ended(timeout_s=3600))]
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()

    async def _refuse(
        self, status: int, reason: str, cause: EndCause, *, headers: Sequence[Header] = ()
    ) -> None:
        self._respond(self.invite_connection, self.invite, status, reason, headers=headers)
        await self.end(
            Ending(
                cause=cause, by_remote=cause is EndCause.CANCELLED, connection_id=self.invite_connection.id,
                status=status, reason=reason,
            )
        )  # fmt: skip

    def _require_open(self) -> None:
        if self.settled:
            raise DemoError("the INVITE has its final response already")
