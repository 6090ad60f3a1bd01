"""The call table: every cell exists, every call ends in Finish, and the stories read top to bottom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b2bua.call import commands as do
from b2bua.call import events as on
from b2bua.call.call import Call, CallState
from b2bua.call.events import Event, LegRole
from b2bua.call.sdp_policy import Direction, SDPFault, SDPRefusal
from b2bua.call.state import TABLE, markdown, step
from b2bua.call.termination import Cause, Reason, Result, Termination, rejection_reason, status_to_caller

A, B = LegRole.A, LegRole.B
REFUSAL = SDPRefusal(fault=SDPFault.PLAIN_RTP)


def secured(leg: LegRole) -> on.MediaSecured:
    return on.MediaSecured(leg=leg, suite="AEAD_AES_256_GCM", send=True, receive=True)


def absent(leg: LegRole, *, ends: bool) -> on.MediaAbsent:
    cause = on.AbsenceCause.NOTHING
    return on.MediaAbsent(leg=leg, silent_ms=9000, cause=cause, refused_packets=0, ends=ends)


def play(*events: Event, call: Call | None = None) -> tuple[Call, list[do.Command]]:
    """Run the events; returns the last call and the commands of the last event."""
    now, commands = call or Call(), ()
    for event in events:
        now, commands = step(now, event)
    return now, list(commands)


ADMITTED = on.CallAdmitted()
B_UP, A_UP = on.LegConfirmed(leg=B), on.LegConfirmed(leg=A)
ACTIVE = (ADMITTED, secured(B), B_UP, secured(A), A_UP)


def ended(leg: LegRole, status: int = 200, *, remote: bool = True) -> on.LegEnded:
    return on.LegEnded(leg=leg, status=status, remote=remote)


def test_every_cell_is_filled() -> None:
    kinds = set(Event.__args__)
    assert set(TABLE) == set(CallState)
    for row in TABLE.values():
        assert set(row) == kinds
    assert markdown().count("\n") == len(kinds) + 2


def test_a_plain_call() -> None:
    call, commands = play(ADMITTED)
    assert commands == [do.Dial(), do.StartNoAnswerTimer()]
    call, commands = play(on.LegProgressed(status=180, early_media=False), call=call)
    assert commands == [do.Ring(status=180, early_media=False)]
    call, commands = play(secured(B), call=call)
    assert commands == []
    call, commands = play(B_UP, call=call)
    assert commands == [do.StopNoAnswerTimer(), do.AnswerCaller(), do.MarkAnswered()]
    call, commands = play(secured(A), call=call)
    assert commands == [do.Bridge()]
    call, commands = play(A_UP, call=call)
    assert (call.state, commands) == (CallState.ACTIVE, [])
    call, commands = play(ended(A), call=call)
    assert commands == [do.StopNoAnswerTimer(), do.HangUp(leg=B, status=487)]
    call, commands = play(ended(B), call=call)
    assert commands == [
        do.Finish(termination=Termination(result=Result.COMPLETED, reason=Reason.CALLER_HUNG_UP, status=200))
    ]
    assert call.state is CallState.ENDED


def test_early_media_bridges_before_the_answer() -> None:
    call, commands = play(ADMITTED, secured(B), on.LegProgressed(status=183, early_media=True))
    assert commands == [do.Ring(status=183, early_media=True)]
    assert play(secured(A), call=call)[1] == [do.Bridge()]
    assert play(on.LegProgressed(status=183, early_media=True), call=call)[1] == []
    assert play(on.LegProgressed(status=180, early_media=False), call=call)[1] == []


def test_ringing_may_become_early_media() -> None:
    call, commands = play(ADMITTED, on.LegProgressed(status=180, early_media=False))
    assert commands == [do.Ring(status=180, early_media=False)]
    early = on.LegProgressed(status=183, early_media=True)
    assert play(early, call=call)[1] == [do.Ring(status=183, early_media=True)]


@pytest.mark.parametrize(
    ("status", "caller", "reason"),
    [
        (486, 486, Reason.BUSY),
        (600, 600, Reason.BUSY),
        (480, 480, Reason.NO_ANSWER),
        (603, 603, Reason.CALLEE_REJECTED),
        (302, 502, Reason.CALLEE_REJECTED),
        (401, 502, Reason.CALLEE_REJECTED),
        (407, 502, Reason.CALLEE_REJECTED),
        (408, 504, Reason.UNREACHABLE),
        (503, 503, Reason.UNREACHABLE),
        (0, 503, Reason.UNREACHABLE),
        (404, 404, Reason.CALLEE_REJECTED),
    ],
)
def test_far_refusals_are_mapped(status: int, caller: int, reason: Reason) -> None:
    call, commands = play(ADMITTED, ended(B, status))
    assert commands == [do.StopNoAnswerTimer(), do.HangUp(leg=A, status=caller)]
    _, commands = play(ended(A, caller), call=call)
    assert isinstance(commands[0], do.Finish)
    assert commands[0].termination.reason is reason
    assert (status_to_caller(status), rejection_reason(status)) == (caller, reason)


def test_cancel_ends_leg_b_and_waits_for_it() -> None:
    call, commands = play(ADMITTED, on.LegProgressed(status=180, early_media=False), ended(A, 487))
    assert commands == [do.StopNoAnswerTimer(), do.HangUp(leg=B, status=487)]
    _, commands = play(ended(B, 487), call=call)
    assert isinstance(commands[0], do.Finish)
    assert commands[0].termination.result is Result.CANCELLED


def test_a_200_that_crosses_the_cancel_changes_nothing() -> None:
    call, _ = play(ADMITTED, ended(A, 487), B_UP, secured(B))
    assert call.state is CallState.ENDING
    assert isinstance(play(ended(B), call=call)[1][0], do.Finish)


def test_dial_failure_answers_503() -> None:
    call, commands = play(ADMITTED, on.DialFailed(detail="x"))
    assert commands == [do.StopNoAnswerTimer(), do.HangUp(leg=A, status=503)]
    assert isinstance(play(ended(A, 503), call=call)[1][0], do.Finish)


def test_no_answer_gives_480() -> None:
    _, commands = play(ADMITTED, on.NoAnswerExpired())
    assert commands == [do.StopNoAnswerTimer(), do.HangUp(leg=B, status=487), do.HangUp(leg=A, status=480)]


@pytest.mark.parametrize(
    "before", [(ADMITTED,), (ADMITTED, on.LegProgressed(status=183, early_media=False)), ACTIVE]
)
def test_a_refused_answer_ends_both_legs_with_its_warning(before: tuple[Event, ...]) -> None:
    _, commands = play(*before, on.AnswerRefused(leg=B, refusal=REFUSAL))
    assert do.HangUp(leg=A, status=488, warning=REFUSAL.warning) in commands
    assert do.HangUp(leg=B, status=487, warning=REFUSAL.warning) in commands


@pytest.mark.parametrize("before", [(ADMITTED,), ACTIVE])
@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (on.MediaInsecure(leg=A, detail="x"), Reason.MEDIA_INSECURE),
        (on.RecordingFailed(reason="x", required=True), Reason.RECORDER_FAILED),
        (on.DrainExpired(), Reason.DRAINED),
    ],
)
def test_what_ends_a_call(before: tuple[Event, ...], event: Event, reason: Reason) -> None:
    call, commands = play(*before, event)
    assert call.termination is not None
    assert call.termination.reason is reason
    assert [type(command) for command in commands] == [do.StopNoAnswerTimer, do.HangUp, do.HangUp]


def test_a_peer_that_is_lost_ends_an_answered_call_only() -> None:
    call, commands = play(*ACTIVE, on.PeerLost(leg=A))
    assert call.termination == Termination(result=Result.FAILED, reason=Reason.TRANSPORT_LOST, status=408)
    assert [type(command) for command in commands] == [do.StopNoAnswerTimer, do.HangUp, do.HangUp]
    assert play(ADMITTED, on.PeerLost(leg=B))[1] == []


@pytest.mark.parametrize("leg", LegRole)
def test_a_leg_without_media_is_told_and_ends_the_call_only_where_the_trunk_says_so(leg: LegRole) -> None:
    marked = do.MarkMissing(leg=leg, missing_ms=9000)
    call, commands = play(*ACTIVE, absent(leg, ends=False))
    assert (call.state, commands) == (CallState.ACTIVE, [marked])
    call, commands = play(*ACTIVE, absent(leg, ends=True))
    assert call.termination == Termination(result=Result.FAILED, reason=Reason.NO_MEDIA, status=408)
    assert commands[0] == marked
    hang_ups = [command for command in commands if isinstance(command, do.HangUp)]
    assert [command.cause for command in hang_ups] == [Cause(status=408, text="no media")] * 2
    assert Cause(status=408, text="no media").header == ("Reason", 'SIP;cause=408;text="no media"')
    assert play(ADMITTED, absent(leg, ends=True))[1] == []


def test_missing_audio_is_told_for_its_leg() -> None:
    for returned in (False, True):
        event = on.AudioMissing(leg=B, missing_ms=300, returned=returned)
        assert play(*ACTIVE, event)[1] == [do.MarkMissing(leg=B, missing_ms=300)]


def test_a_best_effort_recording_may_fail() -> None:
    call, commands = play(*ACTIVE, on.RecordingFailed(reason="x", required=False))
    assert (call.state, commands) == (CallState.ACTIVE, [])


def test_hold_is_relayed_and_its_outcome_relayed_back() -> None:
    hold = on.ReofferReceived(leg=A, direction=Direction.SENDONLY)
    call, commands = play(*ACTIVE, hold)
    assert commands == [do.SendReoffer(leg=B, direction=Direction.SENDONLY)]
    held, commands = play(on.ReofferAnswered(leg=B, status=200), call=call)
    assert commands == [do.AnswerReoffer(leg=A, status=200), do.MarkHold(leg=A, held=True)]
    call, commands = play(on.ReofferReceived(leg=A, direction=Direction.SENDRECV), call=held)
    assert commands == [do.SendReoffer(leg=B, direction=Direction.SENDRECV)]
    _, commands = play(on.ReofferAnswered(leg=B, status=200), call=call)
    assert commands == [do.AnswerReoffer(leg=A, status=200), do.MarkHold(leg=A, held=False)]


@pytest.mark.parametrize(("far", "near"), [(488, 488), (491, 491), (500, 488), (408, 488)])
def test_a_refused_hold_is_refused_and_leaves_the_direction(far: int, near: int) -> None:
    hold = on.ReofferReceived(leg=B, direction=Direction.INACTIVE)
    call, commands = play(*ACTIVE, hold, on.ReofferAnswered(leg=A, status=far))
    assert commands == [do.AnswerReoffer(leg=B, status=near)]
    assert call.directions[B] is Direction.SENDRECV
    assert play(hold, call=call)[1] == [do.SendReoffer(leg=A, direction=Direction.INACTIVE)]


def test_a_refresh_is_answered_at_once_and_glare_gets_491() -> None:
    refresh = on.ReofferReceived(leg=A, direction=Direction.SENDRECV)
    assert play(*ACTIVE, refresh)[1] == [do.AnswerReoffer(leg=A, status=200)]
    hold = on.ReofferReceived(leg=A, direction=Direction.SENDONLY)
    crossing = on.ReofferReceived(leg=B, direction=Direction.SENDONLY)
    assert play(*ACTIVE, hold, crossing)[1] == [do.AnswerReoffer(leg=B, status=491)]


def test_a_reoffer_of_b_waits_for_the_ack_of_a() -> None:
    early = on.ReofferReceived(leg=B, direction=Direction.SENDONLY)
    call, commands = play(ADMITTED, B_UP, early)
    assert commands == []
    assert play(early, call=call)[1] == [do.AnswerReoffer(leg=B, status=491)]
    call, commands = play(A_UP, call=call)
    assert commands == [do.SendReoffer(leg=A, direction=Direction.SENDONLY)]
    assert play(on.ReofferAnswered(leg=A, status=200), call=call)[1][0] == do.AnswerReoffer(leg=B, status=200)


def test_a_reoffer_of_a_before_its_ack_and_any_before_the_answer_get_491() -> None:
    early = on.ReofferReceived(leg=A, direction=Direction.SENDONLY)
    assert play(ADMITTED, B_UP, early)[1] == [do.AnswerReoffer(leg=A, status=491)]
    assert play(ADMITTED, early)[1] == [do.AnswerReoffer(leg=A, status=491)]


def test_a_direction_changed_by_update_is_relayed_without_an_answer() -> None:
    change = on.DirectionChanged(leg=A, direction=Direction.SENDONLY)
    call, commands = play(*ACTIVE, change)
    assert commands == [do.SendReoffer(leg=B, direction=Direction.SENDONLY)]
    _, commands = play(on.ReofferAnswered(leg=B, status=200), call=call)
    assert commands == [do.MarkHold(leg=A, held=True)]
    same = on.DirectionChanged(leg=A, direction=Direction.SENDRECV)
    assert play(*ACTIVE, same)[1] == []


def test_dtmf_crosses_and_is_marked_without_its_digit() -> None:
    _, commands = play(*ACTIVE, on.DTMFReceived(leg=B, digit="5", duration_ms=160, at_ms=0))
    assert commands == [do.SendDTMF(leg=A, digit="5", duration_ms=160), do.MarkDTMF(leg=B)]


def test_callee_hangs_up_and_transport_is_lost() -> None:
    call, _ = play(*ACTIVE, ended(B))
    assert call.termination == Termination(result=Result.COMPLETED, reason=Reason.CALLEE_HUNG_UP, status=200)
    call, _ = play(*ACTIVE, ended(B, 408, remote=False))
    assert call.termination == Termination(result=Result.FAILED, reason=Reason.TRANSPORT_LOST, status=408)


@pytest.mark.parametrize("origin", LegRole)
def test_a_reoffer_that_waits_is_answered_before_the_call_ends(origin: LegRole) -> None:
    """A BYE of ours answers no INVITE of theirs; without a final response its transaction never ends."""
    hold = on.ReofferReceived(leg=origin, direction=Direction.SENDONLY)
    _, commands = play(*ACTIVE, hold, ended(origin.other))
    assert commands[1] == do.AnswerReoffer(leg=origin, status=487)
    assert isinstance(commands[2], do.HangUp)
    _, commands = play(*ACTIVE, hold, ended(origin))
    assert not [command for command in commands if isinstance(command, do.AnswerReoffer)]
    _, commands = play(*ACTIVE, hold, on.ReofferAnswered(leg=origin.other, status=200), ended(origin.other))
    assert not [command for command in commands if isinstance(command, do.AnswerReoffer)]


def test_a_deferred_reoffer_is_answered_before_the_call_ends() -> None:
    early = on.ReofferReceived(leg=B, direction=Direction.SENDONLY)
    call, commands = play(ADMITTED, B_UP, early, ended(A, 408, remote=False))
    assert commands[1] == do.AnswerReoffer(leg=B, status=487)
    assert call.deferred is None


def _events() -> st.SearchStrategy[Event]:
    legs, directions = st.sampled_from(LegRole), st.sampled_from(Direction)
    return st.one_of(
        st.just(on.DialFailed(detail="x")),
        st.builds(on.LegProgressed, status=st.just(183), early_media=st.booleans()),
        st.builds(on.LegConfirmed, leg=legs),
        st.builds(secured, legs),
        st.builds(on.MediaInsecure, leg=legs, detail=st.just("x")),
        st.builds(on.AnswerRefused, leg=legs, refusal=st.just(REFUSAL)),
        st.builds(on.ReofferReceived, leg=legs, direction=directions),
        st.builds(on.DirectionChanged, leg=legs, direction=directions),
        st.builds(on.ReofferAnswered, leg=legs, status=st.sampled_from([200, 488])),
        st.builds(on.PeerLost, leg=legs),
        st.builds(absent, leg=legs, ends=st.booleans()),
        st.builds(on.AudioMissing, leg=legs, missing_ms=st.just(300), returned=st.booleans()),
        st.builds(
            on.DTMFReceived,
            leg=legs,
            digit=st.just("1"),
            duration_ms=st.just(160),
            at_ms=st.integers(0, 9999),
        ),
        st.builds(on.DTMFExcess, leg=legs),
        st.builds(on.DigitsLapsed, leg=legs, since_ms=st.integers(0, 9999)),
        st.builds(on.PauseRequested, reason=st.just("x")),
        st.builds(on.ResumeRequested, reason=st.just("x")),
        st.just(on.PauseExpired()),
        st.just(on.HangUpRequested()),
        st.builds(on.RecordingFailed, reason=st.just("x"), required=st.booleans()),
        st.just(on.NoAnswerExpired()),
        st.just(on.DrainExpired()),
    )


@given(st.lists(_events(), max_size=30))
def test_whatever_happens_the_call_ends_once_both_legs_are_gone(events: list[Event]) -> None:
    """Every live leg is told to go before ENDED, and Finish comes exactly once."""
    call, told, finishes = Call(), set(), 0
    for event in [ADMITTED, *events, ended(A), ended(B), ended(A), ended(B)]:
        if isinstance(event, on.LegEnded) and event.leg not in call.alive:
            continue
        was_alive = call.alive
        call, commands = step(call, event)
        told |= {command.leg for command in commands if isinstance(command, do.HangUp)}
        finishes += sum(isinstance(command, do.Finish) for command in commands)
        assert all(command.leg in was_alive for command in commands if isinstance(command, do.HangUp))
    assert call.state is CallState.ENDED
    assert finishes == 1
