"""Finding by number, holds and expiry, by commands, over recordings of the recorder itself."""

from __future__ import annotations

import errno
import io
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from b2bua.errors import CommandError
from recording.keys.local import create_kek
from recording.sinks.local import LocalSink
from support.audited import sealed_lines
from support.configuration import ConfigurationFile
from support.index_commands import Command, age, configured, events, opened
from support.recorded import CALLED, CALLER, record_call


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    return configured(tmp_path / "lab")


@pytest.fixture
def run(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(file, capsys)


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
    assert run.json("recordings", "expire", "--repeat-locks")["kept"]["retention"] == 1
    (repeated,) = events(file, "locks_repeated")
    assert repeated["count"] == 0, "a directory locks nothing"
    age(file, 31)
    with opened(file) as index:  # what was promised then
        (entry,) = index.find()
        assert entry.retain_until is not None
        assert entry.retain_until > datetime.now(UTC) + timedelta(days=29)
        index.put([replace(entry, retain_until=None)])
    run("recordings", "expire", "--dry-run", "--repeat-locks")
    assert run.code == CommandError.exit_code, "one of them changes something"
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
