"""What the report says of stored recordings, of files and of the audit log."""

from __future__ import annotations

import dataclasses
import os
from datetime import timedelta
from pathlib import Path

import pytest

from b2bua.journal.head import NAME as HEAD
from b2bua.journal.segment import segment_names
from b2bua.posture.audit import ask_audit
from b2bua.posture.report import Level
from b2bua.posture.sink import ask_sink, judge_encryption, judge_lock
from b2bua.posture.storage import ask_files, ask_index, ask_spool, judge_states
from b2bua.settings import AuditSettings, Settings
from recording.index import IndexState
from recording.settings import S3SinkSettings
from recording.sinks.sink import LockMode, Retention
from support.posture import NOW, find, write_audit
from support.recorded import record_call

# --- what is stored


@pytest.mark.parametrize(
    ("counts", "level", "words"),
    [
        ({}, Level.OK, "nothing was recorded yet"),
        ({IndexState.COMPLETE: 3}, Level.OK, "complete 3 (100.0 %)"),
        ({IndexState.COMPLETE: 3, IndexState.INCOMPLETE: 1}, Level.ATTENTION, "incomplete 1 (25.0 %)"),
        ({IndexState.COMPLETE: 9999, IndexState.CORRUPT: 1}, Level.ALARM, "corrupt 1 (under 0.1 %)"),
        ({IndexState.COMPLETE: 3, IndexState.FAILED: 1}, Level.ALARM, "failed 1 (25.0 %)"),
        ({IndexState.COMPLETE: 3, IndexState.RECORDING: 1}, Level.OK, "recording 1 (25.0 %)"),
    ],
)
def test_states_are_shares(counts: dict[IndexState, int], level: Level, words: str) -> None:
    row = judge_states(counts, is_store_empty=True)
    assert row.level is level
    assert words in row.finding


def test_the_index_is_counted_and_none_is_made(settings: Settings) -> None:
    (row,) = ask_index(settings.recording)
    assert "nothing was recorded yet" in row.finding
    assert not settings.recording.index_path.exists()
    record_call(settings)
    (row,) = ask_index(settings.recording)
    assert "1 segments: complete 1 (100.0 %)" in row.finding


def test_what_lies_in_the_spool_for_long_is_noticed(settings: Settings) -> None:
    spool = settings.recording.spool_directory
    assert ask_spool(settings.recording)[0].level is Level.OK
    spool.mkdir()
    path = spool / "x.crec"
    path.touch()
    assert ask_spool(settings.recording)[0].level is Level.OK
    os.utime(path, (NOW.timestamp() - 3 * 365 * 86400,) * 2)
    row = ask_spool(settings.recording)[0]
    assert row.level is Level.ATTENTION
    assert "1 of them unchanged" in row.finding


def test_a_local_directory_is_said_to_be_one(settings: Settings) -> None:
    record_call(settings)
    rows = ask_sink(settings.recording)
    assert find(rows, "sink.health").level is Level.OK
    assert find(rows, "sink.lock").level is Level.ATTENTION
    assert "local directory" in find(rows, "sink.encryption").finding


def test_a_report_makes_no_directory(settings: Settings) -> None:
    ask_sink(settings.recording)
    ask_spool(settings.recording)
    assert not settings.recording.directory.exists()
    assert not settings.recording.spool_directory.exists()


def locked(days: int = 30, mode: LockMode = LockMode.COMPLIANCE) -> S3SinkSettings:
    return S3SinkSettings(bucket="b", region="eu-central-1", object_lock_mode=mode, object_lock_days=days)


@pytest.mark.parametrize(
    ("settings_", "found", "level"),
    [
        (locked(), Retention(mode=LockMode.COMPLIANCE, until=NOW + timedelta(days=1)), Level.OK),
        (locked(), Retention(mode=LockMode.COMPLIANCE, until=NOW - timedelta(days=1)), Level.ALARM),
        (locked(), Retention(mode=LockMode.GOVERNANCE, until=NOW + timedelta(days=1)), Level.ALARM),
        (locked(), Retention(), Level.ALARM),
        (locked(), Retention(is_held=True), Level.OK),
        (locked(days=0), Retention(), Level.OK),
    ],
)
def test_a_lock_must_be_what_was_asked_for(settings_: S3SinkSettings, found: Retention, level: Level) -> None:
    row = judge_lock(settings_, "key", found, (), promised=None, now=NOW)
    assert row.level is level
    assert "read back" in row.finding


