"""The index's database: an SQLite file in WAL mode, or PostgreSQL over TLS 1.3 with a verified name.

Source: libpq, Database Connection Control Functions (sslmode, ssl_min_protocol_version, passfile).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from recording.errors import RecordingError
from recording.index.entry import IndexUnavailableError
from recording.settings import PostgreSQLSettings

Place = Path | PostgreSQLSettings

BUSY_TIMEOUT_S: Final = 5.0
WRITES: Final = "index_writes"
"""Execution option of a transaction that will write: SQLite then takes its write lock at once, for a transaction that
first reads and then writes cannot wait for another one."""
_CURE: Final = "if it stays so, move it away, then `b2bua index restore` or `rebuild`"
_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_POOL_SIZE: Final = 2


def open_engine(place: Place) -> sa.Engine:
    """An engine for the database at `place`; an SQLite file is made (mode 0600) where there is none.

    Raises:
        IndexUnavailableError: no access; with PostgreSQL also a password file that others may read.
    """
    with translated(place):
        if isinstance(place, Path):
            return _sqlite(place)
        return _postgresql(place)


@contextlib.contextmanager
def transaction(engine: sa.Engine, *, writes: bool) -> Iterator[sa.Connection]:
    """One transaction; what is raised inside rolls it back."""
    with engine.connect() as connection:
        connection.execution_options(**{WRITES: writes})
        with connection.begin():
            yield connection


def _sqlite(path: Path) -> sa.Engine:
    _create_private(path)
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        # One stays open: the last that closes folds the journal away, and the next would make it anew.
        poolclass=sa.QueuePool,
        pool_size=1,
        max_overflow=_POOL_SIZE,
        hide_parameters=True,
    )
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _create_private(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database file."""
    path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))


def _configure(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says so, and nowhere else
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # A power cut may cost the last entries; recovery writes them again.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgresql(settings: PostgreSQLSettings) -> sa.Engine:
    """Whatever the server's side allows: no TLS, no connection; another name in its certificate, no connection."""
    arguments: dict[str, object] = {
        "sslmode": "verify-full",
        "sslrootcert": str(settings.ca_path),
        "ssl_min_protocol_version": f"TLSv{settings.tls_floor.value}",
        "gssencmode": "disable",
        "connect_timeout": settings.timeout_s,
        "application_name": "sealtrunk",
        # A server that asks for the password in clear, or somebody between who relays it, gets nothing.
        "channel_binding": "prefer" if settings.passfile_path is None else "require",
        "passfile": os.devnull if settings.passfile_path is None else str(settings.passfile_path),
        "options": f"-c statement_timeout={settings.timeout_s * 1000} -c lock_timeout={settings.timeout_s * 1000}",
    }
    if settings.passfile_path is not None:
        _check_private(settings.passfile_path)
    if settings.certificate_path is not None and settings.private_key_path is not None:
        _check_private(settings.private_key_path)
        arguments |= {"sslcert": str(settings.certificate_path), "sslkey": str(settings.private_key_path)}
    url = sa.URL.create(
        "postgresql+psycopg",
        username=settings.user,
        host=settings.host,
        port=settings.port,
        database=settings.database,
    )
    try:
        return sa.create_engine(
            url,
            connect_args=arguments,
            pool_size=_POOL_SIZE,
            max_overflow=_POOL_SIZE,
            pool_pre_ping=True,
            hide_parameters=True,
        )
    except ImportError as error:
        raise IndexUnavailableError(
            "PostgreSQL needs psycopg and the system's libpq; install sealtrunk[postgresql] and libpq5"
        ) from error


def _check_private(path: Path) -> None:
    """A password file that others may read is one that libpq passes over without a word; this says why."""
    status = path.stat()
    if status.st_mode & _OTHERS:
        raise IndexUnavailableError(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, others may use it; run: chmod 600 {path}"
        )


@contextlib.contextmanager
def translated(place: Place) -> Iterator[None]:
    """The one place where the database's errors become ours."""
    name = str(place)  # no credentials are in it
    try:
        yield
    except RecordingError:
        raise
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or type(error).__name__).strip()
        raise IndexUnavailableError(f"{name}: {reason}; no recording depends on it: {_CURE}") from error
    except OSError as error:
        raise IndexUnavailableError(
            f"{error.filename or name}: {error.strerror}; check the directory and its owner"
        ) from error
    except ValueError as error:
        # The value stays out of the message, whatever it is.
        raise IndexUnavailableError(f"{name}: an entry is not what this program writes; {_CURE}") from error
