"""The S3 sink: objects in a bucket, sent in parts while a long call runs, locked where Object Lock is asked for.

Needs no right to read: what is stored is shown by a listing (size and ETag), so a recorder's role may be denied
GetObject. Every step can be repeated by another process after a crash; the spooled file stays until all are done.
Source: Amazon S3 API reference; docs/recording-format.md, Crash, truncation, tampering.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from recording.format import limits
from recording.format.manifest import MANIFEST_MAX
from recording.format.slots import sidecar_generation
from recording.observer import RecordingObserver, SilentObserver
from recording.settings import S3SinkSettings
from recording.sinks.s3_client import S3Client
from recording.sinks.s3_locks import S3Locks
from recording.sinks.s3_reader import open_object
from recording.sinks.s3_upload import S3Upload
from recording.sinks.sink import (
    EXTENSION,
    NO_RETENTION,
    ObjectConflictError,
    ObjectMissingError,
    ObjectName,
    Retention,
    SinkRefusedError,
    SinkUnavailableError,
    SlotFile,
    by_object,
    check_directory,
    check_key,
    file_id_of,
    is_key,
    manifest_key,
    sidecar_key,
)
from recording.sinks.upload_state import md5_of

_SIDECARS_AT_ONCE: Final = 8


class S3Sink:
    """Objects of one bucket under one prefix. Any thread; one at a time about the same object."""

    name = "s3"

    def __init__(self, settings: S3SinkSettings, *, observer: RecordingObserver | None = None) -> None:
        """Build the client; no request is sent. Raises SinkRefusedError: says which setting cannot be used."""
        self._settings = settings
        self._client = S3Client(settings)
        self._locks = S3Locks(self._client, settings)
        self._upload = S3Upload(self._client, settings, self._locks, observer or SilentObserver())

    @property
    def part_bytes(self) -> int | None:
        return self._settings.multipart_chunksize

    @property
    def locks(self) -> bool:
        return self._locks.are_asked

    # ---- storing ---------------------------------------------------------------------------------------------

    def advance(self, source: Path, name: ObjectName, durable_bytes: int) -> None:
        self._upload.advance(source, self._key(name.key), durable_bytes)

    def put(self, source: Path, name: ObjectName) -> int:
        """As `Sink.put`; `source` stays."""
        return self._upload.put(source, self._key(name.key), name)

    # ---- what is there ---------------------------------------------------------------------------------------

    def size(self, key: str) -> int | None:
        found = self._upload.find(self._key(key))
        return None if found is None else found.size_bytes

    def open(self, key: str) -> BinaryIO:
        """As `Sink.open`: ranges are asked for as they are read. Reading raises SinkError."""
        return open_object(self._client, self._key(key))

    def put_slots(self, key: str, generation: int, data: bytes) -> None:
        """As `Sink.put_slots`: looked for, sent and looked for again, locked as the object is."""
        whole = self._sidecar(key, generation)
        kept = self._locks.of_object(self._key(key), with_hold=True)
        found = self._upload.put_beside(whole, data, kept)
        if found.etag != md5_of(data) and self._read(whole) != data:
            raise ObjectConflictError(f"{whole} exists with other content; it was left as it is")
        self._locks.ensure(whole, kept)

    def put_all_slots(self, files: Sequence[SlotFile]) -> list[SlotFile]:
        with ThreadPoolExecutor(_SIDECARS_AT_ONCE, thread_name_prefix="slots") as pool:
            are_stored = list(pool.map(self._is_stored, files))
        return [file for file, is_stored in zip(files, are_stored, strict=True) if not is_stored]

    def _is_stored(self, file: SlotFile) -> bool:
        try:
            self.put_slots(file.object_key, file.generation, file.data)
        except ObjectConflictError:
            return False
        return True

    def slot_generations(self, key: str) -> list[int]:
        stem, file_id = self._key(key).removesuffix(EXTENSION) + ".", file_id_of(key)
        found = {
            sidecar_generation(whole.rpartition("/")[2], file_id=file_id) for whole in self._listed(stem)
        }
        return sorted((each for each in found if each is not None), reverse=True)

    def slots_below(self, directory: str) -> dict[str, list[int]]:
        prefix = self._settings.prefix
        listed = self._listed(prefix + check_directory(directory))
        return by_object(whole.removeprefix(prefix) for whole in listed)

    def slots(self, key: str, generation: int) -> bytes:
        return self._read(self._sidecar(key, generation))

    def put_manifest(self, key: str, data: bytes) -> None:
        """As `Sink.put_manifest`: looked for, sent and looked for again, locked as the object is."""
        whole = self._settings.prefix + manifest_key(key)
        kept = self._locks.of_object(self._key(key), with_hold=False)
        self._upload.put_beside(whole, data, kept)
        self._locks.ensure(whole, kept)

    def manifest(self, key: str) -> bytes | None:
        whole = self._settings.prefix + manifest_key(key)
        if self._upload.find(whole) is None:
            return None
        with open_object(self._client, whole) as file:
            return file.read(MANIFEST_MAX + 1)

    def keys(self, prefix: str = "") -> Iterator[str]:
        for whole in self._listed(self._settings.prefix + prefix):
            key = whole.removeprefix(self._settings.prefix)
            if is_key(key):
                yield key

    def health(self) -> None:
        """The bucket answers over verified TLS and is what the settings ask for: Object Lock as read back."""
        next(self._client.pages("list_objects_v2", Prefix=self._settings.prefix, MaxKeys=1))
        self._locks.check_bucket()

    def describe(self) -> dict[str, str]:
        """For the posture report: settings, and how often each TLS version was negotiated so far."""
        settings = self._settings
        mode = settings.object_lock_mode
        return {
            "kind": self.name,
            "bucket": settings.bucket,
            "endpoint": self._client.endpoint,
            "tls_floor": settings.tls_floor.value,
            "tls_negotiated": ", ".join(
                f"{version}: {count}" for version, count in sorted(self._client.transport.versions.items())
            ),
            "object_lock": "not asked for"
            if mode is None
            else f"{mode.value}, {settings.object_lock_days} days",
            "server_side_encryption": "not asked for"
            if settings.server_side_encryption is None
            else settings.server_side_encryption.value,
        }

    def encryption(self, key: str) -> dict[str, str]:
        """What the store says that it encrypts an object with: `kind`, and `key_id` where it names a key.

        For the posture report; takes the right to read objects. Raises as `open`.
        """
        answer = self._client.call("head_object", Key=self._key(key))
        told = {"kind": answer.get("ServerSideEncryption"), "key_id": answer.get("SSEKMSKeyId")}
        return {name: value for name, value in told.items() if isinstance(value, str)}

    # ---- keeping and deleting --------------------------------------------------------------------------------

    def delete(self, key: str) -> None:
        whole = self._key(key)
        self._locks.delete(whole)
        if self._upload.find(whole) is not None:
            raise SinkUnavailableError(f"{key}: deleted, and it is still listed", reason="not_deleted")

    def retention(self, key: str) -> Retention:
        if self._upload.find(self._key(key)) is None:
            raise ObjectMissingError(f"no object {key}")
        return self._locks.retention(self._key(key)) if self.locks else NO_RETENTION

    def extend_retention(self, key: str, until: datetime) -> Retention:
        self._require_lockable(key)
        self._locks.extend(self._key(key), until)
        return self._locks.retention(self._key(key))

    def set_hold(self, key: str, *, is_held: bool) -> Retention:
        self._require_lockable(key)
        self._locks.hold(self._key(key), is_held=is_held)
        return self._locks.retention(self._key(key))

    def looser_than(self, key: str, kept: Retention) -> list[str]:
        """Names of what lies beside an object and is kept less than `kept`, for the posture report."""
        return self._locks.looser_than(self._key(key), kept)

    def _require_lockable(self, key: str) -> None:
        self.retention(key)
        if not self.locks:
            raise SinkRefusedError(
                f"{key}: bucket {self._settings.bucket} is used without Object Lock; "
                "set recording.sink.object_lock_mode for one that has it"
            )

    def _key(self, key: str) -> str:
        return self._settings.prefix + check_key(key)

    def _sidecar(self, key: str, generation: int) -> str:
        return self._settings.prefix + sidecar_key(key, generation)

    def _read(self, key: str) -> bytes:
        """A sidecar, cut off one byte beyond the longest there can be."""
        with open_object(self._client, key) as file:
            return file.read(limits.SIDECAR_LEN_MAX + 1)

    def _listed(self, prefix: str) -> Iterator[str]:
        """Whole keys, a page at a time."""
        for answer in self._client.pages("list_objects_v2", Prefix=prefix):
            for each in answer.get("Contents", []):
                yield str(each.get("Key"))
