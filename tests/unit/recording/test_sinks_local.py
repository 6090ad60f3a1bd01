"""What only the local sink and the retrying sink have to get right: errors of the disk, and when to try again."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from recording.sinks.local import LocalSink
from recording.sinks.retry import ATTEMPTS, RetryingSink
from recording.sinks.sink import (
    ObjectConflictError,
    ObjectName,
    SinkRefusedError,
    SinkUnavailableError,
    SlotFile,
)
from support.disks import SyncLog
from support.memory_sink import MemorySink

NAME = ObjectName(tenant_handle=b"T" * 16, file_id=b"F" * 16, started_hour=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "spooled.crec"
    path.write_bytes(b"sealed" * 1000)
    return path


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, SinkUnavailableError),
        (errno.EDQUOT, SinkUnavailableError),
        (errno.EIO, SinkUnavailableError),
        (errno.EACCES, SinkRefusedError),
        (errno.EROFS, SinkRefusedError),
        (errno.EPERM, SinkRefusedError),
    ],
)
def test_a_disk_error_leaves_the_source_and_says_what_to_do(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    sink = LocalSink(tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr("recording.sinks.local.os.link", fail)
        with pytest.raises(error, match=os.strerror(number)):
            sink.put(source, NAME)
    assert source.exists()
    assert sink.size(NAME.key) is None
    assert sink.put(source, NAME) == 6000


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path, source: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(SinkRefusedError):
        LocalSink(tmp_path / "store").put(source, NAME)
    with pytest.raises(SinkRefusedError):
        LocalSink(tmp_path / "store").health()


def test_a_move_interrupted_between_link_and_unlink_is_finished(tmp_path: Path, source: Path) -> None:
    sink = LocalSink(tmp_path / "store")
    target = sink.path(NAME.key)
    target.parent.mkdir(parents=True)
    os.link(source, target)
    assert sink.put(source, NAME) == 6000
    assert not source.exists()
    assert target.stat().st_nlink == 1


def test_retrying_tries_a_bounded_number_of_times(source: Path) -> None:
    memory = MemorySink()
    sink = RetryingSink(memory, first_pause_s=0.001)
    memory.failures = [SinkUnavailableError("busy")] * (ATTEMPTS - 1)
    assert sink.put(source, NAME) == 6000
    assert memory.attempts == ATTEMPTS
    memory.failures = [SinkUnavailableError("busy")] * (ATTEMPTS + 1)
    with pytest.raises(SinkUnavailableError):
        sink.put(source, NAME)
    assert memory.attempts == 2 * ATTEMPTS


@pytest.mark.parametrize("error", [SinkRefusedError("no"), ObjectConflictError("other")])
def test_what_is_refused_is_not_repeated(source: Path, error: SinkRefusedError | ObjectConflictError) -> None:
    memory = MemorySink()
    memory.failures = [error]
    with pytest.raises(type(error)):
        RetryingSink(memory, first_pause_s=0.001).put(source, NAME)
    assert memory.attempts == 1


def test_stop_ends_a_pause_at_once(source: Path) -> None:
    memory = MemorySink()
    sink = RetryingSink(memory, first_pause_s=600)
    memory.failures = [SinkUnavailableError("busy")] * 9
    raised = []

    def put() -> None:
        try:
            sink.put(source, NAME)
        except SinkUnavailableError as error:
            raised.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    assert memory.entered.wait(10)
    sink.stop()
    thread.join(10)
    assert len(raised) == 1
    assert memory.attempts == 1


def test_at_least_one_attempt() -> None:
    with pytest.raises(ValueError, match="attempts"):
        RetryingSink(MemorySink(), attempts=0)


def test_a_new_name_is_durable_before_the_source_goes(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SyncLog(monkeypatch)
    LocalSink(tmp_path / "store").put(source, NAME)
    tenant = NAME.tenant_handle.hex()
    assert log.done == [
        ("sync", tmp_path.name), ("sync", "store"), ("sync", tenant), ("sync", "2026"),
        ("link", f"{NAME.file_id.hex()}.crec"), ("sync", "01"),
    ]  # fmt: skip


def test_a_copy_is_durable_before_it_has_its_name(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        sink = LocalSink(Path(directory))
        sink.path(NAME.key).parent.mkdir(parents=True)
        log = SyncLog(monkeypatch)
        sink.put(source, NAME)
    (first, unnamed), second, third = log.done
    assert (first, second, third) == ("sync", ("link", f"{NAME.file_id.hex()}.crec"), ("sync", "01"))
    assert unnamed.endswith("(deleted)"), "it has no name before"


def test_many_sidecars_are_durable_before_the_first_has_its_name_and_each_directory_is_synced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = LocalSink(tmp_path / "store")
    keys = [replace(NAME, file_id=bytes([n]) * 16).key for n in range(5)]
    sink.path(keys[0]).parent.mkdir(parents=True)
    log = SyncLog(monkeypatch)
    assert sink.put_all_slots([SlotFile(object_key=key, generation=1, data=b"x") for key in keys]) == []
    assert [what for what, _ in log.done] == ["sync"] * 5 + ["link"] * 5 + ["sync"]
    assert log.done[-1] == ("sync", "01")


def test_a_sidecar_that_is_there_already_is_made_durable_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = LocalSink(tmp_path / "store")
    sink.put_slots(NAME.key, 1, b"x")
    log = SyncLog(monkeypatch)
    sink.put_slots(NAME.key, 1, b"x")
    assert log.done[1:] == [("sync", f"{NAME.file_id.hex()}.1.slots"), ("sync", "01")]


def test_an_object_that_is_not_whole_after_all_is_noticed(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(original: BinaryIO, copy: BinaryIO, _: int) -> None:
        copy.write(original.read()[:-1])

    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        sink = LocalSink(Path(directory))
        monkeypatch.setattr("recording.sinks.local.shutil.copyfileobj", short)
        with pytest.raises(SinkUnavailableError, match="6000 bytes were stored, 5999 are there"):
            sink.put(source, NAME)
    assert source.exists()
