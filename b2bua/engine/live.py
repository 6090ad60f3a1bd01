"""A live call: the pure `Call` with the objects that carry it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from b2bua.call.call import Call
from b2bua.call.commands import PauseRecording
from b2bua.call.events import LegRole
from b2bua.engine.admission import Admission
from b2bua.engine.observer import CallFacts
from b2bua.sip.leg import Leg
from b2bua.sip.loop import Timer
from recording.recorder import CallRecording


@dataclass(slots=True)
class LiveCall:
    """Mutable, SIP thread only. `tap_id` None: nothing is tapped yet."""

    facts: CallFacts
    admission: Admission
    call: Call
    legs: dict[LegRole, Leg]
    started_ns: int
    answered: bool = False
    tap_id: int | None = None
    recording: CallRecording | None = None
    no_answer: Timer | None = None
    paused_by: PauseRecording | None = None
    pause_limit: Timer | None = None
    pause_waiters: list[Callable[[int | None], None]] = field(default_factory=list)
    """Told the position where a pause or its end took effect; None: the call ended before it could."""
    digit_waits: dict[LegRole, Timer] = field(default_factory=dict)
    up: set[LegRole] = field(default_factory=set)

    @property
    def call_uid(self) -> str:
        return self.facts.call_uid
