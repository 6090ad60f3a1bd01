"""The SQLite catalogue: its files, its versions, what it must not hold. Its contract: conformance/test_index.py."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recording.format.content import RecordingKind
from recording.index import (
    NO_PARTIES,
    IndexEntry,
    IndexState,
    IndexUnavailableError,
    RecordingIndex,
    SealedParties,
)
from recording.index.migrate import backup_path
from recording.index.schema import RECORDINGS

VERSION_1 = Path(__file__).parents[2] / "data/index/version-1.sqlite"
"""Made by the first program that had an index."""

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
        "kind",
        "parent",
        "trunk_a",
        "trunk_b",
        "retain_until",
        "hold",
        "deleted_hour",
        "sealed",
        "blind_from",
        "blind_to",
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


def from_version_1(tmp_path: Path) -> Path:
    path = tmp_path / "index.sqlite"
    path.write_bytes(VERSION_1.read_bytes())
    path.chmod(0o600)
    return path


def test_an_index_of_version_1_is_brought_up_to_date_beside_a_copy_of_it(tmp_path: Path) -> None:
    path = from_version_1(tmp_path)
    with closing(RecordingIndex(path)) as index:
        segments = index.find(recording=b"R" * 16)
        assert [(entry.file_id, entry.state, entry.records, entry.size_bytes) for entry in segments] == [
            (b"F" * 16, IndexState.COMPLETE, 9, 77968),
            (b"G" * 16, IndexState.INCOMPLETE, 3, 28672),
        ]
        assert segments[0].object_key == f"{'54' * 16}/2026/05/{'46' * 16}.crec"
        assert all(
            (entry.kind, entry.parent, entry.retain_until, entry.hold, entry.parties)
            == (RecordingKind.AUDIO, None, None, None, NO_PARTIES)
            for entry in segments
        )
        index.put([replace(segments[1], parties=SealedParties(blind_to=b"b" * 32))])
        assert len(index.find(blind=[b"b" * 32])) == 1
    copy = backup_path(path, version=1)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert rows(copy) == rows(VERSION_1)
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_the_tables_of_an_upgraded_index_are_those_of_a_new_one(tmp_path: Path) -> None:
    old = from_version_1(tmp_path)
    RecordingIndex(old).close()
    RecordingIndex(tmp_path / "new.sqlite").close()
    names = "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c ORDER BY 1, 2"
    indexes = "SELECT tbl_name, name FROM sqlite_master WHERE type = 'index' ORDER BY 1, 2"
    for query in (names, indexes):
        assert rows(old, query) == rows(tmp_path / "new.sqlite", query)
    declared = {("recordings", column.name) for column in RECORDINGS.c}
    assert declared <= set(rows(old, names))


def test_an_upgrade_that_is_interrupted_leaves_the_old_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = from_version_1(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("alembic.command.upgrade", fail)
        with pytest.raises(IndexUnavailableError):
            RecordingIndex(path)
    assert rows(path) == rows(VERSION_1)
    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'alembic_version'") == []
    with closing(RecordingIndex(path)) as index:
        assert len(index.find()) == 2


def test_a_program_of_version_1_refuses_what_this_one_makes(tmp_path: Path) -> None:
    RecordingIndex(tmp_path / "index.sqlite").close()
    versions = rows(tmp_path / "index.sqlite", "SELECT version FROM schema_version")
    assert versions == [(2,)], "it accepts [1] alone"


def rows(path: Path, query: str = "SELECT * FROM recordings ORDER BY file_id") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_bytes(b"\x89CREC" * 1000)
    with pytest.raises(IndexUnavailableError, match="not a database"):
        RecordingIndex(tmp_path / "index.sqlite")
    with pytest.raises(IndexUnavailableError):
        RecordingIndex(tmp_path)
