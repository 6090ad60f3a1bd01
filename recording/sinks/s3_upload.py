"""How a file becomes an object of a bucket, and what shows that it did: the steps of one upload.

Nothing here needs the right to read what is stored: a listing tells size and ETag, an answer tells the encryption.
Source: Amazon S3 API reference; docs/recording-format.md, Crash, truncation, tampering.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recording.observer import RecordingObserver
from recording.settings import S3SinkSettings
from recording.sinks.s3_client import DENIED, EXISTS, S3Client
from recording.sinks.s3_encryption import S3Encryption
from recording.sinks.s3_locks import S3Locks, headers_of, ordering
from recording.sinks.s3_multipart import S3Multipart, body_checks, check_etag, unquoted
from recording.sinks.s3_reader import open_object
from recording.sinks.sink import (
    ObjectConflictError,
    ObjectMissingError,
    ObjectName,
    Retention,
    SinkRefusedError,
    SinkUnavailableError,
)
from recording.sinks.upload_state import (
    UploadState,
    md5_of,
    multipart_etag,
    read_upload,
    split,
    write_upload,
)

UNPROVEN: Final = "unproven"  # reason of SinkRefusedError: an object is there, and a reader must say which
_COMPARE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An object as a listing shows it. `etag` is unquoted."""

    size_bytes: int
    etag: str


