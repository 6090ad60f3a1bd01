"""What an operator may ask of live calls. SIP thread only; answers say ids, trunks and states, never numbers."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, assert_never

from b2bua.call import events as on
from b2bua.call.call import CallState
from b2bua.call.events import Event, LegRole
from b2bua.control.protocol import Answer, Command, Request, accepted, refused
from b2bua.engine.live import LiveCall
from b2bua.sip.endpoint import CLOCK_RATE_HZ

Reply = Callable[[Answer], None]

_GONE = (CallState.ENDING, CallState.ENDED)


class Operations:
    """`calls` is the engine's own table; `step` makes an event happen to a call before it returns."""

    def __init__(self, *, calls: Mapping[str, LiveCall], step: Callable[[str, Event], None]) -> None:
        self._calls = calls
        self._step = step

    def run(self, request: Request, reply: Reply) -> None:
        """Carry out one request and answer it once: at once, or when the pump has a pause."""
        if request.command is Command.LIST:
            reply(accepted(calls=[_facts(live) for live in self._calls.values()]))
            return
        live = self._calls.get(request.call_uid)
        if live is None:
            reply(refused("no_such_call"))
            return
        match request.command:
            case Command.SHOW:
                reply(accepted(call=_facts(live) | {"legs": _legs(live)}))
            case Command.PAUSE:
                self._pause(live, request.reason, reply)
            case Command.RESUME:
                self._resume(live, request.reason, reply)
            case Command.HANG_UP:
                self._hang_up(live, reply)
            case _ as other:
                assert_never(other)

    def _pause(self, live: LiveCall, reason: str, reply: Reply) -> None:
        if live.call.state in _GONE:
            reply(refused("ending"))
        elif not live.call.recorded or (live.recording is not None and live.recording.is_failed):
            reply(refused("not_recorded"))
        elif live.call.paused:
            self._answer_when_applied(live, reply, changed=False)
        else:
            live.pause_waiters.append(functools.partial(_applied, live, reply, changed=True))
            self._step(live.call_uid, on.PauseRequested(reason=reason))

    def _resume(self, live: LiveCall, reason: str, reply: Reply) -> None:
        if not live.call.paused:
            reply(refused("ending" if live.call.state in _GONE else "not_paused"))
            return
        live.pause_waiters.append(functools.partial(_applied, live, reply, changed=True))
        self._step(live.call_uid, on.ResumeRequested(reason=reason))

    def _answer_when_applied(self, live: LiveCall, reply: Reply, *, changed: bool) -> None:
        """Already asked for; if the pump has yet to take it, its answer is this one's too."""
        if live.pause_waiters:
            live.pause_waiters.append(functools.partial(_applied, live, reply, changed=changed))
        else:
            reply(accepted(call=_facts(live), changed=changed))

    def _hang_up(self, live: LiveCall, reply: Reply) -> None:
        if live.call.state in _GONE:
            reply(refused("ending"))
            return
        self._step(live.call_uid, on.HangUpRequested())
        reply(accepted(call=_facts(live), changed=True))


def _applied(live: LiveCall, reply: Reply, position: int | None, *, changed: bool) -> None:
    if position is None:
        reply(refused("ended"))
        return
    reply(accepted(call=_facts(live), changed=changed, at_ms=position * 1000 // CLOCK_RATE_HZ))


def _facts(live: LiveCall) -> dict[str, Any]:
    return {
        "call_uid": live.call_uid,
        "state": live.call.state.value,
        "trunk_a": live.facts.trunk_a,
        "trunk_b": live.facts.trunk_b,
        "seconds": (time.monotonic_ns() - live.started_ns) // 1_000_000_000,
        "recording": _recording(live),
        "held_by": [leg.value for leg in LegRole if live.call.directions[leg].is_hold],
    }


def _recording(live: LiveCall) -> str:
    if not live.call.recorded:
        return "none"
    if live.recording is not None and live.recording.is_failed:
        return "failed"
    if live.call.paused:
        return "paused"
    return "running" if live.recording is not None else "waiting"


def _legs(live: LiveCall) -> dict[str, Any]:
    return {
        role.value: {
            "trunk": leg.trunk.name,
            "srtp_suite": leg.suite or None,
            "sends_audio": leg.expects_audio,
            "packets_received": leg.packets_received() if leg.slot >= 0 else 0,
        }
        for role, leg in live.legs.items()
        if not leg.gone
    }
