"""Answered calls whose audio does not come: a side that says it sends and does not, and bursts of lost packets.

Only packets that authenticated count, so a peer with the wrong key is found as one that sends nothing is, and told
from it by the packets that were refused. Once a second all legs are looked at together, from the SIP thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from b2bua.call import events as on
from b2bua.call.call import CallState
from b2bua.call.events import AbsenceCause, Event
from b2bua.engine.live import LiveCall
from b2bua.settings import NoMediaPolicy
from b2bua.sip.leg import Leg, Received, received
from b2bua.sip.loop import SIPLoop

INTERVAL_S: Final = 1.0
"""How late an event may stand in the recording. A look at 200 legs takes the SIP thread 0.7 ms in all.

With a timer a call and the library's statistics object a leg it took 5 to 7 ms.
"""
LOSS_MS: Final = 200
"""A shorter burst hides a syllable at most, and every network has some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """Nothing that authenticates has come for as long as the trunk allows; `refused` packets came instead."""

    silent_ms: int
    cause: AbsenceCause = AbsenceCause.NOTHING
    refused: int = 0


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
        self._heard_last: Received | None = None
        self._since_ms: int | None = None
        self._told_ms: int | None = None

    def look(self, now_ms: int, received: Received | None) -> Finding | None:
        """`received` None: the peer's direction says that it does not send, on hold for instance."""
        last, self._last = self._last, received
        if received is None or last is None:
            self._since_ms = None if received is None else now_ms
            self._heard_last = received
            self._told_ms = None
            return None
        # A restarted stream counts from zero, which by itself is no sign of life.
        if received.packets != last.packets and received.packets > 0:
            return self._heard(now_ms, last, received)
        assert self._since_ms is not None, "set with the first counters"
        assert self._heard_last is not None, "set with the first counters"
        silent_ms = now_ms - self._since_ms
        if self._told_ms is None and silent_ms >= self._after_ms:
            self._told_ms = silent_ms
            cause, refused = what_came(self._heard_last, received)
            return Absent(silent_ms=silent_ms, cause=cause, refused=refused)
        return None

    def _heard(self, now_ms: int, last: Received, received: Received) -> Finding | None:
        assert self._since_ms is not None
        told_ms, since_ms = self._told_ms, self._since_ms
        self._since_ms, self._told_ms, self._heard_last = now_ms, None, received
        if told_ms is not None:
            return Missing(missing_ms=now_ms - since_ms - told_ms, returned=True)
        if received.bursts > last.bursts and received.last_burst_ms >= LOSS_MS:
            return Missing(missing_ms=received.last_burst_ms)
        return None


def what_came(before: Received, now: Received) -> tuple[AbsenceCause, int]:
    """Why nothing was heard between two looks, and how many packets were refused for it.

    A packet from where the peer sends tells most: whoever else sends to the port cannot hide it.
    """
    causes = (
        (AbsenceCause.NOT_AUTHENTICATED, before.unauthenticated, now.unauthenticated),
        (AbsenceCause.REPLAYED, before.replayed, now.replayed),
        (AbsenceCause.OTHER_SOURCE, before.elsewhere, now.elsewhere),
    )
    for cause, then, since in causes:
        refused = since - then if since >= then else since  # a transport made anew counts from nothing
        if refused:
            return cause, refused
    return AbsenceCause.NOTHING, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """A leg of an answered call."""

    live: LiveCall
    leg: Leg
    pjsua_call_id: int
    silence: LegSilence

    @property
    def is_over(self) -> bool:
        return self.leg.gone or self.live.call.state not in (CallState.ANSWERING, CallState.ACTIVE)


class MediaWatch:
    """Watches calls from their answer to their end."""

    def __init__(
        self, *, loop: SIPLoop, clock_ms: Callable[[], int], found: Callable[[str, Event], None]
    ) -> None:
        """`found` gets each finding as an event of its call."""
        self._loop = loop
        self._clock_ms = clock_ms
        self._found = found
        self._legs: list[_Watched] = []
        self._is_looking = False

    def watch(self, live: LiveCall) -> None:
        """The call is up."""
        legs = [
            _Watched(
                live=live,
                leg=leg,
                pjsua_call_id=leg.getId(),
                silence=LegSilence(after_s=leg.trunk.no_media_s),
            )
            for leg in live.legs.values()
            if not leg.gone
        ]
        self._look(legs)
        self._legs += legs
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(INTERVAL_S, self._look_at_all)

    def _look_at_all(self) -> None:
        self._legs = [each for each in self._legs if not each.is_over]
        self._is_looking = bool(self._legs)
        if self._is_looking:
            self._loop.call_later(INTERVAL_S, self._look_at_all)
            self._look(self._legs)

    def _look(self, legs: list[_Watched]) -> None:
        now_ms = self._clock_ms()
        counts = received([each.pjsua_call_id for each in legs])
        for each, count in zip(legs, counts, strict=True):
            finding = each.silence.look(now_ms, count if each.leg.expects_audio else None)
            if finding is not None:
                self._found(each.live.call_uid, _event(each.live, each.leg, finding))


def _event(live: LiveCall, leg: Leg, finding: Finding) -> Event:
    if isinstance(finding, Absent):
        # Silence is no reason to end an emergency call: its caller may be unable to speak, or to be heard.
        ends = leg.trunk.on_no_media is NoMediaPolicy.END and not live.admission.emergency
        return on.MediaAbsent(
            leg=leg.role,
            silent_ms=finding.silent_ms,
            cause=finding.cause,
            refused_packets=finding.refused,
            ends=ends,
        )
    return on.AudioMissing(leg=leg.role, missing_ms=finding.missing_ms, returned=finding.returned)
