"""One call as a value: its state, and the actions that the table in `state.py` names.

An action takes the call and the event and gives the next call and the commands; it never fails and never looks
at a clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from b2bua.call import commands as do
from b2bua.call import events as on
from b2bua.call.events import LegRole
from b2bua.call.pause_code import Typed
from b2bua.call.sdp_policy import Direction
from b2bua.call.termination import Cause, Reason, Result, Termination, rejection_reason, status_to_caller
from b2bua.settings import PauseCodes

_BOTH = frozenset({LegRole.A, LegRole.B})


class CallState(enum.Enum):
    """NEW: admitted, nothing sent.

    DIALING: INVITE out on B. RINGING: A got 18x. ANSWERING: B is up, A has our 200 and owes the ACK.

    ACTIVE: both dialogs confirmed. ENDING: we asked the legs to go. ENDED: both are gone.
    """

    NEW = "new"
    DIALING = "dialing"
    RINGING = "ringing"
    ANSWERING = "answering"
    ACTIVE = "active"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reoffer:
    """A re-INVITE on its way through us. `origin` made it; `waits`: its answer depends on the other leg's."""

    origin: LegRole
    direction: Direction
    waits: bool


def _all_sendrecv() -> Mapping[LegRole, Direction]:
    return {LegRole.A: Direction.SENDRECV, LegRole.B: Direction.SENDRECV}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`alive`: legs whose dialog exists.

    `secured`: legs with checked media. `directions`: what each peer last offered itself. `recorded`: there is a
    recording to pause. `codes`: by leg, where its trunk listens for any; `typed`: what may become one.
    """

    state: CallState = CallState.NEW
    alive: frozenset[LegRole] = frozenset({LegRole.A})
    secured: frozenset[LegRole] = frozenset()
    directions: Mapping[LegRole, Direction] = field(default_factory=_all_sendrecv)
    early_media: bool = False
    reoffer: Reoffer | None = None
    deferred: on.ReofferReceived | None = None
    termination: Termination | None = None
    recorded: bool = False
    paused: bool = False
    codes: Mapping[LegRole, PauseCodes] = field(default_factory=dict)
    typed: Mapping[LegRole, Typed] = field(default_factory=dict)


Step = tuple[Call, tuple[do.Command, ...]]
Action = Callable[[Call, Any], Step]


def ignore(call: Call, event: on.Event) -> Step:
    """The event is late or means nothing in this state."""
    del event
    return call, ()


def dial(call: Call, event: on.CallAdmitted) -> Step:
    """Leg B starts; how long it may ring is its trunk's affair."""
    del event
    return replace(call, state=CallState.DIALING, alive=_BOTH), (do.Dial(), do.StartNoAnswerTimer())


def dial_failed(call: Call, event: on.DialFailed) -> Step:
    """Nothing was sent on leg B: 503, so that the caller may try elsewhere."""
    del event
    gone = replace(call, alive=call.alive - {LegRole.B})
    return _end(gone, Termination(result=Result.FAILED, reason=Reason.UNREACHABLE, status=503))


def progress(call: Call, event: on.LegProgressed) -> Step:
    """18x crosses as 180, or once as 183 when there is early media to hear."""
    if call.early_media:
        return call, ()
    ring = do.Ring(status=183 if event.early_media else 180, early_media=event.early_media)
    return replace(call, state=CallState.RINGING, early_media=event.early_media), (ring,)


def confirmed_before_answer(call: Call, event: on.LegConfirmed) -> Step:
    """B answered: answer A. A alone cannot be confirmed yet."""
    if event.leg is LegRole.A:
        return call, ()
    return replace(call, state=CallState.ANSWERING), (
        do.StopNoAnswerTimer(),
        do.AnswerCaller(),
        do.MarkAnswered(),
    )


def confirmed_after_answer(call: Call, event: on.LegConfirmed) -> Step:
    """The ACK of A: the call is up, and what B asked in the meantime is done."""
    if event.leg is LegRole.B:
        return call, ()
    active = replace(call, state=CallState.ACTIVE, deferred=None)
    return (active, ()) if call.deferred is None else reoffer(active, call.deferred)


def secure(call: Call, event: on.MediaSecured) -> Step:
    """Bridge again on every media start: pjsua gives a restarted stream another slot."""
    secured = call.secured | {event.leg}
    bridged: tuple[do.Command, ...] = (do.Bridge(),) if secured == _BOTH else ()
    return replace(call, secured=secured), bridged