@pytest.mark.parametrize("days", [0, 1])
@pytest.mark.parametrize(
    ("promised", "until", "level"),
    [
        (10, 10, Level.OK),
        (10, 11, Level.OK),
        (10, 9, Level.ALARM),
        (10, None, Level.ALARM),
        (-1, 1, Level.OK),
    ],
)
def test_a_lock_must_be_what_was_promised(days: int, promised: int, until: int | None, level: Level) -> None:
    found = Retention()
    if until is not None:
        found = Retention(mode=LockMode.COMPLIANCE, until=NOW + timedelta(days=until))
    row = judge_lock(locked(days), "key", found, (), promised=NOW + timedelta(days=promised), now=NOW)
    assert row.level is level, row


def test_what_lies_beside_an_object_must_be_kept_as_it_is() -> None:
    found = Retention(mode=LockMode.COMPLIANCE, until=NOW + timedelta(days=1))
    row = judge_lock(locked(), "key", found, ["a.manifest"], promised=None, now=NOW)
    assert row.level is Level.ALARM
    assert "less is kept of a.manifest" in row.finding


@pytest.mark.parametrize(
    ("wanted", "found", "level"),
    [
        ("AES256", {"kind": "AES256"}, Level.OK),
        ("aws:kms", {"kind": "aws:kms", "key_id": "k"}, Level.OK),
        ("aws:kms", {"kind": "AES256"}, Level.ALARM),
        ("AES256", {}, Level.ALARM),
        ("AES256", None, Level.UNKNOWN),
        (None, {}, Level.OK),
        (None, {"kind": "AES256"}, Level.OK),
        (None, None, Level.OK),
    ],
)
def test_encryption_must_be_what_was_asked_for(
    wanted: str | None, found: dict[str, str] | None, level: Level
) -> None:
    assert judge_encryption(wanted, found, "denied", "asked").level is level


def test_modes_of_keys_and_data_are_looked_at(settings: Settings) -> None:
    record_call(settings)
    rows = ask_files(settings)
    assert find(rows, "files.keys").level is Level.OK
    assert find(rows, "files.data").level is Level.OK
    settings.recording.index_path.chmod(0o640)
    settings.tls.private_key_path.chmod(0o604)
    rows = ask_files(settings)
    data, keys = find(rows, "files.data"), find(rows, "files.keys")
    assert data.level is Level.ATTENTION
    assert f"{settings.recording.index_path} has mode 0640" in data.finding
    assert keys.level is Level.ALARM
    assert "edge.key has mode 0604" in keys.finding


# --- the audit log


def test_a_sealed_log_is_seen_to_be_one(settings: Settings) -> None:
    row = find(ask_audit(settings), "audit.sealed")
    assert row.level is Level.OK
    assert "nothing was written yet" in row.finding
    write_audit(settings)
    row = find(ask_audit(settings), "audit.sealed")
    assert row.level is Level.OK
    assert "chained, 1 files" in row.finding


def test_a_file_in_clear_in_the_log_is_an_alarm(settings: Settings) -> None:
    directory = write_audit(settings)
    (name,) = segment_names(directory)
    name.path.write_bytes(b'{"event":"service_started"}\n')
    row = find(ask_audit(settings), "audit.sealed")
    assert row.level is Level.ALARM
    assert name.path.name in row.finding


def test_a_log_without_its_head_is_an_alarm(settings: Settings) -> None:
    directory = write_audit(settings)
    (directory / HEAD).unlink()
    assert find(ask_audit(settings), "audit.sealed").level is Level.ALARM


def test_lines_in_clear_need_attention(settings: Settings, tmp_path: Path) -> None:
    plain = dataclasses.replace(settings, audit=AuditSettings(path=tmp_path / "audit.jsonl"))
    rows = ask_audit(plain)
    assert find(rows, "audit.sealed").level is Level.ATTENTION
    assert find(rows, "audit.place").level is Level.OK
    assert find(ask_audit(dataclasses.replace(settings, audit=AuditSettings())), "audit.place").level is (
        Level.ATTENTION
    )
