"""Lines of several processes in one chain, through rolls, restarts, deaths and disks that fail."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b2bua.errors import JournalError
from b2bua.journal.chained import ChainedJournal
from b2bua.journal.head import Head, read_head_file
from recording.keys.errors import NoKeyError
from recording.keys.pool import PooledKey
from recording.spool_file import Disk
from support.journals import Log, append_all, text


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def head(log: Log) -> Head:
    found = read_head_file(log.directory)
    assert found is not None
    return found


def die(journal: ChainedJournal) -> None:
    """What the kernel does to a killed process's descriptors; nothing else happens."""
    segment = journal._segment
    if segment is not None and segment.file is not None:
        segment.file.close()
    journal._head_file.close()


def test_nothing_is_made_before_the_first_line(log: Log) -> None:
    log.journal().close()
    assert log.files() == []
    assert log.counts() == []
    assert stat.S_IMODE(log.directory.stat().st_mode) == 0o700


def test_lines_come_back_in_order_across_restarts(log: Log) -> None:
    log.write([text(1), text(2)], [text(3)])
    log.write([text(4)])
    assert log.counts() == [1, 2, 3, 4]
    assert len(log.files()) == 2
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in log.files())


def test_nothing_of_a_line_is_readable_on_disk(log: Log) -> None:
    log.write([b'{"event":"fault","reason":"a_needle"}\n'])
    everything = b"".join(path.read_bytes() for path in log.directory.iterdir())
    assert b"a_needle" not in everything
    assert b"fault" not in everything


def test_more_lines_than_a_record_holds(log: Log) -> None:
    numbers = list(range(500))
    log.write([text(number) for number in numbers])
    assert log.counts() == numbers


def test_a_file_ends_with_its_time_and_the_next_follows_it(log: Log) -> None:
    log.write([text(1)], [text(2)], [text(3)], seconds_between=60)
    assert len(log.files()) == 3
    report, lines = log.read()
    assert report.is_whole, report.findings
    assert [line["count"] for line in lines] == [1, 2, 3]


def test_a_file_ends_though_no_line_comes(log: Log) -> None:
    journal = log.journal()
    assert journal.seconds_left() is None
    journal.append([text(1)])
    journal.tick()
    assert log.files()[0].suffix == ".open"
    log.clock.now_ns += 60 * 1_000_000_000
    assert journal.seconds_left() == 0
    journal.tick()
    assert log.files()[0].suffix == ".crec"
    journal.append([text(2)])
    journal.close()
    assert log.counts() == [1, 2]


def test_several_processes_append_to_one_chain(log: Log) -> None:
    one, other = log.journal(), log.journal()
    for number in range(0, 10, 2):
        one.append([text(number)])
        other.append([text(number + 1)])
    assert log.counts() == list(range(10)), "it can be verified while it grows"
    one.close()
    other.close()
    assert log.counts() == list(range(10))


def test_without_a_key_an_old_file_goes_on(log: Log) -> None:
    keys = iter([True, False, True])

    def take_key(log_id: bytes) -> PooledKey:
        if next(keys):
            return new(log_id)
        raise NoKeyError("audit")

    new = log.journal()._take_key
    journal = log.journal(take_key=take_key)
    for number in range(3):
        journal.append([text(number)])
        log.clock.now_ns += 60 * 1_000_000_000
    assert len(log.files()) == 2
    journal.close()
    assert log.counts() == [0, 1, 2]


def test_without_any_key_no_line_is_taken(log: Log) -> None:
    def refuse(_: bytes) -> NoReturn:
        raise NoKeyError("audit")

    journal = log.journal(take_key=refuse)
    with pytest.raises(NoKeyError):
        journal.append([text(1)])
    journal.close()
    assert log.files() == []
    log.write([text(2)])
    assert log.counts() == [2]


# --- deaths


def test_a_dead_writers_file_is_ended_and_a_line_says_so(log: Log) -> None:
    journal = log.journal()
    journal.append([text(1)])
    journal.append([text(2)])
    die(journal)
    assert log.counts() == [1, 2]
    log.write([text(3)])
    report, lines = log.read()
    assert report.is_whole, report.findings
    assert [line["event"] for line in lines] == ["fault", "fault", "audit_recovered", "fault"]
    assert lines[2]["file_id"] in log.files()[0].name
    assert [(crash.file, crash.marked_by) for crash in report.crashes] == [(log.files()[0].name, 3)]


