"""A real bucket that refuses, cuts off or hangs: one typed error each, and the file stays whole."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import time
import zlib
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.auth
import pytest

from recording.settings import (
    PART_MIN_BYTES,
    RequestChecksum,
)
from recording.sinks import https as store_https
from recording.sinks import s3_multipart
from recording.sinks.https import StoreAnswer
from recording.sinks.s3 import S3Sink
from recording.sinks.sink import (
    ObjectConflictError,
    SinkRefusedError,
    SinkUnavailableError,
)
from recording.sinks.upload_state import md5_of, read_upload, upload_path
from support.kms import MotoKMS
from support.observers import ListeningObserver
from support.rgw import LOCKED_BUCKET, RGW, Credentials
from support.s3 import moto_settings, rgw_settings
from support.store_faults import CONTENT, NAME, fails


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME.file_id.hex()}.crec"
    path.write_bytes(CONTENT)
    return path


def test_wrong_credentials(rgw: RGW, tmp_path: Path, source: Path) -> None:
    for number, credentials in enumerate(
        (
            Credentials(access_key="NOBODY", secret_key="x"),
            Credentials(access_key=rgw.owner.access_key, secret_key="x"),
        )
    ):
        sink = S3Sink(rgw_settings(rgw, tmp_path / str(number), credentials=credentials))
        error = fails(sink, source, SinkRefusedError, "credentials")
        assert credentials.secret_key not in str(error).split()
    S3Sink(rgw_settings(rgw, tmp_path)).put(source, NAME)


def test_no_credentials_at_all(
    rgw: RGW, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    settings = replace(rgw_settings(rgw, tmp_path), credentials_path=None)
    fails(S3Sink(settings), source, SinkRefusedError, "credentials")
    for name, value in rgw.owner.environment.items():
        monkeypatch.setenv(name, value)
    assert S3Sink(settings).put(source, NAME) == len(CONTENT)


def test_denied_rights(rgw: RGW, tmp_path: Path, source: Path) -> None:
    sink = S3Sink(rgw_settings(rgw, tmp_path, credentials=rgw.uploader))
    fails(sink, source, SinkRefusedError, "denied")
    with pytest.raises(SinkRefusedError):
        sink.health()


def test_a_bucket_that_is_missing(rgw: RGW, tmp_path: Path, source: Path) -> None:
    fails(S3Sink(rgw_settings(rgw, tmp_path, bucket="no-such-bucket")), source, SinkRefusedError, "bucket")


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_wrong(
    rgw: RGW, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    sink = S3Sink(rgw_settings(rgw, tmp_path))
    right = botocore.auth.get_current_datetime

    def wrong(*arguments: Any, **named: Any) -> datetime:
        return right(*arguments, **named) + timedelta(hours=hours)

    with monkeypatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", wrong)
        error = fails(sink, source, SinkRefusedError, "clock_skew")
        assert "clock" in str(error)
    assert sink.put(source, NAME) == len(CONTENT)


@pytest.mark.parametrize("size", [1000, PART_MIN_BYTES + 1000])
def test_bytes_that_change_on_the_way_are_refused_by_the_store(
    rgw: RGW, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    source.write_bytes(os.urandom(size))
    sink = S3Sink(rgw_settings(rgw, tmp_path))
    send = store_https.StoreTransport.send

    def damaged(transport: Any, method: str, url: str, *, headers: Any, body: bytes) -> StoreAnswer:
        if method == "PUT" and len(body) >= 1000:
            body = body[:500] + bytes([body[500] ^ 1]) + body[501:]
        return send(transport, method, url, headers=headers, body=body)

    with monkeypatch.context() as patch:
        patch.setattr(store_https.StoreTransport, "send", damaged)
        fails(sink, source, SinkUnavailableError, "checksum")
        assert sink.size(NAME.key) is None
    assert sink.put(source, NAME) == size


def test_a_store_that_hangs(rgw: RGW, tmp_path: Path, source: Path) -> None:
    sink = S3Sink(rgw_settings(rgw, tmp_path, timeout_s=2))  # a busy store must make it afterwards
    sink.health()
    with rgw.gateway_stopped():
        begun = time.monotonic()
        fails(sink, source, SinkUnavailableError, "timeout")
        assert time.monotonic() - begun < 10
    assert sink.put(source, NAME) == len(CONTENT)


@pytest.mark.parametrize("has_note", [True, False])
def test_an_upload_that_a_lifecycle_rule_ended_is_sent_again(
    rgw: RGW, tmp_path: Path, source: Path, has_note: bool
) -> None:
    content = os.urandom(2 * PART_MIN_BYTES + 5)
    source.write_bytes(content)
    settings = rgw_settings(rgw, tmp_path)
    sink = S3Sink(settings)
    sink.advance(source, NAME, 2 * PART_MIN_BYTES)
    note = read_upload(source, bucket=LOCKED_BUCKET, key=settings.prefix + NAME.key)
    assert note is not None
    assert [part.size_bytes for part in note.parts] == [PART_MIN_BYTES] * 2
    rgw.client(rgw.owner).abort_multipart_upload(Bucket=LOCKED_BUCKET, Key=note.key, UploadId=note.upload_id)
    if not has_note:
        upload_path(source).unlink()
    assert sink.put(source, NAME) == len(content)
    with sink.open(NAME.key) as file:
        assert file.read() == content


def test_parts_that_are_not_the_files_own_are_sent_again(rgw: RGW, tmp_path: Path, source: Path) -> None:
    content = os.urandom(3 * PART_MIN_BYTES)
    source.write_bytes(content)
    observer = ListeningObserver()
    sink = S3Sink(rgw_settings(rgw, tmp_path), observer=observer)
    sink.advance(source, NAME, len(content))
    changed = content[:PART_MIN_BYTES] + bytes(PART_MIN_BYTES) + content[2 * PART_MIN_BYTES :]
    source.write_bytes(changed)
    assert sink.put(source, NAME) == len(content)
    assert observer.sent_bytes == 4 * PART_MIN_BYTES, "one part was sent again, the others were not"
    with sink.open(NAME.key) as file:
        assert file.read() == changed


def test_a_file_that_became_shorter_than_its_parts(rgw: RGW, tmp_path: Path, source: Path) -> None:
    content = os.urandom(2 * PART_MIN_BYTES)
    source.write_bytes(content)
    settings = rgw_settings(rgw, tmp_path)
    sink = S3Sink(settings)
    sink.advance(source, NAME, len(content))
    for size in (PART_MIN_BYTES + 1, 7, 0):
        source.write_bytes(content[:size])
        assert sink.put(source, NAME) == size
        with sink.open(NAME.key) as file:
            assert file.read() == content[:size]
        sink.delete(NAME.key)
        assert "Uploads" not in rgw.client(rgw.owner).list_multipart_uploads(
            Bucket=LOCKED_BUCKET, Prefix=settings.prefix
        )
        source.write_bytes(content)
        sink.advance(source, NAME, len(content))


def test_an_object_replaced_while_it_is_read_is_not_read_on(rgw: RGW, tmp_path: Path, source: Path) -> None:
    settings = rgw_settings(rgw, tmp_path)
    source.write_bytes(os.urandom(3 << 20))
    sink = S3Sink(settings)
    sink.put(source, NAME)
    with sink.open(NAME.key) as file:
        file.read(10)
        rgw.client(rgw.owner).put_object(
            Bucket=LOCKED_BUCKET, Key=settings.prefix + NAME.key, Body=bytes(3 << 20)
        )
        with pytest.raises(ObjectConflictError, match="replaced"):
            file.read()
    fails(sink, source, ObjectConflictError, "conflict")


def test_a_full_disk_under_the_note_of_an_upload(
    rgw: RGW, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.write_bytes(os.urandom(PART_MIN_BYTES + 1))
    settings = rgw_settings(rgw, tmp_path)
    sink = S3Sink(settings)

    def full(source: Path, state: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))

    with monkeypatch.context() as patch:
        patch.setattr(s3_multipart, "write_upload", full)
        fails(sink, source, SinkUnavailableError, "spool_disk")
    assert sink.put(source, NAME) == PART_MIN_BYTES + 1
    uploads = rgw.client(rgw.owner).list_multipart_uploads(Bucket=LOCKED_BUCKET, Prefix=settings.prefix)
    assert "Uploads" not in uploads, "the one that could not be noted was found and taken up"


@pytest.mark.parametrize("size", [1000, PART_MIN_BYTES + 1000])
@pytest.mark.parametrize("asked", RequestChecksum)
def test_a_checksum_of_s3s_own_goes_along_where_it_is_asked_for_and_our_own_always(
    rgw: RGW,
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: RequestChecksum,
    size: int,
) -> None:
    """A store that does not know it, as this one, takes no offence."""
    source.write_bytes(os.urandom(size))
    send, sent = store_https.StoreTransport.send, []
    told: list[bytes] = []

    def watched(transport: Any, method: str, url: str, *, headers: Any, body: bytes) -> StoreAnswer:
        if method == "POST":
            told.append(body)
        if method == "PUT" and "retention" not in url:
            sent.append(({name.lower(): value for name, value in headers.items()}, body))
        return send(transport, method, url, headers=headers, body=body)

    monkeypatch.setattr(store_https.StoreTransport, "send", watched)
    sink = S3Sink(rgw_settings(rgw, tmp_path, request_checksum_calculation=asked))
    assert sink.put(source, NAME) == size
    assert len(sent) == (1 if size == 1000 else 2)
    for headers, body in sent:
        assert headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
        assert base64.b64decode(headers["content-md5"]).hex() == md5_of(body)
        crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
        assert headers.get("x-amz-checksum-crc32") == (
            crc if asked is RequestChecksum.WHEN_SUPPORTED else None
        )
        if told:
            assert (crc in told[-1].decode()) is (asked is RequestChecksum.WHEN_SUPPORTED), "of each part"


def test_a_store_that_knows_s3s_own_checksum_keeps_it_with_the_object(
    moto_s3: MotoKMS, tmp_path: Path, source: Path
) -> None:
    settings = replace(
        moto_settings(moto_s3, tmp_path), request_checksum_calculation=RequestChecksum.WHEN_SUPPORTED
    )
    sink = S3Sink(settings)
    assert sink.put(source, NAME) == len(CONTENT)
    kept = sink._client.call("head_object", Key=settings.prefix + NAME.key, ChecksumMode="ENABLED")
    assert kept["ChecksumCRC32"] == base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("if_none_match", [True, False])
def test_a_precondition_is_a_setting(
    rgw: RGW, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, if_none_match: bool
) -> None:
    """A store that does not know it may refuse it; without it what is there is found by looking first."""
    send, conditions = store_https.StoreTransport.send, []

    def watched(transport: Any, method: str, url: str, *, headers: Any, body: bytes) -> StoreAnswer:
        if method == "PUT":
            conditions.append(headers.get("If-None-Match"))
        return send(transport, method, url, headers=headers, body=body)

    monkeypatch.setattr(store_https.StoreTransport, "send", watched)
    sink = S3Sink(rgw_settings(rgw, tmp_path, locked=False, if_none_match=if_none_match))
    assert sink.put(source, NAME) == len(CONTENT)
    assert conditions == ["*" if if_none_match else None]
    source.write_bytes(CONTENT[::-1])
    fails(sink, source, ObjectConflictError, "conflict")
