"""Every happening becomes an audit line of the right form, and none can fail the thread that reports it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from b2bua.audit import AuditLog
from b2bua.call.events import AbsenceCause, LegRole, MediaAbsent, PauseSource
from b2bua.call.sdp_policy import SDPFault
from b2bua.call.termination import Reason, Result, Termination
from b2bua.engine.observer import CallFacts
from b2bua.metrics import Metrics
from b2bua.settings import AuditSettings, RecordingPolicy
from b2bua.sip.handler import PeerEvent
from b2bua.watch import Watch
from recording.errors import RecordingError
from recording.format.manifest import Manifest, ManifestState
from recording.recorder import UnavailableReason

FACTS = CallFacts(call_uid="ab" * 16, trunk_a="pbx", trunk_b="carrier", tenant_handle=bytes(16))


@pytest.fixture
def told(tmp_path: Path) -> Callable[[Callable[[Watch], None]], list[dict[str, Any]]]:
    def tell(happen: Callable[[Watch], None]) -> list[dict[str, Any]]:
        path = tmp_path / "audit.jsonl"
        log = AuditLog(AuditSettings(path=path))
        log.start()
        happen(Watch(metrics=Metrics(), audit=log))
        log.close()
        return [json.loads(line) for line in path.read_text().splitlines()]

    return tell


Told = Callable[[Callable[[Watch], None]], list[dict[str, Any]]]


@pytest.mark.parametrize("reason", Reason)
def test_each_end_of_a_call(told: Told, reason: Reason) -> None:
    ending = Termination(result=Result.FAILED, reason=reason, status=503)
    (line,) = told(lambda watch: watch.call_ended(FACTS, ending))
    assert (line["event"], line["reason"], line["status"]) == ("call_ended", reason.value, 503)
    assert (line["call_uid"], line["trunk"], line["far_trunk"]) == (FACTS.call_uid, "pbx", "carrier")


@pytest.mark.parametrize("fault", SDPFault)
def test_each_refused_body(told: Told, fault: SDPFault) -> None:
    (line,) = told(lambda watch: watch.refused(trunk="pbx", reason=fault.value, status=488))
    assert (line["event"], line["reason"]) == ("request_refused", fault.value)


@pytest.mark.parametrize("reason", UnavailableReason)
def test_each_reason_for_no_recording(told: Told, reason: UnavailableReason) -> None:
    (line,) = told(lambda watch: watch.call_unrecorded(FACTS, reason=reason.value))
    assert line["reason"] == reason.value


def all_subclasses(root: type) -> set[type]:
    return {root}.union(*(all_subclasses(child) for child in root.__subclasses__()))


@pytest.mark.parametrize("name", sorted(kind.__name__ for kind in all_subclasses(RecordingError)))
def test_each_failure_of_a_recording(told: Told, name: str) -> None:
    (line,) = told(lambda watch: watch.recording_failed(file_id=bytes(16), call_uid="ab" * 16, reason=name))
    assert line["event"] == "recording_failed"
    assert line["reason"].replace("_", "") == name.lower()


def test_a_file_that_does_not_leave_the_spool_is_told_once_for_each_reason(told: Told) -> None:
    def happen(watch: Watch) -> None:
        for reason in ("unavailable", "unavailable", "clock_skew"):
            watch.upload_failed(file_id=b"F" * 16, reason=reason)
        watch.upload_failed(file_id=b"G" * 16, reason="unavailable")
        for file_id in (b"F" * 16, b"H" * 16):
            watch.upload_finished(file_id=file_id, size_bytes=1)

    assert [(line["event"], line["file_id"][:2], line.get("reason")) for line in told(happen)] == [
        ("upload_failed", "46", "unavailable"),
        ("upload_failed", "46", "clock_skew"),
        ("upload_failed", "47", "unavailable"),
        ("recording_stored", "46", None),
    ]


def test_a_signed_manifest_is_in_the_log_with_its_hash(told: Told) -> None:
    manifest = Manifest(
        file_id=b"F" * 16,
        tenant_handle=b"T" * 16,
        recording=b"R" * 16,
        segment=0,
        previous=None,
        sha256=b"S" * 32,
        size_bytes=16432,
        records=3,
        state=ManifestState.INCOMPLETE,
    )
    (line,) = told(lambda watch: watch.recording_signed(call_uid="ab" * 16, manifest=manifest))
    assert (line["event"], line["file_id"], line["fingerprint"]) == (
        "recording_signed",
        "46" * 16,
        "53" * 32,
    )
    assert (line["reason"], line["count"], line["call_uid"]) == ("incomplete", 3, "ab" * 16)


def test_peers(told: Told) -> None:
    def happen(watch: Watch) -> None:
        watch.peer(
            PeerEvent(incoming=True, outcome="ok", trunk="pbx", source="127.0.0.1", fingerprint="0" * 64)
        )
        watch.peer(PeerEvent(incoming=True, outcome="untrusted", trunk=None, source="::1"))
        watch.peer(PeerEvent(incoming=False, outcome="closed", trunk="pbx", source="127.0.0.1"))

    assert [line["event"] for line in told(happen)] == ["peer_accepted", "peer_refused", "peer_closed"]


def test_a_callback_name_becomes_a_label(told: Told) -> None:
    (line,) = told(lambda watch: watch.fault(where="onCallMediaState", call_uid=None))
    assert line["reason"] == "on_call_media_state"


def test_a_line_that_cannot_be_built_is_told_as_that_and_fails_nobody(told: Told) -> None:
    (line,) = told(lambda watch: watch.refused(trunk="sip:1001@x", reason="no_route", status=404))
    assert (line["event"], line["reason"]) == ("fault", "audit_line_malformed")
    assert "1001" not in json.dumps(line)


def test_a_secured_leg_is_counted_not_audited(told: Told) -> None:
    assert told(lambda watch: watch.leg_secured(FACTS, leg=LegRole.A, suite="AEAD_AES_256_GCM")) == []


@pytest.mark.parametrize("ends", [True, False])
def test_absent_media_is_counted_by_trunk_and_leg_and_audited(tmp_path: Path, ends: bool) -> None:
    metrics, path = Metrics(), tmp_path / "audit.jsonl"
    log = AuditLog(AuditSettings(path=path))
    log.start()
    watch = Watch(metrics=metrics, audit=log)
    absence = MediaAbsent(
        leg=LegRole.B,
        silent_ms=9000,
        cause=AbsenceCause.NOT_AUTHENTICATED,
        refused_packets=450,
        ends=ends,
    )
    watch.media_absent(FACTS, absence, trunk="carrier")
    watch.media_returned(FACTS, leg=LegRole.B)
    watch.audio_missing(leg=LegRole.A, trunk="pbx")
    watch.digit_lost(trunk="pbx", reason="excess")
    log.close()
    absent, returned = (json.loads(line) for line in path.read_text().splitlines())
    assert (absent["event"], absent["leg"], absent["policy"]) == (
        "media_absent",
        "B",
        "end" if ends else "report",
    )
    assert (absent["reason"], absent["count"]) == ("not_authenticated", 450)
    assert (returned["event"], returned["leg"]) == ("media_returned", "B")
    sample = metrics.registry.get_sample_value
    labels = {"trunk": "carrier", "leg": "B", "cause": "not_authenticated"}
    assert sample("sealtrunk_media_absent_total", labels) == 1
    assert sample("sealtrunk_media_loss_bursts_total", {"trunk": "pbx", "leg": "A"}) == 1


def test_pauses_and_commands_are_counted_and_audited(tmp_path: Path) -> None:
    metrics, path = Metrics(), tmp_path / "audit.jsonl"
    log = AuditLog(AuditSettings(path=path))
    log.start()
    watch = Watch(metrics=metrics, audit=log)
    policy = RecordingPolicy.REQUIRED
    watch.recording_paused(FACTS, by=PauseSource.DTMF, reason="dtmf_code", policy=policy)
    watch.recording_resumed(FACTS, by=PauseSource.LIMIT, reason="pause_limit", policy=policy)
    watch.control_command(command="hang_up", call_uid=FACTS.call_uid, reason="abuse", uid=0)
    watch.control_refused(reason="foreign_user", uid=65534)
    log.close()
    paused, resumed, command, refused = (json.loads(line) for line in path.read_text().splitlines())
    assert (paused["event"], paused["by"], paused["policy"]) == ("recording_paused", "dtmf", "required")
    assert (resumed["event"], resumed["by"]) == ("recording_resumed", "limit")
    assert (command["event"], command["by"], command["uid"]) == ("control_command", "hang_up", 0)
    assert (refused["event"], refused["uid"]) == ("control_refused", 65534)
    sample = metrics.registry.get_sample_value
    assert sample("sealtrunk_recording_pauses_total", {"by": "dtmf"}) == 1
    assert sample("sealtrunk_recording_resumes_total", {"by": "limit"}) == 1
    assert sample("sealtrunk_control_commands_total", {"command": "hang_up"}) == 1


def test_each_step_down_without_a_key_is_audited_counted_and_alarmed(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = Metrics()

    def happen(watch: Watch) -> None:
        watch._metrics = metrics
        watch.key_requested(provider="cloud", seconds=1.0, error="KeyUnavailableError")
        watch.fallback_key_used(
            tenant="clinic", tenant_handle=bytes(16), file_id=b"F" * 16, provider="escrow"
        )
        watch.call_unrecorded(FACTS, reason="no_key")
        watch.refused(trunk="pbx", reason="no_key", status=503)
        watch.call_unrecorded(FACTS, reason="no_space")
        watch.refused(trunk="pbx", reason="no_space", status=503)

    events = [(line["event"], line["reason"]) for line in told(happen)]
    assert events == [
        ("key_failed", "key_unavailable_error"),
        ("key_fallback", "no_key"),
        ("call_unrecorded", "no_key"),
        ("request_refused", "no_key"),
        ("call_unrecorded", "no_space"),
        ("request_refused", "no_space"),
    ]
    steps = {
        step: metrics.registry.get_sample_value("sealtrunk_key_outage_steps_total", {"step": step})
        for step in ("fallback", "unrecorded", "rejected")
    }
    assert steps == {"fallback": 1, "unrecorded": 1, "rejected": 1}
    said = capsys.readouterr()
    text = said.out + said.err
    for alarm in (
        "key_request_failed", "fallback_key_used", "call_unrecorded_without_key", "call_rejected_without_key",
    ):  # fmt: skip
        assert text.count(alarm) == 1
