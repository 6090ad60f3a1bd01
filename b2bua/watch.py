"""What is counted and what is audited: the engine's and the recorder's observer, in one place.

Called from the SIP, pump, spool and keys threads. Metrics are thread-safe and the audit log only queues:
nothing waits.
"""

from __future__ import annotations

import re
from typing import Any

import structlog

from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.call.events import LegRole, MediaAbsent, PauseSource
from b2bua.call.termination import Termination
from b2bua.engine.observer import CallFacts
from b2bua.errors import AuditError
from b2bua.metrics import Metrics
from b2bua.settings import RecordingPolicy
from b2bua.signature_line import signature_fields
from b2bua.sip.handler import PeerEvent
from recording.format.manifest import Manifest
from recording.recorder import UnavailableReason

_log = structlog.get_logger(__name__)

_NO_KEY = UnavailableReason.NO_KEY.value
_ACCEPTED = "ok"
_CLOSED = "closed"


class Watch:
    """An `EngineObserver` and a `RecordingObserver`; the recorder's numbers go to the metrics as they are."""

    def __init__(self, *, metrics: Metrics, audit: AuditLog) -> None:
        self._metrics = metrics
        self._audit = audit
        self.records_sealed = metrics.records_sealed
        self.spool_lag = metrics.spool_lag
        self.pool_level = metrics.pool_level
        self.spool_level = metrics.spool_level
        self.upload_sent = metrics.upload_sent
        self.parts_in_flight = metrics.parts_in_flight
        self._upload_problems: dict[bytes, str] = {}

    # -- engine -----------------------------------------------------------------

    def call_started(self, facts: CallFacts) -> None:
        self._metrics.call_started(facts.trunk_a, "in")
        self._metrics.call_started(facts.trunk_b, "out")
        self._about(AuditEvent.CALL_STARTED, facts)

    def call_answered(self, facts: CallFacts, *, setup_s: float) -> None:
        self._metrics.setup_latency(setup_s)
        self._about(AuditEvent.CALL_ANSWERED, facts)

    def call_ended(self, facts: CallFacts, termination: Termination) -> None:
        self._metrics.call_ended(facts.trunk_a, "in", termination.reason.value)
        self._metrics.call_ended(facts.trunk_b, "out", termination.reason.value)
        self._about(
            AuditEvent.CALL_ENDED, facts, status=termination.status or None, reason=termination.reason.value
        )

    def call_unrecorded(self, facts: CallFacts, *, reason: str) -> None:
        self._metrics.refused("unrecorded")
        self._about(AuditEvent.CALL_UNRECORDED, facts, reason=reason)
        if reason == _NO_KEY:
            self._metrics.key_outage_step("unrecorded")
            _log.error("call_unrecorded_without_key", call_uid=facts.call_uid)

    def recording_paused(
        self, facts: CallFacts, *, by: PauseSource, reason: str, policy: RecordingPolicy
    ) -> None:
        self._metrics.recording_paused(by.value)
        self._about(AuditEvent.RECORDING_PAUSED, facts, reason=reason, by=by.value, policy=policy.value)

    def recording_resumed(
        self, facts: CallFacts, *, by: PauseSource, reason: str, policy: RecordingPolicy
    ) -> None:
        self._metrics.recording_resumed(by.value)
        self._about(AuditEvent.RECORDING_RESUMED, facts, reason=reason, by=by.value, policy=policy.value)

    def media_absent(self, facts: CallFacts, absence: MediaAbsent, *, trunk: str) -> None:
        self._metrics.media_absent(trunk, absence.leg.value, absence.cause.value)
        self._about(
            AuditEvent.MEDIA_ABSENT,
            facts,
            leg=absence.leg.value,
            reason=absence.cause.value,
            count=absence.refused_packets,
            policy="end" if absence.ends else "report",
        )

    def media_returned(self, facts: CallFacts, *, leg: LegRole) -> None:
        self._about(AuditEvent.MEDIA_RETURNED, facts, leg=leg.value)

    def audio_missing(self, *, leg: LegRole, trunk: str) -> None:
        self._metrics.audio_missing(trunk, leg.value)

    def digit_lost(self, *, trunk: str, reason: str) -> None:
        self._metrics.digit_lost(trunk, reason)

    def _write(self, event: AuditEvent, **fields: Any) -> None:
        """One audit line.

        An observer may not fail the thread it is called on: a line that can't be built is told as that.
        """
        try:
            line = AuditLine(event=event, **fields)
        except AuditError as error:
            _log.error("audit_line_malformed", problem=str(error))
            line = AuditLine(event=AuditEvent.FAULT, reason="audit_line_malformed")
        self._audit.write(line)

    def _about(
        self,
        event: AuditEvent,
        facts: CallFacts,
        *,
        status: int | None = None,
        reason: str | None = None,
        by: str | None = None,
        policy: str | None = None,
        leg: str | None = None,
        count: int | None = None,
    ) -> None:
        self._write(
            event,
            call_uid=facts.call_uid,
            trunk=facts.trunk_a,
            far_trunk=facts.trunk_b,
            tenant_handle=facts.tenant_handle.hex(),
            status=status,
            reason=reason,
            by=by,
            policy=policy,
            leg=leg,
            count=count,
        )

    def leg_up(self, trunk: str) -> None:
        self._metrics.leg_up(trunk)

    def leg_down(self, trunk: str) -> None:
        self._metrics.leg_down(trunk)

    def leg_secured(self, facts: CallFacts, *, leg: LegRole, suite: str) -> None:
        del facts, leg
        self._metrics.srtp_suite(suite)

    def refused(self, *, trunk: str | None, reason: str, status: int) -> None:
        self._metrics.refused(reason)
        self._write(AuditEvent.REQUEST_REFUSED, trunk=trunk, reason=reason, status=status or None)
        if reason == _NO_KEY:
            self._metrics.key_outage_step("rejected")
            _log.error("call_rejected_without_key", trunk=trunk)

    def peer(self, event: PeerEvent) -> None:
        if event.outcome == _CLOSED:
            self._write(AuditEvent.PEER_CLOSED, trunk=event.trunk, source=event.source)
            return
        self._metrics.handshake(event.outcome)
        accepted = event.outcome == _ACCEPTED
        self._write(
            AuditEvent.PEER_ACCEPTED if accepted else AuditEvent.PEER_REFUSED,
            trunk=event.trunk,
            source=event.source,
            fingerprint=event.fingerprint,
            reason=None if accepted else event.outcome,
        )

    def tap_overruns(self, count: int) -> None:
        self._metrics.tap_overruns(count)

    def fault(self, *, where: str, call_uid: str | None) -> None:
        self._metrics.refused("internal_fault")
        self._write(AuditEvent.FAULT, reason=_label(where), call_uid=call_uid or None)

    def control_command(self, *, command: str, call_uid: str, reason: str, uid: int) -> None:
        self._metrics.control_command(command)
        self._write(AuditEvent.CONTROL_COMMAND, call_uid=call_uid, by=command, reason=reason, uid=uid)

    def control_refused(self, *, reason: str, uid: int) -> None:
        self._metrics.refused("control")
        self._write(AuditEvent.CONTROL_REFUSED, reason=reason, uid=uid)

    # -- recorder ---------------------------------------------------------------

    def recording_started(self, *, file_id: bytes, call_uid: str) -> None:
        self._metrics.recording_started(file_id=file_id, call_uid=call_uid)
        self._write(AuditEvent.RECORDING_STARTED, file_id=file_id.hex(), call_uid=call_uid)

    def recording_finished(self, *, file_id: bytes, call_uid: str, state: str, size_bytes: int) -> None:
        self._metrics.recording_finished(
            file_id=file_id, call_uid=call_uid, state=state, size_bytes=size_bytes
        )
        self._write(
            AuditEvent.RECORDING_FINISHED,
            file_id=file_id.hex(),
            call_uid=call_uid or None,
            reason=state,
        )

    def recording_failed(self, *, file_id: bytes, call_uid: str, reason: str) -> None:
        self._metrics.recording_failed(file_id=file_id, call_uid=call_uid, reason=reason)
        self._write(
            AuditEvent.RECORDING_FAILED,
            file_id=file_id.hex(),
            call_uid=call_uid or None,
            reason=_label(reason),
        )

    def recording_signed(self, *, call_uid: str, manifest: Manifest) -> None:
        self._metrics.recording_signed(call_uid=call_uid, manifest=manifest)
        self._write(AuditEvent.RECORDING_SIGNED, **signature_fields(manifest, call_uid=call_uid))

    def key_requested(self, *, provider: str, seconds: float, error: str | None) -> None:
        self._metrics.key_requested(provider=provider, seconds=seconds, error=error)
        if error is not None:
            self._write(AuditEvent.KEY_FAILED, reason=_label(error))
            _log.error("key_request_failed", provider=provider, reason=_label(error))

    def fallback_key_used(self, *, tenant: str, tenant_handle: bytes, file_id: bytes, provider: str) -> None:
        self._metrics.fallback_key_used(
            tenant=tenant, tenant_handle=tenant_handle, file_id=file_id, provider=provider
        )
        self._write(
            AuditEvent.KEY_FALLBACK,
            tenant_handle=tenant_handle.hex(),
            file_id=file_id.hex(),
            reason=_NO_KEY,
        )
        _log.error("fallback_key_used", tenant=tenant, provider=provider, file_id=file_id.hex())

    def upload_finished(self, *, file_id: bytes, size_bytes: int) -> None:
        self._metrics.upload_finished(file_id=file_id, size_bytes=size_bytes)
        if self._upload_problems.pop(file_id, None) is not None:
            self._write(AuditEvent.RECORDING_STORED, file_id=file_id.hex())

    def upload_failed(self, *, file_id: bytes, reason: str) -> None:
        """Each attempt is counted; a file's audit line is written once for each reason, not once a minute."""
        self._metrics.upload_failed(file_id=file_id, reason=reason)
        if self._upload_problems.get(file_id) != reason:
            self._upload_problems[file_id] = reason
            self._write(AuditEvent.UPLOAD_FAILED, file_id=file_id.hex(), reason=_label(reason))

    # -- process ----------------------------------------------------------------

    def service(self, *, started: bool, configuration_sha256: str | None = None) -> None:
        """The process serves, under the configuration with this digest, or does no longer."""
        event = AuditEvent.SERVICE_STARTED if started else AuditEvent.SERVICE_STOPPED
        self._write(event, fingerprint=configuration_sha256)

    def certificate_reloaded(self, *, fingerprint: str, taken: bool) -> None:
        """New files were taken, or refused; `fingerprint` is of the certificate now in force."""
        event = AuditEvent.CERTIFICATE_RELOADED if taken else AuditEvent.CERTIFICATE_REFUSED
        self._write(event, fingerprint=fingerprint)


def _label(name: str) -> str:
    """A class or callback name in the form of a label: onCallState -> on_call_state."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
