"""Pause and resume in the call's table, and codes among digits against a model that looks at the whole history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b2bua.call import commands as do
from b2bua.call import events as on
from b2bua.call.call import Call, CallState
from b2bua.call.events import Event, LegRole, PauseSource
from b2bua.call.pause_code import DIGIT_GAP_MS, CodeMatch, Digit, Typed, hear
from b2bua.call.state import step
from b2bua.call.termination import Reason, Result, Termination
from b2bua.settings import PauseCodes

A, B = LegRole.A, LegRole.B
CODES = PauseCodes(pause="*71", resume="*72")
WITHHELD = PauseCodes(pause="*71", resume="*72", relayed=False)
PAUSE = on.PauseRequested(reason="card_number")
RESUME = on.ResumeRequested(reason="card_taken")


def active(codes: PauseCodes | None = None, *, recorded: bool = True) -> Call:
    """An answered call; leg A's trunk listens for `codes`."""
    return Call(
        state=CallState.ACTIVE,
        alive=frozenset(LegRole),
        recorded=recorded,
        codes={} if codes is None else {A: codes},
    )


def play(call: Call, *events: Event) -> tuple[Call, list[do.Command]]:
    """Every command of every event."""
    out: list[do.Command] = []
    for event in events:
        call, commands = step(call, event)
        out += commands
    return call, out


def typed(text: str, *, leg: LegRole = A, start_ms: int = 0, every_ms: int = 300) -> list[Event]:
    return [
        on.DTMFReceived(leg=leg, digit=digit, duration_ms=160, at_ms=start_ms + number * every_ms)
        for number, digit in enumerate(text)
    ]


def sent(commands: list[do.Command]) -> str:
    return "".join(command.digit for command in commands if isinstance(command, do.SendDTMF))


def test_a_command_pauses_once_and_resumes_once() -> None:
    call, commands = play(active(), PAUSE, PAUSE)
    assert commands == [do.PauseRecording(by=PauseSource.COMMAND, reason="card_number")]
    assert call.paused
    call, commands = play(call, RESUME, RESUME)
    assert commands == [do.ResumeRecording(by=PauseSource.COMMAND, reason="card_taken")]
    assert not call.paused


def test_what_is_not_recorded_is_not_paused() -> None:
    assert play(active(recorded=False), PAUSE) == (active(recorded=False), [])


def test_a_forgotten_pause_ends_and_a_late_limit_does_nothing() -> None:
    _, commands = play(active(), PAUSE, on.PauseExpired())
    assert commands[1:] == [do.ResumeRecording(by=PauseSource.LIMIT, reason="pause_limit")]
    _, commands = play(active(), PAUSE, RESUME, on.PauseExpired())
    assert len(commands) == 2


@pytest.mark.parametrize("state", [CallState.ENDING, CallState.ENDED, CallState.NEW])
def test_a_call_that_is_not_there_is_not_paused(state: CallState) -> None:
    call = Call(state=state, recorded=True)
    assert play(call, PAUSE, RESUME, on.PauseExpired()) == (call, [])


def test_early_media_may_be_paused() -> None:
    call = Call(state=CallState.RINGING, alive=frozenset(LegRole), recorded=True)
    assert play(call, PAUSE)[0].paused


def test_a_code_pauses_and_resumes_and_its_digits_cross_as_all_do() -> None:
    call, commands = play(active(CODES), *typed("*71"))
    assert (sent(commands), commands[-1]) == (
        "*71",
        do.PauseRecording(by=PauseSource.DTMF, reason="dtmf_code"),
    )
    assert call.typed[A].digits == ()
    _, commands = play(call, *typed("*72"))
    assert (sent(commands), commands[-1]) == (
        "*72",
        do.ResumeRecording(by=PauseSource.DTMF, reason="dtmf_code"),
    )


def test_the_other_leg_has_no_codes() -> None:
    call, commands = play(active(CODES), *typed("*71", leg=B))
    assert not call.paused
    assert sent(commands) == "*71"


