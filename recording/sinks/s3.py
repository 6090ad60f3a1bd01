"""The S3 sink: objects in a bucket, sent in parts while a long call runs, locked where Object Lock is asked for.

Needs no right to read: what is stored is shown by a listing (size and ETag), so a recorder's role may be denied
GetObject. Every step can be repeated by another process after a crash; the spooled file stays until all are done.
Source: Amazon S3 API reference; docs/recording-format.md, Crash, truncation, tampering.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from recording.format import limits
from recording.format.manifest import MANIFEST_MAX
from recording.format.slots import sidecar_generation
from recording.observer import RecordingObserver, SilentObserver
from recording.settings import S3SinkSettings, ServerSideEncryption
from recording.sinks.s3_client import DENIED, EXISTS, S3Client
from recording.sinks.s3_locks import S3Locks
from recording.sinks.s3_multipart import (
    S3Multipart,
    base64_md5,
    check_etag,
    object_headers,
    precondition,
    unquoted,
)
from recording.sinks.s3_reader import open_object
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
from recording.sinks.upload_state import md5_of, multipart_etag, read_upload, split

_COMPARE_BYTES: Final = 1 << 20
_SIDECARS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """An object as a listing shows it. `etag` is unquoted."""

    size_bytes: int
    etag: str


class S3Sink:
    """Objects of one bucket under one prefix. Any thread; one at a time about the same object."""

    name = "s3"

    def __init__(self, settings: S3SinkSettings, *, observer: RecordingObserver | None = None) -> None:
        """Build the client; no request is sent. Raises SinkRefusedError: says which setting cannot be used."""
        self._settings = settings
        self._observer = observer or SilentObserver()
        self._client = S3Client(settings)
        self._locks = S3Locks(self._client, settings)
        self._multipart = S3Multipart(self._client, settings, self._observer)
        self._is_opaque = settings.server_side_encryption is ServerSideEncryption.KMS

    @property
    def part_bytes(self) -> int | None:
        return self._settings.multipart_chunksize

    @property
    def locks(self) -> bool:
        return self._settings.object_lock_mode is not None

    # ---- storing ---------------------------------------------------------------------------------------------

    def advance(self, source: Path, name: ObjectName, durable_bytes: int) -> None:
        if durable_bytes >= self._settings.multipart_chunksize:
            with _local(source):
                self._multipart.advance(source, self._key(name.key), durable_bytes)

    def put(self, source: Path, name: ObjectName) -> int:
        """As `Sink.put`. Steps: look, send, look again, lock, read the lock back. `source` stays."""
        key = self._key(name.key)
        with _local(source):
            found = self._find(key)
            if not source.exists():
                if found is None:
                    raise ObjectMissingError(f"neither the spooled file nor the object {name.key} is there")
                self._locks.ensure(key, name)
                return found.size_bytes
            if found is None:
                found = self._store(source, key, name)
            else:
                self._multipart.abandon(source, key)
            self._require_same(source, key, found)
        self._locks.ensure(key, name)
        return found.size_bytes

    def _store(self, source: Path, key: str, name: ObjectName) -> _Listed:
        size_bytes = source.stat().st_size
        upload = read_upload(source, bucket=self._client.bucket, key=key)
        try:
            if size_bytes > self._settings.multipart_chunksize or (upload is not None and size_bytes):
                if not self._multipart.finish(source, key, size_bytes) and self._find(key) is None:
                    self._multipart.finish(source, key, size_bytes)  # begun anew
            else:
                self._multipart.abandon(source, key)
                self._put_whole(source, key, name)
        except ObjectConflictError as error:
            if error.reason_label != EXISTS:
                raise
        found = self._find(key)
        if found is None:
            raise SinkUnavailableError(f"{key}: the store took it and does not list it", reason="not_listed")
        return found

    def _put_whole(self, source: Path, key: str, name: ObjectName) -> None:
        self._send(key, source.read_bytes(), self._locks.headers(name))

    def _send(self, key: str, data: bytes, headers: Mapping[str, object]) -> None:
        try:
            answer = self._client.call(
                "put_object",
                Key=key,
                Body=data,
                ContentMD5=base64_md5(data),
                **object_headers(self._settings),
                **headers,
                **precondition(self._settings),
            )
        except ObjectConflictError as error:
            if error.reason_label != EXISTS:
                raise
            return  # what is there is compared next, as on a second attempt
        check_etag(key, answer, data, is_opaque=self._is_opaque)
        self._observer.upload_sent(sent_bytes=len(data))

    def _require_same(self, source: Path, key: str, found: _Listed) -> None:
        """The object is what the file is: shown by size and ETag, and where an ETag tells nothing, by reading."""
        if found.size_bytes == source.stat().st_size:
            if found.etag in self._etags(source, key, found):
                return
            if self._is_same_by_reading(source, key):
                return
        raise ObjectConflictError(f"{key} exists with other content; it was left as it is")

    def _etags(self, source: Path, key: str, found: _Listed) -> Iterator[str]:
        """ETags that the file has, sent whole or in parts of the sizes that may have been used."""
        upload = read_upload(source, bucket=self._client.bucket, key=key)
        sizes = {self._settings.multipart_chunksize} | ({upload.part_bytes} if upload is not None else set())
        if "-" not in found.etag:
            if found.size_bytes <= max(sizes):
                yield md5_of(source.read_bytes())
            return
        with source.open("rb") as file:
            for size in sizes:
                file.seek(0)
                yield multipart_etag(
                    [md5_of(file.read(length)) for _, length in split(found.size_bytes, size)]
                )

    def _is_same_by_reading(self, source: Path, key: str) -> bool:
        try:
            with open_object(self._client, key) as theirs, source.open("rb") as ours:
                while block := ours.read(_COMPARE_BYTES):
                    if theirs.read(len(block)) != block:
                        return False
                return not theirs.read(1)
        except SinkRefusedError as error:
            if error.reason_label != DENIED:
                raise
            raise SinkRefusedError(
                f"{key} is there, and whether it is this recording only a reader can tell; "
                "run `b2bua recordings recover` with a role that may read",
                reason="unproven",
            ) from error

    # ---- what is there ---------------------------------------------------------------------------------------

    def size(self, key: str) -> int | None:
        found = self._find(self._key(key))
        return None if found is None else found.size_bytes

    def open(self, key: str) -> BinaryIO:
        """As `Sink.open`: ranges are asked for as they are read. Reading raises SinkError."""
        return open_object(self._client, self._key(key))

    def put_slots(self, key: str, generation: int, data: bytes) -> None:
        """As `Sink.put_slots`: looked for, sent and looked for again."""
        whole = self._sidecar(key, generation)
        if self._find(whole) is None:
            self._send(whole, data, {})
        found = self._find(whole)
        if found is None:
            raise SinkUnavailableError(
                f"{whole}: the store took it and does not list it", reason="not_listed"
            )
        if found.etag != md5_of(data) and self._read(whole) != data:
            raise ObjectConflictError(f"{whole} exists with other content; it was left as it is")

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
        """As `Sink.put_manifest`: looked for, sent and looked for again."""
        whole = self._settings.prefix + manifest_key(key)
        if self._find(whole) is not None:
            return
        self._send(whole, data, {})
        if self._find(whole) is None:
            raise SinkUnavailableError(
                f"{whole}: the store took it and does not list it", reason="not_listed"
            )

    def manifest(self, key: str) -> bytes | None:
        whole = self._settings.prefix + manifest_key(key)
        if self._find(whole) is None:
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
        if self._find(whole) is not None:
            raise SinkUnavailableError(f"{key}: deleted, and it is still listed", reason="not_deleted")

    def retention(self, key: str) -> Retention:
        if self._find(self._key(key)) is None:
            raise ObjectMissingError(f"no object {key}")
        return self._locks.retention(self._key(key)) if self.locks else NO_RETENTION

    def extend_retention(self, key: str, until: datetime) -> Retention:
        self._require_lockable(key)
        self._locks.extend(self._key(key), until)
        return self._locks.retention(self._key(key))

    def set_hold(self, key: str, *, is_held: bool) -> Retention:
        self._require_lockable(key)
        return self._locks.hold(self._key(key), is_held=is_held)

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

    def _find(self, key: str) -> _Listed | None:
        """The newest version of an object, by listing: it takes no right to read objects."""
        answer = next(self._client.pages("list_objects_v2", Prefix=key, MaxKeys=2))
        for each in answer.get("Contents", []):
            if each.get("Key") == key:
                size = each.get("Size")
                if not isinstance(size, int):
                    raise SinkUnavailableError(f"{key}: listed without a size", reason="bad_answer")
                return _Listed(size_bytes=size, etag=unquoted(each.get("ETag")))
        return None


@contextlib.contextmanager
def _local(source: Path) -> Iterator[None]:
    """Errors of the spool's own disk: the file that is sent, or the note of its upload."""
    try:
        yield
    except OSError as error:
        raise SinkUnavailableError(
            f"{error.filename or source}: {error.strerror}; the recording stays in the spool",
            reason="spool_disk",
        ) from error
