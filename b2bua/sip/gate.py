"""Every request and every SDP body passes here before pjsua sees it.

Called by the native module between transaction and UA layer.

Source: RFC 3261 sections 8.2 (UAS), 20.43 (Warning), 21.4 (status codes).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from b2bua.call.sdp_policy import SDPFault, SDPRefusal, SDPRole, judge, judge_content_type
from b2bua.settings import TrunkSettings
from b2bua.sip.callbacks import guarded_function
from b2bua.sip.handler import Handler, Refusal

Verdict = tuple[int, str, Sequence[tuple[str, str]]] | None

_INTERNAL: Verdict = (500, "Server Internal Error", ())
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_OFFERS = frozenset({"INVITE", "UPDATE", "PRACK"})

REASON_PHRASES: Mapping[int, str] = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    415: "Unsupported Media Type",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    486: "Busy Here",
    488: "Not Acceptable Here",
    500: "Server Internal Error",
    503: "Service Unavailable",
}


def _has_body(message: bytes) -> bool:
    """Whether anything follows the header (RFC 3261 section 7.4.1: it must have a Content-Type)."""
    end = _HEADER_END.search(message)
    return end is not None and end.end() < len(message)


def warning_header(host: str, text: str) -> tuple[str, str]:
    """Warning 399 with our host and a text without quotes (RFC 3261 section 20.43)."""
    return "Warning", f'399 {host} "{text.replace(chr(34), chr(39))}"'


class MessageGate:
    """Pure decisions over what the native module copied out of the message; no pj calls."""

    def __init__(
        self, *, trunk_of: Callable[[int], TrunkSettings | None], handler: Handler, host: str
    ) -> None:
        self._trunk_of = trunk_of
        self._handler = handler
        self._host = host
        self._answering: tuple[int, str] | None = None
        self.on_message = guarded_function("gate", lambda: _INTERNAL)(self._judge)
        self.on_refused = guarded_function("on_refused", lambda: None)(self._refused)
        self.may_send = guarded_function("may_send", lambda: False)(self._may_send)

    def _judge(
        self,
        token: int,
        hnd: int,
        is_request: bool,
        method: str,
        status: int,
        initial: bool,
        sip_call_id: str,
        content_type: str,
        body: bytes,
        message: bytes,
    ) -> Verdict:
        del hnd
        trunk = self._trunk_of(token)
        if trunk is None:
            return self._answer(None, Refusal(status=403, reason="unverified_transport"))
        if not is_request:
            return self._judge_response(trunk, status, sip_call_id, content_type, body)
        refusal = self._judge_request(trunk, method, initial, sip_call_id, content_type, body, message)
        self._answering = None if refusal is None or method == "ACK" else (token, sip_call_id)
        return None if refusal is None else self._answer(trunk, refusal)

    def _judge_request(
        self,
        trunk: TrunkSettings,
        method: str,
        initial: bool,
        sip_call_id: str,
        content_type: str,
        body: bytes,
        message: bytes,
    ) -> Refusal | None:
        owner = self._handler.trunk_of_dialog(sip_call_id)
        if not initial and owner is not None and owner != trunk.name:
            return Refusal(status=403, reason="foreign_dialog")
        if method == "INVITE" and initial and owner is not None:
            return Refusal(status=482, reason="call_id_in_use")  # or it would take the live call's place here
        if (refused := self._judge_body(trunk, method, content_type, body, message)) is not None:
            if method == "ACK":
                self._handler.answer_refused(sip_call_id, refused)
            return self._refuse_sdp(refused)
        if method == "INVITE" and initial:
            return self._handler.admit(trunk, message)
        return None

    def _judge_body(
        self, trunk: TrunkSettings, method: str, content_type: str, body: bytes, message: bytes
    ) -> SDPRefusal | None:
        if method not in _OFFERS and method != "ACK":
            return None
        if not content_type and _has_body(message):
            # pjsip parses no such body and would take an INVITE for one without an offer
            return SDPRefusal(fault=SDPFault.NO_CONTENT_TYPE, status=400)
        if content_type and (refused := judge_content_type(content_type)) is not None:
            return refused  # also where pjsip could make nothing of the body and shows none
        if not body:
            return None
        role = SDPRole.OFFER if method in _OFFERS else SDPRole.ANSWER
        verdict = judge(body, role=role, allowed=trunk.srtp_suites)
        return verdict if isinstance(verdict, SDPRefusal) else None

    def _judge_response(
        self, trunk: TrunkSettings, status: int, sip_call_id: str, content_type: str, body: bytes
    ) -> Verdict:
        if status >= 300:  # pjsip takes no SDP from a final refusal, whose body may be anything
            return None
        refused = judge_content_type(content_type)
        if refused is None:
            verdict = judge(body, role=SDPRole.ANSWER, allowed=trunk.srtp_suites)
            refused = verdict if isinstance(verdict, SDPRefusal) else None
        if refused is None:
            return None
        self._handler.answer_refused(sip_call_id, refused)
        return self._answer(trunk, self._refuse_sdp(refused))

    def _refuse_sdp(self, refused: SDPRefusal) -> Refusal:
        return Refusal(
            status=refused.status,
            reason=refused.fault.value,
            headers=(warning_header(self._host, refused.warning),),
        )

    def _answer(self, trunk: TrunkSettings | None, refusal: Refusal) -> Verdict:
        self._handler.refused(
            trunk=None if trunk is None else trunk.name, reason=refusal.reason, status=refusal.status
        )
        return refusal.status, REASON_PHRASES.get(refusal.status, "Refused"), tuple(refusal.headers)

    def _may_send(self, token: int, sip_call_id: str) -> bool:
        """A dialog's messages, with its keys and numbers, go to its own trunk and to nobody else.

        But for the refusal of a stranger's request, which the native module sends before it judges another.
        """
        if self._answering == (token, sip_call_id):
            self._answering = None
            return True
        owner = self._handler.owner_of_dialog(sip_call_id)
        trunk = self._trunk_of(token)
        return trunk is not None and owner in (None, trunk.name)

    def _refused(self, token: int, hnd: int, reason: str, method: str, status: int) -> None:
        del hnd, method
        trunk = self._trunk_of(token)
        self._handler.refused(trunk=None if trunk is None else trunk.name, reason=reason, status=status)
