"""The index lost, rebuilt, backed up and restored, by commands, over recordings of the recorder itself."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from b2bua.cli.main import main
from recording.index import IndexState
from recording.index.rebuild import HELD_AS
from recording.keys.local import create_kek
from recording.sinks.local import LocalSink
from support.configuration import ConfigurationFile
from support.index_commands import Command, age, configured, events, opened, path_of
from support.recorded import CALLER, record_call

REBUILD = ("--reason", "migration")


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    return configured(tmp_path / "lab")


@pytest.fixture
def run(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(file, capsys)


# --- rebuild


def test_an_index_that_was_lost_is_rebuilt_from_storage_alone(file: ConfigurationFile, run: Command) -> None:
    file.replace('key = "dev"\n', 'key = "dev"\nretain_days = 30\n')
    call = record_call(file.load())
    with opened(file) as index:
        (before,) = index.find()
    path = file.load().recording.index_path
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()
    facts = run.json("index", "rebuild", *REBUILD)
    assert (facts["objects"], facts["new"], facts["on_hold"], facts["unreadable"]) == (1, 1, 1, 0)
    assert facts["names_not_sealed"] is None
    with opened(file) as index:
        (after,) = index.find()
    assert after.parties.sealed != before.parties.sealed
    assert replace(after, parties=before.parties, hold=None) == before
    assert after.parties.blind_from == before.parties.blind_from
    (entry,) = run.json("recordings", "find", "--number", CALLER, "--parties", "--reason", "test")[
        "recordings"
    ]
    assert (entry["file_id"], entry["from"], entry["hold"]) == (call.file_id, CALLER, HELD_AS)
    (line,) = events(file, "recording_read")
    assert (line["action"], line["reason"], line["uid"]) == ("index_rebuild", "migration", os.getuid())


def test_what_comes_back_unknown_is_kept_until_somebody_has_looked(
    file: ConfigurationFile, run: Command
) -> None:
    file.replace('key = "dev"\n', 'key = "dev"\nretain_days = 30\n')
    record_call(file.load())
    file.load().recording.index_path.unlink()
    run("index", "rebuild", *REBUILD)
    age(file, 3000)
    assert run.json("recordings", "expire")["kept"]["hold"] == 1
    run("recordings", "release", "--held-for", HELD_AS, "--reason", "reviewed")
    assert run.code == 0
    assert run.json("recordings", "expire")["kept"]["hold"] == 0


def test_a_rebuild_over_an_index_keeps_what_only_the_index_knows(
    file: ConfigurationFile, run: Command
) -> None:
    call = record_call(file.load())
    run("recordings", "hold", call.file_id, "--reason", "complaint")
    promised = datetime(2090, 1, 1, tzinfo=UTC)
    with opened(file) as index:
        index.put([replace(entry, retain_until=promised) for entry in index.find()])
    facts = run.json("index", "rebuild", *REBUILD)
    assert (facts["new"], facts["on_hold"]) == (0, 0)
    with opened(file) as index:
        (entry,) = index.find()
        assert (entry.hold, entry.retain_until) == ("complaint", promised)
        gone = replace(entry, state=IndexState.DELETED)
        index.put([gone])
    run("index", "rebuild", *REBUILD)
    with opened(file) as index:
        assert index.find()[0].state is IndexState.DELETED, "an entry of what was deleted does not come back"
    run("index", "status", "--check")
    assert run.code == 89
    assert "find out who put it back" in run.err


def test_objects_that_cannot_be_read_get_entries_and_are_named(file: ConfigurationFile, run: Command) -> None:
    good, cut, foreign = (record_call(file.load()) for _ in range(3))
    sink = LocalSink(file.load().recording.directory)
    with opened(file) as index:
        entries = {entry.file_id.hex(): entry for entry in index.find()}
    (stub := path_of(sink, entries[cut.file_id])).write_bytes(stub.read_bytes()[:100])
    swapped = path_of(sink, entries[foreign.file_id])
    swapped.write_bytes(path_of(sink, entries[good.file_id]).read_bytes())
    file.load().recording.index_path.unlink()
    facts = run.json("index", "rebuild", *REBUILD)
    assert (facts["objects"], facts["unreadable"]) == (3, 2)
    assert run.code == 89
    assert cut.file_id in run.err
    assert foreign.file_id in run.err
    with opened(file) as index:
        states = {entry.file_id.hex(): (entry.state, entry.hold) for entry in index.find()}
    assert states[good.file_id] == (IndexState.COMPLETE, HELD_AS)
    assert states[cut.file_id] == states[foreign.file_id] == (IndexState.CORRUPT, HELD_AS)


def test_without_the_players_key_a_rebuild_names_every_recording(
    file: ConfigurationFile, run: Command
) -> None:
    call = record_call(file.load())
    kek = file.made.kek
    kek.unlink()
    create_kek(kek)
    assert run.json("index", "rebuild", *REBUILD)["unreadable"] == 1
    assert run.code == 89
    with opened(file) as index:
        (entry,) = index.find()
    assert (entry.file_id.hex(), entry.state, entry.call_uid) == (
        call.file_id,
        IndexState.COMPLETE,
        call.call_uid,
    )


def test_what_was_found_altered_stays_so_through_a_rebuild(file: ConfigurationFile, run: Command) -> None:
    record_call(file.load())
    sink = LocalSink(file.load().recording.directory)
    (key,) = sink.keys()
    content = bytearray(sink.path(key).read_bytes())
    content[4096 + 8208 + 100] ^= 1
    sink.path(key).write_bytes(content)
    run("recordings", "verify", "--all", "--reason", "integrity_check")
    assert run.code == 26
    run("index", "rebuild", *REBUILD)
    with opened(file) as index:
        assert [entry.state for entry in index.find()] == [IndexState.CORRUPT]


@pytest.mark.parametrize("place", ["another tenant", "another month"])
@pytest.mark.parametrize("is_lost", [False, True], ids=["known", "lost"])
def test_a_copy_in_another_place_is_named_and_never_taken_for_the_recording(
    file: ConfigurationFile, run: Command, place: str, is_lost: bool
) -> None:
    call = record_call(file.load())
    sink = LocalSink(file.load().recording.directory)
    (key,) = sink.keys()
    tenant, _, name = key.partition("/")
    copy = f"{'ff' * 16}/{name}" if place == "another tenant" else f"{tenant}/2099/01/{key[-37:]}"
    sink.path(copy).parent.mkdir(parents=True)
    shutil.copy(sink.path(key), sink.path(copy))
    if is_lost:
        file.load().recording.index_path.unlink()
    facts = run.json("index", "rebuild", *REBUILD)
    assert (facts["objects"], facts["unreadable"], run.code) == (2, 1, 89)
    assert f"{copy}: " in run.err
    with opened(file) as index:
        (entry,) = index.find()
    assert (entry.file_id.hex(), entry.object_key, entry.state) == (call.file_id, key, IndexState.COMPLETE)


# --- status


def test_status_counts_and_compares_with_the_store(file: ConfigurationFile, run: Command) -> None:
    record_call(file.load())
    facts = run.json("index", "status", "--check")
    assert (facts["complete"], facts["lost"], facts["unknown"], facts["returned"]) == (1, 0, 0, 0)
    assert (facts["schema_version"], facts["index_keys"], facts["search_by_number"]) == (2, 1, True)
    assert run.code == 0
    sink = LocalSink(file.load().recording.directory)
    (key,) = sink.keys()
    other = sink.path(key.replace(key[-37:-5], secrets.token_hex(16)))
    shutil.move(sink.path(key), other)
    facts = run.json("index", "status", "--check")
    assert (facts["lost"], facts["unknown"]) == (1, 1)
    assert run.code == 89
    assert key in run.err
    assert other.name in run.err


# --- backup and restore


def test_a_backup_brings_back_entries_holds_and_names(
    file: ConfigurationFile, run: Command, tmp_path: Path
) -> None:
    call = record_call(file.load())
    run("recordings", "hold", call.file_id, "--reason", "complaint")
    backup = tmp_path / "index.crec"
    assert run.json("index", "backup", "-o", str(backup))["entries"] == 1
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    content = backup.read_bytes()
    assert content.startswith(b"\x89CREC")
    with opened(file) as index:
        (before,) = index.find()
        for text in (before.call_uid, before.file_id.hex(), "complaint", CALLER):
            assert text.encode() not in content
    file.load().recording.index_path.unlink()
    assert run.json("index", "restore", str(backup)) | {"at": ""} == {
        "entries": 1,
        "index_keys": 1,
        "on_hold": 0,
        "at": "",
    }
    with opened(file) as index:
        assert index.find() == [before]
    (entry,) = run.json("recordings", "find", "--hold", "--parties", "--reason", "test")["recordings"]
    assert entry["from"] == CALLER
    assert [line["count"] for line in events(file, "index_backed_up", "index_restored")] == [1, 1]


def test_a_hold_put_after_the_backup_does_not_become_a_deletion(
    file: ConfigurationFile, run: Command, tmp_path: Path
) -> None:
    file.replace('key = "dev"\n', 'key = "dev"\nretain_days = 30\n')
    call = record_call(file.load())
    backup = tmp_path / "index.crec"
    run("index", "backup", "-o", str(backup))
    run("recordings", "hold", call.file_id, "--reason", "court-order")
    file.load().recording.index_path.unlink()
    assert run.json("index", "restore", str(backup))["on_hold"] == 1
    assert "--held-for index_restored" in run.err
    age(file, 3000)
    with opened(file) as index:
        index.put([replace(entry, retain_until=None) for entry in index.find()])
    assert run.json("recordings", "expire")["kept"]["hold"] == 1
    run("recordings", "release", "--held-for", "index_restored", "--reason", "compared")
    assert run.json("recordings", "expire")["deleted"] == [call.file_id]


def test_a_restore_changes_nothing_that_the_index_knows(
    file: ConfigurationFile, run: Command, tmp_path: Path
) -> None:
    call = record_call(file.load())
    backup = tmp_path / "index.crec"
    run("index", "backup", "-o", str(backup))
    run("index", "backup", "-o", str(backup))
    assert run.code == 116, "a backup is never overwritten"
    run("recordings", "hold", call.file_id, "--reason", "complaint")
    second = record_call(file.load())
    with opened(file) as index:
        before = index.find()
    run("index", "restore", str(backup))
    with opened(file) as index:
        assert index.find() == before
    assert {entry.file_id.hex() for entry in before} == {call.file_id, second.file_id}


@pytest.mark.parametrize("damage", ["cut", "bit", "recording", "none", "other key"])
def test_a_backup_that_is_not_whole_restores_nothing(
    file: ConfigurationFile, run: Command, tmp_path: Path, damage: str
) -> None:
    record_call(file.load())
    backup = tmp_path / "index.crec"
    run("index", "backup", "-o", str(backup))
    content = backup.read_bytes()
    with opened(file) as index:
        (entry,) = index.find()
    if damage == "recording":
        backup.write_bytes(path_of(LocalSink(file.load().recording.directory), entry).read_bytes())
    elif damage == "cut":
        backup.write_bytes(content[: len(content) - 65536 - 16])
    elif damage == "bit":
        backup.write_bytes(content[:-70000] + bytes([content[-70000] ^ 1]) + content[-69999:])
    elif damage == "none":
        backup.unlink()
    else:
        kek = file.made.directory / "keys/backup.kek"
        kek.unlink()
        create_kek(kek)
    file.load().recording.index_path.unlink()
    run("index", "restore", str(backup))
    assert run.code in {24, 26, 27, 116}
    with opened(file) as index:
        assert index.find() == []


def test_without_a_backup_key_there_is_no_backup(
    file: ConfigurationFile, run: Command, tmp_path: Path
) -> None:
    file.replace('backup_key = "backup"\n', "")
    run("index", "backup", "-o", str(tmp_path / "b"))
    assert run.code == 77
    assert list(tmp_path.glob("*b")) == [tmp_path / "lab"]


def test_a_search_key_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "new-key", str(tmp_path / "key")]) == 0
    assert main(["index", "new-key", str(tmp_path / "key")]) == 39
    assert "exists" in capsys.readouterr().err
