"""A bucket that refuses, a store that lies, cuts off or hangs: one typed error each, and the file stays whole."""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import os
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.auth
import pytest

from recording.settings import (
    PART_MIN_BYTES,
    RequestChecksum,
    S3SinkSettings,
    ServerSideEncryption,
    TLSFloor,
)
from recording.sinks import https as store_https
from recording.sinks import s3_multipart
from recording.sinks.https import ANSWER_MAX_BYTES, StoreAnswer
from recording.sinks.s3 import S3Sink
from recording.sinks.sink import (
    EncryptionNotInForceError,
    LockMode,
    LockNotInForceError,
    ObjectConflictError,
    ObjectName,
    SinkError,
    SinkRefusedError,
    SinkUnavailableError,
)
from recording.sinks.upload_state import md5_of, read_upload, upload_path
from support.kms import MotoKMS, ServerFiles, issue_server_files
from support.observers import ListeningObserver
from support.rgw import LOCKED_BUCKET, REGION, RGW, Credentials
from support.s3 import credentials_file, moto_settings, rgw_settings
from support.wire_store import Asked, Said, WireStore, refusal, said, wire_store

NAME = ObjectName(tenant_handle=b"T" * 16, file_id=b"F" * 16, started_hour=datetime.now(UTC))
CONTENT = b"ciphertext" * 100
EMPTY_LIST = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME.file_id.hex()}.crec"
    path.write_bytes(CONTENT)
    return path


def fails(sink: S3Sink, source: Path, kind: type[SinkError], reason: str) -> SinkError:
    """`put` fails so, and the file is still there, whole."""
    content = source.read_bytes()
    with pytest.raises(SinkError) as caught:
        sink.put(source, NAME)
    assert (type(caught.value), caught.value.reason_label) == (kind, reason), caught.value
    assert source.read_bytes() == content
    return caught.value


# ---- a real store ----------------------------------------------------------------------------------------------


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


# ---- a store that says what it is told -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ServerFiles:
    return issue_server_files(tmp_path_factory.mktemp("store"))


@pytest.fixture
def store(files: ServerFiles) -> Iterator[WireStore]:
    with wire_store(files, lambda asked: said(EMPTY_LIST)) as made:
        yield made


def wire_settings(url: str, files: ServerFiles, directory: Path, **changes: Any) -> S3SinkSettings:
    settings = S3SinkSettings(
        bucket="bucket",
        region=REGION,
        endpoint_url=url,
        ca_path=files.ca_path,
        credentials_path=credentials_file(
            directory / "credentials", Credentials(access_key="AKTEST", secret_key="x")
        ),
        timeout_s=1.0,
    )
    return replace(settings, **changes)


def listed(key: str, size: int, etag: str) -> bytes:
    return (
        f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>{key}</Key><Size>{size}</Size>"
        f'<ETag>"{etag}"</ETag></Contents></ListBucketResult>'
    ).encode()


class Script:
    """A store that keeps one object and lets a test replace single answers."""

    def __init__(self, **answers: Callable[[Asked], Said]) -> None:
        self.answers = answers
        self.stored: bytes | None = None

    def __call__(self, asked: Asked) -> Said:
        kind = (
            "retention"
            if "retention" in asked.target
            else "hold"
            if "legal-hold" in asked.target
            else "object"
        )
        name = f"{asked.method.lower()}_{'list' if 'list-type' in asked.target else kind}"
        if name in self.answers:
            return self.answers[name](asked)
        if name == "put_object":
            self.stored = asked.body
            return said(headers={"ETag": f'"{md5_of(asked.body)}"'})
        if name == "get_list":
            if self.stored is None:
                return said(EMPTY_LIST)
            return said(listed(NAME.key, len(self.stored), md5_of(self.stored)))
        if name.startswith("put_"):
            return said()
        return refusal("NoSuchObjectLockConfiguration", 404)


