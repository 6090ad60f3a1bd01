"""Answered calls whose audio does not come: a side that says it sends and does not, and bursts of lost packets.

Only packets that authenticated count, so a peer with the wrong key is found as one that sends nothing is. Each call
looks at its own legs once a second, from the SIP thread; calls do so at different moments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from b2bua.call import events as on
from b2bua.call.call import CallState
from b2bua.call.events import Event, LegRole
from b2bua.engine.live import LiveCall
from b2bua.settings import NoMediaPolicy
from b2bua.sip.leg import Leg, Received
from b2bua.sip.loop import SIPLoop

INTERVAL_S: Final = 1.0
"""How late an event may stand in the recording. A look at a leg's counters takes the SIP thread 3 to 5 us."""
LOSS_MS: Final = 200
"""A shorter burst hides a syllable at most, and every network has some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """Nothing has come for as long as the trunk allows."""

    silent_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """So much audio did not come, besides what an `Absent` before it told. `returned`: it is the rest of that."""

    missing_ms: int
    returned: bool = False


Finding = Absent | Missing


class LegSilence:
    """One leg's counters over time. Pure: the caller brings them and the clock."""

    def __init__(self, *, after_s: float) -> None:
        self._after_ms = round(after_s * 1000)
        self._last: Received | None = None
        self._since_ms: int | None = None
        self._told_ms: int | None = None

    def look(self, now_ms: int, received: Received | None) -> Finding | None:
        """`received` None: the peer's direction says that it does not send, on hold for instance."""
        last, self._last = self._last, received
        if received is None or last is None:
            self._since_ms = None if received is None else now_ms
            self._told_ms = None
            return None
        # A restarted stream counts from zero, which by itself is no sign of life.
        if received.packets != last.packets and received.packets > 0:
            return self._heard(now_ms, last, received)
        assert self._since_ms is not None, "set with the first counters"
        silent_ms = now_ms - self._since_ms
        if self._told_ms is None and silent_ms >= self._after_ms:
            self._told_ms = silent_ms
            return Absent(silent_ms=silent_ms)
        return None

    def _heard(self, now_ms: int, last: Received, received: Received) -> Finding | None:
        assert self._since_ms is not None
        told_ms, since_ms = self._told_ms, self._since_ms
        self._since_ms, self._told_ms = now_ms, None
        if told_ms is not None:
            return Missing(missing_ms=now_ms - since_ms - told_ms, returned=True)
        if received.bursts > last.bursts and received.last_burst_ms >= LOSS_MS:
            return Missing(missing_ms=received.last_burst_ms)
        return None


class MediaWatch:
    """Watches calls from their answer to their end."""

    def __init__(
        self, *, loop: SIPLoop, clock_ms: Callable[[], int], found: Callable[[str, Event], None]
    ) -> None:
        """`found` gets each finding as an event of its call."""
        self._loop = loop
        self._clock_ms = clock_ms
        self._found = found

    def watch(self, live: LiveCall) -> None:
        """The call is up."""
        legs = {role: LegSilence(after_s=leg.trunk.no_media_s) for role, leg in live.legs.items()}
        self._look(live, legs)

    def _look(self, live: LiveCall, legs: dict[LegRole, LegSilence]) -> None:
        if live.call.state not in (CallState.ANSWERING, CallState.ACTIVE):
            return
        now_ms = self._clock_ms()
        for role, silence in legs.items():
            leg = live.legs[role]
            if leg.gone:
                continue
            finding = silence.look(now_ms, leg.received() if leg.expects_audio else None)
            if finding is not None:
                self._found(live.call_uid, _event(live, leg, finding))
        self._loop.call_later(INTERVAL_S, lambda: self._look(live, legs))


def _event(live: LiveCall, leg: Leg, finding: Finding) -> Event:
    if isinstance(finding, Absent):
        # Silence is no reason to end an emergency call: its caller may be unable to speak, or to be heard.
        ends = leg.trunk.on_no_media is NoMediaPolicy.END and not live.admission.emergency
        return on.MediaAbsent(leg=leg.role, silent_ms=finding.silent_ms, ends=ends)
    return on.AudioMissing(leg=leg.role, missing_ms=finding.missing_ms, returned=finding.returned)
