"""Actions of the call's table that pause and resume its recording, by command or by a code among the digits."""

from __future__ import annotations

from dataclasses import replace

from b2bua.call import commands as do
from b2bua.call import events as on
from b2bua.call.call import Call, Step
from b2bua.call.events import LegRole, PauseSource
from b2bua.call.pause_code import CodeMatch, Digit, Typed, hear

CODE_REASON = "dtmf_code"
LIMIT_REASON = "pause_limit"


def pause(call: Call, event: on.PauseRequested) -> Step:
    """A recorded call that is not paused yet."""
    return _pause(call, PauseSource.COMMAND, event.reason)


def resume(call: Call, event: on.ResumeRequested) -> Step:
    """A paused one."""
    return _resume(call, PauseSource.COMMAND, event.reason)


def pause_expired(call: Call, event: on.PauseExpired) -> Step:
    """A pause that was forgotten must not cost the rest of the recording."""
    del event
    return _resume(call, PauseSource.LIMIT, LIMIT_REASON)


def take_digit(call: Call, event: on.DTMFReceived) -> Step:
    """The digit crosses, unless it belongs to a code that is withheld; the recording learns only that there was one."""
    marked = do.MarkDTMF(leg=event.leg)
    digit = Digit(value=event.digit, duration_ms=event.duration_ms)
    codes = call.codes.get(event.leg)
    if codes is None:
        return call, (_sent(event.leg, digit), marked)
    heard = hear(codes, call.typed.get(event.leg, Typed()), digit, event.at_ms)
    typed = replace(call, typed={**call.typed, event.leg: heard.typed})
    crossing = (digit,) if codes.relayed else heard.passed
    out: list[do.Command] = [*(_sent(event.leg, each) for each in crossing), marked]
    if not codes.relayed and heard.typed.digits:
        out.append(do.WaitForDigit(leg=event.leg, since_ms=heard.typed.last_at_ms))
    if heard.match is None:
        return typed, tuple(out)
    act = _pause if heard.match is CodeMatch.PAUSE else _resume
    done, commands = act(typed, PauseSource.DTMF, CODE_REASON)
    return done, (*out, *commands)


def release_digits(call: Call, event: on.DigitsLapsed) -> Step:
    """No further digit came: what was withheld was no code and crosses now."""
    typed = call.typed.get(event.leg, Typed())
    if typed.last_at_ms != event.since_ms:
        return call, ()
    cleared = replace(call, typed={**call.typed, event.leg: Typed()})
    return cleared, tuple(_sent(event.leg, digit) for digit in typed.digits)


def _sent(leg: LegRole, digit: Digit) -> do.SendDTMF:
    return do.SendDTMF(leg=leg.other, digit=digit.value, duration_ms=digit.duration_ms)


def _pause(call: Call, by: PauseSource, reason: str) -> Step:
    if call.paused or not call.recorded:
        return call, ()
    return replace(call, paused=True), (do.PauseRecording(by=by, reason=reason),)


def _resume(call: Call, by: PauseSource, reason: str) -> Step:
    if not call.paused:
        return call, ()
    return replace(call, paused=False), (do.ResumeRecording(by=by, reason=reason),)
