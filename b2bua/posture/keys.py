"""The key-encryption keys: where each is kept, how old it is, whether it answers. Asks for no data key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from b2bua.posture.report import Level, Row, Safeguard
from recording.errors import RecordingError
from recording.keys.build import build_provider
from recording.keys.errors import NotPermittedError
from recording.keys.provider import KeyProvider
from recording.settings import KeySettings, LocalKeySettings

KEK_MAX_AGE = timedelta(days=365)
"""A key-encryption key is renewed yearly. Source: SP 800-57 part 1 rev. 5, section 5.3.6, tables of cryptoperiods."""
DUE_SOON = timedelta(days=30)
_BORN = ("rotated_at", "created_at")
"""The moments that a key's age counts from, the later one first."""


def ask_key(name: str, settings: KeySettings, claim: str | None) -> Sequence[Row]:
    """Place, age and health of one key."""
    provider = build_provider(name, settings)
    facts = provider.describe()
    try:
        facts |= _born_at(provider)
        provider.health()
    except RecordingError as error:
        problem: str | None = str(error)
    else:
        problem = None
    now = datetime.now(UTC)
    return [
        judge_place(name, facts, claim),
        judge_age(name, facts, settings, now),
        judge_health(name, problem),
    ]


def _born_at(provider: KeyProvider) -> dict[str, str]:
    """When the newest version was made, where whoever keeps the key tells us."""
    try:
        versions = provider.lifecycle().versions
    except NotPermittedError:
        return {}  # the key may be used and not asked about
    created_at = versions[-1].created_at
    if created_at is None:
        return {}
    return {"rotated_at" if len(versions) > 1 else "created_at": created_at.isoformat()}


def judge_place(name: str, facts: Mapping[str, str], claim: str | None) -> Row:
    """A key beside the data it protects is for development."""
    is_fit = facts.get("fit_for_production") == "yes"
    kind = facts.get("kind", "of unknown kind")
    where = facts.get("endpoint") or facts.get("path") or facts.get("module") or "place not told"
    return Row(
        key=f"keys.{name}.place",
        safeguard=Safeguard.KEYS_APART,
        subject=f"key-encryption key {name}",
        finding=f"{kind} at {where}: "
        + (
            "outside this machine's data"
            if is_fit
            else "beside the data it protects, fit for development only"
        )
        + ("" if claim is None else f"; CMVP certificate {claim}, as claimed by operator"),
        evidence="the provider's own description",
        level=Level.OK if is_fit else Level.ALARM,
    )


def judge_age(name: str, facts: Mapping[str, str], settings: KeySettings, now: datetime) -> Row:
    """A year at most since the key was made or last rotated."""
    born, evidence = _born(facts, settings)
    if born is None:
        finding, level = "not known: its service does not tell", Level.UNKNOWN
    else:
        age = now - born
        finding = f"{age.days} days since it was made or rotated, {born.date()}"
        level = Level.OK
        if age > KEK_MAX_AGE:
            finding, level = f"{finding}; more than a year: rotate it", Level.ALARM
        elif age > KEK_MAX_AGE - DUE_SOON:
            finding, level = f"{finding}; due within {DUE_SOON.days} days", Level.ATTENTION
    return Row(
        key=f"keys.{name}.age",
        safeguard=Safeguard.KEY_AGE,
        subject=f"age of key {name}",
        finding=finding,
        evidence=evidence,
        level=level,
    )


def _born(facts: Mapping[str, str], settings: KeySettings) -> tuple[datetime | None, str]:
    for word in _BORN:
        if word in facts:
            at = datetime.fromisoformat(facts[word])
            return (at if at.tzinfo else at.replace(tzinfo=UTC)), f"what the key's keeper says: {word}"
    if isinstance(settings, LocalKeySettings):
        return _modified_at(settings.kek_path), f"when {settings.kek_path} was written"
    return None, "the provider's description"


def _modified_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


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
