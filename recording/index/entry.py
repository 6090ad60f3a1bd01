"""What the catalogue knows of one segment or attachment: random ids, states, sizes, the UTC hour; parties sealed."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, datetime

from recording.errors import RecordingError
from recording.format.content import RecordingKind


class IndexUnavailableError(RecordingError):
    """The index cannot be read or written, or is of another schema version."""

    exit_code = 48


class IndexState(enum.Enum):
    """How far a segment got.

    `failed`: nothing of it could be kept. `deleting`: its deletion began and may have been interrupted. `deleted`: the
    store was asked and has nothing of it any more; the entry says that it was there.
    """

    RECORDING = "recording"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CORRUPT = "corrupt"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedParties:
    """Who called whom, as far as the index may know it.

    `sealed`: names and numbers under an index key (recording.index.parties), None where there was no key. The blind
    indexes are 32 bytes each, made with the search key; None where there is no such key or no such party.
    """

    sealed: bytes | None = field(default=None, repr=False)
    blind_from: bytes | None = field(default=None, repr=False)
    blind_to: bytes | None = field(default=None, repr=False)


NO_PARTIES = SealedParties()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One file. `records` and `size_bytes` are 0 while it is being recorded.

    Times are aware UTC, cut to the hour. `object_key` is None while the file is in the spool. `parent` is the recording
    that an attachment belongs to. `retain_until` was promised when the call began; None: nothing was. `hold` is the
    label of the reason why nobody may delete it.
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
    kind: RecordingKind = RecordingKind.AUDIO
    parent: bytes | None = None
    trunk_a: str | None = None
    trunk_b: str | None = None
    retain_until: datetime | None = None
    hold: str | None = None
    deleted_hour: datetime | None = None
    parties: SealedParties = NO_PARTIES

    @property
    def group(self) -> bytes:
        """The recording whose fate it shares: its own, or that of the call it is attached to."""
        return self.recording if self.parent is None else self.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexKey:
    """A data key of the index: who it seals for, and its wrapped form. It is never stored open."""

    key_id: bytes
    tenant_handle: bytes
    provider: int
    slot_key_id: bytes
    wrapped: bytes = field(repr=False)
    created_hour: datetime


def utc_hour(at: datetime) -> datetime:
    """`at` cut to the hour, in UTC: as exact as the index may be."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
