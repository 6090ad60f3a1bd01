"""What is read is what was asked for: recordings exchanged in storage, and recordings that grow while they are read."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from b2bua.cli.access import Access, AccessReason
from b2bua.cli.archive import open_archive
from b2bua.cli.main import main
from recording.index import IndexState
from support.configuration import ConfigurationFile, make_configuration
from support.recorded import RATE_HZ, RecordedCall, record_call

ACCESS = Access(action="verify", reason=AccessReason.TEST, ticket=None)


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "lab")
    made.replace("[keys.dev]", "fsync_interval_ms = 50\nsegment_seconds = 10\n[keys.dev]")
    return made


def recordings(file: ConfigurationFile, name: str, *words: str) -> int:
    return main(["recordings", name, "-c", str(file.path), *words, "--reason", "test"])


def path_of(file: ConfigurationFile, file_id: str) -> Path:
    (path,) = (file.made.directory / "recordings").rglob(f"{file_id}.crec")
    return path


@pytest.mark.parametrize("with_manifests", [False, True])
def test_exchanged_recordings_are_not_given_out_for_one_another(
    file: ConfigurationFile, tmp_path: Path, capsys: pytest.CaptureFixture[str], with_manifests: bool
) -> None:
    one, other = (record_call(file.load(), seconds=seconds) for seconds in (1, 2))
    out = tmp_path / "x.wav"
    words = [one.call_uid, "-o", str(out), "--plaintext"]
    assert recordings(file, "export", *words, "--force") == 0
    out.unlink()
    for suffix in (".crec", ".manifest") if with_manifests else (".crec",):
        a, b = (path_of(file, each.file_id).with_suffix(suffix) for each in (one, other))
        a.rename(tmp_path / "aside")
        b.rename(a)
        (tmp_path / "aside").rename(b)
    assert recordings(file, "export", *words) == 109
    assert not out.exists()
    assert recordings(file, "show", one.file_id) == 109
    assert recordings(file, "verify", one.file_id) == 109
    told = capsys.readouterr()
    assert other.file_id in told.err
    assert other.call_uid not in told.out + told.err


# --- a call that goes on


def forget(file: ConfigurationFile, call: RecordedCall, *, last: int) -> dict[str, tuple[Any, ...]]:
    """Make the index say that segment `last` is being recorded, and nothing of those after it; what it had of them."""
    index = sqlite3.connect(file.load().recording.index_path)
    with index:
        rows = index.execute("SELECT * FROM recordings WHERE segment > ?", (last,)).fetchall()
        index.execute("DELETE FROM recordings WHERE segment > ?", (last,))
        index.execute("UPDATE recordings SET state = 'recording' WHERE segment = ?", (last,))
    index.close()
    return {row[0]: row for row in rows}


def test_a_segment_that_begins_while_others_are_read_is_no_gap(
    file: ConfigurationFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = record_call(file.load(), seconds=21)
    assert len(call.file_ids) == 3
    forget(file, call, last=0)
    assert recordings(file, "verify", call.call_uid, "--json") == 0
    (whole,) = json.loads(capsys.readouterr().out)["wholes"]
    assert (whole["segments"], whole["live"], whole["faults"]) == (1, True, [])
    assert recordings(file, "export", call.call_uid, "-o", str(tmp_path / "x.wav"), "--plaintext") == 0
    assert "the call goes on" in capsys.readouterr().err


def test_segments_that_the_index_learns_of_meanwhile_are_read_too(file: ConfigurationFile) -> None:
    call = record_call(file.load(), seconds=21)
    rows = forget(file, call, last=0)
    with open_archive(file.path) as archive:
        (selection,) = archive.select(call.call_uid)
        assert archive.index is not None
        index = sqlite3.connect(file.load().recording.index_path)
        with index:
            for row in rows.values():
                index.execute(f"INSERT INTO recordings VALUES ({','.join('?' * len(row))})", row)
        index.close()
        settled = archive.settled(selection, ACCESS)
    assert [segment.file_id for segment in settled.segments] == list(call.file_ids)
    assert not settled.is_live


def test_a_gap_in_a_recording_that_has_ended_is_one(file: ConfigurationFile) -> None:
    call = record_call(file.load(), seconds=21)
    forget(file, call, last=0)
    with open_archive(file.path) as archive:
        assert archive.index is not None
        (entry,) = archive.index.find()
        archive.index.put([replace(entry, state=IndexState.COMPLETE)])
    assert recordings(file, "verify", call.call_uid) == 108
    assert len(call.pcm) == 2 * 21 * RATE_HZ
