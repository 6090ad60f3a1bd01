"""Brings a database to the newest schema version, one step after another, each all or nothing.

Version 1 knew no migrations: its table `schema_version` tells it. That table lives on, so that a program of version 1
refuses what a newer one made.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from recording.index.database import Place, transaction
from recording.index.entry import IndexUnavailableError

SCHEMA_VERSION: Final = 2
HEAD: Final = f"{SCHEMA_VERSION:04d}"
_FIRST: Final = "0001"
_LOCK: Final = 0x7365616C7472756E  # an arbitrary number: PostgreSQL's advisory locks are named by one
_MIGRATIONS: Final = Path(__file__).with_name("migrations")


def bring_up_to_date(engine: sa.Engine, place: Place) -> None:
    """Make the tables, or change those of an older version. An older SQLite file is copied beside itself before.

    Raises:
        IndexUnavailableError: it is of a version that this program does not know. It was left alone.
    """
    with transaction(engine, writes=False) as connection:
        if _revision(connection) == HEAD:
            return
    with transaction(engine, writes=True) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        revision = _revision(connection)  # again: somebody else may have been here
        if revision == HEAD:
            return
        if revision not in (None, _FIRST):
            raise IndexUnavailableError(
                f"{place} is an index of schema version {revision}, this program knows up to {HEAD}; "
                f"use the program that made it, or move it away and run: b2bua index rebuild"
            )
        if revision == _FIRST and isinstance(place, Path):
            _back_up(place, version=1)
        _upgrade(connection, revision)


def backup_path(path: Path, *, version: int) -> Path:
    """Where the copy of an SQLite index lies that was made before its version was changed."""
    return path.with_name(f"{path.name}.version-{version}")


def _revision(connection: sa.Connection) -> str | None:
    """The version of what is there, None for an empty database."""
    tables = set(sa.inspect(connection).get_table_names())
    if "alembic_version" in tables:
        found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        if found is not None:
            return str(found)
    if "schema_version" in tables:
        versions = sorted(connection.scalars(sa.text("SELECT version FROM schema_version")))
        if versions:
            return f"{versions[-1]:04d}"
    return None


def _upgrade(connection: sa.Connection, revision: str | None) -> None:
    """Run the steps behind `revision` in the transaction of `connection`."""
    # Loaded here alone, for it takes longer than most commands.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if revision is not None:
        command.stamp(config, revision)
    command.upgrade(config, HEAD)


def _back_up(path: Path, *, version: int) -> None:
    """A consistent copy, mode 0600, durable on return. One of an attempt that was interrupted is replaced."""
    target = backup_path(path, version=version)
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    closing = contextlib.closing
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(temporary)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    _sync(temporary)
    temporary.rename(target)
    _sync(path.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