def test_digits_of_a_withheld_code_do_not_cross_and_others_do() -> None:
    call, commands = play(active(WITHHELD), *typed("*71"))
    assert (call.paused, sent(commands)) == (True, "")
    assert [command.since_ms for command in commands if isinstance(command, do.WaitForDigit)] == [0, 300]
    call, commands = play(active(WITHHELD), *typed("12*7*71"))
    assert (call.paused, sent(commands)) == (True, "12*7")
    assert sum(isinstance(command, do.MarkDTMF) for command in commands) == 7


def test_withheld_digits_cross_in_their_order_when_no_further_one_comes() -> None:
    call, _ = play(active(WITHHELD), *typed("*7"))
    assert play(call, on.DigitsLapsed(leg=A, since_ms=0))[1] == []
    call, commands = play(call, on.DigitsLapsed(leg=A, since_ms=300))
    assert sent(commands) == "*7"
    assert {command.leg for command in commands if isinstance(command, do.SendDTMF)} == {B}
    assert play(call, on.DigitsLapsed(leg=A, since_ms=300))[1] == []
    assert not play(call, *typed("1", start_ms=600))[0].paused


def test_a_code_typed_too_slowly_is_none() -> None:
    slow = typed("*71", every_ms=DIGIT_GAP_MS + 1)
    assert not play(active(CODES), *slow)[0].paused
    assert play(active(CODES), *typed("*71", every_ms=DIGIT_GAP_MS))[0].paused
    assert sent(play(active(WITHHELD), *slow)[1]) == "*71"


def test_an_operator_ends_a_call() -> None:
    call, commands = play(active(), on.HangUpRequested())
    assert call.termination == Termination(result=Result.COMPLETED, reason=Reason.OPERATOR, status=480)
    assert [type(command) for command in commands] == [do.StopNoAnswerTimer, do.HangUp, do.HangUp]
    assert play(call, on.HangUpRequested()) == (call, [])
    assert play(Call(), on.HangUpRequested())[0].state is CallState.ENDING


@pytest.mark.parametrize("leg", LegRole)
def test_a_reoffer_while_the_call_ends_gets_481(leg: LegRole) -> None:
    from b2bua.call.sdp_policy import Direction  # noqa: PLC0415 - for this test alone

    reoffer = on.ReofferReceived(leg=leg, direction=Direction.SENDONLY)
    ending, _ = play(active(), on.DrainExpired())
    assert play(ending, reoffer)[1] == [do.AnswerReoffer(leg=leg, status=481)]
    gone, _ = play(ending, on.LegEnded(leg=leg, status=200, remote=True))
    assert play(gone, reoffer)[1] == []


def test_no_digit_shows_in_a_text() -> None:
    call, commands = play(active(WITHHELD), *typed("*4", start_ms=7))
    for thing in (call, commands, typed("4"), hear(CODES, Typed(), Digit(value="4", duration_ms=1), 0)):
        assert "4" not in repr(thing).replace("at_ms", "")


@given(
    st.lists(
        st.tuples(st.sampled_from("*7123"), st.sampled_from([1, DIGIT_GAP_MS, DIGIT_GAP_MS + 1])), max_size=40
    )
)
def test_codes_are_found_where_the_history_ends_with_one(digits: list[tuple[str, int]]) -> None:
    """A match uses its digits up; a late digit forgets what came before it. Every digit passes, waits or matched."""
    now, recent, state, matched = 0, "", Typed(), ""
    passed = ""
    for value, after_ms in digits:
        now += after_ms
        recent = ("" if after_ms > DIGIT_GAP_MS else recent) + value
        heard = hear(CODES, state, Digit(value=value, duration_ms=160), now)
        wanted = (
            CodeMatch.PAUSE
            if recent.endswith("*71")
            else CodeMatch.RESUME
            if recent.endswith("*72")
            else None
        )
        assert heard.match is wanted
        passed += "".join(digit.value for digit in heard.passed)
        if wanted is not None:
            matched += recent[-3:]
            recent = ""
        state = heard.typed
    everything = sorted(value for value, _ in digits)
    assert sorted(passed + matched + "".join(digit.value for digit in state.digits)) == everything
