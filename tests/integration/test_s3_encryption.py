"""Server-side encryption on a real server: what was asked for is read back, and a store that ignores it found out.

Ceph's gateway encrypts with KMS under keys of its own configuration here; `AES256` it takes and ignores.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from recording.settings import PART_MIN_BYTES, CannedACL, S3SinkSettings, ServerSideEncryption
from recording.sinks.s3 import S3Sink
from recording.sinks.s3_client import S3Client
from recording.sinks.s3_upload import UNPROVEN
from recording.sinks.sink import (
    EncryptionNotInForceError,
    ObjectConflictError,
    ObjectName,
    SinkRefusedError,
    SinkUnavailableError,
)
from recording.sinks.upload_state import upload_path
from support.rgw import KMS_KEYS, LOCKED_BUCKET, RGW
from support.s3 import rgw_settings

NAME: Final = ObjectName(tenant_handle=b"T" * 16, file_id=b"F" * 16, started_hour=datetime.now(UTC))
SIZES: Final = [1000, 2 * PART_MIN_BYTES + 1000]


@pytest.fixture(params=SIZES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME.file_id.hex()}.crec"
    path.write_bytes(os.urandom(request.param))
    return path


def kms(rgw: RGW, directory: Path, **changes: Any) -> S3SinkSettings:
    asked = {"server_side_encryption": ServerSideEncryption.KMS, "sse_kms_key_id": KMS_KEYS[1]}
    return rgw_settings(rgw, directory, **{**asked, **changes})


def content(sink: S3Sink) -> bytes:
    with sink.open(NAME.key) as file:
        return file.read()


def versions(rgw: RGW, settings: S3SinkSettings) -> list[str]:
    found = rgw.client(rgw.owner).list_object_versions(
        Bucket=settings.bucket, Prefix=settings.prefix + NAME.key
    )
    return [each["VersionId"] for each in found.get("Versions", [])]


def is_clean(rgw: RGW, settings: S3SinkSettings) -> bool:
    """No upload in parts is left half-way."""
    listed = rgw.client(rgw.owner).list_multipart_uploads(Bucket=settings.bucket, Prefix=settings.prefix)
    return "Uploads" not in listed


@pytest.mark.parametrize("locked", [True, False])
def test_what_was_asked_for_is_read_back_of_all_that_is_stored(
    rgw: RGW, tmp_path: Path, source: Path, locked: bool
) -> None:
    settings = kms(rgw, tmp_path, locked=locked)
    sink = S3Sink(settings)
    sink.advance(source, NAME, source.stat().st_size)
    sink.put(source, NAME)
    sink.put_manifest(NAME.key, b"manifest")
    sink.put_slots(NAME.key, 1, b"slots")
    assert sink.encryption(NAME.key) == {"kind": "aws:kms", "key_id": KMS_KEYS[1]}
    client = rgw.client(rgw.owner)
    for suffix in ("manifest", "1.slots"):
        key = settings.prefix + NAME.key.replace("crec", suffix)
        assert client.head_object(Bucket=settings.bucket, Key=key)["SSEKMSKeyId"] == KMS_KEYS[1]
    assert content(sink) == source.read_bytes()
    assert is_clean(rgw, settings)
    assert len(versions(rgw, settings)) == 1
    sink.put(source, NAME)
    assert len(versions(rgw, settings)) == 1, "doing it again sends nothing"


def test_a_store_that_ignores_it_gets_nothing(rgw: RGW, tmp_path: Path, source: Path) -> None:
    settings = rgw_settings(rgw, tmp_path, server_side_encryption=ServerSideEncryption.AES256)
    sink = S3Sink(settings)
    for _ in range(2):
        with pytest.raises(EncryptionNotInForceError, match="answers nothing") as caught:
            sink.put(source, NAME)
        assert caught.value.reason_label == "encryption_not_in_force"
        assert sink.size(NAME.key) is None
        assert is_clean(rgw, settings)
    assert source.exists(), "the spool keeps the file"


def test_a_key_that_the_store_does_not_have(rgw: RGW, tmp_path: Path, source: Path) -> None:
    sink = S3Sink(kms(rgw, tmp_path, sse_kms_key_id="nobodys"))
    with pytest.raises(SinkRefusedError):
        sink.put(source, NAME)
    assert sink.size(NAME.key) is None


def test_what_was_stored_under_another_key_is_not_taken_for_it(
    rgw: RGW, tmp_path: Path, source: Path
) -> None:
    settings = kms(rgw, tmp_path, sse_kms_key_id=KMS_KEYS[0])
    S3Sink(settings).put(source, NAME)
    upload_path(source).unlink()
    other = kms(rgw, tmp_path, prefix=settings.prefix)
    with pytest.raises(EncryptionNotInForceError, match=f"answers aws:kms under {KMS_KEYS[0]}"):
        S3Sink(other).put(source, NAME)
    S3Sink(settings).put(source, NAME)


# ---- a role that may not read -----------------------------------------------------------------------------------


@pytest.fixture
def write_only(rgw: RGW) -> Iterator[None]:
    """The uploader has the shipped policy of its role, as the bucket's."""
    path = Path(__file__).parents[2] / "packaging" / "policies" / "aws" / "uploader.json"
    text = path.read_text().replace("example-recordings", LOCKED_BUCKET)
    statements = [
        {**each, "Principal": {"AWS": ["arn:aws:iam:::user/uploader"]}}
        for each in json.loads(text)["Statement"]
        if "s3:" in json.dumps(each["Action"])
    ]
    client = rgw.client(rgw.owner)
    client.put_bucket_policy(
        Bucket=LOCKED_BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements})
    )
    yield
    client.delete_bucket_policy(Bucket=LOCKED_BUCKET)


