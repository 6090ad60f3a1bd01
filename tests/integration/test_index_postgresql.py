"""The shared index: reached over TLS 1.3 with a verified name and its own credentials, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from b2bua.cli.main import main
from recording.index import IndexEntry, IndexState, IndexUnavailableError, RecordingIndex
from recording.retention import HoldRefusedError, Retention
from recording.settings import PostgreSQLSettings, RetentionSettings, TLSFloor
from recording.sinks.local import LocalSink
from recording.sinks.sink import ObjectName
from recording.spool_state import make_spool_directory
from support.configuration import ConfigurationFile, make_configuration
from support.kms import issue_server_files
from support.postgres import PostgreSQL
from support.recorded import CALLER, record_call

BEGAN = datetime(2026, 5, 6, 7, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with PostgreSQL(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def database(server: PostgreSQL) -> PostgreSQLSettings:
    return server.new_database()


def refused(settings: PostgreSQLSettings, *, saying: str) -> None:
    with pytest.raises(IndexUnavailableError, match=saying):
        RecordingIndex(settings)


def test_the_connection_is_tls_1_3(server: PostgreSQL, database: PostgreSQLSettings) -> None:
    with closing(RecordingIndex(database)) as index:
        assert index.find() == []
        rows = server.execute(
            "SELECT s.version FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) "
            f"WHERE a.application_name = 'sealtrunk' AND a.datname = '{database.database}'"
        )
        assert set(rows) == {("TLSv1.3",)}


def test_another_authority_is_refused(database: PostgreSQLSettings, tmp_path: Path) -> None:
    other = issue_server_files(tmp_path / "other")
    refused(replace(database, ca_path=other.ca_path), saying="certificate verify failed")
    refused(replace(database, ca_path=tmp_path / "none.pem"), saying="none.pem")
    RecordingIndex(database).close()


def test_another_name_is_refused(database: PostgreSQLSettings) -> None:
    refused(replace(database, host="localhost"), saying="does not match host name")


def test_wrong_missing_and_open_credentials_are_refused(database: PostgreSQLSettings, tmp_path: Path) -> None:
    assert database.passfile_path is not None
    passfile = tmp_path / "pgpass"
    right = database.passfile_path.read_text()
    settings = replace(database, passfile_path=passfile)
    refused(settings, saying="pgpass")
    passfile.write_text(right)
    passfile.chmod(0o644)
    refused(settings, saying="chmod 600")
    passfile.chmod(0o600)
    RecordingIndex(settings).close()
    password = right.strip().rpartition(":")[2]
    passfile.write_text(right.replace(password, password[::-1]))
    refused(settings, saying="password authentication failed")
    refused(replace(settings, passfile_path=None), saying="no password supplied")


def test_a_server_that_cannot_do_1_3_is_refused_unless_the_exception_is_made(tmp_path: Path) -> None:
    with PostgreSQL(tmp_path, max_tls="TLSv1.2") as old:
        settings = old.new_database()
        refused(settings, saying="protocol version|alert")
        RecordingIndex(replace(settings, tls_floor=TLSFloor.TLS_1_2)).close()


def test_a_server_that_is_away_is_an_error_and_its_return_is_noticed(tmp_path: Path) -> None:
    with PostgreSQL(tmp_path) as server:
        settings = server.new_database()
        with closing(RecordingIndex(settings)) as index:
            server.stop()
            with pytest.raises(IndexUnavailableError):
                index.find()
            refused(settings, saying="refused")
            server.start()
            assert index.find() == []


class LastDeletion(LocalSink):
    """The database goes away in the moment in which the first object has gone."""

    def __init__(self, directory: Path, server: PostgreSQL) -> None:
        super().__init__(directory)
        self._server = server

    def delete(self, key: str) -> None:
        super().delete(key)
        self._server.stop()


def test_a_deletion_that_loses_the_database_half_way_goes_on_when_it_is_back(tmp_path: Path) -> None:
    """Until then nothing more is deleted, and nobody can put on hold what is half gone."""
    with PostgreSQL(tmp_path / "server") as server:
        settings = server.new_database()
        directory = tmp_path / "store"
        plain = LocalSink(directory)
        make_spool_directory(tmp_path / "spool")
        entries = [stored(plain, tmp_path, number) for number in (1, 2)]
        now = BEGAN + timedelta(days=40)

        def retention(index: RecordingIndex, sink: LocalSink) -> Retention:
            kept = RetentionSettings(tenants={entries[0].tenant_handle: 30}, trunks={})
            return Retention(index=index, sink=sink, settings=kept, spool_directory=tmp_path / "spool")

        with closing(RecordingIndex(settings)) as index:
            index.put(entries)
            with pytest.raises(IndexUnavailableError):
                retention(index, LastDeletion(directory, server)).delete(entries[0].recording, now)
            assert len(list(plain.keys())) == 1
            server.start()
            assert {entry.state for entry in index.find()} == {IndexState.DELETING}
            with pytest.raises(HoldRefusedError):
                retention(index, plain).hold(entries[0].recording, "too-late")
            assert all(each.is_gone for each in retention(index, plain).delete(entries[0].recording, now))
            assert {entry.state for entry in index.find()} == {IndexState.DELETED}
        assert list(plain.keys()) == []


def stored(sink: LocalSink, directory: Path, number: int) -> IndexEntry:
    """A segment of one recording in the store, and its entry."""
    name = ObjectName(tenant_handle=b"C" * 16, file_id=bytes([number]) * 16, started_hour=BEGAN)
    source = directory / "source"
    source.write_bytes(bytes([number]) * 100)
    sink.put(source, name)
    return IndexEntry(
        file_id=name.file_id,
        recording=b"R" * 16,
        segment=number - 1,
        call_uid="ab" * 16,
        tenant_handle=name.tenant_handle,
        state=IndexState.COMPLETE,
        provider=0x7F,
        key_id="k",
        started_hour=BEGAN,
        object_key=name.key,
    )


def test_a_recorder_and_every_command_work_on_a_shared_index(
    database: PostgreSQLSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file: ConfigurationFile = make_configuration(tmp_path / "lab")
    file.replace(
        "search_key =",
        f'url = "{database}"\nca = "{database.ca_path}"\npassfile = "{database.passfile_path}"\nsearch_key =',
    )
    call = record_call(file.load())
    assert not file.load().recording.index_path.exists()

    def run(*words: str) -> dict[str, object]:
        code = main([*words[:2], "-c", str(file.path), *words[2:], "--json"])
        assert code == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    (entry,) = run("recordings", "find", "--number", CALLER, "--parties", "--reason", "test")["recordings"]  # type: ignore[misc,attr-defined]
    assert (entry["file_id"], entry["from"]) == (call.file_id, CALLER)
    assert run("index", "status", "--check")["complete"] == 1
    assert run("index", "rebuild", "--reason", "migration")["new"] == 0
    run("recordings", "hold", call.file_id, "--reason", "complaint")
    assert run("recordings", "expire")["kept"]["hold"] == 1  # type: ignore[index]
    run("recordings", "release", call.file_id, "--reason", "reviewed")
    assert run("recordings", "list")["recordings"]
