"""How old each key and certificate is, how old it may be, and what to do about it. No I/O: facts in, judgement out.

Source: NIST SP 800-57 part 1, section 5.3.6 (cryptoperiods); the limits are the product's: 90 days for keys that seal,
sign or admit, a year for keys that only wrap other keys.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

DUE_SOON = timedelta(days=14)


class KeyKind(enum.Enum):
    """What a key is for."""

    KEY_ENCRYPTION = "key-encryption"
    INDEX = "index"
    SEARCH = "search"
    SIGNING = "signing"
    TOKEN = "token"  # noqa: S105 - a name
    CERTIFICATE = "certificate"

    @property
    def most_days(self) -> int | None:
        """Days that it may be in use; None where its own end says it."""
        return _MOST_DAYS[self]


_MOST_DAYS = {
    KeyKind.KEY_ENCRYPTION: 365,
    KeyKind.INDEX: 90,
    KeyKind.SEARCH: 90,
    KeyKind.SIGNING: 90,
    KeyKind.TOKEN: 90,
    KeyKind.CERTIFICATE: None,
}


class AgeState(enum.Enum):
    """`unknown`: whoever keeps the key does not say since when it is in use; nobody can show that it is not too old."""

    OK = "ok"
    DUE_SOON = "due-soon"
    OVERDUE = "overdue"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAge:
    """One key or certificate. Times are aware UTC.

    `since`: when its newest version came into use. `ends_at`: its own end, of a certificate. `action`
    is what renews it.
    """

    kind: KeyKind
    name: str
    action: str
    since: datetime | None = None
    ends_at: datetime | None = None

    @property
    def due_at(self) -> datetime | None:
        """The day by which it must be renewed; None where its age is not known."""
        days = self.kind.most_days
        if days is None:
            return self.ends_at
        return None if self.since is None else self.since + timedelta(days=days)

    def state(self, now: datetime) -> AgeState:
        """Where it stands."""
        due = self.due_at
        if due is None:
            return AgeState.UNKNOWN
        if due <= now:
            return AgeState.OVERDUE
        return AgeState.DUE_SOON if due - now <= DUE_SOON else AgeState.OK

    def next_action(self, now: datetime) -> str:
        """What to do, and by when."""
        due = self.due_at
        if due is None:
            return f"find out its age, or renew it: {self.action}"
        match self.state(now):
            case AgeState.OK:
                return f"none before {due.date().isoformat()}"
            case AgeState.DUE_SOON:
                return f"by {due.date().isoformat()}: {self.action}"
            case _:
                return f"now: {self.action}"

    def facts(self, now: datetime) -> dict[str, object]:
        """For tables and JSON."""
        days = self.kind.most_days
        return {
            "kind": self.kind.value,
            "name": self.name,
            "age_days": None if self.since is None else (now - self.since).days,
            "limit_days": days,
            "due": None if self.due_at is None else self.due_at.date().isoformat(),
            "state": self.state(now).value,
            "next_action": self.next_action(now),
        }
