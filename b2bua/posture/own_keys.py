"""Keys and seals of the program's own: manifests' signing key, search key, index keys, log file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from b2bua.key_age import AgeState, KeyAge, KeyKind
from b2bua.posture.report import Level, Row, Safeguard
from b2bua.posture.storage import open_index
from b2bua.settings import LogSettings, Settings

AGE_LEVELS = {
    AgeState.OK: Level.OK,
    AgeState.UNKNOWN: Level.UNKNOWN,
    AgeState.DUE_SOON: Level.ATTENTION,
    AgeState.OVERDUE: Level.ALARM,
}


def ask_own_keys(settings: Settings) -> Sequence[Row]:
    """Whether segments are signed, how old each of these keys is, and where the log goes."""
    now = datetime.now(UTC)
    recording = settings.recording
    rows = [judge_signing(recording.signing_key_path), judge_log(settings.log)]
    if recording.signing_key_path is not None:
        rows.append(judge_age(_of_file(KeyKind.SIGNING, recording.signing_key_path), now))
    if recording.index.search_key_path is not None:
        rows.append(judge_age(_of_file(KeyKind.SEARCH, recording.index.search_key_path), now))
    return rows


def ask_index_keys(settings: Settings) -> Sequence[Row]:
    """How old each tenant's newest index key is."""
    now = datetime.now(UTC)
    rows = []
    with open_index(settings.recording) as index:
        keys = [] if index is None else index.index_keys()
    for name, tenant in settings.tenants.items():
        hours = [key.created_hour for key in keys if key.tenant_handle == tenant.handle]
        if hours:
            age = KeyAge(
                kind=KeyKind.INDEX,
                name=name,
                action="start the recorder, which takes a new one",
                since=max(hours),
            )
            rows.append(judge_age(age, now))
    return rows


def _of_file(kind: KeyKind, path: Path) -> KeyAge:
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return KeyAge(kind=kind, name=path.name, action="see docs/key-management.md", since=written)


def judge_age(age: KeyAge, now: datetime) -> Row:
    """By the limits of `key_age`, which `keys status` goes by too."""
    days = "unknown" if age.since is None else f"{(now - age.since).days} days"
    return Row(
        key=f"age.{age.kind.value}.{age.name}",
        safeguard=Safeguard.KEY_AGE,
        subject=f"age of {age.kind.value} key {age.name}",
        finding=f"{days} of at most {age.kind.most_days}; {age.next_action(now)}",
        evidence="the newest in the index" if age.kind is KeyKind.INDEX else "when its file was written",
        level=AGE_LEVELS[age.state(now)],
    )


def judge_signing(path: Path | None) -> Row:
    """Without a signature a recording that was cut in storage looks like one that a crash cut."""
    return Row(
        key="recordings.signed",
        safeguard=Safeguard.INTEGRITY,
        subject="manifests of segments",
        finding="not signed: a cut in storage can't be told from a crash"
        if path is None
        else "each segment's is signed (ES256); whether each holds: b2bua recordings verify",
        evidence="the configuration, as the program itself reads it",
        level=Level.ATTENTION if path is None else Level.OK,
    )


def judge_log(log: LogSettings) -> Row:
    """The log on standard error has no numbers in it; a file, where one is configured, is sealed."""
    return Row(
        key="log.sealed",
        safeguard=Safeguard.EXPORTS,
        subject="log",
        finding="standard error only, redacted"
        if log.directory is None
        else f"sealed in {log.directory} too",
        evidence="the configuration, as the program itself reads it",
        level=Level.OK,
    )
