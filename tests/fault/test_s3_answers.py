"""A store that says what it is told: answers that are none, that lie, or that come over the wrong TLS."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from recording.settings import (
    PART_MIN_BYTES,
    S3SinkSettings,
    ServerSideEncryption,
    TLSFloor,
)
from recording.sinks.https import ANSWER_MAX_BYTES
from recording.sinks.s3 import S3Sink
from recording.sinks.sink import (
    EncryptionNotInForceError,
    LockMode,
    LockNotInForceError,
    ObjectConflictError,
    SinkError,
    SinkRefusedError,
    SinkUnavailableError,
)
from recording.sinks.upload_state import md5_of, upload_path
from support.kms import ServerFiles, issue_server_files
from support.rgw import REGION, Credentials
from support.s3 import credentials_file
from support.store_faults import CONTENT, NAME, fails
from support.wire_store import Asked, Said, WireStore, refusal, said, wire_store

EMPTY_LIST = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME.file_id.hex()}.crec"
    path.write_bytes(CONTENT)
    return path


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
