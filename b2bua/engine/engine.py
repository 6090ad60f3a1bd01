"""The engine.

All live calls, the way from an event through the pure call to its commands, drain and stop. SIP thread only.

It is the `Handler` of the SIP edge. Callbacks only queue; every step runs from the SIP loop, outside pjsip's
own stack.
"""

from __future__ import annotations

import collections
import functools
import secrets
import time
from collections.abc import Callable, Mapping

import structlog

from b2bua.call import events as on
from b2bua.call.call import Call, CallState
from b2bua.call.events import Event, LegRole
from b2bua.call.sdp_policy import SDPRefusal
from b2bua.call.state import step
from b2bua.control.protocol import Answer, Request
from b2bua.control.protocol import refused as refused_command
from b2bua.engine.absence import Absence
from b2bua.engine.admission import Admission, Admissions, Load
from b2bua.engine.execute import Executor
from b2bua.engine.live import LiveCall
from b2bua.engine.media_watch import MediaWatch
from b2bua.engine.observer import CallFacts, EngineObserver
from b2bua.engine.operate import Operations
from b2bua.media.pump import Pump
from b2bua.settings import CodesFrom, PauseCodes, Settings, TrunkSettings, URIScheme
from b2bua.sip.handler import PeerEvent, Refusal
from b2bua.sip.leg import Leg
from b2bua.sip.loop import SIPLoop
from b2bua.sip.trunk import TrunkAccount
from recording.recorder import Recorder

_log = structlog.get_logger(__name__)

CALL_UID_BYTES = 16
DIALOG_MEMORY_S = 64.0
"""How long after a call its Call-IDs still name their trunk: twice timers B and F, past the last retransmission."""
GOODBYE_S = 5.0
"""How long legs told to go may take before the process stops anyway (RFC 3261 timer F is 32 s.

A peer that is there answers at once).
"""


