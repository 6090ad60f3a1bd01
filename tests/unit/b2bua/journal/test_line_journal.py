"""The log file's containers: what was written comes back, what failed is told, and what died is ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from b2bua.audit_store import new_key
from b2bua.errors import JournalError
from b2bua.journal.lines import LineJournal
from b2bua.journal.read import SealedFile, read_files
from recording.format.content import RecordingKind
from recording.keys.build import slot_keys
from recording.keys.errors import KeyUnavailableError
from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.pool import PooledKey
from recording.settings import LocalKeySettings
from recording.verify import RecordingState
from support.disks import FaultyDisk
from support.journals import Clock


class Log:
    """A directory with a log and its key."""

    def __init__(self, root: Path) -> None:
        create_kek(root / "log.kek")
        self.directory = root / "log"
        self.provider = LocalKeyProvider("log", LocalKeySettings(kek_path=root / "log.kek"))
        self.clock = Clock()
        self.is_away = False

    def take_key(self, log_id: bytes) -> PooledKey:
        if self.is_away:
            raise KeyUnavailableError("the key service is away")
        return new_key(self.provider, log_id)

    def journal(self, disk: FaultyDisk | None = None) -> LineJournal:
        return LineJournal(
            self.directory,
            log_id=b"L" * 16,
            take_key=self.take_key,
            segment_seconds=60,
            disk=None if disk is None else disk.disk(),
            clock_ns=self.clock,
        )

    def files(self) -> list[SealedFile]:
        return list(read_files(self.directory, keys=slot_keys([self.provider]), kind=RecordingKind.LOG))

    def lines(self) -> list[bytes]:
        return [line for file in self.files() for line in file.lines]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_lines_come_back_in_order_across_files_and_processes(log: Log) -> None:
    for start in (0, 4):
        journal = log.journal()
        for number in range(start, start + 4, 2):
            journal.append([b"line %d\n" % number, b"line %d\n" % (number + 1)])
            log.clock.now_ns += 60 * 1_000_000_000
        journal.close()
        journal.close()
    assert log.lines() == [b"line %d\n" % number for number in range(8)]
    assert [file.state for file in log.files()] == [RecordingState.COMPLETE] * 4
    everything = b"".join(path.read_bytes() for path in log.directory.iterdir())
    assert b"line 1" not in everything


def test_an_audit_file_is_no_log_file(log: Log) -> None:
    journal = log.journal()
    journal.append([b"line\n"])
    journal.close()
    (file,) = read_files(log.directory, keys=slot_keys([log.provider]), kind=RecordingKind.AUDIT)
    assert file.state is None
    assert "no audit file" in file.problem


def test_a_dead_processes_file_is_ended_by_the_next(log: Log) -> None:
    journal = log.journal()
    journal.append([b"one\n"])
    assert journal._open is not None
    journal._open.file.close()
    with (log.directory / journal._open.file.path.name).open("ab") as file:
        file.write(b"ragged")
    assert log.lines() == [b"one\n"]
    log.journal().close()
    (file,) = log.files()
    assert not file.name.is_open
    assert (file.state, file.lines) == (RecordingState.INCOMPLETE, (b"one\n",))


def test_a_full_disk_costs_lines_and_nothing_else(log: Log) -> None:
    disk = FaultyDisk()
    journal = log.journal(disk)
    journal.append([b"one\n"])
    disk.is_full = True
    for _ in range(2):
        with pytest.raises(JournalError, match="lost"):
            journal.append([b"two\n"])
    disk.is_full = False
    journal.append([b"three\n"])
    journal.close()
    assert log.lines() == [b"one\n", b"three\n"]
    assert all(file.state is not RecordingState.CORRUPT for file in log.files())


def test_without_a_key_an_old_file_goes_on_and_a_new_one_does_not_begin(log: Log) -> None:
    journal = log.journal()
    log.is_away = True
    with pytest.raises(KeyUnavailableError):
        journal.append([b"zero\n"])
    log.is_away = False
    journal.append([b"one\n"])
    log.is_away = True
    log.clock.now_ns += 60 * 1_000_000_000
    journal.append([b"two\n"])
    assert len(log.files()) == 1
    log.is_away = False
    journal.append([b"three\n"])
    journal.close()
    assert len(log.files()) == 2
    assert log.lines() == [b"one\n", b"two\n", b"three\n"]


def test_a_directory_that_others_may_enter_is_refused(log: Log) -> None:
    log.directory.mkdir(mode=0o755)
    with pytest.raises(JournalError, match="chmod 700"):
        log.journal()


def test_a_directory_that_can_not_be_made(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(JournalError, match="directory of its own"):
        log.journal()
