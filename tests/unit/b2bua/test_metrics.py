"""What is counted under which name, and that no label set can grow without bound or hold a number."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b2bua.metrics import MAX_LABEL_VALUES, OTHER, Metrics
from recording.observer import RecordingObserver

FILE, OTHER_FILE = b"f" * 16, b"g" * 16


def value(metrics: Metrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"sealtrunk_{metric}", labels)


def test_calls_by_trunk_direction_and_termination() -> None:
    metrics = Metrics()
    metrics.call_started("pbx", "in")
    metrics.call_started("pbx", "in")
    metrics.call_started("carrier", "out")
    metrics.call_ended("pbx", "in", "caller_hung_up")
    assert value(metrics, "calls_started_total", trunk="pbx", direction="in") == 2
    assert value(metrics, "calls_started_total", trunk="carrier", direction="out") == 1
    assert value(metrics, "calls_ended_total", trunk="pbx", direction="in", termination="caller_hung_up") == 1


def test_legs_go_up_and_down() -> None:
    metrics = Metrics()
    metrics.leg_up("pbx")
    metrics.leg_up("pbx")
    metrics.leg_down("pbx")
    assert value(metrics, "legs", trunk="pbx") == 1


def test_set_up_latency_falls_into_its_bucket() -> None:
    metrics = Metrics()
    metrics.setup_latency(0.03)
    assert value(metrics, "setup_seconds_bucket", le="0.02") == 0
    assert value(metrics, "setup_seconds_bucket", le="0.05") == 1
    assert value(metrics, "setup_seconds_sum") == 0.03


def test_refusals_handshakes_suites_overruns_and_expiry() -> None:
    metrics = Metrics()
    metrics.refused("no_route")
    metrics.handshake("untrusted")
    metrics.srtp_suite("AEAD_AES_256_GCM")
    metrics.tap_overruns(3)
    metrics.set_certificate_expiry("sip", 1.8e9)
    assert value(metrics, "refusals_total", reason="no_route") == 1
    assert value(metrics, "handshakes_total", outcome="untrusted") == 1
    assert value(metrics, "srtp_legs_total", suite="AEAD_AES_256_GCM") == 1
    assert value(metrics, "tap_overruns_total") == 3
    assert value(metrics, "certificate_expiry_timestamp_seconds", name="sip") == 1.8e9


def test_the_recorder() -> None:
    metrics = Metrics()
    observer: RecordingObserver = metrics
    observer.recording_started(file_id=FILE, call_uid="u")
    observer.recording_started(file_id=OTHER_FILE, call_uid="v")
    assert value(metrics, "recordings_in_progress") == 2
    observer.recording_failed(file_id=FILE, call_uid="u", reason="disk_full")
    observer.recording_finished(file_id=FILE, call_uid="u", state="incomplete", size_bytes=1)
    assert value(metrics, "recordings_in_progress") == 1, "one file is taken away once"
    observer.recording_finished(file_id=OTHER_FILE, call_uid="v", state="complete", size_bytes=1)
    assert value(metrics, "recordings_in_progress") == 0
    assert value(metrics, "recording_failures_total", reason="disk_full") == 1
    assert value(metrics, "recordings_total", state="complete") == 1
    observer.records_sealed(count=3, sealed_bytes=24624)
    observer.spool_lag(seconds=0.5, queued_bytes=8208)
    assert value(metrics, "records_sealed_total") == 3
    assert value(metrics, "sealed_bytes_total") == 24624
    assert value(metrics, "recorder_lag_seconds") == 0.5
    assert value(metrics, "recorder_queued_bytes") == 8208


def test_keys() -> None:
    metrics = Metrics()
    metrics.key_requested(provider="cloud", seconds=0.2, error=None)
    metrics.key_requested(provider="cloud", seconds=5, error="KeyUnavailableError")
    metrics.pool_level(tenant="clinic", level=8)
    assert value(metrics, "key_request_seconds_count", provider="cloud") == 2
    assert value(metrics, "key_errors_total", provider="cloud", error="KeyUnavailableError") == 1
    assert value(metrics, "key_pool_level", tenant="clinic") == 8


def test_what_leaves_the_spool() -> None:
    metrics = Metrics()
    observer: RecordingObserver = metrics
    observer.spool_level(spooled_bytes=8208, waiting_files=3)
    assert (value(metrics, "spool_bytes"), value(metrics, "uploads_waiting")) == (8208, 3)
    observer.parts_in_flight(change=1)
    observer.parts_in_flight(change=1)
    observer.parts_in_flight(change=-1)
    assert value(metrics, "upload_parts_in_flight") == 1
    observer.upload_sent(sent_bytes=5000)
    observer.upload_sent(sent_bytes=1)
    assert value(metrics, "upload_bytes_total") == 5001
    observer.upload_failed(file_id=FILE, reason="clock_skew")
    observer.upload_finished(file_id=FILE, size_bytes=5001)
    assert value(metrics, "upload_failures_total", reason="clock_skew") == 1
    assert (value(metrics, "uploads_total"), value(metrics, "stored_bytes_total")) == (1, 5001)


def label_values(metrics: Metrics) -> set[str]:
    return {
        text
        for family in metrics.registry.collect()
        for sample in family.samples
        for name, text in sample.labels.items()
        if name != "le"
    }


def test_a_label_set_is_bounded() -> None:
    metrics = Metrics()
    for number in range(MAX_LABEL_VALUES + 50):
        metrics.refused(f"reason_{number}")
    assert len(label_values(metrics)) == MAX_LABEL_VALUES + 1
    assert value(metrics, "refusals_total", reason=OTHER) == 50
    metrics.refused("reason_0")
    assert value(metrics, "refusals_total", reason="reason_0") == 2


@pytest.mark.parametrize(
    "text", ["", "no route", "sip:alice@example.test", "+49151", "r12345", "x" * 65, "ü"]
)
def test_what_is_no_label_is_counted_as_other(text: str) -> None:
    metrics = Metrics()
    metrics.handshake(text)
    assert value(metrics, "handshakes_total", outcome=OTHER) == 1


@given(number=st.text("0123456789", min_size=5, max_size=15), before=st.text(max_size=3))
def test_no_number_becomes_a_label(number: str, before: str) -> None:
    metrics = Metrics()
    text = before + number
    metrics.call_started(text, text)
    metrics.call_ended(text, text, text)
    metrics.leg_up(text)
    metrics.refused(text)
    metrics.handshake(text)
    metrics.srtp_suite(text)
    metrics.recording_finished(file_id=FILE, call_uid=text, state=text, size_bytes=1)
    metrics.recording_failed(file_id=FILE, call_uid=text, reason=text)
    metrics.key_requested(provider=text, seconds=1, error=text)
    metrics.pool_level(tenant=text, level=1)
    metrics.set_certificate_expiry(text, 1.0)
    assert label_values(metrics) == {OTHER}


def test_threads_lose_no_count() -> None:
    metrics = Metrics()

    def count() -> None:
        for number in range(500):
            metrics.refused(f"reason_{number % 7}")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = sum(value(metrics, "refusals_total", reason=f"reason_{number}") or 0 for number in range(7))
    assert total == 2000


def test_two_instances_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.tap_overruns(1)
    assert value(other, "tap_overruns_total") == 0