def test_the_script_is_a_store(store: WireStore, files: ServerFiles, tmp_path: Path, source: Path) -> None:
    store.answer = Script()
    assert S3Sink(wire_settings(store.url, files, tmp_path)).put(source, NAME) == len(CONTENT)
    assert [asked.method for asked in store.asked] == ["GET", "PUT", "GET"]


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (Said(raw=b""), SinkUnavailableError, "unreachable"),
        (Said(raw=b"HTTP/1.1 200"), SinkUnavailableError, "bad_answer"),
        (said(), SinkUnavailableError, "bad_answer"),
        (said(b"<ListBucketResult></ListBucketResult>"), SinkUnavailableError, "bad_answer"),
        (Said(raw=b"\x00\x01\x02\r\n\r\n"), SinkUnavailableError, "unreachable"),
        (said(b"<List", length=1000), SinkUnavailableError, "unreachable"),
        (said(b"<ListBucketResult><Contents>"), SinkUnavailableError, "unavailable"),
        (said(b"not XML"), SinkUnavailableError, "unavailable"),
        (said(b"\xff\xfe\x00"), SinkUnavailableError, "unavailable"),
        (said(b"<a>" * 5000), SinkUnavailableError, "unavailable"),
        (said(b" " * (ANSWER_MAX_BYTES + 1)), SinkUnavailableError, "bad_answer"),
        (refusal("SlowDown", 503), SinkUnavailableError, "throttled"),
        (refusal("InternalError", 500), SinkUnavailableError, "unavailable"),
        (refusal("QuotaExceeded", 403), SinkUnavailableError, "quota"),
        (refusal("SomethingNew", 502), SinkUnavailableError, "unavailable"),
        (refusal("SomethingNew", 400), SinkRefusedError, "refused"),
        (refusal("ExpiredToken", 400), SinkRefusedError, "credentials"),
        (refusal("<script>", 403), SinkRefusedError, "denied"),
        (said(status=301, headers={"Location": "https://elsewhere.example.test/"}), SinkRefusedError, "bucket"),
    ],
)  # fmt: skip
def test_answers_that_are_none(
    store: WireStore,
    files: ServerFiles,
    tmp_path: Path,
    source: Path,
    answer: Said,
    kind: type[SinkError],
    reason: str,
) -> None:
    store.answer = lambda asked: answer
    error = fails(S3Sink(wire_settings(store.url, files, tmp_path)), source, kind, reason)
    assert "script" not in str(error)


def test_an_answer_that_never_ends(
    store: WireStore, files: ServerFiles, tmp_path: Path, source: Path
) -> None:
    ended = threading.Event()
    store.answer = lambda asked: replace(said(b"<List", length=1000), hold=ended)
    try:
        fails(S3Sink(wire_settings(store.url, files, tmp_path)), source, SinkUnavailableError, "timeout")
    finally:
        ended.set()


@pytest.mark.parametrize("etag", ["", '"d41d8cd98f00b204e9800998ecf8427e"', '"x-1"'])
def test_an_etag_of_other_bytes(
    store: WireStore, files: ServerFiles, tmp_path: Path, source: Path, etag: str
) -> None:
    store.answer = Script(put_object=lambda asked: said(headers={"ETag": etag}))
    fails(S3Sink(wire_settings(store.url, files, tmp_path)), source, SinkUnavailableError, "checksum")


def test_a_store_that_takes_an_object_and_does_not_list_it(
    store: WireStore, files: ServerFiles, tmp_path: Path, source: Path
) -> None:
    store.answer = Script(get_list=lambda asked: said(EMPTY_LIST))
    fails(S3Sink(wire_settings(store.url, files, tmp_path)), source, SinkUnavailableError, "not_listed")


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1, 0])
def test_an_object_of_another_size(
    store: WireStore, files: ServerFiles, tmp_path: Path, source: Path, size: int
) -> None:
    store.answer = Script(get_list=lambda asked: said(listed(NAME.key, size, md5_of(CONTENT))))
    fails(S3Sink(wire_settings(store.url, files, tmp_path)), source, ObjectConflictError, "conflict")


def test_what_cannot_be_proven_is_not_taken_for_stored(
    store: WireStore, files: ServerFiles, tmp_path: Path, source: Path
) -> None:
    """An ETag under KMS says nothing of the content, and a role that only writes cannot read it back."""
    script = Script(
        get_list=lambda asked: said(listed(NAME.key, len(CONTENT), "0" * 32)),
        head_object=lambda asked: said(status=403),
    )
    store.answer = script
    error = fails(S3Sink(wire_settings(store.url, files, tmp_path)), source, SinkRefusedError, "unproven")
    assert "recordings recover" in str(error)


KMS_HEADERS = {"x-amz-server-side-encryption": "aws:kms"}
ARN = "arn:aws:kms:eu-central-1:111122223333:key/99999999-9999-4999-8999-999999999999"


def opaque(store: Script, key_id: str = ARN) -> Script:
    """A store whose ETags under KMS are no MD5, as S3 itself is, and that lets nobody read."""
    told = {**KMS_HEADERS, "x-amz-server-side-encryption-aws-kms-key-id": key_id}

    def put(asked: Asked) -> Said:
        store.stored = asked.body
        return said(headers={"ETag": f'"{"0" * 32}"', **told})

    store.answers |= {
        "put_object": put,
        "head_object": lambda asked: said(status=403),
        "post_object": lambda asked: said(
            b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
            headers=told,
        ),
        "delete_object": lambda asked: said(status=204),
        "get_list": lambda asked: said(
            EMPTY_LIST if store.stored is None else listed(NAME.key, len(store.stored), "0" * 32)
        ),
    }
    return store


