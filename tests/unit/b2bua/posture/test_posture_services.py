"""What the report says of connections to services, and of a running B2BUA's metrics."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from b2bua.audit_store import POOL, POOL_NAME
from b2bua.metrics import Metrics
from b2bua.posture.hops import Hop, ask_hops, hops_of, judge_exceptions, judge_hop
from b2bua.posture.keys import judge_health
from b2bua.posture.report import Level
from b2bua.posture.running import judge_losses, judge_pool, judge_pools, read_samples
from b2bua.settings import Settings
from recording.settings import (
    AWSKMSKeySettings,
    IndexSettings,
    PostgreSQLSettings,
    RecordingSettings,
    S3SinkSettings,
    TLSFloor,
)
from support.openbao import OpenBao, vault_settings
from support.posture import find
from tls.settings import TLSVersion

KMS = AWSKMSKeySettings(
    key_id="arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    region="eu-central-1",
)


# --- services


def at_service(settings: Settings, **changes: object) -> RecordingSettings:
    return dataclasses.replace(settings.recording, **changes)  # type: ignore[arg-type]


def test_each_service_is_a_hop_of_its_own(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "pgpass").touch(mode=0o600)
    recording = at_service(
        settings,
        keys={"main": KMS, **settings.recording.keys},
        sink=S3SinkSettings(bucket="recordings", region="eu-central-1"),
        index=IndexSettings(
            postgresql=PostgreSQLSettings(
                host="db.example.test", database="index", user="edge", ca_path=tmp_path
            )
        ),
    )
    hops = list(hops_of(recording))
    rows = [*(judge_hop(hop, None) for hop in hops), judge_exceptions(hops)]
    assert [row.key for row in rows] == ["tls.keys.main", "tls.sink", "tls.index", "tls.exceptions"]
    assert all(row.level is Level.OK for row in rows)
    assert "https://kms.eu-central-1.amazonaws.com" in rows[0].finding
    assert "db.example.test" in rows[2].finding
    assert rows[3].finding.startswith("none")


def test_an_exception_in_writing_is_counted(settings: Settings, tmp_path: Path) -> None:
    recording = at_service(
        settings,
        keys={"main": dataclasses.replace(KMS, tls_floor=TLSFloor.TLS_1_2)},
        sink=S3SinkSettings(bucket="recordings", region="eu-central-1", tls_floor=TLSFloor.TLS_1_2),
        index=IndexSettings(
            postgresql=PostgreSQLSettings(
                host="db.example.test",
                database="index",
                user="edge",
                ca_path=tmp_path,
                tls_floor=TLSFloor.TLS_1_2,
            )
        ),
    )
    hops = list(hops_of(recording))
    rows = [*(judge_hop(hop, None) for hop in hops), judge_exceptions(hops)]
    assert all(row.level is Level.ATTENTION for row in rows)
    assert rows[-1].finding == "3: service of key main, store, shared index"


@pytest.mark.parametrize(
    ("floor", "accepted", "level", "words"),
    [
        (TLSFloor.TLS_1_3, {TLSVersion.TLS_1_3, TLSVersion.TLS_1_2}, Level.OK, "accepts TLSv1.2, TLSv1.3"),
        (TLSFloor.TLS_1_3, {TLSVersion.TLS_1_2}, Level.ALARM, "accepts TLSv1.2"),
        (TLSFloor.TLS_1_2, {TLSVersion.TLS_1_2}, Level.ATTENTION, "accepts TLSv1.2"),
        (TLSFloor.TLS_1_2, {TLSVersion.TLS_1_3}, Level.ATTENTION, "the exception is not needed"),
        (TLSFloor.TLS_1_3, None, Level.UNKNOWN, "nobody listens"),
    ],
)
def test_what_a_service_negotiates_is_held_against_what_we_speak(
    floor: TLSFloor, accepted: set[TLSVersion] | None, level: Level, words: str
) -> None:
    hop = Hop(key="tls.sink", service="store", endpoint="https://store.example.test", floor=floor)
    row = judge_hop(hop, "nobody listens" if accepted is None else frozenset(accepted))
    assert row.level is level
    assert words in row.finding


def test_a_real_key_service_is_asked_what_it_negotiates(
    openbao: OpenBao, settings: Settings, tmp_path: Path
) -> None:
    recording = at_service(settings, keys={"main": vault_settings(openbao, "any", tmp_path / "token")})
    row = find(ask_hops(recording), "tls.keys.main")
    assert row.level is Level.OK
    assert "TLSv1.3" in row.finding
    assert "handshakes with the service" in row.evidence


def test_a_configuration_without_services_has_no_exceptions(settings: Settings) -> None:
    (row,) = ask_hops(settings.recording)
    assert row.key == "tls.exceptions"
    assert row.level is Level.OK


def test_a_service_that_does_not_answer_is_an_alarm() -> None:
    assert judge_health("main", None).level is Level.OK
    row = judge_health("main", "timed out")
    assert row.level is Level.ALARM
    assert "timed out" in row.finding


# --- the running service's metrics


@pytest.mark.parametrize(
    ("ready", "level"),
    [(8, Level.OK), (4, Level.OK), (3, Level.ATTENTION), (1, Level.ATTENTION), (0, Level.ALARM)],
)
def test_a_pool_that_runs_dry_is_noticed(ready: int, level: Level) -> None:
    row = judge_pool("clinic", ready, 8)
    assert row.level is level
    assert row.finding == f"{ready} of 8"


def test_each_pool_is_held_against_its_own_size() -> None:
    """The audit log keeps fewer data keys ready than a tenant's calls need."""
    metrics = Metrics()
    metrics.pool_level(tenant="clinic", level=2)
    metrics.pool_level(tenant=POOL_NAME, level=POOL.size)
    rows = judge_pools(read_samples(metrics_text(metrics)), 8)
    assert find(rows, "pool.clinic").level is Level.ATTENTION
    assert find(rows, f"pool.{POOL_NAME}").level is Level.OK


def test_losses_are_counted_over_all_labels() -> None:
    metrics = Metrics()
    assert judge_losses(read_samples(metrics_text(metrics))).level is Level.OK
    metrics.refused("unrecorded")
    metrics.tap_overruns(7)
    for reason in ("SpoolError", "SpoolFullError"):
        metrics.recording_failed(file_id=b"F" * 16, call_uid="c", reason=reason)
    samples = read_samples(metrics_text(metrics))
    row = judge_losses(samples)
    assert row.level is Level.ATTENTION
    assert row.finding == (
        "2 recordings failed; 7 frames were lost before they were sealed; 1 calls went unrecorded"
    )


def metrics_text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()
