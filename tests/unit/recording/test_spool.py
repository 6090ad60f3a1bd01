"""The spool with its thread: order, group commit, marks, and failures that stay with the file they belong to."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from recording.errors import RecordingError
from recording.index import IndexState, RecordingIndex
from recording.sinks.sink import SinkUnavailableError
from recording.spool import Spool
from recording.spool_file import SpooledSegment
from recording.spool_state import SpoolError, SpoolFullError, read_state, segment_path, state_path
from recording.uploader import Uploader
from support.disks import FaultyDisk
from support.memory_sink import MemorySink
from support.observers import ListeningObserver
from support.spooled import RECORD_LEN, Segment, make_segment


class Rig:
    """A running spool with a sink in memory and a disk that can be told to fail."""

    def __init__(
        self, directory: Path, *, disk: FaultyDisk, queue_bytes: int, fsync_interval_ms: int
    ) -> None:
        self.directory = directory / "spool"
        self.disk = disk
        self.index = RecordingIndex(directory / "index.sqlite")
        self.sink = MemorySink()
        self.observer = ListeningObserver()
        self.uploader = Uploader(self.sink, jitter=lambda: -1.0)  # tries again at once
        self.failures: list[tuple[bytes, RecordingError]] = []
        self.failed = threading.Event()
        self.spool = Spool(
            directory=self.directory,
            index=self.index,
            uploader=self.uploader,
            observer=self.observer,
            queue_bytes=queue_bytes,
            fsync_interval_ms=fsync_interval_ms,
            min_free_bytes=0,
            disk=disk.disk(),
        )
        self.spool.start()
        self.uploader.start(self.spool.stored)

    def create(self, segment: Segment) -> SpooledSegment:
        def on_failure(error: RecordingError) -> None:
            self.failures.append((segment.file_id, error))
            self.failed.set()

        return self.spool.create(
            segment.state(), head=segment.head, record_len=RECORD_LEN, on_failure=on_failure
        )

    def write(self, segment: Segment) -> SpooledSegment:
        spooled = self.create(segment)
        for record in segment.records:
            self.spool.append(spooled, record)
        return spooled

    def finish(self, segment: Segment) -> None:
        self.spool.finish(self.write(segment), records=len(segment.records))

    def path(self, segment: Segment) -> Path:
        return segment_path(self.directory, segment.file_id)

    def state(self, segment: Segment) -> IndexState:
        entry = self.index.get(segment.file_id)
        assert entry is not None
        return entry.state

    def stop(self) -> None:
        self.disk.gate.set()
        self.disk.sync_gate.set()
        self.uploader.drain(1)
        self.uploader.stop(5)
        self.spool.stop(10)
        self.index.close()


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    made: list[Rig] = []

    def make(
        disk: FaultyDisk | None = None, *, queue_bytes: int = 1 << 26, fsync_interval_ms: int = 20
    ) -> Rig:
        made.append(
            Rig(
                tmp_path,
                disk=disk or FaultyDisk(),
                queue_bytes=queue_bytes,
                fsync_interval_ms=fsync_interval_ms,
            )
        )
        return made[-1]

    yield make
    for rig in made:
        rig.stop()


def stored(rig: Rig, segment: Segment) -> bytes:
    return rig.sink.objects[segment.state().object_name.key]


def test_files_are_written_in_order_marked_and_handed_to_the_sink(make_rig: MakeRig) -> None:
    rig = make_rig()
    segments = [make_segment(count) for count in (0, 3, 9)]
    for segment in segments:
        rig.finish(segment)
    assert rig.spool.flush(10)
    assert rig.uploader.drain(10)
    rig.stop()
    for segment in segments:
        assert stored(rig, segment) == segment.content
        with closing(RecordingIndex(rig.directory.parent / "index.sqlite")) as index:
            entry = index.get(segment.file_id)
        assert entry is not None
        assert (entry.state, entry.records, entry.size_bytes, entry.object_key) == (
            IndexState.COMPLETE, len(segment.records), len(segment.content), segment.state().object_name.key,
        )  # fmt: skip
    assert list(rig.directory.iterdir()) == []
    assert rig.failures == []


def test_a_file_under_way_is_on_disk_private_and_in_the_index(make_rig: MakeRig) -> None:
    rig = make_rig()
    segment = make_segment(2, finished=False)
    rig.write(segment)
    rig.spool.flush(0.2)
    assert rig.path(segment).read_bytes() == segment.content
    assert stat.S_IMODE(rig.path(segment).stat().st_mode) == 0o600
    assert read_state(state_path(rig.directory, segment.file_id)) == segment.state()
    assert rig.state(segment) is IndexState.RECORDING
    assert rig.disk.syncs > 0


def test_the_mark_is_set_once_all_is_synced_and_not_before(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.sink.gate.clear()
    segment = make_segment(2)
    rig.disk.sync_gate.clear()
    rig.finish(segment)
    assert not rig.spool.flush(0.2)
    assert read_state(state_path(rig.directory, segment.file_id)).ended is None
    rig.disk.sync_gate.set()
    assert rig.spool.flush(10)
    assert rig.sink.entered.wait(10)
    assert read_state(state_path(rig.directory, segment.file_id)).ended == len(segment.records)
    rig.sink.gate.set()


def test_one_commit_serves_all_that_was_written_before_it(make_rig: MakeRig) -> None:
    rig = make_rig(fsync_interval_ms=60_000)
    segment = make_segment(50)
    spooled = rig.create(segment)
    for record in segment.records:
        rig.spool.append(spooled, record)
    rig.spool.finish(spooled, records=len(segment.records))
    assert rig.spool.flush(10)
    assert rig.disk.syncs == 1


def test_a_full_queue_refuses_at_once_and_other_files_go_on(make_rig: MakeRig) -> None:
    rig = make_rig(queue_bytes=64 * 1024)
    rig.disk.gate.clear()
    big = make_segment(40, finished=False)
    spooled = rig.create(big)
    room = (64 * 1024 - len(big.head)) // RECORD_LEN
    for record in big.records[:room]:
        rig.spool.append(spooled, record)
    with pytest.raises(SpoolFullError):
        rig.spool.append(spooled, big.records[room])
    assert not rig.spool.has_queue_room
    rig.spool.abandon(spooled, SpoolFullError("full"))
    rig.disk.gate.set()
    rig.spool.flush(10)
    assert rig.spool.has_queue_room
    small = make_segment(1)
    rig.finish(small)
    assert rig.spool.flush(10)
    assert rig.uploader.drain(10)
    assert stored(rig, small) == small.content
    kept = stored(rig, big)
    assert kept == big.head + b"".join(big.records[:room])
    assert rig.state(big) is IndexState.INCOMPLETE
    assert [file_id for file_id, _ in rig.failures] == [big.file_id]


def test_short_writes_and_passing_errors_leave_no_trace_in_the_file(make_rig: MakeRig) -> None:
    rig = make_rig(FaultyDisk(short=0.4, fail=0.2))
    segments = [make_segment(30) for _ in range(4)]
    for segment in segments:
        rig.finish(segment)
    assert rig.spool.flush(30)
    assert rig.uploader.drain(10)
    assert rig.disk.failures > 5
    assert rig.disk.shorts > 5
    assert rig.failures == []
    for segment in segments:
        assert stored(rig, segment) == segment.content


def test_a_record_is_written_again_byte_for_byte_at_its_own_place(make_rig: MakeRig) -> None:
    rig = make_rig(FaultyDisk(short=0.5, fail=0.3))
    segment = make_segment(100)
    rig.finish(segment)
    assert rig.spool.flush(60)
    assert len(rig.disk.attempts) > len(segment.records) + 50
    for _, offset, data in rig.disk.attempts:
        assert segment.content[offset : offset + len(data)] == data


@pytest.mark.parametrize(
    ("number", "retried"), [(errno.ENOSPC, True), (errno.EIO, True), (errno.EFBIG, False)]
)
def test_a_disk_that_stays_full_costs_what_was_not_written_yet(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, number: int, retried: bool
) -> None:
    monkeypatch.setattr("recording.spool_file.WRITE_RETRY_S", 0.3)
    rig = make_rig(FaultyDisk(number=number))
    segment = make_segment(8)
    spooled = rig.create(segment)
    for record in segment.records[:5]:
        rig.spool.append(spooled, record)
    rig.spool.flush(0.2)
    rig.disk.is_full = True
    for record in segment.records[5:]:
        rig.spool.append(spooled, record)
    rig.spool.finish(spooled, records=len(segment.records))
    assert rig.failed.wait(10)
    assert (rig.disk.failures > 1) == retried
    rig.disk.is_full = False
    assert rig.spool.flush(10)
    assert rig.uploader.drain(10)
    ((file_id, error),) = rig.failures
    assert file_id == segment.file_id
    assert os.strerror(number) in str(error)
    assert stored(rig, segment) == segment.head + b"".join(segment.records[:5])
    assert rig.state(segment) is IndexState.INCOMPLETE
    assert rig.observer.failed == [(segment.file_id, "call-1", "SpoolError")]
    assert rig.observer.finished[0][2] == "incomplete"


def test_a_failed_sync_ends_the_file_for_nobody_knows_what_is_on_disk(make_rig: MakeRig) -> None:
    rig = make_rig()
    bad = make_segment(3, finished=False)
    rig.disk.sync_error = errno.EIO
    rig.write(bad)
    assert rig.failed.wait(10)
    rig.disk.sync_error = None
    good = make_segment(3)
    rig.finish(good)
    assert rig.spool.flush(10)
    assert rig.uploader.drain(10)
    assert [file_id for file_id, _ in rig.failures] == [bad.file_id]
    assert rig.state(bad) is IndexState.INCOMPLETE
    assert stored(rig, good) == good.content


def test_a_file_that_never_got_a_record_is_removed(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recording.spool_file.WRITE_RETRY_S", 0.1)
    rig = make_rig()
    rig.disk.is_full = True
    segment = make_segment(1)
    rig.write(segment)
    assert rig.failed.wait(10)
    rig.disk.is_full = False
    assert rig.spool.flush(10)
    assert rig.state(segment) is IndexState.FAILED
    assert not rig.path(segment).exists()
    assert not state_path(rig.directory, segment.file_id).exists()


def test_a_file_that_exists_is_not_touched(make_rig: MakeRig) -> None:
    rig = make_rig()
    segment = make_segment(1)
    rig.path(segment).write_bytes(b"somebody else's")
    rig.finish(segment)
    assert rig.failed.wait(10)
    assert rig.spool.flush(10)
    assert rig.path(segment).read_bytes() == b"somebody else's"
    assert not state_path(rig.directory, segment.file_id).exists()


def test_a_sink_that_is_down_is_tried_again(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.sink.failures = [SinkUnavailableError("away")] * 5
    segment = make_segment(1)
    rig.finish(segment)
    assert rig.spool.flush(10)
    assert rig.uploader.drain(10)
    assert rig.sink.attempts == 6
    assert rig.uploader.problem is None
    assert stored(rig, segment) == segment.content


def test_an_index_that_cannot_be_written_stops_no_recording(make_rig: MakeRig) -> None:
    rig = make_rig()
    database = rig.directory.parent / "index.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ALTER TABLE recordings RENAME TO away")
    segment = make_segment(2)
    rig.finish(segment)
    assert rig.spool.flush(10)
    assert rig.uploader.drain(10)
    rig.spool.flush(10)
    assert rig.spool.index_problem is not None
    assert "recordings" in rig.spool.index_problem
    assert state_path(rig.directory, segment.file_id).exists(), "kept until the index knows"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ALTER TABLE away RENAME TO recordings")
    assert rig.spool.flush(10)
    assert rig.spool.index_problem is None
    assert rig.state(segment) is IndexState.COMPLETE
    assert not state_path(rig.directory, segment.file_id).exists()


def test_no_file_leaves_the_spool_before_its_mark_is_durable(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    rig = make_rig()
    segment = make_segment(1)
    with monkeypatch.context() as patch:
        patch.setattr("recording.spool.sync_directory", fail)
        rig.finish(segment)
        assert not rig.spool.flush(0.2)
        assert rig.sink.attempts == 0
    assert rig.spool.flush(10)
    assert rig.uploader.drain(10)
    assert stored(rig, segment) == segment.content


def test_abandoning_keeps_what_was_handed_in(make_rig: MakeRig) -> None:
    rig = make_rig()
    segment = make_segment(4, finished=False)
    spooled = rig.write(segment)
    error = SpoolError("the writer failed")
    rig.spool.abandon(spooled, error)
    rig.spool.abandon(spooled, error)
    assert rig.spool.flush(10)
    assert rig.uploader.drain(10)
    assert rig.failures == [(segment.file_id, error)]
    assert stored(rig, segment) == segment.content
    assert rig.state(segment) is IndexState.INCOMPLETE


def test_abandoning_after_the_end_changes_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    segment = make_segment(4)
    spooled = rig.write(segment)
    rig.spool.finish(spooled, records=len(segment.records))
    rig.spool.abandon(spooled, SpoolError("late"))
    assert rig.spool.flush(10)
    rig.spool.abandon(spooled, SpoolError("later"))
    assert rig.spool.flush(10)
    assert rig.uploader.drain(10)
    assert rig.failures == []
    assert rig.state(segment) is IndexState.COMPLETE


def test_a_stopped_spool_refuses_and_keeps_what_it_had(make_rig: MakeRig) -> None:
    rig = make_rig()
    segment = make_segment(4, finished=False)
    spooled = rig.write(segment)
    rig.uploader.stop(5)
    assert rig.spool.stop(10)
    assert not rig.spool.is_running
    with pytest.raises(SpoolError):
        rig.spool.append(spooled, b"x")
    with pytest.raises(SpoolError):
        rig.create(make_segment(0))
    assert rig.path(segment).read_bytes() == segment.content
    assert len(rig.failures) == 1


def test_lag_is_told(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.disk.gate.clear()
    rig.write(make_segment(1))
    assert rig.disk.entered.wait(10)
    rig.write(make_segment(1))  # waits behind the write that hangs
    started = time.monotonic()
    threading.Timer(0.2, rig.disk.gate.set).start()
    rig.disk.gate.wait(10)
    waited = time.monotonic() - started
    rig.spool.flush(0.2)
    assert max(seconds for seconds, _ in rig.observer.lags) >= waited * 0.9


def test_free_space_is_looked_at(make_rig: MakeRig, tmp_path: Path) -> None:
    rig = make_rig()
    assert rig.spool.has_space
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    full = Spool(
        directory=tmp_path / "other",
        index=rig.index,
        uploader=rig.uploader,
        observer=rig.observer,
        queue_bytes=1 << 20,
        fsync_interval_ms=1000,
        min_free_bytes=free * 2,
    )
    assert not full.has_space


def test_a_thousand_files_at_once(make_rig: MakeRig) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        rig = make_rig(fsync_interval_ms=1000)
        open_files = len(list(Path("/proc/self/fd").iterdir()))
        template = make_segment(1)
        spooled = []
        for number in range(1000):
            segment = Segment(
                file_id=number.to_bytes(16, "big"), dek=template.dek, head=template.head,
                records=template.records, pcm=template.pcm,
            )  # fmt: skip
            spooled.append(rig.write(segment))
        for one in spooled:
            rig.spool.finish(one, records=len(template.records))
        assert rig.spool.flush(60)
        assert rig.uploader.drain(60)
        assert rig.failures == []
        assert len(rig.sink.objects) == 1000
        assert set(rig.sink.objects.values()) == {template.content}
        assert len(list(Path("/proc/self/fd").iterdir())) < open_files + 50  # the index may hold some more
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
