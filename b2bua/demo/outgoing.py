"""The caller's end: an INVITE with everything about it open to change, and the call it makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from b2bua.demo.call import SDP_TYPE, Call, EndCause, Ending
from b2bua.demo.connection import Connection
from b2bua.demo.dialog import dialog_of_caller, hop_request, new_branch, new_tag, via_value
from b2bua.demo.errors import CallRefusedError, SDPError
from b2bua.demo.sdp import Direction, SRTPSuite
from b2bua.demo.session import MediaSession, SDPHook
from b2bua.demo.sip_message import Header, SIPRequest, SIPResponse
from b2bua.demo.stream import MediaSource
from b2bua.demo.transaction import ClientTransaction
from b2bua.demo.watch import WAIT_S

if TYPE_CHECKING:
    from b2bua.demo.endpoint import Endpoint

OMIT = ""
"""As `contact`: send no Contact header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An INVITE to send. Texts go out as they are: an attack test writes here what no honest caller would."""

    uri: str
    to: str | None = None
    """To value without a tag; None: the request URI."""
    from_uri: str | None = None
    contact: str | None = None
    """Contact value (`<sip:...>`); None: this endpoint's address in the request URI's scheme; `OMIT`: none."""
    headers: tuple[Header, ...] = ()
    offer: bool = True
    """False: a delayed offer; the answer goes in the ACK."""
    direction: Direction = Direction.SENDRECV
    suites: tuple[SRTPSuite, ...] | None = None
    """None: the endpoint's."""
    encodings: tuple[str, ...] | None = None
    body: bytes | None = None
    """Replaces the offer as a whole."""
    content_type: str = SDP_TYPE.value
    sdp_hook: SDPHook | None = field(default=None)
    """Rewrites every description this call sends, the answer in the ACK included."""
    max_forwards: int | None = 70
    source: MediaSource | None = None
    acknowledge: bool = True
    """False: never ACK a 2xx."""


def build_invite(
    invitation: Invitation, *, connection: Connection, from_uri: str, contact: str | None, offer: bytes
) -> SIPRequest:
    """The INVITE's bytes as a value, with new tag, branch and Call-ID."""
    headers = [
        Header("Via", via_value(connection.sent_by, new_branch())),
        Header("From", f"<{invitation.from_uri or from_uri}>;tag={new_tag()}"),
        Header("To", invitation.to or f"<{invitation.uri}>"),
        Header("Call-ID", new_tag()),
        Header("CSeq", "1 INVITE"),
        Header("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO"),
    ]
    if invitation.max_forwards is not None:
        headers.append(Header("Max-Forwards", str(invitation.max_forwards)))
    if contact is not None:
        headers.append(Header("Contact", contact))
    headers += invitation.headers
    if offer:
        headers.append(Header("Content-Type", invitation.content_type))
    return SIPRequest(method="INVITE", uri=invitation.uri, headers=tuple(headers), body=offer)


class OutgoingCall(Call):
    """A call this endpoint made. Made and sent by `Endpoint.invite`."""

    def __init__(
        self, endpoint: Endpoint, connection: Connection, invite: SIPRequest, session: MediaSession,
        contact: str | None, invitation: Invitation,
    ) -> None:  # fmt: skip
        super().__init__(endpoint, connection, invite, session, contact)
        self.invitation = invitation
        self.transaction = endpoint.begin(connection, invite, on_response=self._on_response)
        self._cancelled = False

    @property
    def responses(self) -> list[SIPResponse]:
        """Every response to the INVITE, in order."""
        return self.transaction.responses

    async def wait_status(self, status: int, *, timeout_s: float = WAIT_S) -> SIPResponse:
        """Wait for a response with this very status and return it; a final one of another status ends the wait.

        Raises:
            CallRefusedError: the INVITE was refused with another status.
            WaitTimeoutError: it did not come in time.
        """

        def found() -> SIPResponse | None:
            return next((response for response in self.responses if response.status == status), None)

        await self.transaction.until(
            lambda: found() is not None or self.transaction.final_response is not None,
            f"{status} to the INVITE", timeout_s=timeout_s,
        )  # fmt: skip
        response = found()
        if response is None:
            final = self.transaction.require_final()
            raise CallRefusedError(final.status, final.reason)
        return response

    async def wait_final(self, *, timeout_s: float = WAIT_S) -> SIPResponse:
        """Wait for the INVITE's final response, whatever it says."""
        return await self.transaction.final(timeout_s=timeout_s)

    async def wait_answered(self, *, timeout_s: float = WAIT_S) -> SIPResponse:
        """Wait for the 200 and for the media to run by its answer.

        Raises:
            CallRefusedError: the call was refused.
            SDPError: it was answered with a description this side cannot take.
        """
        response = await self.transaction.final(timeout_s=timeout_s)
        if response.status >= 300:
            raise CallRefusedError(response.status, response.reason)
        if self.refusals:
            raise self.refusals[0]
        return response

    def cancel(self) -> ClientTransaction:
        """Send CANCEL; its own answer is the returned transaction's, the INVITE's comes by `wait_final`."""
        self._cancelled = True
        return self.endpoint.begin(self.connection, hop_request(self.invite, "CANCEL"))

    async def _on_response(self, response: SIPResponse) -> None:
        if response.status < 200:
            await self._on_provisional(response)
        elif response.status < 300:
            await self._on_success(response)
        else:
            cause = EndCause.CANCELLED if self._cancelled and response.status == 487 else EndCause.REFUSED
            await self.end(
                Ending(
                    cause=cause, by_remote=cause is EndCause.REFUSED, connection_id=self.connection.id,
                    status=response.status, reason=response.reason,
                )
            )  # fmt: skip
        self.changed()

    async def _on_provisional(self, response: SIPResponse) -> None:
        if response.to_tag is not None and response.first("Contact") is not None:
            self.dialog = dialog_of_caller(self.invite, response)
        if response.body and self.invitation.offer:
            await self._take_answer(response.body)

    async def _on_success(self, response: SIPResponse) -> None:
        if self.answered:  # a retransmission: the far end has not seen our ACK
            self.endpoint.repeat_ack(self.connection, response)
            return
        self.dialog = dialog_of_caller(self.invite, response)
        answer = b""
        if not self.invitation.offer:
            answer = await self._answer_delayed(response.body)
        self.answered = True
        if self.invitation.acknowledge:
            self.acknowledge(self.invite, answer)
        if self.invitation.offer and self.invitation.body is None:
            await self._take_answer(response.body)

    async def _answer_delayed(self, body: bytes) -> bytes:
        try:
            return await self.session.answer(body)
        except SDPError as error:
            self.refusals.append(error)
            return b""
