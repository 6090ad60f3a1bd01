"""The table [index]: where the catalogue of recordings is, and what numbers in it are sealed under."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from b2bua import config_values as values
from b2bua.config_table import PathText, Table, documented, read_by
from recording.settings import PostgreSQLSettings, TLSFloor

_URL_EXAMPLE = '"postgresql://sealtrunk@db.example.test:5432/sealtrunk"'
_URL = re.compile(
    r"postgresql://(?P<user>[A-Za-z0-9_.-]{1,63})@(?P<host>\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]{1,253})"
    r"(?::(?P<port>[0-9]{1,5}))?/(?P<database>[A-Za-z0-9_.-]{1,63})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseURL:
    """A database of a server: no password, no options."""

    user: str
    host: str
    port: int
    database: str


def read_database_url(value: object) -> DatabaseURL:
    """`postgresql://USER@HOST[:PORT]/DATABASE`. Options are this program's to choose, credentials lie in files."""
    match = _URL.fullmatch(value) if isinstance(value, str) else None
    if match is None or not 0 < int(match["port"] or 5432) <= values.HIGHEST_PORT:
        raise values.refuse(
            "it is no database as this key names one: no password, no options",
            f"write it like {_URL_EXAMPLE}, and name a password file with `passfile`",
        )
    return DatabaseURL(
        user=match["user"],
        host=match["host"].strip("[]"),
        port=int(match["port"] or 5432),
        database=match["database"],
    )


DatabaseURLValue = Annotated[DatabaseURL, read_by(read_database_url)]
FloorValue = Annotated[TLSFloor, read_by(values.one_of(TLSFloor, values.by_value))]


class IndexTable(Table):
    """The catalogue of recordings. Without `url` it is an SQLite file, `recording.index`."""

    url: DatabaseURLValue | None = documented(
        "A PostgreSQL database that several nodes share, reached over TLS with its name verified.",
        _URL_EXAMPLE,
        default=None,
    )
    ca: PathText | None = documented(
        "PEM file with the database's authority.", '"tls/db-ca.pem"', default=None
    )
    passfile: PathText | None = documented(
        "File in pgpass form with the password, mode 0600.", '"keys/pgpass"', default=None
    )
    certificate: PathText | None = documented(
        "PEM file with a client certificate for the database.", '"tls/db-client.pem"', default=None
    )
    private_key: PathText | None = documented("Its key, mode 0600.", '"tls/db-client.key"', default=None)
    tls_floor: FloorValue = documented(
        'Lowest TLS version; "1.2" is an exception, counted and shown by `b2bua posture`.',
        '"1.3"',
        default=TLSFloor.TLS_1_3,
    )
    timeout_s: int = documented(
        "Seconds to wait for a connection or an answer of the database.",
        "5",
        default=PostgreSQLSettings.__dataclass_fields__["timeout_s"].default,
        ge=1,
        le=60,
    )
    search_key: PathText | None = documented(
        "File of 32 bytes, mode 0600, that search by number needs. Who holds it and the index can test guesses of "
        "numbers. Without it the index holds no number, sealed or not.",
        '"keys/index-search.key"',
        default=None,
    )
    key: str | None = documented(
        "Name of a `[keys.NAME]` table that numbers and names in the index are sealed under. Default: each tenant's.",
        '"index"',
        default=None,
    )
    backup_key: str | None = documented(
        "Name of a `[keys.NAME]` table that `b2bua index backup` seals under, and no tenant.",
        '"backup"',
        default=None,
    )
