"""One leg: a pjsua call whose callbacks become events.

SIP thread only; nothing is done inside a callback but copying.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pjsua2 as pj
import structlog

from b2bua.call import events as on
from b2bua.call.events import LegRole
from b2bua.call.sdp_policy import Direction
from b2bua.errors import B2BUAError
from b2bua.native import _native
from b2bua.sip.callbacks import guarded
from b2bua.sip.digits import Digits
from b2bua.sip.handler import Handler
from b2bua.sip.translate import answer_params, carries_body, media_direction, offered_direction

if TYPE_CHECKING:
    from b2bua.sip.trunk import TrunkAccount

_log = structlog.get_logger(__name__)

AUDIO = 0
NO_SLOT = -1
REQUEST_TERMINATED = 487
DTMF_MS = 160
"""Length of a relayed digit, which starts before its own length is known; Q.24 detectors need 40 ms."""


class Received(NamedTuple):
    """What came in on a leg.

    Since its stream began: `packets` that authenticated, `bursts` of lost ones, and the length of the last. Since its
    transport was made, packets that were refused: `unauthenticated` from where the peer sends, `elsewhere` the same
    from another address, `replayed`.
    """

    packets: int
    bursts: int = 0
    last_burst_ms: int = 0
    unauthenticated: int = 0
    elsewhere: int = 0
    replayed: int = 0


def received(call_ids: Sequence[int]) -> list[Received | None]:
    """For each pjsua call what came in on it; None while it has no stream. A microsecond or two each."""
    return [None if found is None else Received._make(found) for found in _native.legs_received(call_ids)]


class LegError(B2BUAError):
    """pjsua refused what was asked of a leg. Carries pjsip's status only: its texts may hold URIs."""

    def __init__(self, action: str, status: int) -> None:
        super().__init__(f"{action}: pjsip status {status}")
        self.status = status


