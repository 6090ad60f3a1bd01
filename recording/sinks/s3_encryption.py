"""What a store encrypts our ciphertext with once more: asked for with each object, believed only as it answers.

The answers to PutObject and CreateMultipartUpload say what was applied, so that a role that may not read can tell.
Source: Amazon S3 API reference, PutObject, CreateMultipartUpload, x-amz-server-side-encryption in the response.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from recording.settings import S3SinkSettings, ServerSideEncryption
from recording.sinks.s3_client import S3Client
from recording.sinks.sink import EncryptionNotInForceError, ObjectMissingError


class S3Encryption:
    """Server-side encryption in one bucket. Any thread."""

    def __init__(self, client: S3Client, settings: S3SinkSettings) -> None:
        self._client = client
        self._wanted = settings.server_side_encryption
        self._key_id = settings.sse_kms_key_id
        self._is_in_force = False

    @property
    def is_asked(self) -> bool:
        return self._wanted is not None

    @property
    def is_opaque(self) -> bool:
        """Whether an ETag need not be the MD5 of what was sent."""
        return self._wanted is ServerSideEncryption.KMS

    @property
    def headers(self) -> dict[str, object]:
        """What asks for it."""
        asked = {
            "ServerSideEncryption": None if self._wanted is None else self._wanted.value,
            "SSEKMSKeyId": self._key_id,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def prove(self, headers: Mapping[str, object], key: str) -> None:
        """Know that the store obeys before it gets an object whole: by an upload in parts that is aborted at once.

        Asks once, and again after an answer that was not as asked. Raises as `check`.
        """
        if self._is_in_force or not self.is_asked:
            return
        answer = self._client.call("create_multipart_upload", Key=key, **headers)
        with contextlib.suppress(ObjectMissingError):  # it is no more
            self._client.call("abort_multipart_upload", Key=key, UploadId=answer.get("UploadId", ""))
        self.check(key, answer)

    def check(self, key: str, answer: Mapping[str, Any]) -> None:
        """Raise EncryptionNotInForceError unless the store's answer about an object says what was asked for."""
        if self._wanted is None:
            return
        kind, key_id = answer.get("ServerSideEncryption"), answer.get("SSEKMSKeyId")
        self._is_in_force = kind == self._wanted.value and self._is_key(key_id)
        if not self._is_in_force:
            under = "" if self._key_id is None else f" under {self._key_id}"
            said = (
                "nothing" if kind is None else f"{kind} under {key_id}" if key_id is not None else str(kind)
            )
            raise EncryptionNotInForceError(
                f"{key}: {self._wanted.value}{under} was asked for, and the store answers {said}; mend the store, or "
                "recording.sink.server_side_encryption"
            )

    def _is_key(self, told: object) -> bool:
        """A key is told by its ARN, however it was named; what an alias stands for cannot be told."""
        wanted = self._key_id
        if wanted is None or told == wanted:
            return True
        is_alias = "alias/" in wanted
        return isinstance(told, str) and (is_alias or (":" not in wanted and told.endswith(f":key/{wanted}")))
