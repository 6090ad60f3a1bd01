"""An object of a bucket as a file: ranges are asked for as they are read, with some read ahead."""

from __future__ import annotations

import io
import os
import time
from typing import Any, BinaryIO, Final, cast

from recording.sinks.s3_client import EXISTS, S3Client
from recording.sinks.sink import ObjectConflictError, SinkUnavailableError

READ_AHEAD_BYTES: Final = 1 << 20  # what a reader holds; one request at 64 records of 16 KiB
RANGE_MAX_BYTES: Final = 4 << 20  # below the longest answer that the transport takes
_PAUSES_S: Final = (0.2, 1.0)


def open_object(client: S3Client, key: str) -> BinaryIO:
    """The object for reading, seekable. Holds `READ_AHEAD_BYTES`, whatever its size. Raises SinkError.

    Reading raises SinkError too: ObjectConflictError if the object was replaced meanwhile.
    """
    head = client.call("head_object", Key=key)
    size, etag = head.get("ContentLength"), head.get("ETag")
    if not isinstance(size, int) or not isinstance(etag, str) or not etag:
        raise SinkUnavailableError(f"{key}: the store tells neither size nor ETag", reason="bad_answer")
    raw = _S3Raw(client, key, size=size, etag=etag)
    return cast(BinaryIO, io.BufferedReader(raw, buffer_size=READ_AHEAD_BYTES))


class _S3Raw(io.RawIOBase):
    """The unbuffered file: each read is one ranged request about the version that was opened."""

    def __init__(self, client: S3Client, key: str, *, size: int, etag: str) -> None:
        super().__init__()
        self._client = client
        self._key = key
        self._size = size
        self._etag = etag
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), RANGE_MAX_BYTES, self._size - self._at)
        if length <= 0:
            return 0
        content = self._range(self._at, length)
        view[:length] = content
        self._at += length
        return length

    def readall(self) -> bytes:
        """The rest, in as few requests as may be; the caller asked to hold all of it."""
        content = bytearray()
        while (length := min(RANGE_MAX_BYTES, self._size - self._at)) > 0:
            content += self._range(self._at, length)
            self._at += length
        return bytes(content)

    def _range(self, start: int, length: int) -> bytes:
        for pause_s in _PAUSES_S:
            try:
                return self._ask(start, length)
            except SinkUnavailableError:
                time.sleep(pause_s)
        return self._ask(start, length)

    def _ask(self, start: int, length: int) -> bytes:
        try:
            answer = self._client.call(
                "get_object", Key=self._key, Range=f"bytes={start}-{start + length - 1}", IfMatch=self._etag
            )
        except ObjectConflictError as error:
            if error.reason_label != EXISTS:
                raise
            raise ObjectConflictError(f"{self._key} was replaced while it was read") from error
        content: bytes = answer["Body"].read()
        if len(content) != length:
            raise SinkUnavailableError(
                f"{self._key}: {length} bytes were asked for, {len(content)} came", reason="bad_answer"
            )
        return content
