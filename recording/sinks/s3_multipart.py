"""A file sent to S3 in parts, also while it still grows, and taken up again by any process after a crash.

The parts that the store lists are compared with the file; what is not shown to be the file's own is sent again.
Source: Amazon S3 User Guide, "Uploading and copying objects using multipart upload".
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recording.observer import RecordingObserver
from recording.settings import RequestChecksum, S3SinkSettings
from recording.sinks.s3_client import S3Client
from recording.sinks.s3_encryption import S3Encryption
from recording.sinks.sink import EncryptionNotInForceError, ObjectMissingError, SinkUnavailableError
from recording.sinks.upload_state import (
    Part,
    UploadState,
    md5_of,
    multipart_etag,
    read_upload,
    remove_upload,
    split,
    write_upload,
)


class S3Multipart:
    """Uploads in parts to one bucket. Any thread; one at a time about the same file.

    All may raise SinkError and OSError.
    """

    def __init__(
        self,
        client: S3Client,
        settings: S3SinkSettings,
        encryption: S3Encryption,
        headers: Mapping[str, object],
        observer: RecordingObserver,
    ) -> None:
        """`headers`: what goes along with each object."""
        self._client = client
        self._settings = settings
        self._encryption = encryption
        self._headers = headers
        self._observer = observer

    def advance(self, source: Path, key: str, durable_bytes: int) -> None:
        """Send the whole parts among the first `durable_bytes` that were not sent.

        An upload that is no more is forgotten, and begun anew the next time.
        """
        try:
            self._send_grown(source, self._begun(source, key), durable_bytes)
        except ObjectMissingError:
            remove_upload(source)

    def _send_grown(self, source: Path, upload: UploadState, durable_bytes: int) -> None:
        for number, (offset, length) in enumerate(split(durable_bytes, upload.part_bytes), start=1):
            if number > len(upload.parts) and length == upload.part_bytes:
                part = self._send(upload, number, _content(source, offset, length))
                upload = upload.with_part(part)
                write_upload(source, upload)

    def finish(
        self, source: Path, key: str, size_bytes: int, precondition: Mapping[str, object]
    ) -> str | None:
        """Send the rest and make the object; its ETag.

        None: the upload is no more, by an earlier end of ours or by a rule.

        Raises ObjectConflictError with reason `exists` where the store found an object of this name.
        """
        upload = self._begun(source, key)
        try:
            parts, told = self._complete_parts(source, upload, size_bytes)
            answer = self._client.call(
                "complete_multipart_upload",
                Key=key,
                UploadId=upload.upload_id,
                MultipartUpload={"Parts": told},
                **precondition,
            )
        except ObjectMissingError:
            remove_upload(source)
            return None
        etag = unquoted(answer.get("ETag")) or multipart_etag([part.etag for part in parts])
        if self._encryption.is_asked:
            write_upload(source, replace(upload, etag=etag))
        return etag

    def abandon(self, source: Path, key: str) -> None:
        """Abort what was begun for a file that is to be sent in another way."""
        upload = read_upload(source, bucket=self._client.bucket, key=key)
        if upload is not None and upload.is_running:
            self._abort(key, upload.upload_id)
            remove_upload(source)

    def _begun(self, source: Path, key: str) -> UploadState:
        """The upload of this file: remembered, else found in the store, else new."""
        upload = read_upload(source, bucket=self._client.bucket, key=key)
        if upload is not None and upload.is_running:
            return upload
        upload_id = self._adopted(key)
        if upload_id is None:
            answer = self._client.call("create_multipart_upload", Key=key, **self._headers)
            upload_id = answer.get("UploadId")
            try:
                self._encryption.check(key, answer)
            except EncryptionNotInForceError:
                self._abort(key, str(upload_id))
                raise
        if not isinstance(upload_id, str) or not upload_id:
            raise SinkUnavailableError(f"{key}: the store gave no upload id", reason="bad_answer")
        upload = UploadState(
            bucket=self._client.bucket,
            key=key,
            upload_id=upload_id,
            part_bytes=self._settings.multipart_chunksize,
        )
        write_upload(source, upload)
        return upload

    def _adopted(self, key: str) -> str | None:
        """An upload begun by a process that died before it could say so. Any further one is aborted.

        So is each whose encryption nobody can tell any more.
        """
        found = [
            (str(each.get("Initiated", "")), str(each["UploadId"]))
            for answer in self._client.pages("list_multipart_uploads", Prefix=key)
            for each in answer.get("Uploads", [])
            if each.get("Key") == key and each.get("UploadId")
        ]
        found.sort()
        adopted = None if self._encryption.is_asked or not found else found.pop()[1]
        for _, upload_id in found:
            self._abort(key, upload_id)
        return adopted

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self._client.call("abort_multipart_upload", Key=key, UploadId=upload_id)
        except ObjectMissingError:
            return  # it is no more

    def _complete_parts(
        self, source: Path, upload: UploadState, size_bytes: int
    ) -> tuple[list[Part], list[Mapping[str, object]]]:
        """All parts of the file, those sent that the store lacks or has otherwise; and as the store is told of them."""
        stored = self._stored_parts(upload)
        parts: list[Part] = []
        told: list[Mapping[str, object]] = []
        for number, (offset, length) in enumerate(split(size_bytes, upload.part_bytes), start=1):
            data = _content(source, offset, length)
            part = self._known_part(upload, number, data, stored.get(number))
            part = part or self._send(upload, number, data)
            parts.append(part)
            told.append({"PartNumber": number, "ETag": part.etag, **crc_check(self._settings, data)})
        return parts, told

    def _known_part(
        self, upload: UploadState, number: int, data: bytes, stored: tuple[str, int] | None
    ) -> Part | None:
        """The part as stored, if it is shown to be `data`: by its ETag, or by what was noted when it was sent."""
        if stored is None or stored[1] != len(data):
            return None
        part = Part(etag=stored[0], md5=md5_of(data), size_bytes=len(data))
        noted = upload.parts[number - 1] if number <= len(upload.parts) else None
        return part if part.etag == part.md5 or part == noted else None

    def _stored_parts(self, upload: UploadState) -> dict[int, tuple[str, int]]:
        return {
            int(each["PartNumber"]): (unquoted(each.get("ETag")), int(each.get("Size", -1)))
            for answer in self._client.pages("list_parts", Key=upload.key, UploadId=upload.upload_id)
            for each in answer.get("Parts", [])
        }

    def _send(self, upload: UploadState, number: int, data: bytes) -> Part:
        self._observer.parts_in_flight(change=1)
        try:
            answer = self._client.call(
                "upload_part",
                Key=upload.key,
                UploadId=upload.upload_id,
                PartNumber=number,
                Body=data,
                **body_checks(self._settings, data),
            )
        finally:
            self._observer.parts_in_flight(change=-1)
        etag = check_etag(upload.key, answer, data, is_opaque=self._encryption.is_opaque)
        self._observer.upload_sent(sent_bytes=len(data))
        return Part(etag=etag, md5=md5_of(data), size_bytes=len(data))


def check_etag(key: str, answer: Mapping[str, Any], data: bytes, *, is_opaque: bool) -> str:
    """The ETag of an answer, if it is that of `data`. `is_opaque`: the store's encryption makes it tell nothing."""
    etag = unquoted(answer.get("ETag"))
    if not etag or (not is_opaque and etag != md5_of(data)):
        raise SinkUnavailableError(f"{key}: the store's ETag is not that of what was sent", reason="checksum")
    return etag


def unquoted(etag: object) -> str:
    """An ETag without its quotes; empty for what is none."""
    return etag.strip('"') if isinstance(etag, str) else ""


def body_checks(settings: S3SinkSettings, data: bytes) -> dict[str, object]:
    """What a store is told to check a body by, besides its signed SHA-256: Content-MD5 (RFC 1864), and a CRC-32.

    boto3 would send the latter in a trailer, with nothing of the body signed, which older stores refuse.
    """
    checks = crc_check(settings, data)
    if checks:
        checks["ChecksumAlgorithm"] = "CRC32"
    return {"ContentMD5": base64.b64encode(bytes.fromhex(md5_of(data))).decode(), **checks}


def crc_check(settings: S3SinkSettings, data: bytes) -> dict[str, object]:
    """The checksum of S3's own, where the settings ask for it; it is told again when parts become an object."""
    if settings.request_checksum_calculation is not RequestChecksum.WHEN_SUPPORTED:
        return {}
    return {"ChecksumCRC32": base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()}


def _content(source: Path, offset: int, length: int) -> bytes:
    with source.open("rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise SinkUnavailableError(f"{source.name}: it became shorter while it was sent", reason="changed")
    return data
