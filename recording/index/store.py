"""The catalogue of recordings: written by the recorder, read by the command line, shared by several nodes.

It holds random ids, states, sizes, trunk names and the UTC hour. Numbers and names stand in sealed columns only, exact
times nowhere but inside the sealed records. It can be lost without losing a recording.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from recording.format.content import RecordingKind
from recording.index.database import Place, open_engine, transaction, translated
from recording.index.entry import IndexEntry, IndexKey, IndexState
from recording.index.migrate import bring_up_to_date
from recording.index.schema import (
    HELD_BACK,
    INDEX_KEYS,
    RECORDINGS,
    entry_of,
    hour_text,
    key_of,
    key_row_of,
    row_of,
)

_BATCH: Final = 500
_IS_KEPT: Final = sa.and_(
    RECORDINGS.c.state != IndexState.DELETING.value, RECORDINGS.c.state != IndexState.DELETED.value
)


class RecordingIndex:
    """Any thread and any number of processes: each call is one transaction, writers wait up to 5 s for one another."""

    def __init__(self, place: Place) -> None:
        """Open the index, making it where there is none, and bring an older one up to date.

        Raises:
            IndexUnavailableError: no access, not an index, or one of a newer schema version.
        """
        self._place = place
        self._engine = open_engine(place)
        try:
            with translated(place):
                bring_up_to_date(self._engine, place)
        except BaseException:
            self._engine.dispose()
            raise

    @property
    def place(self) -> Place:
        """Where it is."""
        return self._place

    def close(self) -> None:
        self._engine.dispose()

    # -- what the recorder writes ------------------

    def put(self, entries: Sequence[IndexEntry]) -> None:
        """Insert or replace entries by file id, all or none; the last of several for one file counts.

        On an entry that is there, hold and deletion stay as they are: they are not the writer's to know. One that is
        being deleted, or was, does not come back.
        """
        if not entries:
            return
        rows = {entry.file_id: row_of(entry) for entry in entries}
        statement = self._insert(RECORDINGS)
        statement = statement.on_conflict_do_update(
            index_elements=[RECORDINGS.c.file_id],
            set_={
                column.name: statement.excluded[column.name]
                for column in RECORDINGS.c
                if not column.primary_key and column.name not in HELD_BACK
            },
            where=_IS_KEPT,
        )
        with self._writing() as connection:
            # In one order for every writer, so that two of them wait for one another and never for ever.
            connection.execute(statement, [rows[file_id] for file_id in sorted(rows)])

    def add(self, entries: Sequence[IndexEntry]) -> None:
        """Insert entries that the index does not know, hold and deletion included; those it knows stay as they are."""
        if entries:
            statement = self._insert(RECORDINGS).on_conflict_do_nothing(index_elements=[RECORDINGS.c.file_id])
            with self._writing() as connection:
                connection.execute(statement, [row_of(entry) for entry in entries])

    def set_key(self, file_ids: Collection[bytes], *, provider: int, key_id: str) -> None:
        """Say which key the newest slots of these files are under; nothing else of their entries changes."""
        if not file_ids:
            return
        names = sorted(file_id.hex() for file_id in file_ids)
        statement = sa.update(RECORDINGS).where(RECORDINGS.c.file_id.in_(names))
        with self._writing() as connection:
            connection.execute(statement.values(provider=provider, key_id=key_id))

    def set_state(self, file_id: bytes, state: IndexState, *, records: int) -> None:
        """Say what a file was found to be; nothing else of its entry changes, and one that is deleted stays so."""
        statement = sa.update(RECORDINGS).where(RECORDINGS.c.file_id == file_id.hex(), _IS_KEPT)
        with self._writing() as connection:
            connection.execute(statement.values(state=state.value, records=records))

    # -- what is asked -----------------------------

    def get(self, file_id: bytes) -> IndexEntry | None:
        """The entry of one file, None where the index knows none."""
        found = self._select(sa.select(RECORDINGS).where(RECORDINGS.c.file_id == file_id.hex()))
        return found[0] if found else None

    def find(
        self,
        *,
        state: IndexState | None = None,
        call_uid: str | None = None,
        recording: bytes | None = None,
        kind: RecordingKind | None = None,
        parent: bytes | None = None,
        tenant_handle: bytes | None = None,
        trunk: str | None = None,
        key_id: str | None = None,
        is_held: bool | None = None,
        since_hour: datetime | None = None,
        until_hour: datetime | None = None,
        blind: Collection[bytes] | None = None,
        limit: int | None = 1000,
    ) -> list[IndexEntry]:
        """Entries that match all that is given, newest hour first, the segments of a recording in order.

        Args:
            state: how far it got.
            call_uid: of this call.
            recording: of this recording.
            kind: audio or an attachment.
            parent: attached to this recording.
            tenant_handle: of this tenant.
            trunk: on either side.
            key_id: wrapped by this key-encryption key.
            is_held: on hold, or not.
            since_hour: begun in this hour or later.
            until_hour: begun before this hour.
            blind: blind indexes, one of which is a party's (recording.index.parties).
            limit: so many at most; None: all.
        """
        columns = RECORDINGS.c
        tests: list[sa.ColumnElement[bool]] = [
            column == value
            for column, value in (
                (columns.state, None if state is None else state.value),
                (columns.call_uid, call_uid),
                (columns.recording, None if recording is None else recording.hex()),
                (columns.kind, None if kind is None else kind.value),
                (columns.parent, None if parent is None else parent.hex()),
                (columns.tenant_handle, None if tenant_handle is None else tenant_handle.hex()),
                (columns.key_id, key_id),
            )
            if value is not None
        ]
        if trunk is not None:
            tests.append(sa.or_(columns.trunk_a == trunk, columns.trunk_b == trunk))
        if is_held is not None:
            tests.append(columns.hold.is_not(None) if is_held else columns.hold.is_(None))
        if since_hour is not None:
            tests.append(columns.started_hour >= hour_text(since_hour))
        if until_hour is not None:
            tests.append(columns.started_hour < hour_text(until_hour))
        if blind is not None:
            tests.append(columns.file_id.in_(_of_party(blind)))
        order = (columns.started_hour.desc(), columns.recording, columns.segment)
        return self._select(sa.select(RECORDINGS).where(*tests).order_by(*order).limit(limit))

    def group(self, recording: bytes) -> list[IndexEntry]:
        """The segments of a recording and what is attached to it: all that shares its retention and hold."""
        columns = RECORDINGS.c
        order = (columns.kind, columns.segment, columns.file_id)
        return self._select(sa.select(RECORDINGS).where(_of_group(recording)).order_by(*order))

    def scan(self) -> Iterator[IndexEntry]:
        """Every entry, in the order of file ids; entries put meanwhile may be among them or not.

        Bounded memory.
        """
        after = ""
        while True:
            query = sa.select(RECORDINGS).where(RECORDINGS.c.file_id > after)
            batch = self._select(query.order_by(RECORDINGS.c.file_id).limit(_BATCH))
            yield from batch
            if len(batch) < _BATCH:
                return
            after = batch[-1].file_id.hex()

    def counts(self) -> dict[IndexState, int]:
        """Files by state; every state has an entry."""
        query = sa.select(RECORDINGS.c.state, sa.func.count()).group_by(RECORDINGS.c.state)
        with self._reading() as connection:
            found = {str(state): int(count) for state, count in connection.execute(query)}
        return {state: found.get(state.value, 0) for state in IndexState}

    def count_held(self) -> int:
        """How many files are on hold."""
        query = sa.select(sa.func.count()).select_from(RECORDINGS).where(RECORDINGS.c.hold.is_not(None))
        with self._reading() as connection:
            return int(connection.scalar(query) or 0)

    # -- hold and deletion: each decided in one transaction, for all of a recording ---

    def put_hold(self, recording: bytes, reason: str) -> bool:
        """Put a hold on all of a recording. False where nothing of it is left, or its deletion has begun."""
        with self._writing() as connection:
            states = self._locked_states(connection, recording)
            if IndexState.DELETING in states or set(states) <= {IndexState.DELETED}:
                return False
            kept = RECORDINGS.c.state != IndexState.DELETED.value
            connection.execute(RECORDINGS.update().where(_of_group(recording), kept).values(hold=reason))
        return True

    @contextlib.contextmanager
    def unchanged(self, tenant_handle: bytes) -> Iterator[list[IndexEntry]]:
        """A tenant's files, whose entries nobody changes until it is left: no hold is put on one meanwhile.

        Other writers wait, for 5 s at most. Nothing may be written to the index inside.
        """
        columns = RECORDINGS.c
        query = sa.select(RECORDINGS).where(columns.tenant_handle == tenant_handle.hex())
        query = query.order_by(columns.file_id).with_for_update()
        with self._writing() as connection:
            yield [entry_of(row) for row in connection.execute(query).mappings()]

    def lift_hold(self, recording: bytes) -> None:
        """Take the hold off all of a recording."""
        with self._writing() as connection:
            connection.execute(RECORDINGS.update().where(_of_group(recording)).values(hold=None))

    def begin_deletion(self, recording: bytes) -> bool:
        """Decide that a recording goes: all that is left of it is `deleting` from now on.

        False where it is on hold, or something of it is still being recorded; nothing was changed then.
        """
        with self._writing() as connection:
            states = self._locked_states(connection, recording)
            held = sa.select(sa.func.count()).where(_of_group(recording), RECORDINGS.c.hold.is_not(None))
            if IndexState.RECORDING in states or connection.scalar(held):
                return False
            kept = RECORDINGS.c.state != IndexState.DELETED.value
            connection.execute(
                RECORDINGS.update().where(_of_group(recording), kept).values(state=IndexState.DELETING.value)
            )
        return True

    def end_deletion(self, file_id: bytes, hour: datetime) -> None:
        """The store has nothing of a file any more; nor has the index, but for ids, sizes, and when it went."""
        gone = {
            "state": IndexState.DELETED.value,
            "deleted_hour": hour_text(hour),
            "sealed": None,
            "blind_from": None,
            "blind_to": None,
        }
        with self._writing() as connection:
            connection.execute(RECORDINGS.update().where(*_is_deleting(file_id)).values(gone))

    def abort_deletion(self, file_id: bytes, state: IndexState) -> None:
        """The store keeps a file: it is again what it was before `begin_deletion`."""
        with self._writing() as connection:
            connection.execute(RECORDINGS.update().where(*_is_deleting(file_id)).values(state=state.value))

    def _locked_states(self, connection: sa.Connection, recording: bytes) -> list[IndexState]:
        """The states of a recording, whose rows nobody else changes until the transaction ends."""
        query = sa.select(RECORDINGS.c.state).where(_of_group(recording)).order_by(RECORDINGS.c.file_id)
        return [IndexState(state) for state in connection.scalars(query.with_for_update())]

    # -- index keys --------------------------------

    def put_key(self, key: IndexKey) -> None:
        """Keep a wrapped index key, or its newer wrapping. Durable before anything is sealed under it."""
        statement = self._insert(INDEX_KEYS)
        statement = statement.on_conflict_do_update(
            index_elements=[INDEX_KEYS.c.key_id],
            set_={name: statement.excluded[name] for name in ("provider", "slot_key_id", "wrapped")},
        )
        with self._writing() as connection:
            connection.execute(statement, key_row_of(key))

    def index_keys(self, *, tenant_handle: bytes | None = None) -> list[IndexKey]:
        """The wrapped index keys, oldest first."""
        query = sa.select(INDEX_KEYS).order_by(INDEX_KEYS.c.created_hour, INDEX_KEYS.c.key_id)
        if tenant_handle is not None:
            query = query.where(INDEX_KEYS.c.tenant_handle == tenant_handle.hex())
        with self._reading() as connection:
            return [key_of(row) for row in connection.execute(query).mappings()]

    # ----------------------------------------------

    def _insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        if self._engine.dialect.name == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)

    def _select(self, query: sa.Select[Any]) -> list[IndexEntry]:
        with self._reading() as connection:
            return [entry_of(row) for row in connection.execute(query).mappings()]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with translated(self._place), transaction(self._engine, writes=False) as connection:
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with translated(self._place), transaction(self._engine, writes=True) as connection:
            yield connection


def _of_group(recording: bytes) -> sa.ColumnElement[bool]:
    return sa.or_(RECORDINGS.c.recording == recording.hex(), RECORDINGS.c.parent == recording.hex())


def _is_deleting(file_id: bytes) -> tuple[sa.ColumnElement[bool], ...]:
    return RECORDINGS.c.file_id == file_id.hex(), RECORDINGS.c.state == IndexState.DELETING.value


def _of_party(blind: Collection[bytes]) -> sa.CompoundSelect[Any]:
    """File ids by either party; two look-ups by index, whatever else is asked."""
    columns = RECORDINGS.c
    return sa.union(
        sa.select(columns.file_id).where(columns.blind_from.in_(blind)),
        sa.select(columns.file_id).where(columns.blind_to.in_(blind)),
    )