class Leg(pj.Call):
    """A leg of a call. `call_uid` is set by the engine before any event can matter."""

    def __init__(self, *, account: TrunkAccount, role: LegRole, handler: Handler, pjsua_call_id: int) -> None:
        super().__init__(account, pjsua_call_id)
        self.role = role
        self.trunk = account.trunk
        self.scheme = account.scheme
        self.call_uid = ""
        self.sip_call_id = ""
        self.suite = ""
        self.slot = NO_SLOT
        self.expects_audio = False
        self.gone = False
        self._handler = handler
        self._confirmed = False
        self._reoffering = False
        self._leaving = False
        self._owes_answer = False
        self._created_sdp = ""
        self._digits = Digits()
        self._direction = Direction.SENDRECV

    @classmethod
    def incoming(cls, *, account: TrunkAccount, pjsua_call_id: int, handler: Handler) -> Leg:
        leg = cls(account=account, role=LegRole.A, handler=handler, pjsua_call_id=pjsua_call_id)
        leg.sip_call_id = leg.getInfo().callIdString
        return leg

    @classmethod
    def outgoing(cls, *, account: TrunkAccount, handler: Handler) -> Leg:
        return cls(account=account, role=LegRole.B, handler=handler, pjsua_call_id=pj.PJSUA_INVALID_ID)

    # -- what the engine asks ------------------------------

    def dial(self, *, request_uri: str, from_uri: str, headers: tuple[tuple[str, str], ...]) -> None:
        """Send the INVITE.

        Raises:
            LegError: no transport, no RTP ports, no call slot, a malformed URI.
        """
        prm = answer_params(0, headers=headers)
        prm.txOption.localUri = from_uri
        try:
            self.makeCall(request_uri, prm)
        except pj.Error as error:
            raise LegError("dial", error.status) from None
        self.sip_call_id = self.getInfo().callIdString

    def ring(self, status: int) -> None:
        """A provisional response; 183 carries our SDP answer (RFC 3261 section 13.3.1.1)."""
        self._try("ring", status)

    def accept(self) -> None:
        """200 to the initial INVITE."""
        self._try("accept", 200)

    def answer_reoffer(self, status: int) -> None:
        """Final response to the waiting re-INVITE; 200 with the answer pjsua made when the offer came in.

        Nothing if none waits, because `hang_up` has answered it.
        """
        if not self._owes_answer:
            return
        self._owes_answer = False
        sdp = self._created_sdp if status == 200 else ""
        self._created_sdp = ""
        self._try("answer_reoffer", status, sdp=sdp)

    def send_reoffer(self, direction: Direction) -> None:
        """re-INVITE with our stream in `direction` (RFC 3264 section 8.4).

        Raises:
            LegError: the leg can't send one now.
        """
        prm = answer_params(0)
        prm.opt.flag = pj.PJSUA_CALL_SET_MEDIA_DIR
        prm.opt.mediaDir.append(media_direction(direction))
        self._reoffering = True
        try:
            self.reinvite(prm)
        except pj.Error as error:
            self._reoffering = False
            raise LegError("send_reoffer", error.status) from None

    def send_dtmf(self, digit: str, duration_ms: int) -> None:
        """One RFC 4733 event."""
        prm = pj.CallSendDtmfParam()
        prm.method = pj.PJSUA_DTMF_METHOD_RFC2833
        prm.digits = digit
        prm.duration = duration_ms
        try:
            self.sendDtmf(prm)
        except pj.Error as error:
            raise LegError("send_dtmf", error.status) from None

    def hang_up(self, status: int, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """CANCEL, BYE or a final response, as the leg's state asks for. A leg already gone is left alone.

        A re-INVITE that waits gets its 487 first: once the BYE is out pjsua answers nothing more, and the peer would
        wait for its whole timer B (RFC 3261 section 15.1.2 has the status, for requests that a BYE overtakes).
        """
        if self.gone or self.getId() == pj.PJSUA_INVALID_ID or self._leaving:
            return
        try:
            self.answer_reoffer(REQUEST_TERMINATED)
        except LegError as error:
            _log.warning("leg_not_answered", call_uid=self.call_uid, pj_status=error.status)
        try:
            self.hangup(answer_params(status, headers=headers))
        except pj.Error as error:
            _log.warning(
                "leg_hang_up_failed", call_uid=self.call_uid, leg=self.role.value, pj_status=error.status
            )

    def packets_received(self) -> int:
        """RTP packets of the peer that were accepted since the stream began; none while there is no stream."""
        (found,) = received([self.getId()])
        return 0 if found is None else found.packets

    def audio(self) -> pj.AudioMedia:
        """The leg's bridge port as it is now; stale after the next media restart."""
        return self.getAudioMedia(AUDIO)

    def _try(self, action: str, status: int, *, sdp: str = "") -> None:
        try:
            self.answer(answer_params(status, sdp=sdp))
        except pj.Error as error:
            raise LegError(action, error.status) from None

    # -- what pjsua tells ------------------------------

    def callback_failed(self, callback: str) -> None:
        self._handler.callback_failed(callback, self.call_uid, self.role)

    def _tell(self, event: on.Event) -> None:
        self._handler.leg_event(self.call_uid, event)

    @guarded
    def onCallState(self, prm: pj.OnCallStateParam) -> None:  # noqa: N802 - pjsua2's name
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_EARLY and self.role is LegRole.B:
            # pjsip tells of the 18x before it negotiates the answer in it
            self._tell(on.LegProgressed(status=info.lastStatusCode, early_media=carries_body(prm.e)))
        elif info.state == pj.PJSIP_INV_STATE_CONFIRMED and not self._confirmed:
            self._confirmed = True
            self._tell(on.LegConfirmed(leg=self.role))
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED and not self.gone:
            self.gone = True
            self.slot = NO_SLOT
            status = _redirection(prm.e) or info.lastStatusCode
            self._tell(on.LegEnded(leg=self.role, status=status, remote=status == 200))

    @guarded
    def onCallMediaState(self, prm: pj.OnCallMediaStateParam) -> None:  # noqa: N802
        del prm
        info = self.getInfo()
        if not info.media or info.media[AUDIO].status in (
            pj.PJSUA_CALL_MEDIA_NONE,
            pj.PJSUA_CALL_MEDIA_ERROR,
        ):
            self.slot = NO_SLOT
            if info.media and info.media[AUDIO].status == pj.PJSUA_CALL_MEDIA_ERROR:
                self._tell(on.MediaInsecure(leg=self.role, detail="media_error"))
            return
        media = info.media[AUDIO]
        active, sent, received = _native.srtp_state(self.getId(), AUDIO)
        allowed = {suite.value for suite in self.trunk.srtp_suites}
        if not active or sent not in allowed or received not in allowed:
            self.slot = NO_SLOT
            self._tell(
                on.MediaInsecure(leg=self.role, detail="srtp_inactive" if not active else "srtp_suite")
            )
            return
        self.suite = sent
        self.expects_audio = bool(media.dir & pj.PJMEDIA_DIR_DECODING)
        self.slot = media.audioConfSlot
        self._tell(
            on.MediaSecured(
                leg=self.role,
                suite=sent,
                send=bool(media.dir & pj.PJMEDIA_DIR_ENCODING),
                receive=bool(media.dir & pj.PJMEDIA_DIR_DECODING),
            )
        )

    @guarded
    def onCallSdpCreated(self, prm: pj.OnCallSdpCreatedParam) -> None:  # noqa: N802
        self._created_sdp = prm.sdp.wholeSdp if prm.remSdp.wholeSdp else ""

    @guarded
    def onCallRxReinvite(self, prm: pj.OnCallRxReinviteParam) -> None:  # noqa: N802
        prm.isAsync = True
        self._owes_answer = True
        self._direction = offered_direction(prm.offer.wholeSdp)
        self._tell(on.ReofferReceived(leg=self.role, direction=self._direction))

    @guarded
    def onCallRxOffer(self, prm: pj.OnCallRxOfferParam) -> None:  # noqa: N802
        if not self._confirmed:
            return
        self._direction = offered_direction(prm.offer.wholeSdp)
        self._tell(on.DirectionChanged(leg=self.role, direction=self._direction))

    @guarded
    def onCallTsxState(self, prm: pj.OnCallTsxStateParam) -> None:  # noqa: N802
        if prm.e.type != pj.PJSIP_EVENT_TSX_STATE:
            return
        tsx = prm.e.body.tsxState.tsx
        if tsx.role != pj.PJSIP_ROLE_UAC:
            return
        if tsx.method == "BYE":
            self._leaving = True  # ours, or pjsip's own after a 2xx without an acceptable answer
        elif tsx.method == "INVITE" and self._reoffering and tsx.statusCode >= 200:
            self._reoffering = False
            self._tell(on.ReofferAnswered(leg=self.role, status=tsx.statusCode))

    @guarded
    def onDtmfEvent(self, prm: pj.OnDtmfEventParam) -> None:  # noqa: N802
        if not self._digits.begins(prm.flags, prm.timestamp, prm.duration):
            return
        now_ms = time.monotonic_ns() // 1_000_000
        if self._digits.is_too_fast(now_ms):
            self._tell(on.DTMFExcess(leg=self.role))
        else:
            self._tell(on.DTMFReceived(leg=self.role, digit=prm.digit, duration_ms=DTMF_MS, at_ms=now_ms))

    @guarded
    def onCallTransferRequest(self, prm: pj.OnCallTransferRequestParam) -> None:  # noqa: N802
        prm.statusCode = 403

    @guarded
    def onCallReplaceRequest(self, prm: pj.OnCallReplaceRequestParam) -> None:  # noqa: N802
        prm.statusCode = 403


def _redirection(event: pj.SipEvent) -> int:
    """The 3xx that ended a leg, or 0: pjsip stops there as told and reports a 487 that nobody sent."""
    if event.type != pj.PJSIP_EVENT_TSX_STATE:
        return 0
    status = event.body.tsxState.tsx.statusCode
    return status if 300 <= status < 400 else 0
