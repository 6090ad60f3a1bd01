"""Until when a recording is kept, what keeps it longer, and how it goes: with proof, and never while it is on hold.

A recording, its segments and what is attached to it share one fate. Deletion is decided in one transaction of the index
that no hold can slip into; from there on it is carried out object by object and may be interrupted anywhere: the index
says `deleting`, and the next run goes on. An entry never vanishes; it ends as `deleted`, with the hour.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from recording.errors import RecordingError
from recording.format.content import RecordingKind
from recording.index import IndexEntry, IndexState, RecordingIndex, utc_hour
from recording.settings import RetentionSettings
from recording.sinks.sink import ObjectLockedError, ObjectMissingError, Sink, SinkError
from recording.spool_state import remove_spooled

_OF_CALLS = frozenset({RecordingKind.AUDIO, RecordingKind.ARTEFACT})


class HoldRefusedError(RecordingError):
    """The hold cannot be put or lifted: nothing is known by that id, or its deletion has begun already."""

    exit_code = 118


class NotDeletedError(RecordingError):
    """The store still has something of a recording whose deletion was asked for; it stays `deleting` in the index."""

    exit_code = 117


class Keep(enum.Enum):
    """Why a recording stays. The value is an audit label."""

    HOLD = "hold"
    RETENTION = "retention"
    NO_TIME = "no_time_set"
    RUNNING = "running"
    NOT_STORED = "not_stored"
    STORE = "kept_by_store"


def kept_until(entry: IndexEntry, settings: RetentionSettings) -> datetime | None:
    """The later of what was promised when it began and what is configured now; None: no time is set."""
    trunks = (entry.trunk_a, entry.trunk_b)
    configured = settings.until(entry.started_hour, tenant_handle=entry.tenant_handle, trunks=trunks)
    return max((at for at in (entry.retain_until, configured) if at is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What became of one file: `keep` None and no `problem`: it is gone, and the store was asked."""

    entry: IndexEntry
    keep: Keep | None = None
    problem: str | None = None

    @property
    def is_gone(self) -> bool:
        return self.keep is None and self.problem is None


