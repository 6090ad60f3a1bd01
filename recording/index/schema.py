"""The tables of the newest schema version, and entries as their rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from recording.format.content import RecordingKind
from recording.index.entry import IndexEntry, IndexKey, IndexState, SealedParties

_HOUR: Final = "%Y-%m-%dT%H:00:00Z"

METADATA: Final = sa.MetaData()
RECORDINGS: Final = sa.Table(
    "recordings",
    METADATA,
    sa.Column("file_id", sa.String(32), primary_key=True),
    sa.Column("recording", sa.String(32), nullable=False, index=True),
    sa.Column("segment", sa.BigInteger, nullable=False),
    sa.Column("call_uid", sa.String(64), nullable=False, index=True),
    sa.Column("tenant_handle", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("provider", sa.Integer, nullable=False),
    sa.Column("key_id", sa.String, nullable=False),
    sa.Column("object_key", sa.String, nullable=True),
    sa.Column("started_hour", sa.String(20), nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False, server_default=RecordingKind.AUDIO.value),
    sa.Column("parent", sa.String(32), nullable=True, index=True),
    sa.Column("trunk_a", sa.String(64), nullable=True),
    sa.Column("trunk_b", sa.String(64), nullable=True),
    sa.Column("retain_until", sa.String(20), nullable=True),
    sa.Column("hold", sa.String(64), nullable=True),
    sa.Column("deleted_hour", sa.String(20), nullable=True),
    sa.Column("sealed", sa.LargeBinary, nullable=True),
    sa.Column("blind_from", sa.LargeBinary, nullable=True, index=True),
    sa.Column("blind_to", sa.LargeBinary, nullable=True, index=True),
)
INDEX_KEYS: Final = sa.Table(
    "index_keys",
    METADATA,
    sa.Column("key_id", sa.String(32), primary_key=True),
    sa.Column("tenant_handle", sa.String(32), nullable=False),
    sa.Column("provider", sa.Integer, nullable=False),
    sa.Column("slot_key_id", sa.LargeBinary, nullable=False),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("created_hour", sa.String(20), nullable=False),
)

HELD_BACK: Final = frozenset({"hold", "deleted_hour"})
"""Columns that `put` never changes on an entry that is there: they belong to hold, release and deletion alone."""


def hour_text(at: datetime) -> str:
    """As it stands in the database; texts of this form sort by time."""
    return at.astimezone(UTC).strftime(_HOUR)


def row_of(entry: IndexEntry) -> dict[str, object]:
    """The row of an entry, by column."""
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
        "started_hour": hour_text(entry.started_hour),
        "kind": entry.kind.value,
        "parent": None if entry.parent is None else entry.parent.hex(),
        "trunk_a": entry.trunk_a,
        "trunk_b": entry.trunk_b,
        "retain_until": _optional_hour_text(entry.retain_until),
        "hold": entry.hold,
        "deleted_hour": _optional_hour_text(entry.deleted_hour),
        "sealed": entry.parties.sealed,
        "blind_from": entry.parties.blind_from,
        "blind_to": entry.parties.blind_to,
    }


def entry_of(row: sa.RowMapping) -> IndexEntry:
    """The entry of a row. Raises ValueError for what `row_of` did not make."""
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
        started_hour=_hour(row["started_hour"]),
        kind=RecordingKind(row["kind"]),
        parent=None if row["parent"] is None else bytes.fromhex(row["parent"]),
        trunk_a=row["trunk_a"],
        trunk_b=row["trunk_b"],
        retain_until=_optional_hour(row["retain_until"]),
        hold=row["hold"],
        deleted_hour=_optional_hour(row["deleted_hour"]),
        parties=SealedParties(
            sealed=_bytes(row["sealed"]),
            blind_from=_bytes(row["blind_from"]),
            blind_to=_bytes(row["blind_to"]),
        ),
    )


def key_row_of(key: IndexKey) -> dict[str, object]:
    """The row of an index key, by column."""
    return {
        "key_id": key.key_id.hex(),
        "tenant_handle": key.tenant_handle.hex(),
        "provider": key.provider,
        "slot_key_id": key.slot_key_id,
        "wrapped": key.wrapped,
        "created_hour": hour_text(key.created_hour),
    }


def key_of(row: sa.RowMapping) -> IndexKey:
    """The index key of a row. Raises ValueError for what `key_row_of` did not make."""
    return IndexKey(
        key_id=bytes.fromhex(row["key_id"]),
        tenant_handle=bytes.fromhex(row["tenant_handle"]),
        provider=row["provider"],
        slot_key_id=bytes(row["slot_key_id"]),
        wrapped=bytes(row["wrapped"]),
        created_hour=_hour(row["created_hour"]),
    )


def _hour(text: str) -> datetime:
    return datetime.strptime(text, _HOUR).replace(tzinfo=UTC)


def _optional_hour(text: str | None) -> datetime | None:
    return None if text is None else _hour(text)


def _optional_hour_text(at: datetime | None) -> str | None:
    return None if at is None else hour_text(at)


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
