"""A disk whose syncs take seconds: writing goes on, the pump never waits, and the queue's bound is what gives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recording.call_recording import CallRecording, RecorderParts
from recording.errors import RecordingError
from recording.format.content import RecordingMeta
from recording.index import RecordingIndex
from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.pool import KeyPool, TenantKey
from recording.observer import SilentObserver
from recording.settings import Layout, LocalKeySettings, RecordingSettings
from recording.sinks.local import LocalSink
from recording.spool import Spool
from recording.spool_state import OwnerLock, SpoolFullError, segment_path
from recording.uploader import Uploader
from support.disks import FaultyDisk

DRAIN = memoryview(bytes(3200))  # 200 ms of 8 kHz mono


class Rig:
    """The recorder's parts on a disk of the test's choosing."""

    def __init__(self, directory: Path, disk: FaultyDisk, queue_bytes: int) -> None:
        create_kek(directory / "kek")
        key = LocalKeySettings(kek_path=directory / "kek")
        self.settings = RecordingSettings(
            directory=directory / "store",
            spool_directory=directory / "spool",
            index_path=directory / "index.sqlite",
            keys={"main": key},
            fsync_interval_ms=20,
            min_free_bytes=0,
        )
        self.index = RecordingIndex(self.settings.index_path)
        self.uploader = Uploader(LocalSink(self.settings.directory))
        self.failures: list[RecordingError] = []
        self.failed = threading.Event()
        self.spool = Spool(
            directory=self.settings.spool_directory,
            index=self.index,
            uploader=self.uploader,
            observer=SilentObserver(),
            queue_bytes=queue_bytes,
            fsync_interval_ms=self.settings.fsync_interval_ms,
            min_free_bytes=0,
            disk=disk.disk(),
        )
        self.lock = OwnerLock.create(self.settings.spool_directory)
        self.pool = KeyPool(
            tenants={"clinic": TenantKey(handle=bytes(16), provider="main")},
            providers={"main": LocalKeyProvider("main", key)},
            settings=self.settings.pool,
            observer=SilentObserver(),
        )
        self.pool.refill()
        self.spool.start()
        self.uploader.start(self.spool.stored)

    def open(self) -> CallRecording:
        parts = RecorderParts(
            settings=self.settings,
            owner=self.lock.owner,
            pool=self.pool,
            spool=self.spool,
            observer=SilentObserver(),
        )

        def on_failure(error: RecordingError) -> None:
            self.failures.append(error)
            self.failed.set()

        return CallRecording(
            parts=parts,
            key=self.pool.take("clinic"),
            meta=RecordingMeta(rate_hz=8000, call_uid="call-1"),
            layout=Layout.MIXED,
            on_failure=on_failure,
        )


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[[FaultyDisk, int], Rig]]:
    rigs: list[tuple[Rig, FaultyDisk]] = []

    def make(disk: FaultyDisk, queue_bytes: int) -> Rig:
        rigs.append((Rig(tmp_path, disk, queue_bytes), disk))
        return rigs[-1][0]

    yield make
    for rig, disk in rigs:
        disk.gate.set()
        disk.sync_gate.set()
        rig.pool.stop()
        rig.uploader.stop(5)
        assert rig.spool.stop(10)
        rig.index.close()
        rig.lock.release()


def test_records_are_written_while_a_sync_hangs(make_rig: Callable[[FaultyDisk, int], Rig]) -> None:
    disk = FaultyDisk()
    rig = make_rig(disk, 1 << 24)
    recording = rig.open()
    disk.sync_gate.clear()
    recording.append(DRAIN, 1600, 0)
    (file_id,) = recording.file_ids
    path = segment_path(rig.settings.spool_directory, file_id)
    for _ in range(20):
        recording.append(DRAIN, 1600, 0)
    deadline = time.monotonic() + 10
    expected = 4096 + 9 * 8208  # the head, META and the eight records that 4.2 s of audio have filled
    while (not path.exists() or path.stat().st_size < expected) and time.monotonic() < deadline:
        rig.spool.flush(0.05)
    assert path.stat().st_size == expected
    assert not disk.sync_gate.is_set()
    assert rig.failures == []


def test_the_pump_never_waits_for_a_disk_that_hangs(make_rig: Callable[[FaultyDisk, int], Rig]) -> None:
    disk = FaultyDisk()
    rig = make_rig(disk, 256 * 1024)
    disk.gate.clear()
    recording = rig.open()
    slowest = 0.0
    for _ in range(200):  # 40 s of audio, 640 kB: more than the queue holds
        started = time.monotonic()
        recording.append(DRAIN, 1600, 0)
        recording.tick(time.monotonic_ns())
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 1.0
    assert not disk.gate.is_set(), "the disk hung all the while"
    assert rig.failed.is_set()
    assert [type(error) for error in rig.failures] == [SpoolFullError]
    recording.finish(ended_by="caller", reason="bye")
    disk.gate.set()
    assert rig.spool.flush(10)
    assert len(rig.failures) == 1
