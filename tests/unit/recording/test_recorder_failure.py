"""A disk that fails under a call: told once, from whichever thread, and the call's other calls go on."""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recording.errors import RecordingError, TimelineError
from recording.format.content import EventKind, RecordingEvent, RecordingMeta
from recording.index import IndexState, RecordingIndex
from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.pool import TenantKey
from recording.recorder import CallRecording, Recorder, RecorderUnavailable, UnavailableReason
from recording.settings import Layout, LocalKeySettings, RecordingSettings
from recording.spool_file import Disk
from recording.spool_state import SpoolError, segment_path
from support.observers import ListeningObserver

SECOND = memoryview(bytes(16_000))


class Rig:
    def __init__(self, directory: Path) -> None:
        create_kek(directory / "kek")
        key = LocalKeySettings(kek_path=directory / "kek")
        self.settings = RecordingSettings(
            directory=directory / "store",
            spool_directory=directory / "spool",
            index_path=directory / "index.sqlite",
            keys={"main": key},
            fsync_interval_ms=10,
            segment_seconds=2,
            queue_bytes=1 << 20,
            min_free_bytes=0,
        )
        self.observer = ListeningObserver()
        self.recorder = Recorder(
            self.settings,
            {"clinic": TenantKey(handle=bytes(16), provider="main")},
            {"main": LocalKeyProvider("main", key)},
            self.observer,
        )
        self.bad_writes: set[bytes] = set()
        self.bad_syncs: set[bytes] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.told: list[tuple[str, str]] = []
        self.failed = threading.Event()

    def disk(self) -> Disk:
        def name(fd: int) -> bytes:
            return bytes.fromhex(Path(f"/proc/self/fd/{fd}").readlink().stem)

        def pwrite(fd: int, data: memoryview, offset: int) -> int:
            self.gate.wait(30)
            if name(fd) in self.bad_writes:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            return os.pwrite(fd, data, offset)

        def fdatasync(fd: int) -> None:
            if name(fd) in self.bad_syncs:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            os.fdatasync(fd)

        return Disk(pwrite=pwrite, fdatasync=fdatasync)

    def open(self) -> CallRecording:
        def on_failure(error: RecordingError) -> None:
            self.told.append((type(error).__name__, threading.current_thread().name))
            self.failed.set()

        return self.recorder.open(
            self.recorder.reserve("clinic"),
            meta=RecordingMeta(rate_hz=8000, call_uid="call-1"),
            layout=Layout.MIXED,
            on_failure=on_failure,
        )

    def wait_written(self, recording: CallRecording) -> None:
        """Until the last segment's whole records are on disk."""
        path = segment_path(self.settings.spool_directory, recording.file_ids[-1])
        spool = self.recorder._spool
        assert spool is not None
        deadline = time.monotonic() + 10
        while not path.exists() or path.stat().st_size < 4096 + 3 * 8208:
            assert time.monotonic() < deadline
            spool.flush(0.02)

    def states(self) -> dict[bytes, IndexState]:
        index = RecordingIndex(self.settings.index_path)
        try:
            return {entry.file_id: entry.state for entry in index.find()}
        finally:
            index.close()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path)
    monkeypatch.setattr("recording.spool.Disk", made.disk)
    made.recorder.start()
    assert made.recorder.wait_ready(10)
    yield made
    made.gate.set()
    made.recorder.stop(5)


def use_everything(recording: CallRecording) -> None:
    recording.append(SECOND, 8000, 0)
    recording.event(RecordingEvent(event=EventKind.HOLD))
    recording.tick(1 << 62)
    recording.finish(ended_by="caller", reason="bye")


def test_a_write_that_fails_ends_that_recording_and_no_other(rig: Rig) -> None:
    bad, good = rig.open(), rig.open()
    bad.append(SECOND, 8000, 0)
    good.append(SECOND, 8000, 0)
    rig.wait_written(bad)
    rig.bad_writes.add(bad.file_ids[0])
    bad.append(SECOND, 8000, 0)
    assert rig.failed.wait(10)
    assert bad.is_failed
    sealed = rig.observer.sealed_records
    use_everything(bad)
    assert rig.observer.sealed_records == sealed, "after a failure nothing is sealed any more"
    assert not good.is_failed
    use_everything(good)
    assert rig.recorder.stop(10)
    assert rig.told == [("SpoolError", "spool")]
    assert rig.states() == {bad.file_ids[0]: IndexState.INCOMPLETE, good.file_ids[0]: IndexState.COMPLETE}
    assert rig.observer.failed == [(bad.file_ids[0], "call-1", "SpoolError")]


def test_an_earlier_segment_that_fails_late_ends_the_recording_too(rig: Rig) -> None:
    recording = rig.open()
    recording.append(SECOND, 8000, 0)
    rig.wait_written(recording)
    recording.append(SECOND, 8000, 0)
    rig.bad_syncs.add(recording.file_ids[0])
    recording.append(SECOND, 8000, 0)  # rolls
    assert rig.failed.wait(10)
    use_everything(recording)
    assert rig.recorder.stop(10)
    assert len(rig.told) == 1
    states = rig.states()
    assert len(states) == len(recording.file_ids)
    assert states[recording.file_ids[0]] is IndexState.INCOMPLETE
    assert list(rig.settings.spool_directory.iterdir()) == []


