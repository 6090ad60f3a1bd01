"""Finding by number, holds, expiry, rebuild and backup, by commands, over recordings of the recorder itself."""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from b2bua.cli.main import main
from recording.index import IndexEntry, IndexState, RecordingIndex
from recording.index.rebuild import HELD_AS
from recording.keys.local import create_kek
from recording.sinks.local import LocalSink
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration
from support.recorded import CALLED, CALLER, record_call

REBUILD = ("--reason", "migration")


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "lab")
    made.replace("[keys.dev]", "fsync_interval_ms = 50\n[keys.dev]")
    create_kek(made.made.directory / "keys/backup.kek")
    made.append('[keys.backup]\nprovider = "local"\nkek = "keys/backup.kek"')
    made.replace("search_key =", 'backup_key = "backup"\nsearch_key =')
    return made


class Command:
    def __init__(self, file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self.capsys = capsys
        self.code = 0
        self.err = ""

    def __call__(self, group: str, name: str, *words: str) -> str:
        self.code = main([group, name, "-c", str(self.file.path), *words])
        captured = self.capsys.readouterr()
        self.err = captured.err
        return captured.out

    def json(self, group: str, name: str, *words: str) -> Any:
        return json.loads(self(group, name, *words, "--json"))

    def find(self, *words: str) -> list[str]:
        """File ids found."""
        return [entry["file_id"] for entry in self.json("recordings", "find", *words)["recordings"]]


@pytest.fixture
def run(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(file, capsys)


@contextmanager
def opened(file: ConfigurationFile) -> Iterator[RecordingIndex]:
    with closing(RecordingIndex(file.load().recording.index_place)) as index:
        yield index


def age(file: ConfigurationFile, days: int) -> None:
    """Make every entry so much older."""
    with opened(file) as index:
        index.put(
            [replace(each, started_hour=each.started_hour - timedelta(days=days)) for each in index.find()]
        )


def events(file: ConfigurationFile, *names: str) -> list[dict[str, Any]]:
    return [line for line in sealed_lines(file.path) if line["event"] in names]


# --- find


def test_a_number_finds_its_recordings_in_every_spelling_and_no_other(
    file: ConfigurationFile, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = record_call(file.load())
    assert run.find("--number", CALLER) == [call.file_id]
    assert run.find("--number", CALLED.replace("+", "00")) == [call.file_id]
    assert run.find("--number", CALLER[:-1]) == []
    assert run.find("--number", CALLER + "0") == []
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{CALLED}\n"))
    assert run.find("--number", "-") == [call.file_id]
    searches = events(file, "index_searched")
    assert [(line["by"], line["count"]) for line in searches] == [
        ("number", 1), ("number", 1), ("number", 0), ("number", 0), ("number", 1),
    ]  # fmt: skip
    assert CALLER[1:] not in json.dumps(sealed_lines(file.path))


def test_recordings_are_found_by_time_trunk_tenant_state_and_hold(
    file: ConfigurationFile, run: Command
) -> None:
    call = record_call(file.load())
    found = [call.file_id]
    today = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H}"
    later = f"{datetime.now(UTC) + timedelta(hours=2):%Y-%m-%dT%H}"
    assert run.find("--since", today, "--until", later) == found
    assert run.find("--since", later) == []
    assert run.find("--until", "2020-01-01") == []
    with opened(file) as index:
        (entry,) = index.find()
        index.put([replace(entry, trunk_a="caller", trunk_b="callee")])
    assert run.find("--trunk", "callee", "--tenant", "clinic", "--state", "complete") == found
    assert run.find("--trunk", "other") == []
    assert run.find("--hold") == []
    run("recordings", "hold", call.file_id, "--reason", "complaint-7")
    assert run.find("--hold", "--kind", "audio") == found
    run("recordings", "find", "--tenant", "nobody")
    assert run.code == 77
    with pytest.raises(SystemExit):
        run("recordings", "find", "--since", "yesterday")


def test_parties_are_shown_for_a_reason_that_is_audited(file: ConfigurationFile, run: Command) -> None:
    call = record_call(file.load())
    assert CALLER not in run("recordings", "find")
    run("recordings", "find", "--parties")
    assert run.code == 77
    with pytest.raises(SystemExit):
        run("recordings", "find", "--parties", "--reason", "number 12345")
    assert events(file, "index_read") == []
    (entry,) = run.json("recordings", "find", "--parties", "--reason", "complaint")["recordings"]
    assert (entry["from"], entry["to"]) == (CALLER, CALLED)
    assert CALLER in run("recordings", "find", "--parties", "--reason", "complaint", "--ticket", "QA-12")
    lines = events(file, "index_read")
    assert [(line["file_id"], line["reason"]) for line in lines] == [(call.file_id, "complaint")] * 2
    assert lines[1]["ticket"] == "QA-12"


def test_without_the_key_no_party_is_shown_and_the_number_is_still_found(
    file: ConfigurationFile, run: Command
) -> None:
    call = record_call(file.load())
    kek = file.made.kek
    kek.unlink()
    create_kek(kek)
    (entry,) = run.json("recordings", "find", "--number", CALLER, "--parties", "--reason", "complaint")[
        "recordings"
    ]
    assert entry["file_id"] == call.file_id
    assert "from" not in entry
    assert "no configured key" in entry["parties_problem"]


def test_without_a_search_key_nothing_is_found_by_number_and_no_number_is_kept(
    file: ConfigurationFile, run: Command
) -> None:
    file.replace('search_key = "keys/index-search.key"', "")
    record_call(file.load())
    run("recordings", "find", "--number", CALLER)
    assert run.code == 77
    with opened(file) as index:
        (entry,) = index.find()
        assert (entry.parties.sealed, entry.parties.blind_from) == (None, None)


# --- hold, release, expire


def test_a_recording_expires_when_its_time_is_over_and_not_before(
    file: ConfigurationFile, run: Command
) -> None:
    file.replace('key = "dev"\n', 'key = "dev"\nretain_days = 30\n')
    call = record_call(file.load())
    sink = LocalSink(file.load().recording.directory)
    assert run.json("recordings", "expire")["kept"]["retention"] == 1
    age(file, 31)
    with opened(file) as index:  # what was promised then
        (entry,) = index.find()
        assert entry.retain_until is not None
        assert entry.retain_until > datetime.now(UTC) + timedelta(days=29)
        index.put([replace(entry, retain_until=None)])
    dry = run.json("recordings", "expire", "--dry-run")
    assert (dry["deleted"], dry["dry_run"]) == ([call.file_id], True)
    assert len(list(sink.keys())) == 1
    assert events(file, "recording_deleted", "deletion_begun") == []
    assert run.json("recordings", "expire")["deleted"] == [call.file_id]
    assert run.code == 0
    assert list(sink.keys()) == []
    assert run.json("recordings", "expire")["deleted"] == []
    assert run.find("--state", "deleted") == [call.file_id]
    assert run.find("--number", CALLER) == []
    names = [line["event"] for line in events(file, "deletion_begun", "recording_deleted", "expiry_ended")]
    assert names == ["expiry_ended", "deletion_begun", "recording_deleted", "expiry_ended", "expiry_ended"]


def test_a_hold_outlasts_retention_until_it_is_released(file: ConfigurationFile, run: Command) -> None:
    call = record_call(file.load())
    file.replace('key = "dev"\n', 'key = "dev"\nretain_days = 30\n')
    run("recordings", "hold", call.call_uid, "--reason", "court-order-7")
    age(file, 3000)
    for command in (("expire",), ("expire", "--json"), ("recover",)):
        run("recordings", *command)
        assert len(list(LocalSink(file.load().recording.directory).keys())) == 1
    assert run.json("recordings", "expire")["kept"]["hold"] == 1
    assert run.find("--hold") == [call.file_id]
    run("recordings", "release", call.file_id, "--reason", "order-lifted")
    assert run.json("recordings", "expire")["deleted"] == [call.file_id]
    lines = events(file, "recording_held", "recording_released")
    assert [(line["event"], line["reason"], line["file_id"]) for line in lines] == [
        ("recording_held", "court-order-7", call.file_id),
        ("recording_released", "order-lifted", call.file_id),
    ]
    run("recordings", "hold", call.file_id, "--reason", "too-late")
    assert run.code == 118


@pytest.mark.parametrize(
    "words",
    [
        ("hold", "zz", "--reason", "x"),
        ("hold", "0" * 32, "--reason", "x"),
        ("hold", "0" * 32, "--reason", "Mr. Smith 01701234567"),
        ("release", "--reason", "x"),
        ("release", "0" * 32, "--held-for", "x", "--reason", "x"),
        ("release", "--held-for", "nothing", "--reason", "x"),
    ],
)
def test_a_hold_needs_an_id_and_a_reason_that_is_a_label(run: Command, words: tuple[str, ...]) -> None:
    run("recordings", *words)
    assert run.code == 77
    assert "01701234567" not in run.err


def test_a_deletion_that_fails_is_named_and_can_be_done_again(
    file: ConfigurationFile, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = record_call(file.load())
    file.replace('key = "dev"\n', 'key = "dev"\nretain_days = 30\n')
    age(file, 31)
    with opened(file) as index:
        index.put([replace(entry, retain_until=None) for entry in index.find()])
    with monkeypatch.context() as patch:
        patch.setattr(LocalSink, "delete", lambda self, key: None)
        run("recordings", "expire")
    assert run.code == 88
    assert call.file_id in run.err
    assert run.find("--state", "deleting") == [call.file_id]
    assert [line["reason"] for line in events(file, "deletion_refused")] == ["failed"]
    assert run.json("recordings", "expire")["deleted"] == [call.file_id]


def test_nothing_goes_and_no_hold_is_lifted_while_the_audit_log_can_not_be_written(
    file: ConfigurationFile, run: Command
) -> None:
    """The disk of the log is full."""
    file.replace('key = "dev"\n', 'key = "dev"\nretain_days = 30\n')
    held, over = (record_call(file.load()) for _ in range(2))
    run("recordings", "hold", held.file_id, "--reason", "court-order")
    age(file, 3000)
    with opened(file) as index:
        index.put([replace(entry, retain_until=None) for entry in index.find()])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for words in (("expire",), ("release", held.file_id, "--reason", "lifted")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            run("recordings", *words)
        assert run.code == 75
        assert "No space left" in run.err
    assert len(list(LocalSink(file.load().recording.directory).keys())) == 2
    assert run.find("--hold") == [held.file_id]
    assert run.json("recordings", "expire")["deleted"] == [over.file_id]
    run("recordings", "release", held.file_id, "--reason", "lifted")
    assert run.find("--hold") == []


def test_the_audit_log_says_who_held_searched_and_deleted(file: ConfigurationFile, run: Command) -> None:
    call = record_call(file.load())
    run("recordings", "hold", call.file_id, "--reason", "court-order")
    run("recordings", "find", "--hold")
    run("recordings", "release", call.file_id, "--reason", "lifted")
    lines = events(file, "recording_held", "index_searched", "recording_released")
    assert [line["uid"] for line in lines] == [os.getuid()] * 3


def test_a_list_that_was_cut_says_so(file: ConfigurationFile, run: Command) -> None:
    for _ in range(2):
        record_call(file.load())
    for command in ("list", "find"):
        found = run.json("recordings", command, "--limit", "1")
        assert (len(found["recordings"]), found["more"]) == (1, True)
        run("recordings", command, "--limit", "1")
        assert "more than these 1" in run.err
        found = run.json("recordings", command, "--limit", "2")
        assert (len(found["recordings"]), found["more"], run.err) == (2, False, "")
        with pytest.raises(SystemExit):
            run("recordings", command, "--limit", "0")


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


def path_of(sink: LocalSink, entry: IndexEntry) -> Path:
    assert entry.object_key is not None
    return sink.path(entry.object_key)


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
