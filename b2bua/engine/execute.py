"""Carrying out a call's commands: one small method a command, found by its type. SIP thread only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from b2bua.call import commands as do
from b2bua.call import events as on
from b2bua.call.events import Event, LegRole
from b2bua.call.headers import escape_user
from b2bua.engine.admission import must_be_recorded
from b2bua.engine.live import LiveCall
from b2bua.engine.observer import EngineObserver
from b2bua.engine.pausing import Pausing
from b2bua.media.pump import Pump
from b2bua.native import _native
from b2bua.settings import Settings, bracketed
from b2bua.sip.endpoint import CLOCK_RATE_HZ, PTIME_MS
from b2bua.sip.gate import warning_header
from b2bua.sip.leg import Leg, LegError
from b2bua.sip.loop import SIPLoop
from recording.errors import RecordingError
from recording.format.content import EventKind, RecordingEvent, RecordingMeta
from recording.recorder import Recorder
from recording.settings import Layout

_log = structlog.get_logger(__name__)

RING_MS = 5_000
"""Ring size of a tap: 160 kB a call, and how long the pump may stand still without loss."""
_CHANNELS = {LegRole.A: 0, LegRole.B: 1}
_LAYOUTS = {Layout.MIXED: _native.MIXED, Layout.SPLIT: _native.SPLIT}


class Executor:
    """Commands in, pjsua, pump and recorder calls out."""

    def __init__(
        self,
        *,
        settings: Settings,
        loop: SIPLoop,
        recorder: Recorder | None,
        pump: Pump,
        observer: EngineObserver,
        post: Callable[[str, Event], None],
        new_leg: Callable[[LiveCall], Leg],
        dialled: Callable[[LiveCall, Leg], None],
        finished: Callable[[LiveCall], None],
        tap_freed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._recorder = recorder
        self._pump = pump
        self._observer = observer
        self._post = post
        self._new_leg = new_leg
        self._dialled = dialled
        self._finished = finished
        self._tap_freed = tap_freed
        self.open_taps = 0
        self._pausing = Pausing(
            loop=loop, pump=pump, observer=observer, post=post, pause_max_s=settings.limits.pause_max_s
        )
        self._actions: dict[type[do.Command], Callable[[LiveCall, Any], None]] = {
            do.Dial: self._dial,
            do.Ring: self._ring,
            do.AnswerCaller: self._answer_caller,
            do.HangUp: self._hang_up,
            do.Bridge: self._bridge,
            do.MarkAnswered: self._mark_answered,
            do.MarkHold: self._mark_hold,
            do.MarkMissing: self._mark_missing,
            do.MarkDTMF: self._mark_dtmf,
            do.SendReoffer: self._send_reoffer,
            do.AnswerReoffer: self._answer_reoffer,
            do.SendDTMF: self._send_dtmf,
            do.WaitForDigit: self._pausing.wait_for_digit,
            do.PauseRecording: self._pausing.pause,
            do.ResumeRecording: self._pausing.resume,
            do.StartNoAnswerTimer: self._start_timer,
            do.StopNoAnswerTimer: self._stop_timer,
            do.Finish: self._finish,
        }

    def run(self, live: LiveCall, command: do.Command) -> None:
        """Carry out one command."""
        self._actions[type(command)](live, command)

    # -- signalling ------------------------------

    def _dial(self, live: LiveCall, command: do.Dial) -> None:
        del command
        admission = live.admission
        leg = self._new_leg(live)
        hops = ("Max-Forwards", str(admission.headers.max_forwards - 1))
        caller = escape_user(admission.headers.calling_user or "anonymous")
        listener = self._settings.listener
        try:
            leg.dial(
                request_uri=admission.destination.request_uri,
                from_uri=f"<{leg.scheme.value}:{caller}@{bracketed(listener.public_host)}>",
                headers=(hops, *admission.headers.passed),
            )
        except LegError as error:
            self._failed(live, "dial", error)
            self._post(live.call_uid, on.DialFailed(detail=str(error.status)))
            return
        self._dialled(live, leg)

    def _ring(self, live: LiveCall, command: do.Ring) -> None:
        self._on_leg(live, LegRole.A, "ring", lambda leg: leg.ring(command.status))

    def _answer_caller(self, live: LiveCall, command: do.AnswerCaller) -> None:
        del command
        leg = live.legs[LegRole.A]
        try:
            leg.accept()
        except LegError as error:
            self._failed(live, "accept", error)
            self._post(live.call_uid, on.MediaInsecure(leg=LegRole.A, detail="not_accepted"))

    def _hang_up(self, live: LiveCall, command: do.HangUp) -> None:
        headers: tuple[tuple[str, str], ...] = ()
        if command.warning is not None:
            headers = (warning_header(self._settings.listener.public_host, command.warning),)
        if command.cause is not None:
            headers = (*headers, command.cause.header)
        live.legs[command.leg].hang_up(command.status, headers)

    def _send_reoffer(self, live: LiveCall, command: do.SendReoffer) -> None:
        if live.legs[command.leg].gone:
            return  # its LegEnded is on the way, and with it the answer to whoever waits
        try:
            live.legs[command.leg].send_reoffer(command.direction)
        except LegError as error:
            self._failed(live, "send_reoffer", error)
            self._post(live.call_uid, on.ReofferAnswered(leg=command.leg, status=491))

    def _answer_reoffer(self, live: LiveCall, command: do.AnswerReoffer) -> None:
        self._on_leg(live, command.leg, "answer_reoffer", lambda leg: leg.answer_reoffer(command.status))

    def _send_dtmf(self, live: LiveCall, command: do.SendDTMF) -> None:
        """A peer that took no telephone events, or has more of them waiting than it gets sent, is no fault of ours."""
        leg = live.legs[command.leg]
        if leg.gone:
            return
        try:
            leg.send_dtmf(command.digit, command.duration_ms)
        except LegError:
            self._observer.digit_lost(trunk=leg.trunk.name, reason="not_sent")

    def _on_leg(self, live: LiveCall, role: LegRole, action: str, run: Callable[[Leg], None]) -> None:
        leg = live.legs[role]
        if leg.gone:
            return
        try:
            run(leg)
        except LegError as error:
            self._failed(live, action, error)

    def _failed(self, live: LiveCall, action: str, error: LegError) -> None:
        _log.warning("leg_action_failed", call_uid=live.call_uid, action=action, pj_status=error.status)
        self._observer.fault(where=action, call_uid=live.call_uid)

    # -- media and recording ------------------------------

    def _bridge(self, live: LiveCall, command: do.Bridge) -> None:
        del command
        a, b = live.legs[LegRole.A], live.legs[LegRole.B]
        if a.slot < 0 or b.slot < 0:
            return
        if live.tap_id is None and live.admission.reservation is not None:
            self._open_recording(live)
        audio_a, audio_b = a.audio(), b.audio()
        audio_a.startTransmit(audio_b)
        audio_b.startTransmit(audio_a)
        if live.tap_id is not None:
            _native.tap_attach(live.tap_id, a.slot, b.slot)

    def _open_recording(self, live: LiveCall) -> None:
        if self._recorder is None or live.admission.reservation is None:
            return
        layout = self._settings.recording.layout
        try:
            live.recording = self._recorder.open(
                live.admission.reservation,
                meta=self._meta(live),
                layout=layout,
                on_failure=functools.partial(self._recording_failed, live),
            )
        except RecordingError as error:
            self._recording_failed(live, error)
            return
        live.tap_id = _native.tap_new(
            rate_hz=CLOCK_RATE_HZ, ptime_ms=PTIME_MS, ring_ms=RING_MS, layout=_LAYOUTS[layout]
        )
        self.open_taps += 1
        self._pump.add(live.tap_id, live.recording)
        if live.answered:
            self._mark(live, EventKind.ANSWERED, None)
        self._pausing.opened(live)

    def _recording_failed(self, live: LiveCall, error: RecordingError) -> None:
        """From the pump or spool thread: only posts."""
        reason = getattr(error, "reason_label", "recorder_failed")
        required = must_be_recorded(self._settings, live.admission, reason)
        self._post(live.call_uid, on.RecordingFailed(reason=reason, required=required))

    def _mark_answered(self, live: LiveCall, command: do.MarkAnswered) -> None:
        del command
        live.answered = True
        self._mark(live, EventKind.ANSWERED, None)

    def _mark_hold(self, live: LiveCall, command: do.MarkHold) -> None:
        self._mark(live, EventKind.HOLD if command.held else EventKind.UNHOLD, command.leg)

    def _mark_dtmf(self, live: LiveCall, command: do.MarkDTMF) -> None:
        self._mark(live, EventKind.DTMF, command.leg)

    def _mark_missing(self, live: LiveCall, command: do.MarkMissing) -> None:
        frames = command.missing_ms * CLOCK_RATE_HZ // 1000
        self._mark(live, EventKind.GAP, command.leg, frames=frames)

    def _mark(
        self, live: LiveCall, kind: EventKind, leg: LegRole | None, *, frames: int | None = None
    ) -> None:
        if live.tap_id is None:
            return
        channel = None if leg is None else _CHANNELS[leg]
        event = RecordingEvent(event=kind, channel=channel, frames=frames, at=datetime.now(UTC))
        self._pump.mark(live.tap_id, lambda recording: recording.event(event))

    def _meta(self, live: LiveCall) -> RecordingMeta:
        """What only the sealed record may say: numbers and Call-IDs among it."""
        headers = live.admission.headers
        return RecordingMeta(
            started_at=datetime.now(UTC),
            rate_hz=CLOCK_RATE_HZ,
            call_uid=live.call_uid,
            sip_call_ids=(live.legs[LegRole.A].sip_call_id, live.legs[LegRole.B].sip_call_id),
            from_=headers.calling_user,
            to=headers.called_user,
            trunk_a=live.facts.trunk_a,
            trunk_b=live.facts.trunk_b,
        )

    # -- time and end ------------------------------

    def _start_timer(self, live: LiveCall, command: do.StartNoAnswerTimer) -> None:
        del command
        expire = functools.partial(self._post, live.call_uid, on.NoAnswerExpired())
        live.no_answer = self._loop.call_later(live.admission.destination.trunk.no_answer_s, expire)

    def _stop_timer(self, live: LiveCall, command: do.StopNoAnswerTimer) -> None:
        del command
        if live.no_answer is not None:
            live.no_answer.cancel()
            live.no_answer = None

    def _finish(self, live: LiveCall, command: do.Finish) -> None:
        termination = command.termination
        self._pausing.finish(live)
        self._observer.call_ended(live.facts, termination)
        if live.tap_id is not None:
            free = functools.partial(self._free_tap, live.tap_id)
            _native.tap_attach(live.tap_id, -1, -1)
            self._pump.finish(
                live.tap_id,
                ended_by=termination.reason.value,
                reason=termination.result.value,
                done=lambda: self._loop.post(free),
            )
        self._finished(live)

    def _free_tap(self, tap_id: int) -> None:
        _native.tap_free(tap_id)
        self.open_taps -= 1
        self._tap_freed()
