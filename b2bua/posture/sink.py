"""The store: what it keeps and encrypts the newest recording by, as it says itself when asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

from b2bua.posture.report import Level, Row, Safeguard
from b2bua.posture.storage import open_index
from recording.errors import RecordingError
from recording.index import IndexEntry, IndexState
from recording.settings import LocalSinkSettings, RecordingSettings, S3SinkSettings
from recording.sinks.build import build_sink
from recording.sinks.sink import Retention, Sink

if TYPE_CHECKING:
    from recording.sinks.s3 import S3Sink

_LOCK, _ENCRYPTION, _HEALTH = "sink.lock", "sink.encryption", "sink.health"


def ask_sink(recording: RecordingSettings) -> Sequence[Row]:
    """Health, Object Lock and encryption of the store."""
    match recording.sink:
        case LocalSinkSettings():
            return _local(recording)
        case S3SinkSettings() as s3:
            return _s3(recording, s3)
        case _:
            assert_never(recording.sink)


def _local(recording: RecordingSettings) -> Sequence[Row]:
    where = recording.directory
    return [
        judge_health(str(where), _local_problem(recording), is_new=not where.exists()),
        Row(
            key=_LOCK,
            safeguard=Safeguard.INTEGRITY,
            subject="Object Lock of the store",
            finding=f"{where} is a local directory: nothing keeps its owner from deleting",
            evidence="the kind of the store",
            level=Level.ATTENTION,
        ),
        Row(
            key=_ENCRYPTION,
            safeguard=Safeguard.AT_REST,
            subject="encryption of the store beneath the recordings",
            finding="a local directory: what lies in it is sealed by this program; whether the disk is encrypted as "
            "well is not known",
            evidence="the kind of the store",
            level=Level.OK,
        ),
    ]


def _local_problem(recording: RecordingSettings) -> str | None:
    """A directory that is gone, or a mount that is, is not made anew by asking for it."""
    newest = newest_stored(recording)
    key = None if newest is None else newest.object_key
    if key is not None and not (recording.directory / key).exists():
        return f"{key} is not in it, the newest segment that the index has there"
    return _problem(build_sink(recording)) if recording.directory.exists() else None


def _s3(recording: RecordingSettings, settings: S3SinkSettings) -> Sequence[Row]:
    # boto3 takes a second to load.
    from recording.sinks.s3 import S3Sink  # noqa: PLC0415

    sink = S3Sink(settings)
    where = f"bucket {settings.bucket} at {sink.describe()['endpoint']}"
    rows = [judge_health(where, _problem(sink))]
    newest = newest_stored(recording)
    key = None if newest is None else newest.object_key
    return [*rows, _lock_row(sink, settings, newest), _encryption_row(sink, settings, key)]


def newest_stored(recording: RecordingSettings) -> IndexEntry | None:
    """The newest complete segment in the store; None where there is none yet."""
    with open_index(recording) as index:
        entries = [] if index is None else index.find(state=IndexState.COMPLETE, limit=20)
    return next((entry for entry in entries if entry.object_key is not None), None)


def _problem(sink: Sink) -> str | None:
    try:
        sink.health()
    except RecordingError as error:
        return str(error)
    return None


def judge_health(where: str, problem: str | None, *, is_new: bool = False) -> Row:
    """Finished recordings wait in the spool while it does not take them. `is_new`: the first one makes it."""
    takes = "is made with the first recording" if is_new else "takes recordings"
    return Row(
        key=_HEALTH,
        safeguard=Safeguard.INTEGRITY,
        subject="the store",
        finding=f"{where} {takes}" if problem is None else f"{where} does not: {problem}",
        evidence="the store's own health question",
        level=Level.OK if problem is None else Level.ALARM,
    )


def _lock_row(sink: S3Sink, settings: S3SinkSettings, newest: IndexEntry | None) -> Row:
    if settings.object_lock_mode is None:
        return _lock(
            "not asked for: nothing keeps who may delete from deleting", "the configuration", Level.ATTENTION
        )
    key = None if newest is None else newest.object_key
    promised = None if newest is None else newest.retain_until
    wanted = _asked(settings, promised)
    if key is None:
        return _lock(f"{wanted}; no recording is there yet to read it back from", "the index", Level.UNKNOWN)
    try:
        found = sink.retention(key)
        looser = sink.looser_than(key, found)
    except RecordingError as error:
        return _lock(f"{wanted}; not known: {error}", f"asked of {key}", Level.UNKNOWN)
    return judge_lock(settings, key, found, looser, promised=promised, now=datetime.now(UTC))


def _asked(settings: S3SinkSettings, promised: datetime | None) -> str:
    wanted = "no mode" if settings.object_lock_mode is None else settings.object_lock_mode.value
    until = "" if promised is None else f", here until {promised.astimezone(UTC):%Y-%m-%d}"
    return f"{wanted} for {settings.object_lock_days} days{until} is asked for"


def judge_lock(
    settings: S3SinkSettings,
    key: str,
    found: Retention,
    looser: Sequence[str],
    *,
    promised: datetime | None,
    now: datetime,
) -> Row:
    """What was read back against what was asked for, and against what was promised for this recording.

    `looser`: what lies beside the object and is kept less than it. With 0 days and no promise only holds lock anything.
    """
    until = "nothing" if found.until is None else f"{found.until.astimezone(UTC):%Y-%m-%d}"
    mode = "no mode" if found.mode is None else found.mode.value
    held = ", on legal hold" if found.is_held else ""
    beside = f"; less is kept of {', '.join(looser)}" if looser else ""
    is_due = promised is not None and promised > now
    is_short = is_due and (found.until is None or (promised is not None and found.until < promised))
    is_kept = found.keeps_at(now) and (found.is_held or found.mode is settings.object_lock_mode)
    is_good = (is_kept or (settings.object_lock_days == 0 and not is_due)) and not is_short and not looser
    return _lock(
        f"{_asked(settings, promised)}; read back: {mode} until {until}{held}{beside}",
        f"the store's answer about {key}",
        Level.OK if is_good else Level.ALARM,
    )


def _lock(finding: str, evidence: str, level: Level) -> Row:
    return Row(
        key=_LOCK,
        safeguard=Safeguard.INTEGRITY,
        subject="Object Lock of the store",
        finding=finding,
        evidence=evidence,
        level=level,
    )


def _encryption_row(sink: S3Sink, settings: S3SinkSettings, key: str | None) -> Row:
    wanted = None if settings.server_side_encryption is None else settings.server_side_encryption.value
    if key is None:
        return judge_encryption(wanted, None, "no recording is there yet to read it back from", "the index")
    try:
        found = sink.encryption(key)
    except RecordingError as error:
        return judge_encryption(wanted, None, f"not known: {error}", f"asked of {key}")
    return judge_encryption(wanted, found, None, f"the store's answer about {key}")


def judge_encryption(
    wanted: str | None, found: Mapping[str, str] | None, why_not: str | None, evidence: str
) -> Row:
    """Defence in depth beneath our own sealing; what was asked for must be there."""
    asked = "none is asked for" if wanted is None else f"{wanted} is asked for"
    if found is None:
        finding, level = f"{asked}; {why_not}", Level.OK if wanted is None else Level.UNKNOWN
    else:
        kind = found.get("kind", "none")
        key = f" under {found['key_id']}" if "key_id" in found else ""
        finding = f"{asked}; read back: {kind}{key}"
        level = Level.OK if wanted in (None, kind) else Level.ALARM
    return Row(
        key=_ENCRYPTION,
        safeguard=Safeguard.AT_REST,
        subject="encryption of the store beneath the recordings",
        finding=finding,
        evidence=evidence,
        level=level,
    )
