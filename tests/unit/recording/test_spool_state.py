"""State files and owner locks: what a recovery may rely on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recording.format.content import RecordingKind
from recording.index import IndexState, SealedParties
from recording.spool_state import (
    OwnerLock,
    SpoolError,
    SpoolState,
    make_spool_directory,
    read_state,
    state_path,
    sync_directory,
    sync_state,
    write_state,
)
from support.disks import SyncLog
from support.spooled import OWNER, make_segment

STATE = make_segment(0).state()
OF_CALL = replace(STATE, kind=RecordingKind.ARTEFACT, parent=b"P" * 16)


@pytest.mark.parametrize(
    "state",
    [
        STATE,
        replace(STATE, ended=17, segment=3),
        replace(STATE, kind=RecordingKind.ARTEFACT, parent=b"P" * 16),
    ],
)
def test_a_state_comes_back_as_it_was(tmp_path: Path, state: SpoolState) -> None:
    write_state(tmp_path, state)
    assert read_state(state_path(tmp_path, state.file_id)) == state
    assert [path.name for path in tmp_path.iterdir()] == [f"{state.file_id.hex()}.json"]
    assert stat.S_IMODE(state_path(tmp_path, state.file_id).stat().st_mode) == 0o600


def test_a_state_of_the_first_programs_is_of_audio() -> None:
    old = {name: value for name, value in json.loads(STATE.build()).items() if name not in {"kind", "parent"}}
    assert SpoolState.parse(json.dumps(old).encode()) == STATE


def test_a_state_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_state(tmp_path, STATE)
    write_state(tmp_path, replace(STATE, ended=5))
    assert read_state(state_path(tmp_path, STATE.file_id)).ended == 5


def test_a_state_holds_random_ids_and_the_hour_only() -> None:
    assert set(json.loads(STATE.build())) == {
        "v",
        "file_id",
        "owner",
        "recording",
        "segment",
        "call_uid",
        "tenant_handle",
        "provider",
        "key_id",
        "started_hour",
        "ended",
        "trunk_a",
        "trunk_b",
        "retain_until",
        "parties",
        "kind",
        "parent",
        "previous",
    }
    assert json.loads(STATE.build())["started_hour"] == "2026-05-06T07:00:00+00:00"


def test_what_the_index_needs_later_is_kept_through_a_crash() -> None:
    whole = replace(
        STATE,
        trunk_a="pbx",
        trunk_b="carrier",
        retain_until=datetime(2036, 5, 6, 7, tzinfo=UTC),
        parties=SealedParties(sealed=b"s" * 1500, blind_from=b"f" * 32, blind_to=b"t" * 32),
    )
    assert SpoolState.parse(whole.build()) == whole
    assert len(whole.build()) < 8192, "what is read back at most"
    entry = whole.entry(IndexState.COMPLETE)
    assert (entry.trunk_a, entry.trunk_b, entry.retain_until, entry.parties) == (
        "pbx", "carrier", whole.retain_until, whole.parties,
    )  # fmt: skip


def test_a_state_of_the_first_programs_is_understood() -> None:
    old = json.loads(STATE.build())
    for name in ("trunk_a", "trunk_b", "retain_until", "parties"):
        del old[name]
    assert SpoolState.parse(json.dumps(old).encode()) == STATE


@pytest.mark.parametrize("bad", [{"parties": ["zz", None, None]}, {"parties": 1}, {"retain_until": "x"}])
def test_a_state_with_what_cannot_be_is_an_error(bad: dict[str, object]) -> None:
    with pytest.raises(SpoolError):
        SpoolState.parse(json.dumps({**json.loads(STATE.build()), **bad}).encode())


@pytest.mark.parametrize("cut", range(0, len(STATE.build()) - 1, 7))
def test_a_state_that_was_cut_off_is_an_error(cut: int) -> None:
    with pytest.raises(SpoolError):
        SpoolState.parse(STATE.build()[:cut])


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2}, {"file_id": "zz"}, {"file_id": "00"}, {"owner": "../../etc/passwd"}, {"owner": OWNER.upper()},
        {"owner": 1}, {"tenant_handle": ""}, {"started_hour": "2026-05-06T07:00:00"}, {"started_hour": "soon"},
        {"ended": "many"}, {"segment": None},
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_is_an_error(change: dict[str, object]) -> None:
    document = json.loads(STATE.build())
    assert SpoolState.parse(json.dumps(document).encode()) == STATE
    with pytest.raises(SpoolError):
        SpoolState.parse(json.dumps({**document, **change}).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"7", b'"x"', b"[" * 100_000, b"\xff\xfe"])
def test_what_is_no_state_is_an_error(data: bytes) -> None:
    with pytest.raises(SpoolError):
        SpoolState.parse(data)


def test_a_missing_state_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="No such file"):
        read_state(tmp_path / "none.json")


def test_the_spool_directory_is_private(tmp_path: Path) -> None:
    make_spool_directory(tmp_path / "spool")
    make_spool_directory(tmp_path / "spool")
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    (tmp_path / "spool").chmod(0o750)
    with pytest.raises(SpoolError, match=r"0750.*chmod 700"):
        make_spool_directory(tmp_path / "spool")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpoolError):
        make_spool_directory(tmp_path / "file")


def test_a_lock_that_is_held_cannot_be_acquired_until_it_is_released(tmp_path: Path) -> None:
    lock = OwnerLock.create(tmp_path)
    assert OwnerLock.try_acquire(tmp_path, lock.owner) is None
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    again = OwnerLock.try_acquire(tmp_path, lock.owner)
    assert again is not None
    again.release()


def test_every_owner_differs(tmp_path: Path) -> None:
    locks = [OwnerLock.create(tmp_path) for _ in range(3)]
    assert len({lock.owner for lock in locks}) == 3
    for lock in locks:
        lock.release()


def test_a_lock_on_a_removed_file_guards_nothing_and_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our open and our flock the former holder removes the file: we must end up with the new one."""
    real, path = fcntl.flock, tmp_path / f"{OWNER}.lock"
    removed = []

    def remove_first(fd: int, operation: int) -> None:
        if not removed:
            path.unlink()
            removed.append(True)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    lock = OwnerLock.try_acquire(tmp_path, OWNER)
    assert lock is not None
    assert path.exists()
    assert OwnerLock.try_acquire(tmp_path, OWNER) is None
    lock.release()


