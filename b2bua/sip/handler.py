"""What the SIP edge needs of the engine above it: a protocol, so that `b2bua.sip` never imports the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from b2bua.call.events import Event, LegRole
from b2bua.call.sdp_policy import SDPRefusal
from b2bua.settings import TrunkSettings

if TYPE_CHECKING:
    from b2bua.sip.leg import Leg


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request is refused before pjsua sees it: status, reason (metric label), headers to add."""

    status: int
    reason: str
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEvent:
    """A connection came up, was refused or went away. `outcome` is "ok", "closed", or a refusal reason."""

    incoming: bool
    outcome: str
    trunk: str | None
    source: str
    fingerprint: str | None = None
    cipher: int = 0


class Handler(Protocol):
    """Called on the SIP thread, some inside pjsip callbacks: quick, no pj calls except where said."""

    def admit(self, trunk: TrunkSettings, message: bytes) -> Refusal | None:
        """An initial INVITE with acceptable SDP.

        None: admitted; `take_invite` follows at once unless pjsip refuses it itself.
        """

    def take_invite(self, leg: Leg) -> None:
        """Leg A of the call just admitted."""

    def admitted_scheme(self) -> tuple[TrunkSettings, str] | None:
        """Trunk and URI scheme of the INVITE just admitted, for choosing the account."""

    def leg_event(self, call_uid: str, event: Event) -> None:
        """Something happened on a leg; may be queued."""

    def trunk_of_dialog(self, sip_call_id: str) -> str | None:
        """Name of the trunk a live dialog belongs to."""

    def owner_of_dialog(self, sip_call_id: str) -> str | None:
        """The same, and for a while after the dialog's end: whom its last messages may go to."""

    def answer_refused(self, sip_call_id: str, refusal: SDPRefusal) -> None:
        """The SDP in a response or an ACK was refused."""

    def refused(self, *, trunk: str | None, reason: str, status: int) -> None:
        """A request was refused: count and audit it."""

    def peer_event(self, event: PeerEvent) -> None:
        """A transport's life."""

    def callback_failed(self, callback: str, call_uid: str | None, leg: LegRole | None) -> None:
        """Our own code failed inside a callback."""
