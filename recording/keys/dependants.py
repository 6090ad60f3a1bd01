"""What depends on a key-encryption key, as the index knows it: files that would not open without it.

Source: docs/key-management.md, Rotation and retirement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from recording.index import IndexEntry, IndexState, RecordingIndex
from recording.keys.errors import KeyInUseError
from recording.keys.provider import KeyProvider
from recording.retention import kept_until
from recording.settings import RetentionSettings

EVERYTHING: Final = 1 << 31
"""As a limit of the index: a file left out would be lost with its key."""
_NAMED: Final = 20
_NOTHING_LEFT: Final = frozenset({IndexState.FAILED, IndexState.DELETED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependants:
    """Files under a key, in the order of the index.

    `held`: on hold. `retained`: inside retention and not on hold. `others`: the rest.
    """

    held: tuple[IndexEntry, ...]
    retained: tuple[IndexEntry, ...]
    others: tuple[IndexEntry, ...]

    @property
    def entries(self) -> tuple[IndexEntry, ...]:
        return (*self.held, *self.retained, *self.others)

    def require_unkept(self, what: str) -> None:
        """Nothing that must be kept is among them. `what` is what would have been done, as in "destroying it".

        Raises:
            KeyInUseError: names the files that are on hold or inside retention.
        """
        kept = (("on hold", self.held), ("inside retention", self.retained))
        told = [f"{reason}: {_named(entries)}" for reason, entries in kept if entries]
        if told:
            raise KeyInUseError(
                f"{what} is refused, recordings must be kept; {'; '.join(told)}",
                file_ids=[entry.file_id for entry in (*self.held, *self.retained)],
            )

    def require_none(self, what: str) -> None:
        """There are none at all. Raises KeyInUseError, which names them."""
        self.require_unkept(what)
        if self.others:
            raise KeyInUseError(
                f"{what} is refused, recordings need the key: {_named(self.others)}",
                file_ids=[entry.file_id for entry in self.others],
            )


def sort_dependants(
    entries: Sequence[IndexEntry],
    *,
    now: datetime,
    retention: RetentionSettings,
    on_hold: Collection[bytes] = (),
) -> Dependants:
    """Of files of which anything is left. `on_hold`: recordings that are held as wholes.

    Inside retention is what was promised a time that is not over, and what `retention` keeps as it is configured now.
    """
    held, retained, others = [], [], []
    for entry in entries:
        if entry.state in _NOTHING_LEFT:
            continue
        until = kept_until(entry, retention)
        if entry.hold is not None or entry.group in on_hold:
            held.append(entry)
        elif until is not None and until > now:
            retained.append(entry)
        else:
            others.append(entry)
    return Dependants(held=tuple(held), retained=tuple(retained), others=tuple(others))


def find_dependants(
    index: RecordingIndex, provider: KeyProvider, *, now: datetime, retention: RetentionSettings
) -> Dependants:
    """Files whose newest slots are under the key of `provider`. Raises IndexUnavailableError."""
    found = index.find(key_id=key_id_text(provider.slot_key_id), limit=EVERYTHING)
    under_it = [entry for entry in found if entry.provider == provider.slot_provider]
    return sort_dependants(under_it, now=now, retention=retention, on_hold=recordings_on_hold(index))


def recordings_on_hold(index: RecordingIndex) -> frozenset[bytes]:
    """Recordings of which any file is on hold: what a live call adds after the hold was put is held with it."""
    return frozenset(entry.group for entry in index.find(is_held=True, limit=EVERYTHING))


def key_id_text(key_id: bytes) -> str:
    """A slot's key id as index entries have it."""
    return key_id.decode("ascii", "backslashreplace")


def _named(entries: Sequence[IndexEntry]) -> str:
    names = ", ".join(entry.file_id.hex() for entry in entries[:_NAMED])
    more = len(entries) - _NAMED
    return names if more <= 0 else f"{names} and {more} more"
