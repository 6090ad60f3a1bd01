"""The uploader: one job at a time, again and again until it is done, and an end when it is told to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recording.sinks.sink import ObjectConflictError, ObjectName, SinkRefusedError, SinkUnavailableError
from recording.uploader import MAX_RETRY_S, REFUSED_RETRY_S, Stored, Uploader, UploadJob
from support.memory_sink import MemorySink
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
