"""Why a call ended: result, reason, status; and how a far leg's status is told to the caller."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Result(enum.Enum):
    """How a call ended, seen from the caller."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    FAILED = "failed"


class Reason(enum.Enum):
    """Bounded, so that it can be a metric label."""

    CALLER_HUNG_UP = "caller_hung_up"
    CALLEE_HUNG_UP = "callee_hung_up"
    CALLER_CANCELLED = "caller_cancelled"
    CALLEE_REJECTED = "callee_rejected"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    UNREACHABLE = "unreachable"
    MEDIA_POLICY = "media_policy"
    MEDIA_INSECURE = "media_insecure"
    RECORDER_FAILED = "recorder_failed"
    DRAINED = "drained"
    OPERATOR = "operator"
    NO_MEDIA = "no_media"
    TRANSPORT_LOST = "transport_lost"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What a Reason header tells a peer whose call we end. Source: RFC 3326 section 2."""

    status: int
    text: str

    @property
    def header(self) -> tuple[str, str]:
        return "Reason", f'SIP;cause={self.status};text="{self.text}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """`status` is the SIP status that ended it (RFC 3261 section 21), 200 for a BYE."""

    result: Result
    reason: Reason
    status: int


# Source: RFC 3261 sections 16.7 (6: 401/407 and 3xx are the proxy's own business), 21.5.3 and 21.5.4; RFC 3261
# has 408 for no response.
# What is not listed goes to the caller unchanged.
_STATUS_TO_CALLER: dict[int, int] = {
    401: 502,
    402: 502,
    405: 502,
    407: 502,
    408: 504,
    420: 502,
    421: 502,
    422: 502,
    423: 502,
    437: 502,
    438: 502,
    481: 502,
    482: 482,
    493: 502,
    494: 502,
    503: 503,
    505: 502,
    513: 502,
}
_REASON_OF_STATUS: dict[int, Reason] = {
    408: Reason.UNREACHABLE,
    480: Reason.NO_ANSWER,
    486: Reason.BUSY,
    487: Reason.CALLER_CANCELLED,
    502: Reason.UNREACHABLE,
    503: Reason.UNREACHABLE,
    504: Reason.UNREACHABLE,
    600: Reason.BUSY,
}


def status_to_caller(status: int) -> int:
    """The status leg A gets for a final status >= 300 of leg B. A redirection is not followed: 502."""
    if status < 300 or status > 699:
        return 503
    if status < 400:
        return 502
    return _STATUS_TO_CALLER.get(status, status)


def rejection_reason(status: int) -> Reason:
    """The reason that stands for a final status >= 300 of leg B (0: nothing was heard)."""
    if status == 0:
        return Reason.UNREACHABLE
    return _REASON_OF_STATUS.get(status, Reason.CALLEE_REJECTED)