def end_insecure(call: Call, event: on.MediaInsecure) -> Step:
    """No media without SRTP, not even for a moment."""
    del event
    return _end(call, Termination(result=Result.FAILED, reason=Reason.MEDIA_INSECURE, status=488))


def end_refused_answer(call: Call, event: on.AnswerRefused) -> Step:
    """The caller gets the reason in a Warning."""
    refused = Termination(result=Result.FAILED, reason=Reason.MEDIA_POLICY, status=event.refusal.status)
    return _end(call, refused, warning=event.refusal.warning)


def ended_before_answer(call: Call, event: on.LegEnded) -> Step:
    """A gone: CANCEL (487) or its connection lost. B gone: a final refusal, or nothing heard at all."""
    left = replace(call, alive=call.alive - {event.leg})
    if event.leg is LegRole.A:
        return _end(left, Termination(result=Result.CANCELLED, reason=Reason.CALLER_CANCELLED, status=487))
    reason = rejection_reason(event.status)
    result = Result.FAILED if reason is Reason.UNREACHABLE else Result.REJECTED
    return _end(left, Termination(result=result, reason=reason, status=status_to_caller(event.status)))


def ended_after_answer(call: Call, event: on.LegEnded) -> Step:
    """A BYE completes the call; anything else is a loss of the peer."""
    left = replace(call, alive=call.alive - {event.leg})
    if not event.remote:
        return _end(
            left, Termination(result=Result.FAILED, reason=Reason.TRANSPORT_LOST, status=event.status)
        )
    reason = Reason.CALLER_HUNG_UP if event.leg is LegRole.A else Reason.CALLEE_HUNG_UP
    return _end(left, Termination(result=Result.COMPLETED, reason=reason, status=200))


def ended_while_ending(call: Call, event: on.LegEnded) -> Step:
    """One leg less; the last one finishes the call."""
    left = replace(call, alive=call.alive - {event.leg})
    if left.alive:
        return left, ()
    return _finish(left)


def reoffer(call: Call, event: on.ReofferReceived) -> Step:
    """Relay a change of direction and answer when the other leg has.

    A mere refresh is answered at once; glare gets 491.
    """
    if call.reoffer is not None:
        return call, (do.AnswerReoffer(leg=event.leg, status=491),)
    if event.direction is call.directions[event.leg]:
        return call, (do.AnswerReoffer(leg=event.leg, status=200),)
    pending = Reoffer(origin=event.leg, direction=event.direction, waits=True)
    return replace(call, reoffer=pending), (do.SendReoffer(leg=event.leg.other, direction=event.direction),)


def reoffer_too_early(call: Call, event: on.ReofferReceived) -> Step:
    """Before the answer the first exchange is still open (RFC 3261 section 14.2)."""
    return call, (do.AnswerReoffer(leg=event.leg, status=491),)


def defer_reoffer(call: Call, event: on.ReofferReceived) -> Step:
    """B is up and may ask; A owes its ACK, which is on its way, and can't be asked yet."""
    if event.leg is LegRole.A or call.deferred is not None:
        return reoffer_too_early(call, event)
    return replace(call, deferred=event), ()


def change_direction(call: Call, event: on.DirectionChanged) -> Step:
    """What could not wait is relayed after the fact."""
    if call.reoffer is not None or event.direction is call.directions[event.leg]:
        return call, ()
    pending = Reoffer(origin=event.leg, direction=event.direction, waits=False)
    return replace(call, reoffer=pending), (do.SendReoffer(leg=event.leg.other, direction=event.direction),)


def reoffer_answered(call: Call, event: on.ReofferAnswered) -> Step:
    """The far leg's outcome is the near leg's: 2xx -> 200, 491 -> 491, any other refusal -> 488."""
    pending = call.reoffer
    if pending is None or pending.origin is event.leg:
        return call, ()
    accepted = 200 <= event.status < 300
    answer = 200 if accepted else 491 if event.status == 491 else 488
    out: list[do.Command] = [do.AnswerReoffer(leg=pending.origin, status=answer)] if pending.waits else []
    done = replace(call, reoffer=None)
    if accepted or not pending.waits:
        was_held = call.directions[pending.origin].is_hold
        done = replace(done, directions={**call.directions, pending.origin: pending.direction})
        if was_held is not pending.direction.is_hold:
            out.append(do.MarkHold(leg=pending.origin, held=pending.direction.is_hold))
    return done, tuple(out)