class S3Upload:
    """Uploads to one bucket. Any thread; one at a time about the same object. Keys are whole, with the prefix."""

    def __init__(
        self, client: S3Client, settings: S3SinkSettings, locks: S3Locks, observer: RecordingObserver
    ) -> None:
        self._client = client
        self._settings = settings
        self._locks = locks
        self._observer = observer
        self._encryption = S3Encryption(client, settings)
        acl: dict[str, object] = {} if settings.acl is None else {"ACL": settings.acl.value}
        self._headers = {**acl, **self._encryption.headers}
        self._multipart = S3Multipart(client, settings, self._encryption, self._headers, observer)
        self._create_only = {"IfNoneMatch": "*"} if settings.if_none_match else {}

    def advance(self, source: Path, key: str, durable_bytes: int) -> None:
        """As `Sink.advance`."""
        if durable_bytes >= self._settings.multipart_chunksize:
            with _local(source):
                self._multipart.advance(source, key, durable_bytes)

    def put(self, source: Path, key: str, name: ObjectName) -> int:
        """As `Sink.put`. Steps: look, send, look again, lock, read the lock back. `source` stays."""
        with _local(source):
            found = self.find(key)
            if not source.exists():
                if found is None:
                    raise ObjectMissingError(f"neither the spooled file nor the object {name.key} is there")
            elif found is None:
                found = self._store(source, key, name)
            else:
                found = self._found_before(source, key, name, found)
        self._locks.ensure(key, self._locks.kept(name))
        return found.size_bytes

    def put_beside(self, key: str, data: bytes, kept: Retention) -> Listed:
        """What lies beside an object now: this, sent with its lock, or what was there before, as it was."""
        if self.find(key) is None:
            with contextlib.suppress(ObjectConflictError):  # what is there is looked at next
                self._send(key, data, kept, self._create_only)
        return self._found(key)

    def find(self, key: str) -> Listed | None:
        """The newest version of an object, by listing: it takes no right to read objects."""
        answer = next(self._client.pages("list_objects_v2", Prefix=key, MaxKeys=2))
        for each in answer.get("Contents", []):
            if each.get("Key") == key:
                size = each.get("Size")
                if not isinstance(size, int):
                    raise SinkUnavailableError(f"{key}: listed without a size", reason="bad_answer")
                return Listed(size_bytes=size, etag=unquoted(each.get("ETag")))
        return None

    def _found(self, key: str) -> Listed:
        found = self.find(key)
        if found is None:
            raise SinkUnavailableError(f"{key}: the store took it and does not list it", reason="not_listed")
        return found

    def _found_before(self, source: Path, key: str, name: ObjectName, found: Listed) -> Listed:
        """An attempt of ours whose end nobody told, if it is shown to be that.

        Where only a reader could tell, a bucket that keeps versions is sent it once more: what is there stays there as
        a version of its own.
        """
        try:
            self._require_same(source, key, found, sent=None)
        except SinkRefusedError as error:
            if error.reason_label != UNPROVEN or not self._locks.are_asked:
                raise
            return self._store(source, key, name, is_again=True)
        self._multipart.abandon(source, key)
        return found

    def _store(self, source: Path, key: str, name: ObjectName, *, is_again: bool = False) -> Listed:
        sent = None
        try:
            sent = self._sent(source, key, name, is_again=is_again)
        except ObjectConflictError as error:
            if error.reason_label != EXISTS:
                raise
        found = self._found(key)
        self._require_same(source, key, found, sent=sent)
        return found

    def _sent(self, source: Path, key: str, name: ObjectName, *, is_again: bool) -> str | None:
        """The ETag of what was made of the file now; None where it was made by an earlier attempt.

        `is_again`: also where there is an object, as a further version.
        """
        precondition = {} if is_again else self._create_only
        size_bytes = source.stat().st_size
        upload = read_upload(source, bucket=self._client.bucket, key=key)
        is_begun = upload is not None and upload.is_running and size_bytes > 0
        if size_bytes <= self._settings.multipart_chunksize and not is_begun:
            self._multipart.abandon(source, key)
            return self._put_whole(source, key, self._locks.kept(name), precondition)
        sent = self._multipart.finish(source, key, size_bytes, precondition)
        if sent is None and (is_again or self.find(key) is None):
            sent = self._multipart.finish(source, key, size_bytes, precondition)  # begun anew
        return sent

    def _put_whole(self, source: Path, key: str, kept: Retention, precondition: Mapping[str, object]) -> str:
        self._encryption.prove(self._headers, key)
        etag = self._send(key, source.read_bytes(), kept, precondition)
        if self._encryption.is_asked:
            made = UploadState(
                bucket=self._client.bucket,
                key=key,
                upload_id="",
                part_bytes=self._settings.multipart_chunksize,
                etag=etag,
            )
            write_upload(source, made)
        return etag

    def _send(self, key: str, data: bytes, kept: Retention, precondition: Mapping[str, object]) -> str:
        """The ETag of the object. Raises ObjectConflictError with reason `exists`."""
        lock = headers_of(kept)
        with ordering() if lock else contextlib.nullcontext():
            answer = self._client.call(
                "put_object",
                Key=key,
                Body=data,
                **body_checks(self._settings, data),
                **self._headers,
                **lock,
                **precondition,
            )
        self._encryption.check(key, answer)
        etag = check_etag(key, answer, data, is_opaque=self._encryption.is_opaque)
        self._observer.upload_sent(sent_bytes=len(data))
        return etag

    def _require_same(self, source: Path, key: str, found: Listed, *, sent: str | None) -> None:
        """The object is what the file is, encrypted as asked: shown by size and ETag, or else by reading.

        `sent`: the ETag that the store gave what was sent just now. It stands for the encryption as well, for that was
        looked at then; so does a note of the upload.
        """
        if found.size_bytes != source.stat().st_size:
            raise ObjectConflictError(f"{key} exists with other content; it was left as it is")
        noted = read_upload(source, bucket=self._client.bucket, key=key)
        if found.etag and found.etag in (sent, noted and noted.etag):
            return
        is_same = found.etag in self._etags(source, key, found)
        if self._encryption.is_asked and sent is None and noted is None:
            with self._reading(key):
                self._encryption.check(key, self._client.call("head_object", Key=key))
        if not is_same and not self._is_same_by_reading(source, key):
            raise ObjectConflictError(f"{key} exists with other content; it was left as it is")

    def _etags(self, source: Path, key: str, found: Listed) -> Iterator[str]:
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
        with (
            self._reading(key),
            open_object(self._client, key) as theirs,
            source.open("rb") as ours,
        ):
            while block := ours.read(_COMPARE_BYTES):
                if theirs.read(len(block)) != block:
                    return False
            return not theirs.read(1)

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except SinkRefusedError as error:
            if error.reason_label != DENIED:
                raise
            raise SinkRefusedError(
                f"{key} is there, and whether it is this recording only a reader can tell; "
                "run `b2bua recordings recover` with a role that may read",
                reason=UNPROVEN,
            ) from error


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