def uploader(rgw: RGW, directory: Path, **changes: Any) -> S3SinkSettings:
    return kms(
        rgw,
        directory,
        credentials=rgw.uploader,
        acl=CannedACL.BUCKET_OWNER_FULL_CONTROL,
        object_lock_days=1,
        **changes,
    )


class Died(Exception):
    """Where the process would have been killed."""


@pytest.mark.usefixtures("write_only")
@pytest.mark.parametrize(
    ("size", "step"),
    [
        (SIZES[0], "put_object"),
        (SIZES[0], "get_object_retention"),
        (SIZES[1], "complete_multipart_upload"),
        (SIZES[1], "get_object_retention"),
    ],
)
@pytest.mark.parametrize("is_noted", [True, False])
def test_an_upload_whose_end_nobody_saw_is_ended_without_reading(
    rgw: RGW, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, step: str, is_noted: bool
) -> None:
    """The process dies after the store took the object; another one takes it up."""
    source = tmp_path / f"{NAME.file_id.hex()}.crec"
    source.write_bytes(os.urandom(size))
    settings = uploader(rgw, tmp_path)
    call = S3Client.call

    def dying(client: S3Client, operation: str, **parameters: object) -> Any:
        answer = call(client, operation, **parameters)
        if operation == step:
            raise Died
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(S3Client, "call", dying)
        with pytest.raises(Died):
            S3Sink(settings).put(source, NAME)
    assert len(versions(rgw, settings)) == 1
    if not is_noted:
        upload_path(source).unlink(missing_ok=True)
    sink = S3Sink(settings)
    with pytest.raises(SinkRefusedError):
        sink.open(NAME.key)
    assert sink.put(source, NAME) == source.stat().st_size
    is_sent_again = not is_noted or step == "put_object"
    assert len(versions(rgw, settings)) == 1 + is_sent_again, "only what nothing else could show"
    owner = S3Sink(kms(rgw, tmp_path / "owner", prefix=settings.prefix))
    assert content(owner) == source.read_bytes()
    assert owner.encryption(NAME.key) == {"kind": "aws:kms", "key_id": KMS_KEYS[1]}
    assert owner.retention(NAME.key).until is not None
    assert is_clean(rgw, settings)


@pytest.mark.usefixtures("write_only")
def test_without_versions_a_reader_must_say_which_object_it_is(
    rgw: RGW, tmp_path: Path, source: Path
) -> None:
    """Sent once more it would replace what is there: then the spool keeps the file until a reader has looked."""
    owner = kms(rgw, tmp_path / "owner", object_lock_mode=None)
    S3Sink(owner).put(source, NAME)
    upload_path(source).unlink()
    settings = uploader(rgw, tmp_path, prefix=owner.prefix, object_lock_mode=None)
    with pytest.raises(SinkRefusedError, match="recordings recover") as caught:
        S3Sink(settings).put(source, NAME)
    assert caught.value.reason_label == UNPROVEN
    assert S3Sink(owner).put(source, NAME) == source.stat().st_size
    source.write_bytes(os.urandom(source.stat().st_size))
    with pytest.raises(ObjectConflictError):
        S3Sink(owner).put(source, NAME)


def test_an_object_that_somebody_else_put_there_is_not_taken_for_the_recording(
    rgw: RGW, tmp_path: Path, source: Path
) -> None:
    settings = kms(rgw, tmp_path)
    forged = os.urandom(source.stat().st_size)
    rgw.client(rgw.owner).put_object(
        Bucket=LOCKED_BUCKET,
        Key=settings.prefix + NAME.key,
        Body=forged,
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=KMS_KEYS[1],
    )
    with pytest.raises(ObjectConflictError):
        S3Sink(settings).put(source, NAME)
    assert content(S3Sink(settings)) == forged, "it was left as it is"


@pytest.mark.usefixtures("write_only")
def test_a_lost_answer_is_asked_again(
    rgw: RGW, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, within one process: the retry meets what the first attempt left."""
    settings = uploader(rgw, tmp_path)
    sink = S3Sink(settings)
    call, lost = S3Client.call, []

    def losing(client: S3Client, operation: str, **parameters: object) -> Any:
        answer = call(client, operation, **parameters)
        if operation in ("put_object", "complete_multipart_upload") and not lost:
            lost.append(operation)
            raise SinkUnavailableError("the connection broke", reason="unreachable")
        return answer

    monkeypatch.setattr(S3Client, "call", losing)
    with pytest.raises(SinkUnavailableError):
        sink.put(source, NAME)
    assert sink.put(source, NAME) == source.stat().st_size
    assert is_clean(rgw, settings)