HOLDER = """
import sys
from pathlib import Path
from recording.spool_state import OwnerLock
lock = OwnerLock.create(Path(sys.argv[1]))
print(lock.owner, flush=True)
sys.stdin.read()
"""


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as holder:
        assert holder.stdout is not None
        owner = holder.stdout.readline().strip()
        assert OwnerLock.try_acquire(tmp_path, owner) is None
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    lock = OwnerLock.try_acquire(tmp_path, owner)
    assert lock is not None
    lock.release()


def test_a_state_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SyncLog(monkeypatch)
    name = f"{STATE.file_id.hex()}.json"
    write_state(tmp_path, STATE)
    assert log.done == [("sync", f"{STATE.file_id.hex()}.{STATE.owner}.tmp"), ("rename", name)]
    write_state(tmp_path, STATE, sync=False)
    sync_state(tmp_path, STATE.file_id)
    sync_directory(tmp_path)
    assert log.done[2:] == [("rename", name), ("sync", name), ("sync", tmp_path.name)]


def test_a_state_that_cannot_be_written_leaves_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_state(tmp_path, STATE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            write_state(tmp_path, replace(STATE, ended=5))
    assert read_state(state_path(tmp_path, STATE.file_id)) == STATE
    assert [path.name for path in tmp_path.iterdir()] == [f"{STATE.file_id.hex()}.json"]
