"""The whole life of a call as one table: state x event -> action. Every cell is there; what is ignored says so.

This file holds no logic; `markdown` prints it for docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from b2bua.call import call as act
from b2bua.call import events as on
from b2bua.call import pausing
from b2bua.call.call import Action, Call, CallState, Step

_BEFORE_ANSWER: Mapping[type[on.Event], Action] = {
    on.CallAdmitted: act.ignore,
    on.DialFailed: act.dial_failed,
    on.LegProgressed: act.progress,
    on.LegConfirmed: act.confirmed_before_answer,
    on.LegEnded: act.ended_before_answer,
    on.MediaSecured: act.secure,
    on.MediaInsecure: act.end_insecure,
    on.AnswerRefused: act.end_refused_answer,
    on.ReofferReceived: act.reoffer_too_early,
    on.DirectionChanged: act.ignore,
    on.ReofferAnswered: act.ignore,
    on.PeerLost: act.ignore,
    on.MediaAbsent: act.ignore,
    on.AudioMissing: act.ignore,
    on.DTMFReceived: act.ignore,
    on.DTMFExcess: act.ignore,
    on.DigitsLapsed: act.ignore,
    on.PauseRequested: pausing.pause,
    on.ResumeRequested: pausing.resume,
    on.PauseExpired: pausing.pause_expired,
    on.HangUpRequested: act.hang_up,
    on.RecordingFailed: act.recording_failed,
    on.NoAnswerExpired: act.no_answer,
    on.DrainExpired: act.drain,
}
_AFTER_ANSWER: Mapping[type[on.Event], Action] = {
    on.CallAdmitted: act.ignore,
    on.DialFailed: act.ignore,
    on.LegProgressed: act.ignore,
    on.LegConfirmed: act.confirmed_after_answer,
    on.LegEnded: act.ended_after_answer,
    on.MediaSecured: act.secure,
    on.MediaInsecure: act.end_insecure,
    on.AnswerRefused: act.end_refused_answer,
    on.ReofferReceived: act.reoffer,
    on.DirectionChanged: act.change_direction,
    on.ReofferAnswered: act.reoffer_answered,
    on.PeerLost: act.peer_lost,
    on.MediaAbsent: act.media_absent,
    on.AudioMissing: act.audio_missing,
    on.DTMFReceived: pausing.take_digit,
    on.DTMFExcess: act.ignore,
    on.DigitsLapsed: pausing.release_digits,
    on.PauseRequested: pausing.pause,
    on.ResumeRequested: pausing.resume,
    on.PauseExpired: pausing.pause_expired,
    on.HangUpRequested: act.hang_up,
    on.RecordingFailed: act.recording_failed,
    on.NoAnswerExpired: act.ignore,
    on.DrainExpired: act.drain,
}
_NOTHING: Mapping[type[on.Event], Action] = dict.fromkeys(_BEFORE_ANSWER, act.ignore)

TABLE: Mapping[CallState, Mapping[type[on.Event], Action]] = {
    CallState.NEW: {
        **_NOTHING,
        on.CallAdmitted: act.dial,
        on.LegEnded: act.ended_before_answer,
        on.HangUpRequested: act.hang_up,
        on.DrainExpired: act.drain,
    },
    CallState.DIALING: _BEFORE_ANSWER,
    CallState.RINGING: _BEFORE_ANSWER,
    CallState.ANSWERING: {
        **_AFTER_ANSWER,
        on.ReofferReceived: act.defer_reoffer,
        on.DirectionChanged: act.ignore,
    },
    CallState.ACTIVE: {**_AFTER_ANSWER, on.LegConfirmed: act.ignore},
    CallState.ENDING: {
        **_NOTHING,
        on.LegEnded: act.ended_while_ending,
        on.ReofferReceived: act.reoffer_while_ending,
    },
    CallState.ENDED: _NOTHING,
}


def step(call: Call, event: on.Event) -> Step:
    """The next call and what to do, in order."""
    return TABLE[call.state][type(event)](call, event)


def markdown() -> str:
    """The table as Markdown: a row an event, a column a state."""
    states = list(CallState)
    rows = [
        "| event | " + " | ".join(state.value for state in states) + " |",
        "|---" * (len(states) + 1) + "|",
    ]
    for event in _BEFORE_ANSWER:
        cells = (TABLE[state][event].__name__ for state in states)
        rows.append(
            f"| {event.__name__} | " + " | ".join("" if cell == "ignore" else cell for cell in cells) + " |"
        )
    return "\n".join(rows) + "\n"
