"""What is known of an upload, kept in a file beside the spooled segment: ids and checksums of ciphertext.

Only the thread that uploads the segment writes it. It is a help, not a need: without it the parts are asked from the
store, and what cannot be shown to be the file's own content is sent again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

UPLOAD_EXTENSION: Final = ".upload"
_VERSION: Final = 1
_MAX_BYTES: Final = 4 << 20  # 10,000 parts take 1 MiB
_FILE_MODE: Final = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part that the store has taken. `md5`: hex, of what was sent; `etag`: the store's name for it, unquoted."""

    etag: str
    md5: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadState:
    """An upload that was begun. All parts but the last have `part_bytes`.

    `upload_id` is empty where the object went in one request. `etag`: the store's name for the object it has become,
    unquoted; empty until then.
    """

    bucket: str
    key: str
    upload_id: str
    part_bytes: int
    parts: tuple[Part, ...] = ()
    etag: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it is one in parts that has not become an object, as far as is known."""
        return not self.etag

    def with_part(self, part: Part) -> UploadState:
        return replace(self, parts=(*self.parts, part))

    def build(self) -> bytes:
        document = {
            "v": _VERSION,
            "bucket": self.bucket,
            "key": self.key,
            "upload_id": self.upload_id,
            "part_bytes": self.part_bytes,
            "parts": [[part.etag, part.md5, part.size_bytes] for part in self.parts],
            "etag": self.etag,
        }
        return json.dumps(document).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises ValueError for anything that `build` did not write."""
        try:
            found = json.loads(data)
            if found["v"] != _VERSION:
                raise ValueError("an upload state of another version")
            state = cls(
                bucket=str(found["bucket"]),
                key=str(found["key"]),
                upload_id=str(found["upload_id"]),
                part_bytes=_whole(found["part_bytes"]),
                parts=tuple(
                    Part(etag=str(etag), md5=str(md5), size_bytes=_whole(size))
                    for etag, md5, size in found["parts"]
                ),
                etag=str(found.get("etag", "")),
            )
        except (TypeError, LookupError, RecursionError) as error:
            raise ValueError("not an upload state") from error
        if state.part_bytes <= 0 or not (state.upload_id or state.etag):
            raise ValueError("an upload state that cannot be")
        return state


def upload_path(source: Path) -> Path:
    """Where the state of a spooled segment's upload lies."""
    return source.with_suffix(UPLOAD_EXTENSION)


def read_upload(source: Path, *, bucket: str, key: str) -> UploadState | None:
    """What is known of the upload to that place; None where nothing is, or nothing that can be understood."""
    with contextlib.suppress(OSError, ValueError):
        with upload_path(source).open("rb") as file:
            state = UploadState.parse(file.read(_MAX_BYTES))
        if (state.bucket, state.key) == (bucket, key):
            return state
    return None


def write_upload(source: Path, state: UploadState) -> None:
    """Replace the file; durable on return. Raises OSError; the former one is there then."""
    path = upload_path(source)
    temporary = _temporary(source)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            file.write(state.build())
            file.flush()
            os.fsync(fd)
        temporary.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def remove_upload(source: Path) -> None:
    """Forget the upload of a segment. Raises OSError."""
    _temporary(source).unlink(missing_ok=True)
    upload_path(source).unlink(missing_ok=True)


def split(size_bytes: int, part_bytes: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each part of a file."""
    for offset in range(0, size_bytes, part_bytes):
        yield offset, min(part_bytes, size_bytes - offset)


def md5_of(data: bytes) -> str:
    """Hex MD5: S3's own name for content that arrived whole. It guards against damage, not against an attacker."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def multipart_etag(md5s: list[str]) -> str:
    """The store's name for an object of such parts, where it does not encrypt with KMS."""
    whole = hashlib.md5(b"".join(map(bytes.fromhex, md5s)), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(md5s)}"


def _temporary(source: Path) -> Path:
    return upload_path(source).with_suffix(f"{UPLOAD_EXTENSION}.tmp")


def _whole(value: object) -> int:
    """A number as `build` writes it; JSON also has infinities."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("not a size")
    return value
