"""Object Lock: what a store was told to keep, and what it says that it keeps. Nothing is believed unread.

Source: Amazon S3 User Guide, "Locking objects with Object Lock". The right to bypass GOVERNANCE is never used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from recording.format.manifest import MANIFEST_SUFFIX
from recording.format.slots import sidecar_generation
from recording.settings import S3SinkSettings
from recording.sinks.s3_client import DENIED, NO_LOCK, S3Client
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
_FIRMNESS: Final = {None: 0, LockMode.GOVERNANCE: 1, LockMode.COMPLIANCE: 2}


class S3Locks:
    """Retention, holds and deletion in one bucket. Any thread. Keys are whole, with the sink's prefix."""

    def __init__(self, client: S3Client, settings: S3SinkSettings) -> None:
        self._client = client
        self._mode = settings.object_lock_mode
        self._days = settings.object_lock_days

    def until(self, name: ObjectName) -> datetime | None:
        """How long an object is to be kept from the start; None: the settings ask for nothing, or it is over."""
        if self._mode is None or self._days == 0:
            return None
        until = name.started_hour.astimezone(UTC) + _SEGMENT_SPAN + timedelta(days=self._days)
        return until if until > datetime.now(UTC) else None

    def headers(self, name: ObjectName) -> dict[str, object]:
        """What locks an object as it is put in one request. Upload in parts has no such thing everywhere."""
        until = self.until(name)
        if until is None or self._mode is None:
            return {}
        return {"ObjectLockMode": self._mode.value, "ObjectLockRetainUntilDate": until}

    def ensure(self, key: str, name: ObjectName) -> None:
        """Keep a stored object as the settings ask, and read it back. Idempotent.

        Raises:
            LockNotInForceError: the store does not keep it as it was told to.
        """
        until = self.until(name)
        if until is not None:
            self.extend(key, until)

    def extend(self, key: str, until: datetime) -> None:
        """Keep an object at least so long, and read it back. Needs no right to see holds. Raises as `ensure`."""
        kept = self._retained(key)
        mode = max(
            self._mode or LockMode.GOVERNANCE, kept.mode or LockMode.GOVERNANCE, key=_FIRMNESS.__getitem__
        )
        if _is_kept(kept, mode, until):
            return
        if kept.until is not None:
            until = max(until, kept.until)
        # To the second, and never below what was asked: stores cut fractions off.
        until = until.astimezone(UTC) + timedelta(microseconds=-until.microsecond % 1_000_000)
        self._order("put_object_retention", Key=key, Retention={"Mode": mode.value, "RetainUntilDate": until})
        kept = self._retained(key)
        if not _is_kept(kept, mode, until):
            raise LockNotInForceError(
                f"{key}: the store took retention {mode.value} until {until:%Y-%m-%dT%H:%M:%SZ} and reads back "
                f"{'none' if kept.until is None else kept.until}; it ignores Object Lock"
            )

    def hold(self, key: str, *, is_held: bool) -> Retention:
        """As `Sink.set_hold`."""
        self._order("put_object_legal_hold", Key=key, LegalHold={"Status": "ON" if is_held else "OFF"})
        kept = self.retention(key)
        if kept.is_held is not is_held:
            raise LockNotInForceError(
                f"{key}: a legal hold was turned {'on' if is_held else 'off'} and reads back otherwise; "
                "the store ignores Object Lock"
            )
        return kept

    def retention(self, key: str, **version: str) -> Retention:
        """What the store says, holds included. Raises ObjectMissingError."""
        kept = self._retained(key, **version)
        is_held = False
        with self._nothing_where_unlocked():
            answer = self._client.call("get_object_legal_hold", Key=key, **version)
            is_held = (answer.get("LegalHold") or {}).get("Status") == "ON"
        return replace(kept, is_held=is_held)

    def _retained(self, key: str, **version: str) -> Retention:
        kept = NO_RETENTION
        with self._nothing_where_unlocked():
            found = self._client.call("get_object_retention", Key=key, **version).get("Retention") or {}
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
        """As `Sink.delete`: all versions and delete markers, of the object before those of its slots."""
        for _ in range(2):  # a second look finds what was put meanwhile
            versions = self._versions(key)
            if not versions:
                return
            for whole_key, version_id in versions:
                self._delete_version(whole_key, version_id)
        if left := self._versions(key):
            raise SinkUnavailableError(
                f"{key}: deleted, and {len(left)} versions are still listed", reason="not_deleted"
            )

    def _delete_version(self, key: str, version_id: str) -> None:
        try:
            self._client.call("delete_object", Key=key, VersionId=version_id)
        except ObjectMissingError:
            return
        except SinkRefusedError as error:
            if error.reason_label != DENIED:
                raise
            kept = self._kept(key, version_id)
            if kept is None or not kept.keeps_at(datetime.now(UTC)):
                raise
            until = "" if kept.until is None else f" until {kept.until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
            held = " by a legal hold" if kept.is_held else ""
            raise ObjectLockedError(f"{key}: the store keeps it{held}{until}; it was not deleted") from error

    def _kept(self, key: str, version_id: str) -> Retention | None:
        """Why a version could not be deleted, as far as it may be asked."""
        try:
            return self.retention(key, VersionId=version_id)
        except (SinkRefusedError, ObjectMissingError):
            return None

    def _versions(self, key: str) -> list[tuple[str, str]]:
        """Key and version id of all there is of an object, its slots and its manifest, the object's own first."""
        stem = key.removesuffix(EXTENSION) + "."
        file_id = bytes.fromhex(stem[-33:-1])
        found = []
        for whole_key, version_id in self._listed_versions(stem):
            name = whole_key.rpartition("/")[2]
            is_manifest = name == f"{file_id.hex()}{MANIFEST_SUFFIX}"
            if whole_key == key or is_manifest or sidecar_generation(name, file_id=file_id) is not None:
                found.append((whole_key, version_id))
        return sorted(found, key=lambda each: each[0] != key)

    def _listed_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        for answer in self._client.pages("list_object_versions", Prefix=prefix):
            for each in (*answer.get("Versions", []), *answer.get("DeleteMarkers", [])):
                yield str(each.get("Key")), str(each.get("VersionId", "null"))

    def _order(self, operation: str, **parameters: object) -> None:
        try:
            self._client.call(operation, **parameters)
        except SinkRefusedError as error:
            if error.reason_label != "refused":
                raise
            raise LockNotInForceError(
                f"{error}; the bucket has no Object Lock: it can keep nothing"
            ) from error

    @contextlib.contextmanager
    def _nothing_where_unlocked(self) -> Iterator[None]:
        """An object that nothing locks, or a bucket that cannot lock, is told as an error by the store."""
        try:
            yield
        except ObjectMissingError as error:
            if error.reason_label != NO_LOCK:
                raise
        except SinkRefusedError as error:
            if error.reason_label != "refused":
                raise
        except (LookupError, ValueError, TypeError) as error:
            raise SinkUnavailableError(
                "the store's answer about retention is none", reason="bad_answer"
            ) from error


def _is_kept(kept: Retention, mode: LockMode, until: datetime) -> bool:
    return kept.until is not None and kept.until >= until and _FIRMNESS[kept.mode] >= _FIRMNESS[mode]


def _aware(moment: object) -> datetime:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC)