class Retention:
    """Holds, releases and deletes. One thread; several processes may do so at once."""

    def __init__(
        self, *, index: RecordingIndex, sink: Sink, settings: RetentionSettings, spool_directory: Path
    ) -> None:
        self._index = index
        self._sink = sink
        self._settings = settings
        self._spool_directory = spool_directory

    # -- until when --------------------------------

    def until(self, entry: IndexEntry) -> datetime | None:
        """As `kept_until`, with the retention configured now."""
        return kept_until(entry, self._settings)

    def kept_by(self, group: Sequence[IndexEntry], now: datetime) -> Keep | None:
        """Why the recording of `group` may not be deleted at `now`; None: it may. The store is asked last."""
        left = [entry for entry in group if entry.state is not IndexState.DELETED]
        if any(entry.state is IndexState.RECORDING for entry in left):
            return Keep.RUNNING
        if any(entry.hold is not None for entry in group):
            return Keep.HOLD
        if any(entry.object_key is None and entry.state is not IndexState.FAILED for entry in left):
            return Keep.NOT_STORED
        if all(entry.state is IndexState.DELETING for entry in left):
            return None  # it was decided before; only its execution was interrupted
        own = [entry for entry in left if entry.kind is RecordingKind.AUDIO] or left
        times = [self.until(entry) for entry in own]
        times += [entry.retain_until for entry in left if entry.retain_until is not None]
        if any(at is None for at in times):
            return Keep.NO_TIME
        if any(at is not None and at > now for at in times):
            return Keep.RETENTION
        return Keep.STORE if any(self._is_kept_by_store(entry, now) for entry in left) else None

    def candidates(self, now: datetime) -> Iterator[tuple[bytes, Keep | None]]:
        """Every recording that is not deleted yet, and why it stays; those that may go have None."""
        for group in self._groups():
            yield group, self.kept_by(self._index.group(group), now)

    def _groups(self) -> Iterator[bytes]:
        """Every recording that is not deleted yet, once."""
        seen: set[bytes] = set()
        for entry in self._index.scan():
            if entry.state is IndexState.DELETED or entry.kind not in _OF_CALLS or entry.group in seen:
                continue
            seen.add(entry.group)
            yield entry.group

    # -- hold --------------------------------------

    def hold(self, recording: bytes, reason: str) -> list[IndexEntry]:
        """From the return on nobody deletes it, whatever its time; doing it again replaces the reason.

        The index decides first; a store that can lock is told next, so that a hold outlives the index.

        Raises:
            HoldRefusedError: nothing of it is left, or its deletion has begun.
            SinkError: the store did not take it. The hold is in force in the index; do it again.
        """
        if not self._index.put_hold(recording, reason):
            raise HoldRefusedError(f"{recording.hex()}: there is nothing to hold, or its deletion has begun")
        return self._tell_store(recording, is_held=True)

    def release(self, recording: bytes) -> list[IndexEntry]:
        """Lift the hold: first in the store, then in the index, so that half a release is still a hold.

        Raises:
            HoldRefusedError: nothing is known of it.
            SinkError: the store did not lift it; it is on hold still.
        """
        if not self._index.group(recording):
            raise HoldRefusedError(f"{recording.hex()}: the index knows no such recording")
        self._tell_store(recording, is_held=False)
        self._index.lift_hold(recording)
        return self._index.group(recording)

    def repeat_holds(self) -> None:
        """Tell a store that can lock of all holds: it does not know those put while a file was in the spool."""
        if self._sink.locks:
            for group in {entry.group for entry in self._index.find(is_held=True, limit=None)}:
                with contextlib.suppress(ObjectMissingError):
                    self._tell_store(group, is_held=True)

    def repeat_locks(self, now: datetime) -> int:
        """Tell a store that can lock until when everything is kept, and read it back; how many recordings that were.

        For what was stored before Object Lock was asked for, or before more days were configured. Never shortens.

        Raises:
            SinkError: the store did not take it, or does not keep to it; those before it are done.
        """
        told = 0
        for group in self._groups() if self._sink.locks else ():
            entries = self._index.group(group)
            until = self._until(entries)
            if until is not None and until > now:
                for key in _stored(entries):
                    self._sink.extend_retention(key, until)
                told += 1
        return told

    def _until(self, group: Sequence[IndexEntry]) -> datetime | None:
        """The latest time of a recording's own segments and of what was promised for its attachments."""
        own = [entry for entry in group if entry.kind is RecordingKind.AUDIO] or list(group)
        times = [self.until(entry) for entry in own] + [entry.retain_until for entry in group]
        return max((at for at in times if at is not None), default=None)

    def _tell_store(self, recording: bytes, *, is_held: bool) -> list[IndexEntry]:
        group = self._index.group(recording)
        if self._sink.locks:
            for key in _stored(group):
                self._sink.set_hold(key, is_held=is_held)
        return group

    # -- deletion ----------------------------------

    def delete(self, recording: bytes, now: datetime) -> list[Deletion]:
        """Delete what may go at `now`: attachments, then segments, each proven gone before the index says so.

        May be interrupted anywhere and done again.

        Raises:
            IndexUnavailableError: the index cannot be asked; nothing more was deleted.
        """
        group = self._index.group(recording)
        keep = self.kept_by(group, now)
        if keep is None and not self._index.begin_deletion(recording):
            keep = Keep.HOLD  # somebody put one since we looked
        if keep is not None:
            return [Deletion(entry=entry, keep=keep) for entry in group]
        before = {entry.file_id: entry.state for entry in group}
        order = sorted(self._index.group(recording), key=lambda entry: entry.kind is RecordingKind.AUDIO)
        return [
            self._delete_one(entry, before.get(entry.file_id, IndexState.INCOMPLETE), now)
            for entry in order
            if entry.state is IndexState.DELETING
        ]

    def _delete_one(self, entry: IndexEntry, before: IndexState, now: datetime) -> Deletion:
        try:
            if entry.object_key is not None:
                self._sink.delete(entry.object_key)
                self._prove_gone(entry.object_key)
            with contextlib.suppress(FileNotFoundError):
                remove_spooled(self._spool_directory, entry.file_id)
        except ObjectLockedError:
            # It was not `deleting` before: nothing is lost, and a hold can be put on it again.
            if before is not IndexState.DELETING:
                self._index.abort_deletion(entry.file_id, before)
            return Deletion(entry=entry, keep=Keep.STORE)
        except (SinkError, NotDeletedError) as error:
            return Deletion(entry=entry, problem=str(error))
        except OSError as error:
            return Deletion(entry=entry, problem=f"{error.filename}: {error.strerror}")
        self._index.end_deletion(entry.file_id, utc_hour(now))
        return Deletion(entry=entry)

    def _prove_gone(self, key: str) -> None:
        """Ask the store anew: for the object, its slots, its manifest, its name in a listing."""
        left = []
        if self._sink.size(key) is not None:
            left.append("the object")
        if self._sink.slot_generations(key):
            left.append("its slots")
        if self._sink.manifest(key) is not None:
            left.append("its manifest")
        if any(name == key for name in self._sink.keys(key)):
            left.append("its name")
        if left:
            raise NotDeletedError(f"{key}: deleted, and the store still has {' and '.join(left)}")

    def _is_kept_by_store(self, entry: IndexEntry, now: datetime) -> bool:
        if entry.object_key is None:
            return False
        try:
            return self._sink.retention(entry.object_key).keeps_at(now)
        except ObjectMissingError:
            return False


def _stored(group: Sequence[IndexEntry]) -> list[str]:
    """Keys of what the store has of a recording."""
    return [
        entry.object_key
        for entry in group
        if entry.object_key is not None and entry.state is not IndexState.DELETED
    ]