@pytest.mark.parametrize(
    ("key_id", "told", "is_it"),
    [
        (ARN, ARN, True),
        (ARN.rpartition("/")[2], ARN, True),
        ("alias/store", ARN, True),
        (None, ARN, True),
        (ARN, ARN.replace("9999-4", "8888-4"), False),
        (ARN.rpartition("/")[2], ARN.replace("9999-4", "8888-4"), False),
    ],
)
def test_under_kms_the_stores_answer_shows_what_was_stored_and_by_which_key(
    store: WireStore,
    files: ServerFiles,
    tmp_path: Path,
    source: Path,
    key_id: str | None,
    told: str,
    is_it: bool,
) -> None:
    """The recorder's role cannot read; a key is told by its ARN however it was named."""
    store.answer = opaque(Script(), told)
    settings = wire_settings(
        store.url, files, tmp_path, server_side_encryption=ServerSideEncryption.KMS, sse_kms_key_id=key_id
    )
    if not is_it:
        fails(S3Sink(settings), source, EncryptionNotInForceError, "encryption_not_in_force")
        assert [asked.method for asked in store.asked] == ["GET", "POST", "DELETE"], "nothing was stored"
        return
    assert S3Sink(settings).put(source, NAME) == len(CONTENT)
    store.asked.clear()
    assert S3Sink(settings).put(source, NAME) == len(CONTENT), "after a crash the note shows it"
    assert [asked.method for asked in store.asked] == ["GET"]


@pytest.mark.parametrize("headers", [{}, {"x-amz-server-side-encryption": "AES256"}])
def test_an_encryption_that_ends_while_it_is_in_use_is_found_out(
    store: WireStore, files: ServerFiles, tmp_path: Path, source: Path, headers: dict[str, str]
) -> None:
    script = opaque(Script())
    script.answers["put_object"] = lambda asked: said(headers={"ETag": f'"{md5_of(asked.body)}"', **headers})
    store.answer = script
    settings = wire_settings(store.url, files, tmp_path, server_side_encryption=ServerSideEncryption.KMS)
    fails(S3Sink(settings), source, EncryptionNotInForceError, "encryption_not_in_force")
    assert not upload_path(source).exists(), "no note calls it proven"


RETAINED = (
    "<Retention><Mode>{mode}</Mode><RetainUntilDate>{until:%Y-%m-%dT%H:%M:%SZ}</RetainUntilDate></Retention>"
)


@pytest.mark.parametrize(
    ("mode", "days", "is_kept"),
    [
        (None, 0, False),
        ("GOVERNANCE", 1, False),
        ("GOVERNANCE", 40, False),
        ("COMPLIANCE", 1, False),
        ("NONSENSE", 40, False),
        ("COMPLIANCE", 40, True),
    ],
)
def test_a_store_that_ignores_object_lock_is_found_out(
    store: WireStore,
    files: ServerFiles,
    tmp_path: Path,
    source: Path,
    mode: str | None,
    days: int,
    is_kept: bool,
) -> None:
    """It takes every order; what it reads back decides."""

    def retention(asked: Asked) -> Said:
        if mode is None:
            return refusal("NoSuchObjectLockConfiguration", 404)
        return said(RETAINED.format(mode=mode, until=datetime.now(UTC) + timedelta(days=days)).encode())

    store.answer = Script(get_retention=retention)
    settings = wire_settings(
        store.url, files, tmp_path, object_lock_mode=LockMode.COMPLIANCE, object_lock_days=30
    )
    if is_kept:
        assert S3Sink(settings).put(source, NAME) == len(CONTENT)
        return
    with pytest.raises(LockNotInForceError if mode != "NONSENSE" else SinkUnavailableError):
        S3Sink(settings).put(source, NAME)
    assert source.read_bytes() == CONTENT, "the spool keeps the file"


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("put", ["manifest", "slots"])
def test_a_lock_on_what_lies_beside_an_object_is_read_back_too(
    store: WireStore, files: ServerFiles, tmp_path: Path, put: str, is_kept: bool
) -> None:
    kept = RETAINED.format(mode="GOVERNANCE", until=datetime.now(UTC) + timedelta(days=40)).encode()

    def retention(asked: Asked) -> Said:
        is_ignored = f".{put}" in asked.target and not is_kept
        return refusal("NoSuchObjectLockConfiguration", 404) if is_ignored else said(kept)

    def listing(asked: Asked) -> Said:
        (key,) = parse_qs(urlsplit(asked.target).query)["prefix"]
        return said(listed(key, 4, md5_of(b"data"))) if script.stored else said(EMPTY_LIST)

    script = Script(get_retention=retention, get_list=listing)
    store.answer = script
    sink = S3Sink(wire_settings(store.url, files, tmp_path, object_lock_mode=LockMode.GOVERNANCE))

    def attempt() -> None:
        if put == "manifest":
            sink.put_manifest(NAME.key, b"data")
        else:
            sink.put_slots(NAME.key, 1, b"data")

    if is_kept:
        attempt()
        return
    with pytest.raises(LockNotInForceError):
        attempt()


