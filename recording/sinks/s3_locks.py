"""Object Lock: what a store was told to keep, and what it says that it keeps. Nothing is believed unread.

An object's slots and manifest share its fate: what is ordered for the object is ordered for all versions of them too.
Source: Amazon S3 User Guide, "Locking objects with Object Lock". The right to bypass GOVERNANCE is never used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from recording.format.manifest import MANIFEST_SUFFIX
from recording.format.slots import sidecar_generation
from recording.settings import S3SinkSettings
from recording.sinks.s3_client import DENIED, INVALID, NO_LOCK, S3Client
from recording.sinks.sink import (
    EXTENSION,
    NO_RETENTION,
    LockMode,
    LockNotInForceError,
    ObjectLockedError,
    ObjectMissingError,
    ObjectName,
    Retention,
    SinkRefusedError,
    SinkUnavailableError,
)

# `started_hour` is cut to the hour and a segment may last four: the last second is kept for all of the days.
_SEGMENT_SPAN: Final = timedelta(hours=5)
_UNLOCKABLE: Final = frozenset({"refused", INVALID})  # answers to questions about locks where there are none
_FIRMNESS: Final = {None: 0, LockMode.GOVERNANCE: 1, LockMode.COMPLIANCE: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """One version of an object, or of what lies beside it. A marker says that it was deleted; nothing keeps one."""

    key: str
    version_id: str
    is_marker: bool

    @property
    def parameters(self) -> dict[str, str]:
        return {"Key": self.key, "VersionId": self.version_id}


class S3Locks:
    """Retention, holds and deletion in one bucket. Any thread. Keys are whole, with the sink's prefix."""

    def __init__(self, client: S3Client, settings: S3SinkSettings) -> None:
        self._client = client
        self._mode = settings.object_lock_mode
        self._days = settings.object_lock_days

    @property
    def are_asked(self) -> bool:
        """Whether the settings say that this bucket can lock. It keeps versions then."""
        return self._mode is not None

    def until(self, name: ObjectName) -> datetime | None:
        """How long an object is to be kept from the start; None: nothing asks for it, or it is over.

        The later of what was promised when the call began and the days of all objects.
        """
        if self._mode is None:
            return None
        times = [] if name.retain_until is None else [name.retain_until]
        if self._days:
            times.append(name.started_hour.astimezone(UTC) + _SEGMENT_SPAN + timedelta(days=self._days))
        return max((at for at in times if at > datetime.now(UTC)), default=None)

    def kept(self, name: ObjectName) -> Retention:
        """As `until`, in the words of a store that obeys."""
        until = self.until(name)
        return NO_RETENTION if until is None else Retention(mode=self._mode, until=until)

    def of_object(self, key: str, *, with_hold: bool) -> Retention:
        """What is to keep that which lies beside an object: what keeps the object now. Nothing where it is missing.

        `with_hold`: takes the right to see holds.
        """
        if self._mode is None:
            return NO_RETENTION
        try:
            kept = self.retention(key) if with_hold else self._retained(Key=key)
        except ObjectMissingError:
            return NO_RETENTION
        return kept if kept.keeps_at(datetime.now(UTC)) else NO_RETENTION

    def ensure(self, key: str, wanted: Retention) -> None:
        """Keep what is stored as `wanted` says, and read it back. Idempotent. Sees holds only to put one.

        Raises:
            LockNotInForceError: the store does not keep it as it was told to.
        """
        if wanted.until is not None and wanted.until > datetime.now(UTC):
            self._extend(wanted.until, wanted.mode, Key=key)
        if wanted.is_held:
            self._hold(is_held=True, Key=key)

    def extend(self, key: str, until: datetime) -> None:
        """As `Sink.extend_retention`."""
        for version in self._versions(key):
            if not version.is_marker:
                self._extend(until, self._mode, **version.parameters)

    def hold(self, key: str, *, is_held: bool) -> None:
        """As `Sink.set_hold`."""
        for version in self._versions(key):
            if not version.is_marker:
                self._hold(is_held=is_held, **version.parameters)

    def looser_than(self, key: str, kept: Retention) -> list[str]:
        """Names of what lies beside an object and is kept for a shorter time, or not held as it is."""
        return [
            version.key
            for version in self._versions(key)
            if version.key != key and not version.is_marker
            if not _is_alike(self.retention(version.key, VersionId=version.version_id), kept)
        ]

    def _extend(self, until: datetime, least: LockMode | None, **version: str) -> None:
        kept = self._retained(**version)
        mode = max(least or LockMode.GOVERNANCE, kept.mode or LockMode.GOVERNANCE, key=_FIRMNESS.__getitem__)
        if _is_kept(kept, mode, until):
            return
        if kept.until is not None:
            until = max(until, kept.until)
        # To the second, and never below what was asked: stores cut fractions off.
        until = until.astimezone(UTC) + timedelta(microseconds=-until.microsecond % 1_000_000)
        order = {"Mode": mode.value, "RetainUntilDate": until}
        self._order("put_object_retention", Retention=order, **version)
        kept = self._retained(**version)
        if not _is_kept(kept, mode, until):
            raise LockNotInForceError(
                f"{version['Key']}: the store took retention {mode.value} until {until:%Y-%m-%dT%H:%M:%SZ} and reads "
                f"back {'none' if kept.until is None else kept.until}; it ignores Object Lock"
            )

    def _hold(self, *, is_held: bool, **version: str) -> None:
        if self._is_held(**version) is is_held:
            return
        self._order("put_object_legal_hold", LegalHold={"Status": "ON" if is_held else "OFF"}, **version)
        if self._is_held(**version) is not is_held:
            raise LockNotInForceError(
                f"{version['Key']}: a legal hold was turned {'on' if is_held else 'off'} and reads back otherwise; "
                "the store ignores Object Lock"
            )

    def retention(self, key: str, **version: str) -> Retention:
        """What the store says, holds included. Raises ObjectMissingError."""
        return replace(self._retained(Key=key, **version), is_held=self._is_held(Key=key, **version))

    def _is_held(self, **version: str) -> bool:
        is_held = False
        with self._nothing_where_unlocked():
            answer = self._client.call("get_object_legal_hold", **version)
            is_held = (answer.get("LegalHold") or {}).get("Status") == "ON"
        return is_held  # noqa: RET504  # the context above may have ended the block early

    def _retained(self, **version: str) -> Retention:
        kept = NO_RETENTION
        with self._nothing_where_unlocked():
            found = self._client.call("get_object_retention", **version).get("Retention") or {}
            kept = Retention(mode=LockMode(found["Mode"]), until=_aware(found["RetainUntilDate"]))
        return kept  # noqa: RET504  # the context above may have ended the block early

    def check_bucket(self) -> None:
        """Raise LockNotInForceError unless the bucket has versions and Object Lock, as read back."""
        if self._mode is None:
            return
        bucket = self._client.bucket
        if self._client.call("get_bucket_versioning").get("Status") != "Enabled":
            raise LockNotInForceError(
                f"bucket {bucket} keeps no versions, so Object Lock is not in force; make a bucket with Object Lock"
            )
        enabled = None
        with self._nothing_where_unlocked():
            configuration = self._client.call("get_object_lock_configuration").get("ObjectLockConfiguration")
            enabled = (configuration or {}).get("ObjectLockEnabled")
        if enabled != "Enabled":
            raise LockNotInForceError(
                f"bucket {bucket} has no Object Lock, recording.sink.object_lock_mode asks for it; "
                "make a bucket with Object Lock: it cannot be had for one that exists everywhere"
            )

    def delete(self, key: str) -> None:
        """As `Sink.delete`: all versions and delete markers, of the object before those of what lies beside it.

        A store that is asked to lock is asked about each version first, so that nothing goes if something stays.
        """
        gone = 0
        for _ in range(2):  # a second look finds what was put meanwhile
            versions = self._versions(key)
            if not versions:
                return
            if self._mode is not None and gone == 0:
                self._require_free(versions)
            for version in versions:
                self._delete_version(version, is_first=gone == 0)
                gone += 1
        if left := self._versions(key):
            raise SinkUnavailableError(
                f"{key}: deleted, and {len(left)} versions are still listed", reason="not_deleted"
            )

    def _require_free(self, versions: list[_Version]) -> None:
        for version in versions:
            if not version.is_marker and (why := self._why_kept(version)) is not None:
                raise ObjectLockedError(f"{version.key}: {why}; nothing of it was deleted")

    def _delete_version(self, version: _Version, *, is_first: bool) -> None:
        try:
            self._client.call("delete_object", **version.parameters)
        except ObjectMissingError:
            return
        except SinkRefusedError as error:
            if error.reason_label != DENIED or (why := self._why_kept(version)) is None:
                raise
            if is_first:
                raise ObjectLockedError(f"{version.key}: {why}; it was not deleted") from error
            raise SinkUnavailableError(
                f"{version.key}: {why}, and other parts of the object are gone; delete it again when it is free",
                reason="not_deleted",
            ) from error

    def _why_kept(self, version: _Version) -> str | None:
        """Why a version cannot be deleted, as far as it may be asked; None: nothing keeps it."""
        try:
            kept = self.retention(version.key, VersionId=version.version_id)
        except (SinkRefusedError, ObjectMissingError):
            return None
        if not kept.keeps_at(datetime.now(UTC)):
            return None
        until = "" if kept.until is None else f" until {kept.until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        held = " by a legal hold" if kept.is_held else ""
        return f"the store keeps it{held}{until}"

    def _versions(self, key: str) -> list[_Version]:
        """All there is of an object, its slots and its manifest, the object's own versions first."""
        stem = key.removesuffix(EXTENSION) + "."
        file_id = bytes.fromhex(stem[-33:-1])
        found = []
        for version in self._listed_versions(stem):
            name = version.key.rpartition("/")[2]
            is_manifest = name == f"{file_id.hex()}{MANIFEST_SUFFIX}"
            if version.key == key or is_manifest or sidecar_generation(name, file_id=file_id) is not None:
                found.append(version)
        return sorted(found, key=lambda version: version.key != key)

    def _listed_versions(self, prefix: str) -> Iterator[_Version]:
        for answer in self._client.pages("list_object_versions", Prefix=prefix):
            for kind in ("Versions", "DeleteMarkers"):
                for each in answer.get(kind, []):
                    yield _Version(
                        key=str(each.get("Key")),
                        version_id=str(each.get("VersionId", "null")),
                        is_marker=kind == "DeleteMarkers",
                    )

    def _order(self, operation: str, **parameters: object) -> None:
        with ordering(_UNLOCKABLE):
            self._client.call(operation, **parameters)

    @contextlib.contextmanager
    def _nothing_where_unlocked(self) -> Iterator[None]:
        """An object that nothing locks, or a bucket that cannot lock, is told as an error by the store."""
        try:
            yield
        except ObjectMissingError as error:
            if error.reason_label != NO_LOCK:
                raise
        except SinkRefusedError as error:
            if error.reason_label not in _UNLOCKABLE:
                raise
        except (LookupError, ValueError, TypeError) as error:
            raise SinkUnavailableError(
                "the store's answer about retention is none", reason="bad_answer"
            ) from error


def _is_kept(kept: Retention, mode: LockMode, until: datetime) -> bool:
    return kept.until is not None and kept.until >= until and _FIRMNESS[kept.mode] >= _FIRMNESS[mode]


def _is_alike(kept: Retention, wanted: Retention) -> bool:
    if wanted.is_held and not kept.is_held:
        return False
    return wanted.until is None or (kept.until is not None and kept.until >= wanted.until)


def headers_of(kept: Retention) -> dict[str, object]:
    """What locks an object as it is put in one request. Upload in parts has no such thing everywhere."""
    if kept.mode is None or kept.until is None or kept.until <= datetime.now(UTC):
        return {}
    return {"ObjectLockMode": kept.mode.value, "ObjectLockRetainUntilDate": kept.until}


@contextlib.contextmanager
def ordering(reasons: Collection[str] = frozenset({INVALID})) -> Iterator[None]:
    """A request that locks something. Raises LockNotInForceError where it is refused for one of `reasons`."""
    try:
        yield
    except SinkRefusedError as error:
        if error.reason_label not in reasons:
            raise
        raise LockNotInForceError(f"{error}; the bucket has no Object Lock: it can keep nothing") from error


def _aware(moment: object) -> datetime:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC)
