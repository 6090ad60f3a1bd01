"""The catalogue of recordings: an SQLite file in WAL mode, written by the recorder, read by the command line.

It holds random ids, states, sizes and the UTC hour. Numbers, names, URIs, Call-IDs and exact times are inside the
sealed records only (docs/recording-format.md, Records). It can be lost without losing a recording.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from recording.errors import RecordingError

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 5.0
_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_HOUR: Final = "%Y-%m-%dT%H:00:00Z"

_METADATA: Final = sa.MetaData()
_VERSION: Final = sa.Table("schema_version", _METADATA, sa.Column("version", sa.Integer, primary_key=True))
_RECORDINGS: Final = sa.Table(
    "recordings",
    _METADATA,
    sa.Column("file_id", sa.String(32), primary_key=True),
    sa.Column("recording", sa.String(32), nullable=False, index=True),
    sa.Column("segment", sa.Integer, nullable=False),
    sa.Column("call_uid", sa.String(64), nullable=False, index=True),
    sa.Column("tenant_handle", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("provider", sa.Integer, nullable=False),
    sa.Column("key_id", sa.String, nullable=False),
    sa.Column("object_key", sa.String, nullable=True),
    sa.Column("started_hour", sa.String(20), nullable=False, index=True),
)


class IndexUnavailableError(RecordingError):
    """The index cannot be read or written, or is of another schema version."""

    exit_code = 48


class IndexState(enum.Enum):
    """How far a segment got. `failed`: nothing of it could be kept."""

    RECORDING = "recording"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CORRUPT = "corrupt"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One segment. `records` and `size_bytes` are 0 while it is being recorded.

    `started_hour` is an aware UTC time cut to the hour. `object_key` is None while the file is in the spool.
    """

    file_id: bytes
    recording: bytes
    segment: int
    call_uid: str
    tenant_handle: bytes
    state: IndexState
    provider: int
    key_id: str
    started_hour: datetime
    records: int = 0
    size_bytes: int = 0
    object_key: str | None = None


class RecordingIndex:
    """Any thread and any number of processes: each call is one transaction, writers wait up to 5 s for one another."""

    def __init__(self, path: Path) -> None:
        """Open the index, making it (mode 0600) where there is none.

        Raises:
            IndexUnavailableError: no access, not an index, or one of another schema version.
        """
        self._path = path
        with _translated(path):
            _create_private(path)
            self._engine = sa.create_engine(
                sa.URL.create("sqlite", database=str(path)),
                connect_args={"timeout": BUSY_TIMEOUT_S},
                poolclass=sa.NullPool,
            )
            sa.event.listen(self._engine, "connect", _configure)
            try:
                self._prepare()
            except BaseException:
                self._engine.dispose()
                raise

    def close(self) -> None:
        self._engine.dispose()

    def put(self, entries: Sequence[IndexEntry]) -> None:
        """Insert or replace entries by file id, all or none."""
        if not entries:
            return
        statement = insert(_RECORDINGS)
        statement = statement.on_conflict_do_update(
            index_elements=[_RECORDINGS.c.file_id],
            set_={
                column.name: statement.excluded[column.name]
                for column in _RECORDINGS.c
                if not column.primary_key
            },
        )
        with self._transaction() as connection:
            connection.execute(statement, [_row(entry) for entry in entries])

    def get(self, file_id: bytes) -> IndexEntry | None:
        """The entry of one file, None where the index knows none."""
        found = self._select(sa.select(_RECORDINGS).where(_RECORDINGS.c.file_id == file_id.hex()))
        return found[0] if found else None

    def find(
        self,
        *,
        state: IndexState | None = None,
        call_uid: str | None = None,
        recording: bytes | None = None,
        since_hour: datetime | None = None,
        limit: int = 1000,
    ) -> list[IndexEntry]:
        """Entries that match all that is given, newest hour first, the segments of a recording in order."""
        columns = _RECORDINGS.c
        query = sa.select(_RECORDINGS).order_by(
            columns.started_hour.desc(), columns.recording, columns.segment
        )
        if state is not None:
            query = query.where(columns.state == state.value)
        if call_uid is not None:
            query = query.where(columns.call_uid == call_uid)
        if recording is not None:
            query = query.where(columns.recording == recording.hex())
        if since_hour is not None:
            query = query.where(columns.started_hour >= _hour_text(since_hour))
        return self._select(query.limit(limit))

    def counts(self) -> dict[IndexState, int]:
        """Segments by state; every state has an entry."""
        query = sa.select(_RECORDINGS.c.state, sa.func.count()).group_by(_RECORDINGS.c.state)
        with self._transaction() as connection:
            found = {str(state): int(count) for state, count in connection.execute(query)}
        return {state: found.get(state.value, 0) for state in IndexState}

    def _select(self, query: sa.Select[Any]) -> list[IndexEntry]:
        with self._transaction() as connection:
            return [_entry(row) for row in connection.execute(query).mappings()]

    def _prepare(self) -> None:
        with self._engine.begin() as connection:
            _METADATA.create_all(connection)
            versions = list(connection.scalars(sa.select(_VERSION.c.version)))
            if not versions:
                connection.execute(insert(_VERSION).values(version=SCHEMA_VERSION).on_conflict_do_nothing())
                versions = [SCHEMA_VERSION]
        if versions != [SCHEMA_VERSION]:
            raise IndexUnavailableError(
                f"{self._path} is an index of schema version {versions}, this program knows "
                f"{SCHEMA_VERSION}; move it away"
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with _translated(self._path), self._engine.begin() as connection:
            yield connection


def utc_hour(at: datetime) -> datetime:
    """`at` cut to the hour, in UTC: as exact as the index may be."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _create_private(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database file."""
    path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))


def _configure(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute(
        "PRAGMA synchronous=NORMAL"
    )  # a power cut may cost the last entries; recovery writes them again
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _hour_text(at: datetime) -> str:
    return at.astimezone(UTC).strftime(_HOUR)


def _row(entry: IndexEntry) -> dict[str, object]:
    return {
        "file_id": entry.file_id.hex(),
        "recording": entry.recording.hex(),
        "segment": entry.segment,
        "call_uid": entry.call_uid,
        "tenant_handle": entry.tenant_handle.hex(),
        "state": entry.state.value,
        "records": entry.records,
        "size_bytes": entry.size_bytes,
        "provider": entry.provider,
        "key_id": entry.key_id,
        "object_key": entry.object_key,
        "started_hour": _hour_text(entry.started_hour),
    }


def _entry(row: sa.RowMapping) -> IndexEntry:
    return IndexEntry(
        file_id=bytes.fromhex(row["file_id"]),
        recording=bytes.fromhex(row["recording"]),
        segment=row["segment"],
        call_uid=row["call_uid"],
        tenant_handle=bytes.fromhex(row["tenant_handle"]),
        state=IndexState(row["state"]),
        records=row["records"],
        size_bytes=row["size_bytes"],
        provider=row["provider"],
        key_id=row["key_id"],
        object_key=row["object_key"],
        started_hour=datetime.strptime(row["started_hour"], _HOUR).replace(tzinfo=UTC),
    )


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The one place where the database's errors become ours."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or type(error).__name__
        raise IndexUnavailableError(
            f"{path}: {reason}; it is a catalogue only, no recording depends on it"
        ) from error
    except OSError as error:
        raise IndexUnavailableError(f"{path}: {error.strerror}; check the directory and its owner") from error
