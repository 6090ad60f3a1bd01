"""The key-encryption keys: where each is kept, how old it is, whether it answers. Asks for no data key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from b2bua.key_age import KeyAge, KeyKind
from b2bua.posture.own_keys import AGE_LEVELS
from b2bua.posture.report import Level, Row, Safeguard
from recording.errors import RecordingError
from recording.keys.build import build_provider
from recording.keys.provider import KeyLifecycle, told_lifecycle
from recording.settings import KeySettings

_PLACES = ("endpoint", "path", "module", "unwraps_with")
_PRIVATE_FILE = "private key file"


def ask_key(name: str, settings: KeySettings, claim: str | None) -> Sequence[Row]:
    """Place, age and health of one key."""
    provider = build_provider(name, settings)
    facts = provider.describe()
    try:
        provider.health()
    except RecordingError as error:
        problem: str | None = str(error)
    else:
        problem = None
    now = datetime.now(UTC)
    return [
        judge_place(name, facts, claim),
        judge_age(name, told_lifecycle(provider), now),
        judge_health(name, problem),
    ]


def judge_place(name: str, facts: Mapping[str, str], claim: str | None) -> Row:
    """A key beside the data it protects is for development; a private part on this machine is for players only."""
    where = next((facts[word] for word in _PLACES if word in facts), "place not told")
    if facts.get("fit_for_production") != "yes":
        level, word = Level.ALARM, "beside the data it protects, fit for development only"
    elif facts.get("unwraps_with") == _PRIVATE_FILE:
        level, word = (
            Level.ATTENTION,
            "its private part is on this machine: right for a player, wrong for a recorder",
        )
    else:
        level, word = Level.OK, "outside this machine's data"
    claimed = "" if claim is None else f"; CMVP certificate {claim}, as claimed by operator"
    return Row(
        key=f"keys.{name}.place",
        safeguard=Safeguard.KEYS_APART,
        subject=f"key-encryption key {name}",
        finding=f"{facts.get('kind', 'of unknown kind')} at {where}: {word}{claimed}",
        evidence="the provider's own description",
        level=level,
    )


def judge_age(name: str, lifecycle: KeyLifecycle | str, now: datetime) -> Row:
    """By the limits of `key_age`, which `keys status` goes by too. `lifecycle` may be why it is not known."""
    if isinstance(lifecycle, str):
        return _age_row(name, f"not known: {lifecycle}", Level.UNKNOWN)
    newest = lifecycle.versions[-1]
    if newest.created_at is None:
        return _age_row(name, f"version {newest.number}; its service does not tell since when", Level.UNKNOWN)
    age = KeyAge(kind=KeyKind.KEY_ENCRYPTION, name=name, action="b2bua keys rotate", since=newest.created_at)
    days = (now - newest.created_at).days
    finding = (
        f"version {newest.number} is {days} days old, since {newest.created_at.date()}; {_renewal(lifecycle)}"
    )
    return _age_row(name, f"{finding}; {age.next_action(now)}", AGE_LEVELS[age.state(now)])


def _renewal(lifecycle: KeyLifecycle) -> str:
    if lifecycle.rotation_period_s is None:
        return "nothing renews it by itself"
    return f"renewed by its service every {lifecycle.rotation_period_s / 86400:g} days"


def _age_row(name: str, finding: str, level: Level) -> Row:
    return Row(
        key=f"keys.{name}.age",
        safeguard=Safeguard.KEY_AGE,
        subject=f"age of key {name}",
        finding=finding,
        evidence="the service's own word on the key's versions",
        level=level,
    )


def judge_health(name: str, problem: str | None) -> Row:
    """Whether new data keys can be had once the pool is spent."""
    return Row(
        key=f"keys.{name}.health",
        safeguard=Safeguard.KEYS_APART,
        subject=f"service of key {name}",
        finding="answers" if problem is None else f"does not answer: {problem}",
        evidence="the provider's own health question; no data key was asked for",
        level=Level.OK if problem is None else Level.ALARM,
    )
