"""The table [recording.sink]: a directory by default, a bucket when all of it fits together."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from b2bua.cli.main import main
from recording.settings import (
    AddressingStyle,
    CannedACL,
    LocalSinkSettings,
    RequestChecksum,
    S3SinkSettings,
    ServerSideEncryption,
    TLSFloor,
)
from recording.sinks.build import build_sink
from recording.sinks.local import LocalSink
from recording.sinks.s3 import S3Sink
from recording.sinks.sink import LockMode, SinkRefusedError
from support.configuration import ConfigurationFile, make_configuration

SINK = """
[recording.sink]
kind = "s3"
bucket = "clinic-recordings"
region = "eu-central-1"
endpoint_url = "https://s3.example.test"
prefix = "site-1/"
addressing_style = "virtual"
ca = "tls/development-ca.pem"
credentials_file = "s3-credentials"
profile = "recorder"
acl = "bucket-owner-full-control"
object_lock_mode = "GOVERNANCE"
object_lock_days = 365
server_side_encryption = "aws:kms"
sse_kms_key_id = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
multipart_chunksize = 6291456
max_concurrency = 2
request_checksum_calculation = "when_supported"
if_none_match = false
tls_floor = "1.2"
timeout_s = 7
"""
CREDENTIALS = "[recorder]\naws_access_key_id = A\naws_secret_access_key = B\n"


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "etc")
    credentials = made.path.parent / "s3-credentials"
    credentials.write_text(CREDENTIALS)
    credentials.chmod(0o600)
    return made


def test_recordings_go_to_a_directory_unless_told_otherwise(file: ConfigurationFile) -> None:
    recording = file.load().recording
    assert recording.sink == LocalSinkSettings()
    assert recording.max_spool_bytes is None
    assert isinstance(build_sink(recording), LocalSink)
    file.append('[recording.sink]\nkind = "local"')
    assert file.load().recording.sink == LocalSinkSettings()


def test_every_key_reaches_the_sink(file: ConfigurationFile) -> None:
    file.append(SINK)
    recording = file.load().recording
    directory = file.path.parent
    assert recording.sink == S3SinkSettings(
        bucket="clinic-recordings",
        region="eu-central-1",
        endpoint_url="https://s3.example.test",
        prefix="site-1/",
        addressing_style=AddressingStyle.VIRTUAL,
        ca_path=directory / "tls/development-ca.pem",
        credentials_path=directory / "s3-credentials",
        profile="recorder",
        acl=CannedACL.BUCKET_OWNER_FULL_CONTROL,
        object_lock_mode=LockMode.GOVERNANCE,
        object_lock_days=365,
        server_side_encryption=ServerSideEncryption.KMS,
        sse_kms_key_id="arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        multipart_chunksize=6291456,
        max_concurrency=2,
        request_checksum_calculation=RequestChecksum.WHEN_SUPPORTED,
        if_none_match=False,
        tls_floor=TLSFloor.TLS_1_2,
        timeout_s=7.0,
    )
    sink = build_sink(recording)
    assert isinstance(sink, S3Sink)
    assert sink.describe() == {
        "kind": "s3",
        "bucket": "clinic-recordings",
        "endpoint": "https://s3.example.test",
        "tls_floor": "1.2",
        "tls_negotiated": "",
        "object_lock": "GOVERNANCE, 365 days",
        "server_side_encryption": "aws:kms",
    }


@pytest.mark.parametrize(
    ("old", "new", "key", "what"),
    [
        ('kind = "s3"', 'kind = "s4"', "recording.sink.kind", "s4"),
        ('bucket = "clinic-recordings"', "", "recording.sink.bucket", "missing"),
        ('bucket = "clinic-recordings"', 'bucket = "Clinic"', "recording.sink.bucket", "form"),
        ('region = "eu-central-1"', "", "recording.sink.region", "missing"),
        ('"https://s3.example.test"', '"http://127.0.0.1:9000"', "recording.sink.endpoint_url", "plain http"),
        ('"https://s3.example.test"', '"https://u:p@s3.example.test"', "recording.sink.endpoint_url", "secret"),
        ('"site-1/"', '"../x/"', "recording.sink.prefix", "form"),
        ('"site-1/"', '"site-1"', "recording.sink.prefix", "form"),
        ('ca = "tls/development-ca.pem"', 'ca = "no.pem"', "recording.sink.ca", "no.pem"),
        ('ca = "tls/development-ca.pem"', 'ca = "s3-credentials"', "recording.sink.ca", "no PEM"),
        ('"s3-credentials"', '"none"', "recording.sink.credentials_file", "none"),
        ('credentials_file = "s3-credentials"', "", "recording.sink.profile", "no file"),
        ('object_lock_mode = "GOVERNANCE"', "", "recording.sink.object_lock_days", "how firmly"),
        ('"GOVERNANCE"', '"governance"', "recording.sink.object_lock_mode", "governance"),
        ('server_side_encryption = "aws:kms"', "", "recording.sink.sse_kms_key_id", "aws:kms"),
        ("multipart_chunksize = 6291456", "multipart_chunksize = 1048576", "recording.sink.multipart_chunksize",
         "below 5242880"),
        ("max_concurrency = 2", "max_concurrency = 0", "recording.sink.max_concurrency", "below"),
        ('tls_floor = "1.2"', 'tls_floor = "1.1"', "recording.sink.tls_floor", "1.1"),
        ("timeout_s = 7", "secret_access_key = 'x'", "recording.sink.secret_access_key", "secret"),
        ("timeout_s = 7", "timeout = 7", "recording.sink.timeout", "unknown key"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_line(
    file: ConfigurationFile, old: str, new: str, key: str, what: str
) -> None:
    assert SINK.count(old) == 1
    file.append(SINK)
    file.load()
    file.replace(old, new)
    problems = file.problems()
    blamed = [problem for problem in problems if problem.key == key]
    assert [what in problem.what for problem in blamed] == [True], problems
    assert blamed[0].line is not None
    assert len(problems) == 1 or key.endswith("access_key")


def test_keys_of_a_bucket_are_refused_beside_a_directory(file: ConfigurationFile) -> None:
    file.append(SINK.replace('kind = "s3"', ""))
    keys = set(re.findall(r"^([a-z_0-9]+) =", SINK, re.MULTILINE)) - {"kind"}
    assert {problem.key for problem in file.problems()} == {f"recording.sink.{key}" for key in keys}


def test_it_must_be_a_table(file: ConfigurationFile) -> None:
    text = file.text
    file.path.write_text(text.replace("[recording]", '[recording]\nsink = "s3"', 1))
    assert file.problem().key == "recording.sink"


def test_the_credentials_are_their_owners_alone(file: ConfigurationFile) -> None:
    file.append(SINK)
    path = file.path.parent / "s3-credentials"
    path.chmod(0o640)
    assert file.problem().key == "recording.sink.credentials_file"
    path.chmod(0o600)
    settings = file.load().recording
    path.chmod(0o604)
    with pytest.raises(SinkRefusedError, match="chmod 600"):
        build_sink(settings)
    path.chmod(0o600)
    path.write_text(CREDENTIALS.replace("recorder", "other"))
    os.utime(path, ns=(1, 1))
    with pytest.raises(SinkRefusedError, match=r"no section \[recorder\]"):
        build_sink(settings)


def test_the_key_of_the_bucket_seals_no_recordings(file: ConfigurationFile) -> None:
    """Upload under SSE-KMS needs Decrypt on that key, so the recorder could read."""
    arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    file.append(SINK)
    file.append(f'[keys.cloud]\nprovider = "aws-kms"\nkey_id = "{arn}"\nregion = "eu-central-1"')
    assert file.problem().key == "recording.sink.sse_kms_key_id"
    file.replace(f'key_id = "{arn}"\nregion', f'key_id = "{arn[:-1]}c"\nregion')
    file.load()


def test_check_says_where_recordings_go_and_what_the_bucket_needs(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(file.path)]) == 0
    assert "AbortIncompleteMultipartUpload" not in capsys.readouterr().out
    file.append(SINK)
    assert main(["check", str(file.path)]) == 0
    said = capsys.readouterr().out
    assert "S3 bucket clinic-recordings/site-1/ at https://s3.example.test, Object Lock GOVERNANCE" in said
    assert "AbortIncompleteMultipartUpload" in said
    assert "TLS 1.2 at its lowest" in said
    assert main(["check", str(file.path), "--json"]) == 0
    assert "AbortIncompleteMultipartUpload" in capsys.readouterr().out
