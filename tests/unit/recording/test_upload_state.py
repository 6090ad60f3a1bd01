"""The note about an upload in parts: whole or none, of its own place only, and no more than ids and checksums."""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from recording.sinks.upload_state import (
    Part,
    UploadState,
    md5_of,
    multipart_etag,
    read_upload,
    remove_upload,
    split,
    upload_path,
    write_upload,
)

STATE = UploadState(
    bucket="recordings",
    key="tenant/2026/03/file.crec",
    upload_id="2~x",
    part_bytes=5 << 20,
    parts=(Part(etag="e1", md5="m1", size_bytes=5 << 20), Part(etag="e2", md5="m2", size_bytes=5 << 20)),
)


def read(source: Path) -> UploadState | None:
    return read_upload(source, bucket=STATE.bucket, key=STATE.key)


def test_what_is_written_is_read_and_what_is_removed_is_gone(tmp_path: Path) -> None:
    source = tmp_path / "file.crec"
    assert read(source) is None
    write_upload(source, STATE)
    assert read(source) == STATE
    assert stat.S_IMODE(upload_path(source).stat().st_mode) == 0o600
    more = replace(STATE, parts=(*STATE.parts, Part(etag="e3", md5="m3", size_bytes=1)))
    write_upload(source, more)
    assert read(source) == more
    (tmp_path / "file.upload.tmp").write_bytes(b"left by a process that was killed")
    remove_upload(source)
    assert list(tmp_path.iterdir()) == []
    remove_upload(source)


def test_a_note_about_another_place_is_none(tmp_path: Path) -> None:
    source = tmp_path / "file.crec"
    write_upload(source, STATE)
    assert read_upload(source, bucket="other", key=STATE.key) is None
    assert read_upload(source, bucket=STATE.bucket, key="other") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"\xff",
        b"[" * 20_000,
        json.dumps({"v": 1}).encode(),
        STATE.build().replace(b'"v": 1', b'"v": 2'),
        STATE.build().replace(b'"upload_id": "2~x"', b'"upload_id": ""'),
        STATE.build().replace(b'"part_bytes": 5242880', b'"part_bytes": 0'),
        STATE.build().replace(b'["e1", "m1", 5242880]', b'["e1", "m1"]'),
        STATE.build().replace(b'["e1", "m1", 5242880]', b"7"),
        STATE.build()[:-1],
    ],
)
def test_what_cannot_be_understood_is_none(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "file.crec"
    upload_path(source).write_bytes(content)
    assert read(source) is None
    upload_path(source).write_bytes(STATE.build())
    assert read(source) == STATE


def test_a_file_is_split_without_gap_or_overlap() -> None:
    assert list(split(0, 5)) == []
    assert list(split(5, 5)) == [(0, 5)]
    assert list(split(11, 5)) == [(0, 5), (5, 5), (10, 1)]


def test_etags_are_those_of_the_store() -> None:
    parts = [b"a" * 10, b"b"]
    digests = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in parts)
    expected = hashlib.md5(digests, usedforsecurity=False).hexdigest() + "-2"
    assert multipart_etag([md5_of(part) for part in parts]) == expected