def peer_lost(call: Call, event: on.PeerLost) -> Step:
    """Nobody is there to say BYE: both legs are told to go."""
    del event
    return _end(call, Termination(result=Result.FAILED, reason=Reason.TRANSPORT_LOST, status=408))


def media_absent(call: Call, event: on.MediaAbsent) -> Step:
    """Told in the recording; where the trunk says so the call ends, and both peers learn why."""
    marked = do.MarkMissing(leg=event.leg, missing_ms=event.silent_ms)
    if not event.ends:
        return call, (marked,)
    status = 408
    ended, commands = _end(
        call,
        Termination(result=Result.FAILED, reason=Reason.NO_MEDIA, status=status),
        cause=Cause(status=status, text="no media"),
    )
    return ended, (marked, *commands)


def audio_missing(call: Call, event: on.AudioMissing) -> Step:
    """Told in the recording, and nothing else."""
    return call, (do.MarkMissing(leg=event.leg, missing_ms=event.missing_ms),)


def recording_failed(call: Call, event: on.RecordingFailed) -> Step:
    """A required recording that is lost ends its call."""
    if not event.required:
        return call, ()
    return _end(call, Termination(result=Result.FAILED, reason=Reason.RECORDER_FAILED, status=503))


def hang_up(call: Call, event: on.HangUpRequested) -> Step:
    """480 where A has no final response yet (RFC 3261 section 21.4.18), else a BYE to both."""
    del event
    return _end(call, Termination(result=Result.COMPLETED, reason=Reason.OPERATOR, status=480))


def reoffer_while_ending(call: Call, event: on.ReofferReceived) -> Step:
    """481 where hanging up has not answered it yet: a request must not stay unanswered.

    Source: RFC 3261 sections 15.1.1 (the session is over once the BYE is passed on), 12.2.2 and 17.2.1.
    """
    answered = event.leg in call.alive
    return call, (do.AnswerReoffer(leg=event.leg, status=481),) if answered else ()


def no_answer(call: Call, event: on.NoAnswerExpired) -> Step:
    """480 to the caller, CANCEL to the called."""
    del event
    return _end(call, Termination(result=Result.REJECTED, reason=Reason.NO_ANSWER, status=480))


def drain(call: Call, event: on.DrainExpired) -> Step:
    """Time is up for live calls."""
    del event
    return _end(call, Termination(result=Result.COMPLETED, reason=Reason.DRAINED, status=503))


def _end(
    call: Call, termination: Termination, *, warning: str | None = None, cause: Cause | None = None
) -> Step:
    unanswered = _unanswered(call)
    ending = replace(call, state=CallState.ENDING, termination=termination, reoffer=None, deferred=None)
    if not ending.alive:
        ended, finish = _finish(ending)
        return ended, (do.StopNoAnswerTimer(), *finish)
    hang_ups = tuple(
        do.HangUp(leg=leg, status=_hang_up_status(leg, termination.status), warning=warning, cause=cause)
        for leg in sorted(ending.alive, key=lambda leg: leg.value, reverse=True)
    )
    return ending, (do.StopNoAnswerTimer(), *unanswered, *hang_ups)


def _unanswered(call: Call) -> tuple[do.Command, ...]:
    """487 for re-INVITEs that still wait: a BYE of ours answers none (RFC 3261 section 9.2 has the status)."""
    waiting = [call.reoffer.origin] if call.reoffer is not None and call.reoffer.waits else []
    if call.deferred is not None:
        waiting.append(call.deferred.leg)
    return tuple(do.AnswerReoffer(leg=leg, status=487) for leg in waiting if leg in call.alive)


def _hang_up_status(leg: LegRole, status: int) -> int:
    """Leg A's final response if it has none yet.

    Leg B is ended by CANCEL or BYE, where pjsip wants a code all the same.
    """
    if leg is LegRole.B:
        return 487
    return status if status >= 300 else 500


def _finish(call: Call) -> Step:
    termination = call.termination or Termination(result=Result.FAILED, reason=Reason.INTERNAL, status=500)
    return replace(call, state=CallState.ENDED, termination=termination), (
        do.Finish(termination=termination),
    )
