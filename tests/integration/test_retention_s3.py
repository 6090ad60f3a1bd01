"""Holds and expiry over a bucket with Object Lock, on a real server: the store keeps what the index would let go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recording.index import IndexEntry, IndexState, RecordingIndex
from recording.index.rebuild import compare
from recording.retention import Keep, Retention
from recording.settings import RetentionSettings
from recording.sinks.s3 import S3Sink
from recording.sinks.sink import ObjectLockedError, ObjectName
from recording.spool_state import make_spool_directory
from support.rgw import RGW
from support.s3 import rgw_settings

BEGAN = datetime(2026, 5, 6, 7, tzinfo=UTC)
CLINIC = b"C" * 16
LOCKED_S = 6.0


class Rig:
    """One stored recording whose time is over by the index's policy."""

    def __init__(self, rgw: RGW, directory: Path) -> None:
        self.sink = S3Sink(rgw_settings(rgw, directory / "sink"))
        self.index = RecordingIndex(directory / "index.sqlite")
        make_spool_directory(directory / "spool")
        self.retention = Retention(
            index=self.index,
            sink=self.sink,
            settings=RetentionSettings(tenants={CLINIC: 1}),
            spool_directory=directory / "spool",
        )
        name = ObjectName(tenant_handle=CLINIC, file_id=os.urandom(16), started_hour=BEGAN)
        self.key = name.key
        source = directory / f"{name.file_id.hex()}.crec"
        source.write_bytes(os.urandom(4096))
        self.sink.put(source, name)
        self.sink.put_slots(self.key, 1, b"slots")
        self.index.put(
            [
                IndexEntry(
                    file_id=name.file_id,
                    recording=b"R" * 16,
                    segment=0,
                    call_uid="ab" * 16,
                    tenant_handle=CLINIC,
                    state=IndexState.COMPLETE,
                    provider=1,
                    key_id="k",
                    started_hour=BEGAN,
                    size_bytes=4096,
                    object_key=self.key,
                )
            ]
        )

    def expire(self) -> Keep | None:
        (done,) = self.retention.delete(b"R" * 16, datetime.now(UTC))
        assert done.problem is None
        return done.keep

    def is_there(self) -> bool:
        return self.sink.size(self.key) is not None


@pytest.fixture
def rig(rgw: RGW, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(rgw, tmp_path)
    with closing(made.index):
        yield made


def test_what_object_lock_keeps_stays_until_its_time_and_then_goes_in_all_versions(rig: Rig) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=LOCKED_S)
    rig.sink.extend_retention(rig.key, until)
    assert rig.expire() is Keep.STORE
    assert rig.is_there()
    time.sleep(
        max(0.0, (until - datetime.now(UTC)).total_seconds()) + 1.0
    )  # the server's clock, not an event
    assert rig.expire() is None
    assert not rig.is_there()
    assert list(rig.sink.keys()) == []
    assert rig.sink.slot_generations(rig.key) == []
    (entry,) = rig.index.find()
    assert (entry.state, entry.deleted_hour is not None) == (IndexState.DELETED, True)
    assert compare(rig.index, rig.sink).is_empty


def test_a_legal_hold_is_the_stores_too_and_outlasts_the_index(rig: Rig) -> None:
    rig.retention.hold(b"R" * 16, "court-order")
    assert rig.sink.retention(rig.key).is_held
    assert rig.expire() is Keep.HOLD
    rig.index.lift_hold(b"R" * 16)  # as if the index had been lost
    assert rig.expire() is Keep.STORE
    with pytest.raises(ObjectLockedError):
        rig.sink.delete(rig.key)
    assert rig.is_there()
    rig.retention.release(b"R" * 16)
    assert not rig.sink.retention(rig.key).is_held
    assert rig.expire() is None
    assert not rig.is_there()
