"""The catalogue: what it holds, what it must not hold, and that readers and writers of two processes get along."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recording.index import IndexEntry, IndexState, IndexUnavailableError, RecordingIndex, utc_hour

ENTRY = IndexEntry(
    file_id=b"F" * 16,
    recording=b"R" * 16,
    segment=0,
    call_uid="call-1",
    tenant_handle=b"T" * 16,
    state=IndexState.RECORDING,
    provider=0x7F,
    key_id="0123456789abcdef",
    started_hour=datetime(2026, 5, 6, 7, tzinfo=UTC),
)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[RecordingIndex]:
    with closing(RecordingIndex(tmp_path / "index.sqlite")) as opened:
        yield opened


def test_an_entry_comes_back_as_it_was_and_is_replaced_as_a_whole(index: RecordingIndex) -> None:
    index.put([ENTRY])
    assert index.get(ENTRY.file_id) == ENTRY
    done = replace(ENTRY, state=IndexState.COMPLETE, records=9, size_bytes=77968, object_key="a/b")
    index.put([done])
    assert index.get(ENTRY.file_id) == done
    assert index.get(b"X" * 16) is None


def test_the_last_of_several_entries_for_one_file_counts(index: RecordingIndex) -> None:
    index.put([ENTRY, replace(ENTRY, state=IndexState.INCOMPLETE), replace(ENTRY, state=IndexState.COMPLETE)])
    found = index.get(ENTRY.file_id)
    assert found is not None
    assert found.state is IndexState.COMPLETE


def test_entries_are_found_by_what_is_given(index: RecordingIndex) -> None:
    second = replace(ENTRY, file_id=b"G" * 16, segment=1, state=IndexState.COMPLETE)
    other = replace(
        ENTRY,
        file_id=b"H" * 16,
        recording=b"S" * 16,
        call_uid="call-2",
        started_hour=datetime(2026, 5, 6, 9, tzinfo=UTC),
    )
    index.put([second, other, ENTRY])
    assert index.find() == [other, ENTRY, second]
    assert index.find(call_uid="call-1") == [ENTRY, second]
    assert index.find(recording=b"S" * 16) == [other]
    assert index.find(state=IndexState.COMPLETE) == [second]
    assert index.find(call_uid="call-2", state=IndexState.COMPLETE) == []
    assert index.find(since_hour=datetime(2026, 5, 6, 8, tzinfo=UTC)) == [other]
    assert index.find(limit=1) == [other]


def test_every_state_is_counted(index: RecordingIndex) -> None:
    entries = [
        replace(ENTRY, file_id=bytes([number]) * 16, state=state) for number, state in enumerate(IndexState)
    ]
    index.put([*entries, replace(ENTRY, file_id=b"Z" * 16)])
    assert index.counts() == {state: 2 if state is IndexState.RECORDING else 1 for state in IndexState}


def test_the_hour_is_all_that_is_kept_of_the_time(index: RecordingIndex, tmp_path: Path) -> None:
    exact = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    assert utc_hour(exact) == ENTRY.started_hour
    index.put([replace(ENTRY, started_hour=exact)])
    found = index.get(ENTRY.file_id)
    assert found is not None
    assert found.started_hour == ENTRY.started_hour
    index.close()
    assert b"07:08" not in (tmp_path / "index.sqlite").read_bytes()


def test_there_is_no_column_for_anything_readable(index: RecordingIndex, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(recordings)")}
        journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    assert columns == {
        "file_id",
        "recording",
        "segment",
        "call_uid",
        "tenant_handle",
        "state",
        "records",
        "size_bytes",
        "provider",
        "key_id",
        "object_key",
        "started_hour",
    }
    assert journal == "wal"


def test_its_files_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(RecordingIndex(tmp_path / "new" / "index.sqlite")) as index:
            index.put([ENTRY])
            with closing(sqlite3.connect(tmp_path / "new" / "index.sqlite")) as reader:
                reader.execute("SELECT count(*) FROM recordings").fetchone()
                for path in (tmp_path / "new").iterdir():
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_another_schema_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    RecordingIndex(path).close()
    RecordingIndex(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE schema_version SET version = 2")
        connection.commit()
    with pytest.raises(IndexUnavailableError, match="version"):
        RecordingIndex(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(2,)]


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_bytes(b"\x89CREC" * 1000)
    with pytest.raises(IndexUnavailableError, match="not a database"):
        RecordingIndex(tmp_path / "index.sqlite")
    with pytest.raises(IndexUnavailableError):
        RecordingIndex(tmp_path)


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from recording.index import RecordingIndex
from test_entry import ENTRY
index = RecordingIndex(Path(sys.argv[1]))
for number in range(200):
    index.put([replace(ENTRY, file_id=number.to_bytes(16, "big"))])
index.close()
"""


def test_a_reader_sees_whole_entries_while_another_process_writes(
    index: RecordingIndex, tmp_path: Path
) -> None:
    (tmp_path / "test_entry.py").write_text(
        "from datetime import UTC, datetime\nfrom recording.index import *\nENTRY = " + _source(ENTRY)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path / "index.sqlite"], env=environment
    ) as writer:
        seen = 0
        while writer.poll() is None:
            entries = index.find()
            assert all(entry.call_uid == "call-1" for entry in entries)
            assert len(entries) >= seen
            seen = len(entries)
            index.put([replace(ENTRY, file_id=b"\xff" * 16)])  # two writers do not fail one another
    assert writer.returncode == 0
    assert len(index.find()) == 201


def _source(entry: IndexEntry) -> str:
    return (
        repr(entry)
        .replace(repr(entry.state), "IndexState.RECORDING")
        .replace(repr(entry.started_hour), "datetime(2026, 5, 6, 7, tzinfo=UTC)")
    )