def test_a_segment_begun_while_the_recording_fails_is_given_up_too(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = rig.open()
    spool = rig.recorder._spool
    assert spool is not None
    create = spool.create

    def fail_meanwhile(*arguments: object, **keywords: object) -> object:
        recording._fail(SpoolError("an earlier segment"))  # as the spool thread does at any moment
        return create(*arguments, **keywords)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(spool, "create", fail_meanwhile)
        recording.append(SECOND, 8000, 0)
    use_everything(recording)
    assert spool.flush(10), "no segment is left under way"
    assert len(rig.told) == 1
    assert rig.states() == {recording.file_ids[0]: IndexState.INCOMPLETE}


def test_a_queue_that_fills_up_admits_nobody(rig: Rig) -> None:
    recording = rig.open()
    rig.gate.clear()
    rig.recorder.release(rig.recorder.reserve("clinic"))
    for _ in range(36):
        recording.append(SECOND, 8000, 0)
    with pytest.raises(RecorderUnavailable) as caught:
        rig.recorder.reserve("clinic")
    assert caught.value.reason is UnavailableReason.QUEUE_FULL
    assert "pile up" in str(rig.recorder.readiness())
    rig.gate.set()
    spool = rig.recorder._spool
    assert spool is not None
    spool.flush(0.3)
    rig.recorder.release(rig.recorder.reserve("clinic"))


def test_a_roll_without_key_or_room_fails_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recording.call_recording.limits.MAX_SEGMENT_SECONDS", 3)
    recording = rig.open()
    rig.recorder._pool.stop()
    for _ in range(5):
        recording.append(SECOND, 8000, 0)
    recording.finish(ended_by="caller", reason="bye")
    assert rig.recorder.stop(10)
    assert [name for name, _ in rig.told] == ["NoKeyError"]
    assert rig.states() == {recording.file_ids[0]: IndexState.INCOMPLETE}
    assert rig.observer.failed == [(recording.file_ids[0], "call-1", "NoKeyError")]


def test_audio_that_cannot_be_fails_before_there_is_a_file_and_wipes_the_key(rig: Rig) -> None:
    recording = rig.open()
    key = recording._key
    assert key is not None
    recording.append(SECOND, 7999, 0)
    assert rig.told == [(TimelineError.__name__, "MainThread")]
    use_everything(recording)
    assert not any(key.key.dek)
    assert rig.observer.failed == [(key.file_id, "call-1", "TimelineError")]
    assert rig.recorder.stop(10)
    assert rig.states() == {}


def test_a_recorder_that_has_stopped_fails_what_is_still_fed(rig: Rig) -> None:
    recording = rig.open()
    recording.append(SECOND, 8000, 0)
    late = rig.open()
    rig.recorder.stop(1)
    assert [name for name, _ in rig.told] == ["SpoolError"]
    use_everything(recording)
    use_everything(late)
    assert [name for name, _ in rig.told] == ["SpoolError", "SpoolError"]


@pytest.mark.parametrize("meta", [RecordingMeta(call_uid="x"), RecordingMeta(rate_hz=8000)])
def test_a_meta_without_its_necessities_is_refused(rig: Rig, meta: RecordingMeta) -> None:
    on_failure: Callable[[RecordingError], None] = lambda error: None  # noqa: E731
    with pytest.raises(ValueError, match="META"):
        rig.recorder.open(
            rig.recorder.reserve("clinic"), meta=meta, layout=Layout.MIXED, on_failure=on_failure
        )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_spool_thread_that_dies_closes_the_door(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in it must not leave calls that believe to be recorded."""

    def die(**_: object) -> None:
        raise RuntimeError("a bug")

    recording = rig.open()
    recording.append(SECOND, 8000, 0)
    spool = rig.recorder._spool
    assert spool is not None
    assert spool._thread is not None
    monkeypatch.setattr(rig.observer, "spool_lag", die)
    spool._thread.join(10)
    assert not spool.is_running
    recording.append(SECOND, 8000, 0)
    recording.append(SECOND, 8000, 0)
    assert [name for name, _ in rig.told] == ["SpoolError"]
    with pytest.raises(RecorderUnavailable) as caught:
        rig.recorder.reserve("clinic")
    assert caught.value.reason is UnavailableReason.NOT_RUNNING
    assert "spool thread" in str(rig.recorder.readiness())
    assert not rig.recorder.stop(1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_keys_thread_that_dies_is_said_to_be_dead(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    dying: queue.Queue[threading.Thread] = queue.Queue()

    def die(_: object) -> None:
        dying.put(threading.current_thread())
        raise RuntimeError("a bug")

    pool = rig.recorder._pool
    provider = pool._providers["main"]
    assert rig.recorder.readiness().is_ready
    monkeypatch.setattr(provider, "new_key", die)
    pool.take("clinic").wipe()
    dying.get(timeout=10).join(10)
    assert "keys thread" in str(rig.recorder.readiness())
    assert rig.recorder.reserve("clinic"), "what is in stock serves as long as it lasts"
