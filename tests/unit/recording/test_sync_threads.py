"""The group commit's threads: all jobs run, side by side, and each failure is told at its job's place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from recording.sync_threads import SYNC_THREADS, SyncThreads


@pytest.fixture
def threads() -> Iterator[SyncThreads]:
    made = SyncThreads()
    yield made
    made.close()


def nothing() -> None:
    return


def failing(number: int) -> Callable[[], None]:
    def job() -> None:
        raise OSError(number, "this job failed")

    return job


def test_every_job_runs_once_and_failures_stand_at_their_place(threads: SyncThreads) -> None:
    done: list[int] = []
    jobs = [failing(n) if n % 7 == 3 else (lambda n=n: done.append(n)) for n in range(100)]
    failures = threads.run(jobs, meanwhile=nothing)
    assert [failure.errno if failure else None for failure in failures] == [
        n if n % 7 == 3 else None for n in range(100)
    ]
    assert sorted(done) == [n for n in range(100) if n % 7 != 3]


def test_jobs_run_side_by_side(threads: SyncThreads) -> None:
    meeting = threading.Barrier(SYNC_THREADS, timeout=10)
    assert (
        threads.run([lambda: meeting.wait() and None] * SYNC_THREADS, meanwhile=nothing)
        == [None] * SYNC_THREADS
    )


def test_what_arrives_is_taken_while_a_job_is_slow(threads: SyncThreads) -> None:
    arrived = threading.Event()
    assert threads.run([lambda: arrived.wait(10) and None], meanwhile=arrived.set) == [None]
    assert arrived.is_set()


def test_no_job_is_no_work(threads: SyncThreads) -> None:
    assert threads.run([], meanwhile=nothing) == []


def test_a_defect_is_not_taken_for_a_disk_error(threads: SyncThreads) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        threads.run([broken, nothing], meanwhile=nothing)
