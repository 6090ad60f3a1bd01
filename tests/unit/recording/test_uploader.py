"""The uploader: one job at a time, again and again until it is done, and an end when it is told to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recording.sinks.sink import ObjectConflictError, ObjectName, SinkRefusedError, SinkUnavailableError
from recording.uploader import (
    MAX_RETRY_S,
    REFUSED_RETRY_S,
    Stored,
    Uploader,
    UploadJob,
)
from support.memory_sink import MemorySink
from support.observers import ListeningObserver
from support.spooled import HOUR, TENANT_HANDLE

_NS_PER_S = 1_000_000_000


class Rig:
    def __init__(self, *, jitter: float) -> None:
        self.sink = MemorySink()
        self.uploader = Uploader(self.sink, jitter=lambda: jitter)
        self.stored: list[Stored] = []
        self.threads: set[str] = set()

    def on_stored(self, stored: Stored) -> None:
        self.stored.append(stored)
        self.threads.add(threading.current_thread().name)

    def job(self, directory: Path, number: int = 0) -> UploadJob:
        path = directory / f"{number}.crec"
        path.write_bytes(bytes([number]) * 100)
        name = ObjectName(tenant_handle=TENANT_HANDLE, file_id=bytes([number]) * 16, started_hour=HOUR)
        return UploadJob(path=path, name=name)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Tries again at once."""
    made = Rig(jitter=-1.0)
    yield made
    made.sink.gate.set()
    made.uploader.stop(5)


@pytest.fixture
def patient() -> Iterator[Rig]:
    """Waits the full time before it tries again."""
    made = Rig(jitter=1.0)
    yield made
    made.sink.gate.set()
    made.uploader.stop(5)


def test_jobs_are_done_in_order_also_those_from_before_the_start(rig: Rig, tmp_path: Path) -> None:
    jobs = [rig.job(tmp_path, number) for number in range(5)]
    for job in jobs[:3]:
        rig.uploader.submit(job)
    assert rig.uploader.pending == 3
    rig.uploader.start(rig.on_stored)
    for job in jobs[3:]:
        rig.uploader.submit(job)
    assert rig.uploader.drain(10)
    assert [(stored.key, stored.size_bytes) for stored in rig.stored] == [(job.name.key, 100) for job in jobs]
    assert rig.threads == {"uploader"}
    assert rig.uploader.pending == 0


@pytest.mark.parametrize(
    "error", [SinkUnavailableError("x"), SinkRefusedError("x"), ObjectConflictError("x")]
)
def test_what_fails_is_tried_again_and_does_not_hold_up_the_rest(
    rig: Rig, tmp_path: Path, error: SinkUnavailableError
) -> None:
    rig.sink.failures = [error, error]
    for number in range(3):
        rig.uploader.submit(rig.job(tmp_path, number))
    rig.uploader.start(rig.on_stored)
    assert rig.uploader.drain(10)
    assert {stored.file_id[0] for stored in rig.stored} == {0, 1, 2}
    assert rig.sink.attempts == 5


@pytest.mark.parametrize(
    ("error", "pauses"),
    [
        (SinkUnavailableError("full"), [1, 2, 4, 8, 16, 32, MAX_RETRY_S, MAX_RETRY_S]),
        (SinkRefusedError("no"), [REFUSED_RETRY_S] * 3),
    ],
)
def test_the_pause_grows_to_a_bound_and_the_problem_is_told(
    patient: Rig, tmp_path: Path, error: SinkUnavailableError, pauses: list[float]
) -> None:
    patient.uploader.submit(patient.job(tmp_path))
    waiting = patient.uploader._next()
    for pause in pauses:
        assert waiting is not None
        before_ns = time.monotonic_ns()
        patient.uploader._failed(waiting, error)
        (waiting,) = patient.uploader._waiting
        patient.uploader._waiting.clear()
        assert pause * _NS_PER_S <= waiting.due_ns - before_ns < (pause + 0.5) * _NS_PER_S
    assert patient.uploader.problem == f"{type(error).__name__}: {error}"


def test_success_takes_the_problem_back(rig: Rig, tmp_path: Path) -> None:
    rig.sink.failures = [SinkUnavailableError("full")]
    rig.uploader.submit(rig.job(tmp_path))
    rig.uploader.start(rig.on_stored)
    assert rig.uploader.drain(10)
    assert rig.uploader.problem is None


def test_drain_gives_up_in_time(patient: Rig, tmp_path: Path) -> None:
    patient.sink.failures = [SinkUnavailableError("full")]
    patient.uploader.submit(patient.job(tmp_path))
    patient.uploader.start(patient.on_stored)
    assert not patient.uploader.drain(0.2)
    assert patient.uploader.pending == 1


def test_stop_ends_after_the_job_at_work_and_leaves_the_rest(rig: Rig, tmp_path: Path) -> None:
    rig.sink.gate.clear()
    jobs = [rig.job(tmp_path, number) for number in range(3)]
    rig.uploader.start(rig.on_stored)
    for job in jobs:
        rig.uploader.submit(job)
    assert rig.sink.entered.wait(10)
    assert not rig.uploader.stop(0.1)
    rig.sink.gate.set()
    assert rig.uploader.stop(10)
    assert not rig.uploader.is_running
    assert [stored.file_id[0] for stored in rig.stored] == [0]
    assert rig.uploader.pending == 2
    assert jobs[1].path.exists()