def test_a_deletion_is_not_proven_by_an_answer_that_says_nothing(
    store: WireStore, files: ServerFiles, tmp_path: Path
) -> None:
    sink = S3Sink(wire_settings(store.url, files, tmp_path))
    none = b"<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>"
    store.answer = lambda asked: said(EMPTY_LIST if "list-type" in asked.target else none)
    sink.delete(NAME.key)
    store.answer = lambda asked: said(EMPTY_LIST if "list-type" in asked.target else b"")
    with pytest.raises(SinkUnavailableError):
        sink.delete(NAME.key)
    version = f"<Version><Key>{NAME.key}</Key><VersionId>v</VersionId></Version>".encode()
    kept = none.replace(b"</ListVersions", version + b"</ListVersions")
    store.answer = lambda asked: said(kept)
    with pytest.raises(SinkUnavailableError) as caught:
        sink.delete(NAME.key)
    assert caught.value.reason_label == "not_deleted"


def test_complete_that_fails_within_a_200(
    store: WireStore, files: ServerFiles, tmp_path: Path, source: Path
) -> None:
    source.write_bytes(os.urandom(PART_MIN_BYTES + 1))

    def answer(asked: Asked) -> Said:
        if asked.method == "POST" and "uploadId" in asked.target:
            return said(b"<Error><Code>InternalError</Code><Message>no</Message></Error>")
        if asked.method == "POST":
            return said(
                b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
            )
        if asked.method == "PUT":
            return said(headers={"ETag": f'"{md5_of(asked.body)}"'})
        if "uploadId" in asked.target:
            return said(b"<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>")
        return said(EMPTY_LIST)

    store.answer = answer
    settings = wire_settings(store.url, files, tmp_path, multipart_chunksize=PART_MIN_BYTES)
    fails(S3Sink(settings), source, SinkUnavailableError, "unavailable")


# ---- TLS -------------------------------------------------------------------------------------------------------


def test_the_floor_is_tls_1_3_unless_somebody_wrote_down_1_2(
    files: ServerFiles, tmp_path: Path, source: Path
) -> None:
    with wire_store(files, Script(), maximum_version=ssl.TLSVersion.TLSv1_2) as old:
        settings = wire_settings(old.url, files, tmp_path)
        fails(S3Sink(settings), source, SinkUnavailableError, "tls")
        assert old.asked == []
        excepted = S3Sink(replace(settings, tls_floor=TLSFloor.TLS_1_2))
        assert excepted.put(source, NAME) == len(CONTENT)
        assert excepted.describe()["tls_negotiated"] == "TLSv1.2: 3", "counted"


def test_a_certificate_of_another_authority_or_name(
    store: WireStore, files: ServerFiles, tmp_path: Path, source: Path
) -> None:
    other = issue_server_files(tmp_path / "other")
    fails(S3Sink(wire_settings(store.url, other, tmp_path)), source, SinkUnavailableError, "tls")
    name = store.url.replace("127.0.0.1", "localhost")
    fails(S3Sink(wire_settings(name, files, tmp_path)), source, SinkUnavailableError, "tls")
    assert store.asked == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "HTTP://x.example.test", "ftp://x.example.test", "https://"]
)
def test_only_https(files: ServerFiles, tmp_path: Path, url: str) -> None:
    with pytest.raises(SinkRefusedError):
        S3Sink(wire_settings(url, files, tmp_path))


def test_an_endpoint_from_the_environment_is_not_used(
    store: WireStore, files: ServerFiles, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    store.answer = Script()
    assert S3Sink(wire_settings(store.url, files, tmp_path)).put(source, NAME) == len(CONTENT)
    aws = S3Sink(replace(wire_settings(store.url, files, tmp_path), endpoint_url=None, region="eu-central-1"))
    assert aws.describe()["endpoint"] == "https://s3.eu-central-1.amazonaws.com"


def test_logs_never_hold_keys_or_signatures(
    store: WireStore, files: ServerFiles, tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store.answer = Script()
    sink = S3Sink(wire_settings(store.url, files, tmp_path))
    sink.put(source, NAME)
    assert "Signature" not in caplog.text
    assert "AKTEST" not in caplog.text
