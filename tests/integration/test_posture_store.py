"""The posture report about a bucket: what Ceph's gateway itself says of the newest recording."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from b2bua.posture.report import Level, Row
from b2bua.posture.sink import ask_sink
from recording.format.slots import SlotProvider
from recording.index import IndexEntry, IndexState, RecordingIndex, utc_hour
from recording.settings import RecordingSettings, S3SinkSettings
from recording.sinks.s3 import S3Sink
from recording.sinks.sink import LockMode, ObjectName
from support.rgw import RGW
from support.s3 import rgw_settings

NAME = ObjectName(
    tenant_handle=b"T" * 16, file_id=b"F" * 16, started_hour=utc_hour(datetime.now(UTC) - timedelta(hours=2))
)


def settings_with(sink: S3SinkSettings, tmp_path: Path) -> RecordingSettings:
    return RecordingSettings(
        directory=tmp_path / "recordings",
        spool_directory=tmp_path / "spool",
        index_path=tmp_path / "index.sqlite",
        keys={},
        sink=sink,
    )


def store(recording: RecordingSettings, tmp_path: Path) -> None:
    """One object in the bucket, and its entry in the index."""
    assert isinstance(recording.sink, S3SinkSettings)
    source = tmp_path / "source.crec"
    source.write_bytes(b"sealed" * 100)
    S3Sink(recording.sink).put(source, NAME)
    index = RecordingIndex(recording.index_path)
    index.put(
        [
            IndexEntry(
                file_id=NAME.file_id,
                recording=b"R" * 16,
                segment=0,
                call_uid="c" * 32,
                tenant_handle=NAME.tenant_handle,
                state=IndexState.COMPLETE,
                provider=SlotProvider.AWS_KMS,
                key_id="k",
                started_hour=NAME.started_hour,
                object_key=NAME.key,
            )
        ]
    )
    index.close()


def rows_of(recording: RecordingSettings) -> dict[str, Row]:
    return {row.key: row for row in ask_sink(recording)}


def test_a_lock_is_read_back(rgw: RGW, tmp_path: Path) -> None:
    recording = settings_with(rgw_settings(rgw, tmp_path, object_lock_days=1), tmp_path)
    before = rows_of(recording)
    assert before["sink.health"].level is Level.OK
    assert before["sink.lock"].level is Level.UNKNOWN
    assert "no recording is there yet" in before["sink.lock"].finding
    store(recording, tmp_path)
    lock = rows_of(recording)["sink.lock"]
    assert lock.level is Level.OK, lock
    assert "read back: GOVERNANCE until 20" in lock.finding
    assert NAME.key in lock.evidence


def test_another_lock_than_was_asked_for_is_an_alarm(rgw: RGW, tmp_path: Path) -> None:
    sink = rgw_settings(rgw, tmp_path, object_lock_days=1)
    recording = settings_with(sink, tmp_path)
    store(recording, tmp_path)
    stricter = dataclasses.replace(sink, object_lock_mode=LockMode.COMPLIANCE)
    lock = rows_of(dataclasses.replace(recording, sink=stricter))["sink.lock"]
    assert lock.level is Level.ALARM
    assert "COMPLIANCE for 1 days is asked for; read back: GOVERNANCE" in lock.finding


def test_encryption_that_is_not_there_is_told(rgw: RGW, tmp_path: Path) -> None:
    recording = settings_with(rgw_settings(rgw, tmp_path, locked=False), tmp_path)
    store(recording, tmp_path)
    rows = rows_of(recording)
    assert rows["sink.encryption"].finding == "none is asked for; read back: none"
    assert rows["sink.encryption"].level is Level.OK
    assert rows["sink.lock"].level is Level.ATTENTION


@pytest.mark.usefixtures("rgw")
def test_a_store_that_refuses_us_is_an_alarm(rgw: RGW, tmp_path: Path) -> None:
    sink = rgw_settings(rgw, tmp_path, object_lock_days=1)
    recording = settings_with(sink, tmp_path)
    store(recording, tmp_path)
    wrong = dataclasses.replace(sink, bucket="nobodys")
    rows = rows_of(dataclasses.replace(recording, sink=wrong))
    assert rows["sink.health"].level is Level.ALARM
    assert rows["sink.lock"].level is Level.UNKNOWN
    assert rows["sink.encryption"].level is Level.OK
    assert "not known" in rows["sink.encryption"].finding