def test_a_living_writers_file_is_left_alone(log: Log) -> None:
    living = log.journal()
    living.append([text(1)])
    log.write([text(2)])
    living.append([text(3)])
    living.close()
    report, lines = log.read()
    assert report.is_whole
    assert [line["event"] for line in lines] == ["fault"] * 3


@pytest.mark.parametrize("kept", [0, 1, 4111, 4112, 4113, 8000])
def test_a_death_within_a_write_costs_that_write_alone(log: Log, kept: int) -> None:
    """Two records were claimed, and this many of their bytes got to the disk."""
    journal = log.journal()
    journal.append([text(1)])
    size = log.files()[0].stat().st_size
    lines = [text(number) for number in range(2, 62)]
    journal.append(lines)
    path = log.files()[0]
    assert path.stat().st_size == size + 2 * 4112
    after = head(log)
    # The head as it was while the write was under way: the slot before the last.
    slots = (log.directory / "head").read_bytes()
    newest = after.generation % 2
    (log.directory / "head").write_bytes(
        slots[:4096] + b"\0" * 4096 if newest else b"\0" * 4096 + slots[4096:]
    )
    claimed = head(log)
    assert claimed.claim is not None
    os.truncate(path, size + kept)
    die(journal)
    assert log.verify().is_whole, "a write that never ended is no damage"
    log.write([text(1000)])
    report, found = log.read()
    assert report.is_whole, report.findings
    assert [line["count"] for line in found] == [1, 60, 1000]
    assert [line["event"] for line in found] == ["fault", "audit_recovered", "fault"]
    assert path.with_suffix("").stat().st_size == size


def test_a_death_right_after_a_write_costs_nothing(log: Log) -> None:
    journal = log.journal()
    journal.append([text(1)])
    slots = (log.directory / "head").read_bytes()
    newest = head(log).generation % 2
    (log.directory / "head").write_bytes(
        slots[:4096] + b"\0" * 4096 if newest else b"\0" * 4096 + slots[4096:]
    )
    assert head(log).claim is not None
    die(journal)
    log.write([text(2)])
    report, lines = log.read()
    assert report.is_whole, report.findings
    assert [(line["event"], line["count"]) for line in lines] == [
        ("fault", 1),
        ("audit_recovered", 0),
        ("fault", 2),
    ]


def test_a_file_that_was_begun_and_never_counted_is_removed(log: Log) -> None:
    log.write([text(1)])
    stray = log.directory / f"00000001-{'ab' * 16}.crec.open"
    shutil.copy(log.files()[0], stray)
    log.write([text(2)])
    assert not stray.exists()
    assert log.counts() == [1, 2]


# --- disks


class FailingDisk:
    """A disk that does what it is told: `room` bytes are written, then it is full; `syncs` says which syncs fail."""

    def __init__(self) -> None:
        self.room = 1 << 30
        self.is_sync_failing = False
        self.disk = Disk(pwrite=self.pwrite, fdatasync=self.fdatasync)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = os.pwrite(descriptor, data[: self.room], offset)
        self.room -= count
        return count

    def fdatasync(self, descriptor: int) -> None:
        if self.is_sync_failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(descriptor)


@pytest.mark.parametrize("room", [0, 1, 4000, 4112 + 50])
def test_a_full_disk_takes_the_same_records_later(log: Log, room: int) -> None:
    disk = FailingDisk()
    journal = log.journal(disk=disk.disk)
    journal.append([text(1)])
    disk.room = room
    lines = [text(number) for number in range(2, 120)]
    for _ in range(2):
        with pytest.raises(JournalError, match="No space left"):
            journal.append(lines)
    disk.room = 1 << 30
    append_all(journal, [*lines, text(120)])
    journal.close()
    assert log.counts() == list(range(1, 121))
    assert len(log.files()) == 1, "no data key was spent on it"


