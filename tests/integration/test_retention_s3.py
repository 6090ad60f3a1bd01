"""Holds and expiry over a bucket with Object Lock, on a real server: the store keeps what the index would let go."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from recording.index import IndexEntry, IndexState, RecordingIndex
from recording.index.rebuild import compare
from recording.retention import Keep, Retention
from recording.settings import PART_MIN_BYTES, RetentionSettings
from recording.sinks.s3 import S3Sink
from recording.sinks.sink import (
    LockMode,
    LockNotInForceError,
    ObjectLockedError,
    ObjectName,
    SinkUnavailableError,
    manifest_key,
)
from recording.spool_state import make_spool_directory
from support.rgw import LOCKED_BUCKET, RGW
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
        self.sink.put_manifest(self.key, b"manifest")
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


def locks_of(rgw: RGW, rig: Rig) -> dict[tuple[str, str], tuple[str | None, datetime | None, bool]]:
    """What a plain client is told of all versions below the rig's prefix: suffix and version id, mode, until, hold."""
    client = rgw.client(rgw.owner)
    found: dict[tuple[str, str], tuple[str | None, datetime | None, bool]] = {}
    answer = client.list_object_versions(Bucket=LOCKED_BUCKET, Prefix=rig.sink._settings.prefix)
    for each in answer.get("Versions", []):
        where = {"Bucket": LOCKED_BUCKET, "Key": each["Key"], "VersionId": each["VersionId"]}
        mode, until, is_held = None, None, False
        with contextlib.suppress(ClientError):
            kept = client.get_object_retention(**where)["Retention"]
            mode, until = kept["Mode"], kept["RetainUntilDate"].astimezone(UTC)
        with contextlib.suppress(ClientError):
            is_held = client.get_object_legal_hold(**where)["LegalHold"]["Status"] == "ON"
        found[each["Key"].partition(".")[2], each["VersionId"]] = (mode, until, is_held)
    return found


def overwrite(rgw: RGW, rig: Rig, key: str) -> None:
    """What an intruder with the right to write can do: a newer version."""
    rgw.client(rgw.owner).put_object(
        Bucket=LOCKED_BUCKET, Key=rig.sink._settings.prefix + key, Body=b"another"
    )


@pytest.fixture
def rig(rgw: RGW, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(rgw, tmp_path)
    with closing(made.index):
        yield made


def test_what_object_lock_keeps_stays_until_its_time_and_then_goes_in_all_versions(
    rgw: RGW, rig: Rig
) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=LOCKED_S)
    rig.sink.extend_retention(rig.key, until)
    overwrite(rgw, rig, rig.key)
    assert rig.expire() is Keep.STORE
    assert rig.is_there()
    assert len(locks_of(rgw, rig)) == 4, "nothing of it went"
    time.sleep(
        max(0.0, (until - datetime.now(UTC)).total_seconds()) + 1.0
    )  # the server's clock, not an event
    assert rig.expire() is None
    assert not rig.is_there()
    assert list(rig.sink.keys()) == []
    assert rig.sink.slot_generations(rig.key) == []
    assert locks_of(rgw, rig) == {}
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


SUFFIXES = {"crec", "manifest", "1.slots"}


def test_a_hold_reaches_all_versions_of_an_object_and_of_what_lies_beside_it(rgw: RGW, rig: Rig) -> None:
    overwrite(rgw, rig, rig.key)
    rig.retention.hold(b"R" * 16, "court-order")
    locks = locks_of(rgw, rig)
    assert {suffix for suffix, _ in locks} == SUFFIXES
    assert len(locks) == 4
    assert all(is_held for _, _, is_held in locks.values())
    rig.sink.put_slots(rig.key, 2, b"moved to another key")
    assert all(is_held for _, _, is_held in locks_of(rgw, rig).values()), "later slots too"
    assert rig.sink.slot_generations(rig.key) == [2, 1], "a hold does not stop a rewrap"
    client = rgw.client(rgw.owner)
    for suffix, version in locks_of(rgw, rig):
        key = rig.sink._settings.prefix + rig.key.replace("crec", suffix)
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(Bucket=LOCKED_BUCKET, Key=key, VersionId=version)
    rig.retention.release(b"R" * 16)
    assert not any(is_held for _, _, is_held in locks_of(rgw, rig).values())
    assert rig.expire() is None
    assert locks_of(rgw, rig) == {}


def test_longer_retention_reaches_all_versions_and_a_shorter_one_none(rgw: RGW, rig: Rig) -> None:
    overwrite(rgw, rig, manifest_key(rig.key))
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=120)
    for asked in (until, until - timedelta(seconds=60)):
        rig.sink.extend_retention(rig.key, asked)
        locks = locks_of(rgw, rig)
        assert len(locks) == 4
        assert set(locks.values()) == {("GOVERNANCE", until, False)}
    assert rig.sink.looser_than(rig.key, rig.sink.retention(rig.key)) == []
    rig.sink.put_slots(rig.key, 2, b"moved to another key")
    assert set(locks_of(rgw, rig).values()) == {("GOVERNANCE", until, False)}
    overwrite(rgw, rig, manifest_key(rig.key))
    (looser,) = rig.sink.looser_than(rig.key, rig.sink.retention(rig.key))
    assert looser.endswith(manifest_key(rig.key)), "what nobody locked is told"


