"""S3 sinks on the servers of the tests, each under a prefix of its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from recording.settings import PART_MIN_BYTES, S3SinkSettings
from recording.sinks.sink import LockMode
from support import rgw as ceph
from support.kms import REGION as MOTO_REGION
from support.kms import MotoKMS

MOTO_BUCKET = "recordings-moto"


def credentials_file(path: Path, credentials: ceph.Credentials, *, profile: str = "default") -> Path:
    """As `aws configure` writes it."""
    path.write_text(
        f"[{profile}]\naws_access_key_id = {credentials.access_key}\n"
        f"aws_secret_access_key = {credentials.secret_key}\n"
    )
    path.chmod(0o600)
    return path


def rgw_settings(server: ceph.RGW, directory: Path, *, locked: bool = True, **changes: Any) -> S3SinkSettings:
    """The owner's view of a bucket, parts as small as may be; `changes` are fields of S3SinkSettings."""
    directory.mkdir(parents=True, exist_ok=True)
    credentials = changes.pop("credentials", server.owner)
    return S3SinkSettings(
        **{
            "bucket": ceph.LOCKED_BUCKET if locked else ceph.PLAIN_BUCKET,
            "region": ceph.REGION,
            "endpoint_url": server.url,
            "ca_path": server.files.ca_path,
            "credentials_path": credentials_file(directory / "credentials", credentials),
            "prefix": f"{secrets.token_hex(8)}/",
            "object_lock_mode": LockMode.GOVERNANCE if locked else None,
            "multipart_chunksize": PART_MIN_BYTES,
            **changes,
        }
    )


def moto_settings(server: MotoKMS, directory: Path) -> S3SinkSettings:
    """A bucket without Object Lock: moto says what it is told about locks and checks little of what it is sent."""
    credentials = ceph.Credentials(access_key="testing", secret_key="testing")
    return S3SinkSettings(
        bucket=MOTO_BUCKET,
        region=MOTO_REGION,
        endpoint_url=server.url,
        ca_path=server.files.ca_path,
        credentials_path=credentials_file(directory / "credentials", credentials),
        prefix=f"{secrets.token_hex(8)}/",
        multipart_chunksize=PART_MIN_BYTES,
    )


@pytest.fixture(scope="session")
def moto_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoKMS]:
    """moto's server, with a bucket. It is here for breadth: what RGW is in doubt about, another answer."""
    with MotoKMS(tmp_path_factory.mktemp("moto-s3")) as server:
        client = boto3.session.Session(
            aws_access_key_id="testing", aws_secret_access_key="testing", region_name=MOTO_REGION
        ).client("s3", endpoint_url=server.url, verify=str(server.files.ca_path))
        client.create_bucket(
            Bucket=MOTO_BUCKET, CreateBucketConfiguration={"LocationConstraint": MOTO_REGION}
        )
        client.close()
        yield server