@pytest.mark.parametrize("room", [0, 100, 4096 + 4112])
def test_a_disk_that_is_full_from_the_start(log: Log, room: int) -> None:
    keys = 0
    new = log.journal()._take_key

    def take_key(log_id: bytes) -> PooledKey:
        nonlocal keys
        keys += 1
        return new(log_id)

    disk = FailingDisk()
    disk.room = room
    journal = log.journal(disk=disk.disk, take_key=take_key)
    for _ in range(3):
        with pytest.raises(JournalError):
            journal.append([text(1)])
    disk.room = 1 << 30
    journal.append([text(1)])
    journal.close()
    assert log.counts() == [1]
    assert keys == 1


def test_another_process_goes_on_while_one_disk_is_full(log: Log) -> None:
    disk = FailingDisk()
    journal = log.journal(disk=disk.disk)
    journal.append([text(1)])
    disk.room = 10
    with pytest.raises(JournalError):
        journal.append([text(2)])
    log.write([text(3)])
    disk.room = 1 << 30
    journal.append([text(2)])
    journal.close()
    report, lines = log.read()
    assert report.is_whole, report.findings
    assert [line["count"] for line in lines if line["event"] == "fault"] == [1, 3, 2]
    assert len(report.crashes) == 1, "what was sealed for another place in the chain was given up"


def test_a_failed_sync_ends_the_file(log: Log) -> None:
    disk = FailingDisk()
    journal = log.journal(disk=disk.disk)
    journal.append([text(1)])
    disk.is_sync_failing = True
    with pytest.raises(JournalError):
        journal.append([text(2)])
    disk.is_sync_failing = False
    journal.append([text(2)])
    journal.close()
    report, lines = log.read()
    assert report.is_whole, report.findings
    assert [line["count"] for line in lines if line["event"] == "fault"] == [1, 2]
    assert len(log.files()) == 2
    assert len(report.crashes) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9000), st.integers(1, 80)), max_size=12))
def test_whatever_fails_when_every_line_comes_out_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
) -> None:
    """Two processes, each before every batch given so much room; what was refused is handed in again at the end."""
    log = Log(tmp_path_factory.mktemp("log"))
    disks = [FailingDisk(), FailingDisk()]
    journals = [log.journal(disk=disk.disk) for disk in disks]
    waiting: list[list[bytes]] = [[], []]
    number = 0
    for which, room, count in steps:
        disks[which].room = room
        waiting[which] += [text(number + each) for each in range(count)]
        number += count
        with contextlib.suppress(JournalError):
            append_all(journals[which], waiting[which])
    for which in (0, 1):
        disks[which].room = 1 << 30
        append_all(journals[which], waiting[which])
        journals[which].close()
    assert sorted(log.counts()) == list(range(number))


# --- the directory


def test_a_directory_that_others_may_enter_is_refused(log: Log) -> None:
    log.directory.mkdir(mode=0o750)
    with pytest.raises(JournalError, match="chmod 700"):
        log.journal()
    log.directory.chmod(0o700)
    log.journal().close()


def test_segments_without_a_head_are_not_continued(log: Log) -> None:
    log.write([text(1)])
    (log.directory / "head").unlink()
    with pytest.raises(JournalError, match="no head"):
        log.journal()


def test_one_torn_slot_is_survived_and_two_are_not(log: Log) -> None:
    log.write([text(1)])
    data = bytearray((log.directory / "head").read_bytes())
    at = 4096 * (head(log).generation % 2)
    data[at + 70] ^= 1
    (log.directory / "head").write_bytes(data)
    log.write([text(2)])
    assert log.counts() == [1, 2]
    (log.directory / "head").write_bytes(b"x" * 8192)
    with pytest.raises(JournalError, match="can't be read"):
        log.journal()


def test_a_process_that_hangs_with_the_lock_is_named(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("b2bua.journal.head.LOCK_WAIT_S", 0.05)
    one, other = log.journal(), log.journal()
    with one._head_file.locked(), pytest.raises(JournalError, match="locked by another process"):
        other.append([text(1)])
    other.append([text(1)])
    one.close()
    other.close()
    assert log.counts() == [1]