def test_nothing_of_an_object_goes_while_something_beside_it_is_kept(rgw: RGW, rig: Rig) -> None:
    where = {"Bucket": LOCKED_BUCKET, "Key": rig.sink._settings.prefix + manifest_key(rig.key)}
    client = rgw.client(rgw.owner)
    client.put_object_legal_hold(**where, LegalHold={"Status": "ON"})
    assert rig.expire() is Keep.STORE
    assert {suffix for suffix, _ in locks_of(rgw, rig)} == SUFFIXES
    (entry,) = rig.index.find()
    assert entry.state is IndexState.COMPLETE, "it can be put on hold, and is found again"
    client.put_object_legal_hold(**where, LegalHold={"Status": "OFF"})
    assert rig.expire() is None


def test_a_deletion_that_a_lock_stops_half_way_is_still_a_deletion(
    rgw: RGW, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody locks what lies beside the object after it was looked at."""
    where = {"Bucket": LOCKED_BUCKET, "Key": rig.sink._settings.prefix + manifest_key(rig.key)}
    rgw.client(rgw.owner).put_object_legal_hold(**where, LegalHold={"Status": "ON"})
    with monkeypatch.context() as patch:
        patch.setattr(rig.sink._locks, "_require_free", lambda versions: None)
        with pytest.raises(SinkUnavailableError) as caught:
            rig.sink.delete(rig.key)
    assert caught.value.reason_label == "not_deleted"
    assert not rig.is_there()
    rgw.client(rgw.owner).put_object_legal_hold(**where, LegalHold={"Status": "OFF"})
    rig.sink.delete(rig.key)
    assert locks_of(rgw, rig) == {}


@pytest.mark.parametrize("size", [1000, PART_MIN_BYTES + 1000])
@pytest.mark.parametrize("mode", LockMode)
def test_what_was_promised_is_set_at_the_upload_and_read_back(
    rgw: RGW, tmp_path: Path, size: int, mode: LockMode
) -> None:
    sink = S3Sink(rgw_settings(rgw, tmp_path, object_lock_mode=mode))
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=LOCKED_S * 10)
    name = ObjectName(tenant_handle=CLINIC, file_id=os.urandom(16), started_hour=BEGAN, retain_until=until)
    source = tmp_path / "source.crec"
    source.write_bytes(os.urandom(size))
    sink.put(source, name)
    sink.put_manifest(name.key, b"manifest")
    sink.put_slots(name.key, 1, b"slots")
    kept = sink.retention(name.key)
    assert (kept.mode, kept.until, kept.is_held) == (mode, until, False)
    assert sink.looser_than(name.key, kept) == []
    with pytest.raises(ObjectLockedError):
        sink.delete(name.key)
    assert sink.size(name.key) == size
    assert sink.manifest(name.key) == b"manifest"


def test_what_was_promised_is_the_stores_only_where_locks_are_asked_for(rgw: RGW, tmp_path: Path) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    name = ObjectName(tenant_handle=CLINIC, file_id=os.urandom(16), started_hour=BEGAN, retain_until=until)
    source = tmp_path / "source.crec"
    source.write_bytes(b"sealed")
    plain = rgw_settings(rgw, tmp_path, locked=False)
    with pytest.raises(LockNotInForceError):
        S3Sink(replace(plain, object_lock_mode=LockMode.GOVERNANCE)).put(source, name)
    assert source.exists(), "the spool keeps what a bucket without Object Lock cannot keep"
    S3Sink(plain).put(source, name)
    S3Sink(plain).delete(name.key)
    over = replace(name, retain_until=datetime.now(UTC) - timedelta(hours=1))
    sink = S3Sink(rgw_settings(rgw, tmp_path))
    sink.put(source, over)
    assert sink.retention(over.key).until is None, "its time is over"
    sink.delete(over.key)


def test_locks_are_repeated_for_what_was_stored_before_they_were_asked_for(
    rgw: RGW, rig: Rig, tmp_path: Path
) -> None:
    overwrite(rgw, rig, rig.key)
    assert {until for _, until, _ in locks_of(rgw, rig).values()} == {None}
    days = (datetime.now(UTC) - BEGAN).days + 2
    longer = Retention(
        index=rig.index,
        sink=rig.sink,
        settings=RetentionSettings(tenants={CLINIC: days}),
        spool_directory=tmp_path / "spool",
    )
    for _ in range(2):
        assert longer.repeat_locks(datetime.now(UTC)) == 1
        locks = locks_of(rgw, rig)
        assert len(locks) == 4
        assert set(locks.values()) == {("GOVERNANCE", BEGAN + timedelta(days=days), False)}
    assert rig.retention.repeat_locks(datetime.now(UTC)) == 0, "fewer days shorten nothing"
    assert set(locks_of(rgw, rig)) == set(locks)
    assert rig.expire() is Keep.STORE
