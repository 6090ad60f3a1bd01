"""A spool on a file system that really is full."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from recording.errors import RecordingError
from recording.index import IndexState, RecordingIndex
from recording.observer import SilentObserver
from recording.sinks.local import LocalSink
from recording.spool import Spool
from recording.spool_file import SpooledSegment
from recording.uploader import Uploader
from recording.verify import RecordingState, verify
from support.disks import small_disk
from support.spooled import RECORD_LEN, Segment, make_segment, prefix_audio


@pytest.fixture
def spool_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", size_kib=1024) as mount_point:
        yield mount_point


class Rig:
    def __init__(self, spool: Path, other: Path) -> None:
        self.index = RecordingIndex(other / "index.sqlite")
        self.sink = LocalSink(other / "store")
        self.uploader = Uploader(self.sink)
        self.failures: list[RecordingError] = []
        self.failed = threading.Event()
        self.spool = Spool(
            directory=spool,
            index=self.index,
            uploader=self.uploader,
            observer=SilentObserver(),
            queue_bytes=1 << 26,
            fsync_interval_ms=50,
            min_free_bytes=256 * 1024,
        )
        self.spool.start()
        self.uploader.start(self.spool.stored)

    def write(self, segment: Segment) -> SpooledSegment:
        def on_failure(error: RecordingError) -> None:
            self.failures.append(error)
            self.failed.set()

        spooled = self.spool.create(
            segment.state(), head=segment.head, record_len=RECORD_LEN, on_failure=on_failure
        )
        for record in segment.records:
            self.spool.append(spooled, record)
        self.spool.finish(spooled, records=len(segment.records))
        return spooled


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[[Path], Rig]]:
    rigs: list[Rig] = []

    def make(spool: Path) -> Rig:
        rigs.append(Rig(spool, tmp_path))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.uploader.stop(5)
        rig.spool.stop(10)
        rig.index.close()


def test_what_was_sealed_before_the_disk_was_full_is_kept(
    spool_disk: Path, tmp_path: Path, make_rig: Callable[[Path], Rig]
) -> None:
    rig = make_rig(spool_disk)
    assert rig.spool.has_space
    big = make_segment(600)
    assert len(big.content) > 2 << 20
    rig.write(big)
    assert rig.failed.wait(20)
    assert "No space left on device" in str(rig.failures[0])
    assert rig.spool.flush(20)
    assert rig.uploader.drain(20)
    entry = rig.index.get(big.file_id)
    assert entry is not None
    assert entry.state is IndexState.INCOMPLETE
    assert entry.records > 200
    rig.spool.flush(5)
    with big.open(rig.sink.path(big.state().object_name.key)) as reader:
        verdict = verify(reader)
        audio = prefix_audio(reader)
    assert (verdict.state, verdict.records) == (RecordingState.INCOMPLETE, entry.records)
    assert big.pcm.startswith(audio)

    small = make_segment(3)  # there is room again: the next call is recorded
    rig.write(small)
    assert rig.spool.flush(20)
    assert rig.uploader.drain(20)
    assert rig.sink.path(small.state().object_name.key).read_bytes() == small.content
    assert len(rig.failures) == 1


def test_a_full_disk_admits_nobody_and_room_is_noticed(
    spool_disk: Path, make_rig: Callable[[Path], Rig]
) -> None:
    rig = make_rig(spool_disk)
    ballast = spool_disk / "ballast"
    ballast.write_bytes(bytes(900 * 1024))
    rig.spool.flush(5)
    assert not rig.spool.has_space
    ballast.unlink()
    rig.spool.flush(5)
    assert rig.spool.has_space


def test_a_disk_that_gets_room_in_time_costs_nothing(
    spool_disk: Path, make_rig: Callable[[Path], Rig]
) -> None:
    rig = make_rig(spool_disk)
    ballast = spool_disk / "ballast"
    ballast.write_bytes(bytes(900 * 1024))
    segment = make_segment(100)
    rig.write(segment)
    assert not rig.spool.flush(0.5)
    assert rig.spool._failing, "the spool waits for room"
    ballast.unlink()
    assert rig.spool.flush(20)
    assert rig.uploader.drain(20)
    assert rig.failures == []
    assert rig.sink.path(segment.state().object_name.key).read_bytes() == segment.content


# The limit makes write(2) fail with EFBIG, which no waiting cures; SIGXFSZ is ignored by Python.
LIMITED = """
import resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[3]]
from test_spool_full_disk import Rig
from support.spooled import make_segment
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
directory = Path(sys.argv[1])
rig = Rig(directory / "spool", directory)
segment = make_segment(100)
rig.write(segment)
assert rig.failed.wait(20)
assert rig.spool.flush(20) and rig.uploader.drain(20)
rig.uploader.stop(5)
assert rig.spool.stop(10)
rig.index.close()
print(segment.file_id.hex(), segment.dek.hex(), rig.failures[0])
"""


def test_a_file_size_limit_keeps_whole_records_for_every_user(tmp_path: Path) -> None:
    limit = 40 * RECORD_LEN + 5000
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path, str(limit), Path(__file__).parent],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.returncode == 0, ran.stderr
    file_id, dek, message = ran.stdout.strip().split(" ", 2)
    assert "File too large" in message
    with closing(RecordingIndex(tmp_path / "index.sqlite")) as index:
        entry = index.get(bytes.fromhex(file_id))
    assert entry is not None
    assert (entry.state, entry.records) == (IndexState.INCOMPLETE, 40)
    assert entry.object_key is not None
    segment = Segment(file_id=bytes.fromhex(file_id), dek=bytes.fromhex(dek), head=b"", records=(), pcm=b"")
    with segment.open(tmp_path / "store" / entry.object_key) as reader:
        assert verify(reader).records == 40


def test_the_limit_is_the_childs_alone() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
