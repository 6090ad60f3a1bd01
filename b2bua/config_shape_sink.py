"""The table [recording.sink]: where finished recordings are kept, in the words of those who run object stores."""

from __future__ import annotations

import enum
from typing import Annotated

from b2bua import config_values as values
from b2bua.config_keys import FloorValue, HTTPSValue
from b2bua.config_table import PathText, Table, default_of, documented, read_by
from recording.settings import (
    PART_MAX_BYTES,
    PART_MIN_BYTES,
    AddressingStyle,
    CannedACL,
    RequestChecksum,
    S3SinkSettings,
    ServerSideEncryption,
    TLSFloor,
)
from recording.sinks.sink import LockMode


class SinkKind(enum.Enum):
    """Values of `recording.sink.kind`."""

    LOCAL = "local"
    S3 = "s3"


KindValue = Annotated[SinkKind, read_by(values.one_of(SinkKind, values.by_value))]
StyleValue = Annotated[AddressingStyle, read_by(values.one_of(AddressingStyle, values.by_value))]
ACLValue = Annotated[CannedACL, read_by(values.one_of(CannedACL, values.by_value))]
ModeValue = Annotated[LockMode, read_by(values.one_of(LockMode, values.by_value))]
EncryptionValue = Annotated[
    ServerSideEncryption, read_by(values.one_of(ServerSideEncryption, values.by_value))
]
ChecksumValue = Annotated[RequestChecksum, read_by(values.one_of(RequestChecksum, values.by_value))]


class SinkTable(Table):
    """Where finished recordings are kept: `recording.directory`, or a bucket of an S3 service.

    Credentials come from boto3's own chain or a file of theirs, never from this one.
    """

    kind: KindValue = documented(
        "`local`: `recording.directory`; `s3`: a bucket. All other keys are for `s3`.",
        '"s3"',
        default=SinkKind.LOCAL,
    )
    bucket: str | None = documented(
        "The bucket. It must exist.",
        '"clinic-recordings"',
        default=None,
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
    )
    region: str | None = documented(
        "Region of the bucket, which signatures name.",
        '"eu-central-1"',
        default=None,
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
    )
    endpoint_url: HTTPSValue | None = documented(
        "Another service than AWS, https only.", '"https://s3.example.test"', default=None
    )
    prefix: str = documented(
        "Put before every key; ends in a slash.",
        '"site-1/"',
        default="",
        pattern=r"^([A-Za-z0-9_-]{1,64}/){0,4}$",
    )
    addressing_style: StyleValue = documented(
        "Where the bucket stands in a URL: `path` or `virtual`.",
        '"virtual"',
        default=default_of(S3SinkSettings, "addressing_style"),
    )
    ca: PathText | None = documented(
        "PEM file with the service's authority. Default: the platform's.", '"tls/s3-ca.pem"', default=None
    )
    credentials_file: PathText | None = documented(
        "AWS credentials file, mode 0600, read again when it changes. Default: boto3's chain.",
        '"keys/s3-credentials"',
        default=None,
    )
    profile: str = documented(
        "Section of `credentials_file`.", '"recorder"', default="default", pattern=r"^[A-Za-z0-9_.-]{1,64}$"
    )
    acl: ACLValue | None = documented(
        "`bucket-owner-full-control`: needed where another account than the bucket's owner uploads and the service "
        "still knows ACLs.",
        '"bucket-owner-full-control"',
        default=None,
    )
    object_lock_mode: ModeValue | None = documented(
        "`GOVERNANCE` or `COMPLIANCE`: the bucket must have Object Lock. Nobody can take COMPLIANCE back.",
        '"GOVERNANCE"',
        default=None,
    )
    object_lock_days: int = documented(
        "Days for which the service keeps every object from deletion at least, read back after each upload. "
        "`retain_days` of a tenant or trunk is set on each object too, where it is longer.",
        "365",
        default=0,
        ge=0,
        le=36500,
    )
    server_side_encryption: EncryptionValue | None = documented(
        "What the service encrypts our ciphertext with once more: `AES256` or `aws:kms`.",
        '"aws:kms"',
        default=None,
    )
    sse_kms_key_id: str | None = documented(
        "Key for `aws:kms`; no key that seals recordings. Default: the bucket's.",
        f'"{values.KMS_KEY_EXAMPLE}"',
        default=None,
        pattern=r"^[A-Za-z0-9:/_-]{1,2048}$",
    )
    multipart_chunksize: int = documented(
        "Bytes of a part. A shorter recording is sent in one request when its call ends, a longer one in parts while "
        "it runs.",
        "8388608",
        default=default_of(S3SinkSettings, "multipart_chunksize"),
        ge=PART_MIN_BYTES,
        le=PART_MAX_BYTES,
    )
    max_concurrency: int = documented(
        "Uploads at once; times `multipart_chunksize` it is held in memory.",
        "4",
        default=default_of(S3SinkSettings, "max_concurrency"),
        ge=1,
        le=64,
    )
    request_checksum_calculation: ChecksumValue = documented(
        "`when_supported`: a CRC-32 goes with each upload, which a service that knows it keeps with the object; "
        "`when_required`: not. Content-MD5 and a signed SHA-256 go along in both cases.",
        '"when_supported"',
        default=default_of(S3SinkSettings, "request_checksum_calculation"),
    )
    if_none_match: bool = documented(
        "Send `If-None-Match: *`, by which a service refuses a second object of a name.", "true", default=True
    )
    tls_floor: FloorValue = documented(
        'Lowest TLS version; "1.2" is an exception, counted and shown by `b2bua posture`.',
        '"1.3"',
        default=TLSFloor.TLS_1_3,
    )
    timeout_s: float = documented(
        "Seconds to wait for an answer.",
        "10.0",
        default=default_of(S3SinkSettings, "timeout_s"),
        ge=0.5,
        le=120.0,
        strict=False,
    )
