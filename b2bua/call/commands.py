"""What a call asks of the engine. The engine carries them out in order, on the SIP thread."""

from __future__ import annotations

from dataclasses import dataclass, field

from b2bua.call.events import LegRole, PauseSource
from b2bua.call.sdp_policy import Direction
from b2bua.call.termination import Cause, Termination


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """Start leg B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """Send a provisional response on leg A; `early_media`: with our SDP answer, so that audio flows."""

    status: int
    early_media: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCaller:
    """Send 200 on leg A."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUp:
    """End the leg whatever its state: CANCEL, BYE, or a final response of `status`.

    `warning` goes in a Warning 399 header, `cause` in a Reason header.
    """

    leg: LegRole
    status: int
    warning: str | None = None
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """Connect the two legs' media both ways, as far as both have media, and feed the tap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkAnswered:
    """Put EVENT `answered` on the recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkHold:
    """Put EVENT `hold` or `unhold` on the recording, for the channel of the leg that did it."""

    leg: LegRole
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkMissing:
    """Put EVENT `gap` on the recording, for the channel of the leg whose audio did not come."""

    leg: LegRole
    missing_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkDTMF:
    """Put EVENT `dtmf` on the recording: that it happened, never which digit."""

    leg: LegRole


@dataclass(frozen=True, slots=True, kw_only=True)
class SendReoffer:
    """re-INVITE the leg with this direction (ours)."""

    leg: LegRole
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerReoffer:
    """Answer the waiting re-INVITE of the leg."""

    leg: LegRole
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendDTMF:
    """Send the event on the leg (RFC 4733)."""

    leg: LegRole
    digit: str = field(repr=False)
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitForDigit:
    """Post DigitsLapsed when a code's next digit has not come in time; a later WaitForDigit of the leg replaces it."""

    leg: LegRole
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRecording:
    """Record silence from now on, and post PauseExpired when that has lasted `pause_max_s`."""

    by: PauseSource
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRecording:
    """Record again."""

    by: PauseSource
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartNoAnswerTimer:
    """Post NoAnswerExpired when leg B's trunk's no_answer_s have passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopNoAnswerTimer:
    """Leg B answered or ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Both legs are gone: close the recording, count and audit the call, forget it."""

    termination: Termination


Command = (
    Dial
    | Ring
    | AnswerCaller
    | HangUp
    | Bridge
    | MarkAnswered
    | MarkHold
    | MarkMissing
    | MarkDTMF
    | SendReoffer
    | AnswerReoffer
    | SendDTMF
    | WaitForDigit
    | PauseRecording
    | ResumeRecording
    | StartNoAnswerTimer
    | StopNoAnswerTimer
    | Finish
)
