"""Peers that vanished: no connection of the trunk is left and no audio comes from the leg. SIP thread only.

A lost connection alone ends no call: the audio goes on, and the peer may come back to say BYE. A leg on hold
sends nothing by right;
session timers (RFC 4028) find out about that one.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable

from b2bua.sip.handler import PeerEvent
from b2bua.sip.leg import Leg
from b2bua.sip.loop import SIPLoop

_UP, _DOWN = "ok", "closed"


class Absence:
    """Counts each trunk's connections and looks after `after_s` without any.

    Again and again until there is one or no leg is left.
    """

    def __init__(
        self,
        *,
        loop: SIPLoop,
        after_s: float,
        legs_of: Callable[[str], Iterable[Leg]],
        on_lost: Callable[[Leg], None],
    ) -> None:
        self._loop = loop
        self._after_s = after_s
        self._legs_of = legs_of
        self._on_lost = on_lost
        self._connections: collections.Counter[str] = collections.Counter()
        self._watching: set[str] = set()

    def note(self, event: PeerEvent) -> None:
        """A connection came or went. May be called inside a pjsip callback: only counts and sets a timer."""
        if event.trunk is None or event.outcome not in (_UP, _DOWN):
            return
        self._connections[event.trunk] += 1 if event.outcome == _UP else -1
        if self._connections[event.trunk] <= 0 and event.trunk not in self._watching:
            self._watching.add(event.trunk)
            self._loop.post(lambda: self._look(event.trunk or "", {}))

    def _look(self, trunk: str, before: dict[str, int]) -> None:
        """Legs that heard nothing since the last look are lost; those that did are looked at again."""
        heard: dict[str, int] = {}
        for leg in list(self._legs_of(trunk)):
            if not leg.expects_audio:
                continue
            count = leg.packets_received()
            if before.get(leg.sip_call_id) == count:
                self._on_lost(leg)
            else:
                heard[leg.sip_call_id] = count
        if self._connections[trunk] > 0 or not any(True for _ in self._legs_of(trunk)):
            self._watching.discard(trunk)
            return
        self._loop.call_later(self._after_s, lambda: self._look(trunk, heard))
