"""Carrying out pauses: from a command of the call to the frame in the pump where it takes effect. SIP thread only.

Whoever asked learns of it only once the pump has it: from then on nothing more of the audio is sealed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from b2bua.call import commands as do
from b2bua.call import events as on
from b2bua.call.events import Event, LegRole
from b2bua.call.pause_code import DIGIT_GAP_MS
from b2bua.engine.live import LiveCall
from b2bua.engine.observer import EngineObserver
from b2bua.media.pump import Pump, Recording
from b2bua.sip.loop import SIPLoop, Timer


class Pausing:
    """Commands PauseRecording, ResumeRecording and WaitForDigit."""

    def __init__(
        self,
        *,
        loop: SIPLoop,
        pump: Pump,
        observer: EngineObserver,
        post: Callable[[str, Event], None],
        pause_max_s: int,
    ) -> None:
        self._loop = loop
        self._pump = pump
        self._observer = observer
        self._post = post
        self._pause_max_s = pause_max_s

    def pause(self, live: LiveCall, command: do.PauseRecording) -> None:
        """Before there is audio the recording begins silent; `opened` sees to that."""
        live.paused_by = command
        expire = functools.partial(self._post, live.call_uid, on.PauseExpired())
        live.pause_limit = self._loop.call_later(self._pause_max_s, expire)
        self._observer.recording_paused(
            live.facts, by=command.by, reason=command.reason, policy=live.admission.policy
        )
        self.opened(live)

    def opened(self, live: LiveCall) -> None:
        """Tell the recording that it is paused, now or as soon as there is one."""
        command = live.paused_by
        if command is None:
            return
        self._apply(live, lambda recording: recording.pause(by=command.by.value, reason=command.reason))

    def resume(self, live: LiveCall, command: do.ResumeRecording) -> None:
        """Undo it all; the recording itself waits until nothing said in the pause is under way."""
        self.forget(live)
        self._observer.recording_resumed(
            live.facts, by=command.by, reason=command.reason, policy=live.admission.policy
        )
        self._apply(live, lambda recording: recording.resume())

    def forget(self, live: LiveCall) -> None:
        """The pause, or the call, is over: its limit and the waits for digits go."""
        live.paused_by = None
        if live.pause_limit is not None:
            live.pause_limit.cancel()
            live.pause_limit = None

    def wait_for_digit(self, live: LiveCall, command: do.WaitForDigit) -> None:
        """One timer a leg."""
        self._cancel(live, command.leg)
        lapse = functools.partial(
            self._post, live.call_uid, on.DigitsLapsed(leg=command.leg, since_ms=command.since_ms)
        )
        live.digit_waits[command.leg] = self._loop.call_later(DIGIT_GAP_MS / 1000, lapse)

    def finish(self, live: LiveCall) -> None:
        """The call is over: no timer of it may fire, and whoever waits for a pause is told that there is none."""
        self.forget(live)
        for leg in LegRole:
            self._cancel(live, leg)
        self._tell(live, None)

    def _cancel(self, live: LiveCall, leg: LegRole) -> None:
        timer: Timer | None = live.digit_waits.pop(leg, None)
        if timer is not None:
            timer.cancel()

    def _apply(self, live: LiveCall, act: Callable[[Recording], int]) -> None:
        if live.tap_id is None:
            self._tell(live, 0)
            return

        def run(recording: Recording) -> None:
            position = act(recording)
            self._loop.post(functools.partial(self._tell, live, position))

        self._pump.mark(live.tap_id, run, at_once=True)

    @staticmethod
    def _tell(live: LiveCall, position: int | None) -> None:
        waiting, live.pause_waiters = live.pause_waiters, []
        for done in waiting:
            done(position)