class GrowingSink(MemorySink):
    """Takes parts of 10 bytes; `advances` tells which, and by which thread."""

    part_bytes = 10  # type: ignore[assignment]  # the base takes none

    def __init__(self) -> None:
        super().__init__()
        self.advances: list[tuple[str, int, str]] = []
        self.at_work: set[str] = set()
        self.most_at_work = 0

    def advance(self, source: Path, name: ObjectName, durable_bytes: int) -> None:
        self.advances.append((name.key, durable_bytes, threading.current_thread().name))
        self.entered.set()
        self.gate.wait(30)
        if self.failures:
            raise self.failures.pop(0)

    def put(self, source: Path, name: ObjectName) -> int:
        assert name.key not in self.at_work, "never two at a time about one file"
        self.at_work.add(name.key)
        self.most_at_work = max(self.most_at_work, len(self.at_work))
        try:
            return super().put(source, name)
        finally:
            self.at_work.remove(name.key)


class GrowingRig(Rig):
    def __init__(self, *, threads: int = 1, vouch: Callable[[ObjectName], None] | None = None) -> None:
        super().__init__(jitter=-1.0)
        self.sink: GrowingSink = GrowingSink()
        self.observer = ListeningObserver()
        self.uploader = Uploader(
            self.sink,
            observer=self.observer,
            vouch=vouch,
            threads=threads,
            jitter=lambda: -1.0,
        )


@pytest.fixture
def growing() -> Iterator[GrowingRig]:
    made = GrowingRig()
    yield made
    made.sink.gate.set()
    made.uploader.stop(5)


def test_a_growing_file_is_sent_in_parts_before_it_is_stored(growing: GrowingRig, tmp_path: Path) -> None:
    assert growing.uploader.part_bytes == 10
    job = growing.job(tmp_path)
    growing.uploader.grow(job, 30)
    growing.uploader.start(growing.on_stored)
    assert growing.sink.entered.wait(10)
    assert growing.uploader.drain(10)
    assert growing.sink.advances == [(job.name.key, 30, "uploader")]
    assert growing.stored == [], "what grows is not stored yet"
    growing.uploader.submit(job)
    assert growing.uploader.drain(10)
    assert [stored.key for stored in growing.stored] == [job.name.key]
    assert growing.observer.uploads == [(job.name.file_id, 100)]


def test_a_finished_file_is_no_longer_sent_in_parts(growing: GrowingRig, tmp_path: Path) -> None:
    job, other = growing.job(tmp_path), growing.job(tmp_path, 1)
    growing.uploader.grow(job, 30)
    growing.uploader.grow(other, 20)
    growing.uploader.grow(other, 40)
    growing.uploader.submit(job)
    growing.uploader.start(growing.on_stored)
    assert growing.uploader.drain(10)
    while not growing.sink.advances:
        growing.uploader.drain(0.01)
    assert growing.sink.advances == [(other.name.key, 40, "uploader")], "the newest word counts"


def test_a_part_that_fails_is_counted_and_holds_up_nothing(growing: GrowingRig, tmp_path: Path) -> None:
    growing.sink.failures = [SinkUnavailableError("away", reason="timeout")]
    job = growing.job(tmp_path)
    growing.uploader.grow(job, 30)
    growing.uploader.start(growing.on_stored)
    assert growing.sink.entered.wait(10)
    growing.uploader.submit(job)
    assert growing.uploader.drain(10)
    assert growing.observer.upload_failures == [(job.name.file_id, "timeout")]
    assert growing.uploader.problem is None
    assert len(growing.stored) == 1


def test_files_are_stored_at_once_but_never_two_works_of_one_file(tmp_path: Path) -> None:
    rig = GrowingRig(threads=3)
    try:
        rig.sink.gate.clear()
        busy = rig.job(tmp_path, 0)
        rig.uploader.grow(busy, 30)
        rig.uploader.start(rig.on_stored)
        assert rig.sink.entered.wait(10)
        for number in range(6):
            rig.uploader.submit(rig.job(tmp_path, number))
        while rig.sink.most_at_work < 2:
            assert not rig.uploader.drain(0.01)
        assert busy.name.key not in rig.sink.at_work
        assert rig.uploader.pending == 7
        rig.sink.gate.set()
        assert rig.uploader.drain(10)
        assert len({stored.key for stored in rig.stored}) == len(rig.stored) == 6
        assert rig.uploader.is_running
    finally:
        rig.sink.gate.set()
        assert rig.uploader.stop(5)
    assert not rig.uploader.is_running


def test_an_object_is_vouched_for_before_the_report_and_as_often_as_it_takes(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def vouch(name: ObjectName) -> None:
        assert name.key in rig.sink.objects, "it is called when the object is there"
        seen.append((name.key, len(rig.stored)))
        if len(seen) == 1:
            raise SinkUnavailableError("the manifest cannot be stored now")

    rig = GrowingRig(vouch=vouch)
    try:
        job = rig.job(tmp_path)
        rig.uploader.submit(job)
        rig.uploader.start(rig.on_stored)
        assert rig.uploader.drain(10)
        assert seen == [(job.name.key, 0), (job.name.key, 0)]
        assert rig.observer.upload_failures == [(job.name.file_id, "unavailable")]
        assert [stored.key for stored in rig.stored] == [job.name.key]
    finally:
        rig.uploader.stop(5)
