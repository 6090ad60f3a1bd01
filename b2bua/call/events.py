"""What can happen to a call. The engine makes these out of SIP, media and recorder callbacks."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from b2bua.call.sdp_policy import Direction, SDPRefusal


class LegRole(enum.Enum):
    """A: the caller's side, where we are UAS. B: the called side, where we are UAC."""

    A = "A"
    B = "B"

    @property
    def other(self) -> LegRole:
        return LegRole.B if self is LegRole.A else LegRole.A


class PauseSource(enum.Enum):
    """What paused or resumed a recording: an operator's command, a code that a leg sent, or the limit of a pause."""

    COMMAND = "command"
    DTMF = "dtmf"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAdmitted:
    """The INVITE passed admission; leg A exists and nothing has been sent on leg B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialFailed:
    """Leg B could not even be started (no transport, no ports)."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LegProgressed:
    """A provisional response above 100 on leg B. `early_media`: it carried an SDP answer that was accepted."""

    status: int
    early_media: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LegConfirmed:
    """The leg's dialog is confirmed: on B a 2xx was received and ACKed, on A our 2xx was ACKed."""

    leg: LegRole


@dataclass(frozen=True, slots=True, kw_only=True)
class LegEnded:
    """The leg is gone.

    `status` is the final SIP status known (487 after CANCEL, 200 after BYE), 0 where none was received.

    `remote`: the peer ended it; False: we did, or the transport failed.
    """

    leg: LegRole
    status: int
    remote: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSecured:
    """Media of the leg (re)started and both directions run an allowed suite. `send`/`receive`: as seen from us."""

    leg: LegRole
    suite: str
    send: bool
    receive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInsecure:
    """Media of the leg is up without an active allowed suite in both directions. The call ends."""

    leg: LegRole
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRefused:
    """The SDP policy refused what the leg answered (or offered in a response); pjsip never saw the body."""

    leg: LegRole
    refusal: SDPRefusal


@dataclass(frozen=True, slots=True, kw_only=True)
class ReofferReceived:
    """A re-INVITE with an acceptable offer waits for our answer.

    `direction` is the offerer's own (RFC 3264 section 5.1).
    """

    leg: LegRole
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionChanged:
    """The peer changed direction by a request that could not wait (UPDATE); it has its answer already."""

    leg: LegRole
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class ReofferAnswered:
    """The re-INVITE that we sent on `leg` got its final response."""

    leg: LegRole
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLost:
    """No connection of the leg's peer is left and no audio has come for a while."""

    leg: LegRole


class AbsenceCause(enum.Enum):
    """What came instead of audio."""

    NOTHING = "nothing_came"
    NOT_AUTHENTICATED = "not_authenticated"
    OTHER_SOURCE = "other_source"
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaAbsent:
    """The leg's peer says that it sends, and nothing that authenticates has come for `silent_ms`.

    `cause` and `refused_packets`: what did come in that time. `ends`: the trunk's policy ends the call for it.
    """

    leg: LegRole
    silent_ms: int
    cause: AbsenceCause
    refused_packets: int
    ends: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioMissing:
    """`missing_ms` of the leg's audio did not come. `returned`: the rest of what a MediaAbsent told; audio is back."""

    leg: LegRole
    missing_ms: int
    returned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DTMFReceived:
    """One RFC 4733 event of the leg. `at_ms`: when it began, on the monotonic clock."""

    leg: LegRole
    digit: str = field(repr=False)
    duration_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DTMFExcess:
    """An event of the leg that was not taken: more of them came than any keypad sends."""

    leg: LegRole


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsLapsed:
    """No digit of the leg came for as long as one may take. `since_ms`: the `at_ms` of the last."""

    leg: LegRole
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequested:
    """An operator pauses the recording. `reason` is a label."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequested:
    """An operator ends the pause. `reason` is a label."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseExpired:
    """The recording has been paused for as long as it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUpRequested:
    """An operator ends the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFailed:
    """The recorder lost this call's recording. `required`: the trunk's policy ends the call for it."""

    reason: str
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswerExpired:
    """Leg B rang longer than its trunk allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainExpired:
    """The process stops and the time for live calls is over."""


Event = (
    CallAdmitted
    | DialFailed
    | LegProgressed
    | LegConfirmed
    | LegEnded
    | MediaSecured
    | MediaInsecure
    | AnswerRefused
    | ReofferReceived
    | DirectionChanged
    | ReofferAnswered
    | PeerLost
    | MediaAbsent
    | AudioMissing
    | DTMFReceived
    | DTMFExcess
    | DigitsLapsed
    | PauseRequested
    | ResumeRequested
    | PauseExpired
    | HangUpRequested
    | RecordingFailed
    | NoAnswerExpired
    | DrainExpired
)