class Engine:
    """Built by the composition root; `attach` gives it the accounts once the SIP stack is up."""

    def __init__(
        self,
        *,
        settings: Settings,
        loop: SIPLoop,
        recorder: Recorder | None,
        pump: Pump,
        observer: EngineObserver,
        is_audited: Callable[[], bool] = lambda: True,
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._observer = observer
        self._admissions = Admissions(settings, recorder, is_audited=is_audited)
        self._pending: Admission | None = None
        self._calls: dict[str, LiveCall] = {}
        self._dialogs: dict[str, LiveCall] = {}
        self._past_dialogs: dict[str, str] = {}
        self._on_idle: Callable[[], None] | None = None
        self._executor = Executor(
            settings=settings,
            loop=loop,
            recorder=recorder,
            pump=pump,
            observer=observer,
            post=self.leg_event,
            new_leg=self._new_leg,
            dialled=self._dialled,
            finished=self._finished,
            tap_freed=self._check_idle,
        )
        self._absence = Absence(
            loop=loop,
            after_s=settings.limits.peer_gone_s,
            legs_of=self._legs_of,
            on_lost=lambda leg: self.leg_event(leg.call_uid, on.PeerLost(leg=leg.role)),
        )
        self._media_watch = MediaWatch(
            loop=loop, clock_ms=lambda: time.monotonic_ns() // 1_000_000, found=self.leg_event
        )
        self._operations = Operations(calls=self._calls, step=self._step)
        self._accounts: Mapping[tuple[str, URIScheme], TrunkAccount] = {}

    def attach(self, accounts: Mapping[tuple[str, URIScheme], TrunkAccount]) -> None:
        """The SIP stack is up."""
        self._accounts = accounts

    # -- Handler: called from inside pjsip callbacks ------------------------------

    def admit(self, trunk: TrunkSettings, message: bytes) -> Refusal | None:
        self._drop_pending()
        decision = self._admissions.decide(trunk, message, self._load())
        if isinstance(decision, Refusal):
            return decision
        self._pending = decision
        self._loop.post(self._drop_pending)
        return None

    def admitted_scheme(self) -> tuple[TrunkSettings, str] | None:
        if self._pending is None:
            return None
        return self._pending.source, self._pending.headers.scheme

    def take_invite(self, leg: Leg) -> None:
        admission, self._pending = self._pending, None
        if admission is None:
            leg.hang_up(500)
            return
        call_uid = secrets.token_hex(CALL_UID_BYTES)
        leg.call_uid = call_uid
        facts = CallFacts(
            call_uid=call_uid,
            trunk_a=admission.source.name,
            trunk_b=admission.destination.trunk.name,
            tenant_handle=self._settings.tenants[admission.tenant].handle,
        )
        live = LiveCall(
            facts=facts,
            admission=admission,
            call=Call(recorded=admission.reservation is not None, codes=_pause_codes(admission)),
            legs={LegRole.A: leg},
            started_ns=time.monotonic_ns(),
        )
        self._calls[call_uid] = live
        self._dialogs[leg.sip_call_id] = live
        self.leg_event(call_uid, on.CallAdmitted())
        self._observer.call_started(facts)
        if admission.unrecorded is not None:
            self._observer.call_unrecorded(facts, reason=admission.unrecorded)

    def leg_event(self, call_uid: str, event: Event) -> None:
        self._loop.post(
            functools.partial(self._step, call_uid, event), functools.partial(self._step_failed, call_uid)
        )

    def trunk_of_dialog(self, sip_call_id: str) -> str | None:
        found = self._leg_of_dialog(sip_call_id)
        return None if found is None or found[1].gone else found[1].trunk.name

    def owner_of_dialog(self, sip_call_id: str) -> str | None:
        found = self._leg_of_dialog(sip_call_id)
        return self._past_dialogs.get(sip_call_id) if found is None else found[1].trunk.name

    def answer_refused(self, sip_call_id: str, refusal: SDPRefusal) -> None:
        found = self._leg_of_dialog(sip_call_id)
        if found is not None:
            live, leg = found
            self.leg_event(live.call_uid, on.AnswerRefused(leg=leg.role, refusal=refusal))

    def refused(self, *, trunk: str | None, reason: str, status: int) -> None:
        self._observer.refused(trunk=trunk, reason=reason, status=status)

    def peer_event(self, event: PeerEvent) -> None:
        self._absence.note(event)
        self._observer.peer(event)

    def callback_failed(self, callback: str, call_uid: str | None, leg: LegRole | None) -> None:
        self._observer.fault(where=callback, call_uid=call_uid)
        if call_uid and leg is not None:
            self.leg_event(call_uid, on.MediaInsecure(leg=leg, detail="callback_failed"))

    # -- steps ------------------------------

    def _step(self, call_uid: str, event: Event) -> None:
        live = self._calls.get(call_uid)
        if live is None:
            return
        self._note(live, event)
        live.call, commands = step(live.call, event)
        for command in commands:
            self._executor.run(live, command)

    def _step_failed(self, call_uid: str) -> None:
        """Our own fault in a step: the call can't be trusted to go on, and must not linger."""
        self._observer.fault(where="step", call_uid=call_uid)
        live = self._calls.get(call_uid)
        if live is None:
            return
        for leg in live.legs.values():
            leg.hang_up(500)
        if live.call.state is CallState.ENDED:
            self._finished(live)

    def _note(self, live: LiveCall, event: Event) -> None:
        """Facts for the watcher that are no decision of the call."""
        match event:
            case on.MediaSecured(leg=leg, suite=suite):
                self._observer.leg_secured(live.facts, leg=leg, suite=suite)
            case on.LegConfirmed(leg=leg):
                live.up.add(leg)
                self._observer.leg_up(live.legs[leg].trunk.name)
                if leg is LegRole.A:
                    setup_s = (time.monotonic_ns() - live.started_ns) / 1e9
                    self._observer.call_answered(live.facts, setup_s=setup_s)
                    self._media_watch.watch(live)
            case on.LegEnded(leg=leg) if leg in live.up:
                live.up.discard(leg)
                self._observer.leg_down(live.legs[leg].trunk.name)
            case on.MediaAbsent(leg=leg) as absence:
                trunk = live.legs[leg].trunk.name
                _log.warning(
                    "media_absent",
                    call_uid=live.call_uid,
                    leg=leg.value,
                    trunk=trunk,
                    silent_ms=absence.silent_ms,
                    cause=absence.cause.value,
                    refused_count=absence.refused_packets,
                )
                self._observer.media_absent(live.facts, absence, trunk=trunk)
            case on.AudioMissing(leg=leg, returned=True):
                _log.info("media_returned", call_uid=live.call_uid, leg=leg.value)
                self._observer.media_returned(live.facts, leg=leg)
            case on.AudioMissing(leg=leg):
                self._observer.audio_missing(leg=leg, trunk=live.legs[leg].trunk.name)
            case on.DTMFExcess(leg=leg):
                self._observer.digit_lost(trunk=live.legs[leg].trunk.name, reason="excess")
            case on.RecordingFailed(reason=reason):
                self._observer.call_unrecorded(live.facts, reason=reason)
            case _:
                pass

    def _new_leg(self, live: LiveCall) -> Leg:
        """Leg B of the call, on its trunk's account for the target's scheme."""
        trunk = live.admission.destination.trunk
        if trunk.target is None:
            raise ValueError(f"trunk {trunk.name} has no target")
        leg = Leg.outgoing(account=self._accounts[trunk.name, trunk.target.scheme], handler=self)
        leg.call_uid = live.call_uid
        live.legs[LegRole.B] = leg
        return leg

    def _dialled(self, live: LiveCall, leg: Leg) -> None:
        """The leg has its Call-ID now."""
        self._dialogs[leg.sip_call_id] = live

    def _leg_of_dialog(self, sip_call_id: str) -> tuple[LiveCall, Leg] | None:
        live = self._dialogs.get(sip_call_id)
        if live is None:
            return None
        for leg in live.legs.values():
            if leg.sip_call_id == sip_call_id:
                return live, leg
        return None

    def _finished(self, live: LiveCall) -> None:
        """Both legs are gone. The pjsua objects go now, outside their own callbacks."""
        self._calls.pop(live.call_uid, None)
        for leg in live.legs.values():
            if self._dialogs.get(leg.sip_call_id) is live:  # a later call may have the Call-ID by now
                del self._dialogs[leg.sip_call_id]
            self._remember(leg)
        live.legs.clear()
        if live.recording is None:
            self._admissions.release(live.admission)
        self._check_idle()

    def _legs_of(self, trunk: str) -> list[Leg]:
        return [
            leg
            for live in self._calls.values()
            for leg in live.legs.values()
            if leg.trunk.name == trunk and not leg.gone
        ]

    def _remember(self, leg: Leg) -> None:
        """Whom the last messages of a dialog may go to, for as long as there may be any."""
        sip_call_id = leg.sip_call_id
        self._past_dialogs[sip_call_id] = leg.trunk.name

        def forget() -> None:
            self._past_dialogs.pop(sip_call_id, None)

        self._loop.call_later(DIALOG_MEMORY_S, forget)

    def _check_idle(self) -> None:
        """Draining ends when the calls are gone and the pump has emptied their taps."""
        if self._on_idle is not None and not self._calls and not self._executor.open_taps:
            self._on_idle()

    def _drop_pending(self) -> None:
        """Pjsip refused an admitted INVITE itself: give its key back."""
        admission, self._pending = self._pending, None
        if admission is not None:
            self._admissions.release(admission)

    def _load(self) -> Load:
        counts = collections.Counter(
            trunk for live in self._calls.values() for trunk in {live.facts.trunk_a, live.facts.trunk_b}
        )
        return Load(calls=len(self._calls), by_trunk=counts)

    def operate(self, request: Request, reply: Callable[[Answer], None]) -> None:
        """What an operator asks over the control socket. Any thread; the answer comes on the SIP thread."""
        self._loop.post(
            lambda: self._operations.run(request, reply), lambda: reply(refused_command("internal"))
        )

    # -- drain ------------------------------

    def drain(self, *, deadline_s: float, on_idle: Callable[[], None]) -> None:
        """No new calls; `on_idle` once the live ones are gone.

        After `deadline_s` they are ended, their recordings complete.

        A second call with a shorter deadline shortens it.
        """
        self._admissions.draining = True
        self._on_idle = on_idle
        self._check_idle()
        self._loop.call_later(deadline_s, self._end_all)
        self._loop.call_later(deadline_s + GOODBYE_S, on_idle)

    def _end_all(self) -> None:
        for call_uid in list(self._calls):
            self.leg_event(call_uid, on.DrainExpired())


_LISTENS = {
    LegRole.A: (CodesFrom.A, CodesFrom.BOTH),
    LegRole.B: (CodesFrom.B, CodesFrom.BOTH),
}


def _pause_codes(admission: Admission) -> dict[LegRole, PauseCodes]:
    """Each leg's codes are those of its own trunk, where that listens on such a leg."""
    trunks = {LegRole.A: admission.source, LegRole.B: admission.destination.trunk}
    return {
        leg: trunk.pause_codes
        for leg, trunk in trunks.items()
        if trunk.pause_codes is not None and trunk.pause_codes.heard_from in _LISTENS[leg]
    }
