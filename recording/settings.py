"""Frozen settings of the recorder. Paths are absolute; durations and sizes carry their unit."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_never

from recording.sinks.sink import LockMode


class Layout(enum.Enum):
    """`mixed`.

    One channel, the saturating sum of both legs. `split`: two channels, caller first, on one sample clock.
    """

    MIXED = "mixed"
    SPLIT = "split"

    @property
    def channels(self) -> int:
        return 1 if self is Layout.MIXED else 2


class TLSFloor(enum.Enum):
    """The lowest TLS version spoken to an endpoint; below 1.3 is an exception that somebody wrote down."""

    TLS_1_3 = "1.3"
    TLS_1_2 = "1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalKeySettings:
    """Development only: AES-KW under a 32-byte key-encryption key in a file of mode 0600."""

    kek_path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AWSKMSKeySettings:
    """GenerateDataKey under the key whose ARN is `key_id`, with an encryption context.

    `endpoint_url` must be https; credentials come from boto3's chain.

    `ca_path` names the trust anchors for the endpoint, None: the platform's.
    """

    key_id: str
    region: str
    endpoint_url: str | None = None
    ca_path: Path | None = None
    timeout_s: float = 5.0
    tls_floor: TLSFloor = TLSFloor.TLS_1_3


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitSettings:
    """A transit mount of a Vault or OpenBao server.

    `address` is https://HOST[:PORT]. `server_id` stands for the server in key ids, so that recordings stay readable
    when its address changes; None: the address's host and port. `token_path` names a file of mode 0600 with a token,
    read again when it changes. `ca_path` None: the platform's trust anchors.
    """

    address: str
    token_path: Path
    mount: str = "transit"
    namespace: str | None = None
    server_id: str | None = None
    ca_path: Path | None = None
    timeout_s: float = 5.0
    tls_floor: TLSFloor = TLSFloor.TLS_1_3


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultTransitKeySettings:
    """Data keys from a derived symmetric key named `key` of a transit mount."""

    key: str
    server: TransitSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PKCS11KeySettings:
    """AES key wrap by the keys labelled `key`.v1, .v2 and so on of the token labelled `token`.

    `module_path` is the vendor's library, which runs inside the process; `pin_path` names a file of mode 0600.
    """

    module_path: Path
    token: str
    key: str
    pin_path: Path
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RSAKeySettings:
    """RSA-OAEP with SHA-256: `public_key_path` wraps with no network, whoever has the private part unwraps.

    That is `private_key_path`, a PEM file of mode 0600, or `transit`, a Vault or OpenBao server's RSA key; neither is
    the recorder's case. At least one of the paths is given.
    """

    public_key_path: Path | None = None
    private_key_path: Path | None = None
    transit: VaultTransitKeySettings | None = None


KeySettings = (
    LocalKeySettings | AWSKMSKeySettings | VaultTransitKeySettings | PKCS11KeySettings | RSAKeySettings
)


class AddressingStyle(enum.Enum):
    """Where the bucket stands in a URL. `path`: after the host; `virtual`: as its first label."""

    PATH = "path"
    VIRTUAL = "virtual"


class ServerSideEncryption(enum.Enum):
    """What the store encrypts our ciphertext with once more. Source: S3 API, x-amz-server-side-encryption."""

    AES256 = "AES256"
    KMS = "aws:kms"


class CannedACL(enum.Enum):
    """Whom an upload is handed to.

    Where the uploader is another account than the bucket's owner and the store still knows ACLs, the owner could not
    read what it was sent otherwise. Source: S3 User Guide, canned ACL.
    """

    BUCKET_OWNER_FULL_CONTROL = "bucket-owner-full-control"


class RequestChecksum(enum.Enum):
    """Botocore's `request_checksum_calculation`.

    Content-MD5 and a signed SHA-256 go with every upload in both cases; `when_supported` adds the CRC-32 that boto3
    would, which a store that knows it keeps with the object.
    """

    WHEN_REQUIRED = "when_required"
    WHEN_SUPPORTED = "when_supported"


PART_MIN_BYTES = 5 * 1024 * 1024  # S3 User Guide, multipart upload limits
PART_MAX_BYTES = 128 * 1024 * 1024  # a part is held in memory while it is sent


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSinkSettings:
    """Recordings in a directory of this machine, which is `RecordingSettings.directory`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3SinkSettings:
    """Recordings in a bucket. `endpoint_url` must be https; None: AWS in `region`.

    `prefix` stands before every key and ends in a slash, or is empty. Credentials come from boto3's chain, or from
    `profile` of the AWS credentials file `credentials_path`. `ca_path`: the endpoint's trust anchors, None: the
    platform's. `object_lock_mode` asks for Object Lock: a bucket without it is refused, each object is kept
    for `object_lock_days` from its start and the store's word on that is read back; 0 days: only what
    expiry rules and legal holds ask for later. `multipart_chunksize` and `max_concurrency`: bytes of a part and
    uploads at once; their product is held in memory.
    """

    bucket: str
    region: str
    endpoint_url: str | None = None
    prefix: str = ""
    addressing_style: AddressingStyle = AddressingStyle.PATH
    ca_path: Path | None = None
    credentials_path: Path | None = None
    profile: str = "default"
    acl: CannedACL | None = None
    object_lock_mode: LockMode | None = None
    object_lock_days: int = 0
    server_side_encryption: ServerSideEncryption | None = None
    sse_kms_key_id: str | None = None
    multipart_chunksize: int = 8 * 1024 * 1024
    max_concurrency: int = 4
    request_checksum_calculation: RequestChecksum = RequestChecksum.WHEN_REQUIRED
    if_none_match: bool = True
    tls_floor: TLSFloor = TLSFloor.TLS_1_3
    timeout_s: float = 10.0


SinkSettings = LocalSinkSettings | S3SinkSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Single-use data keys ready per tenant: `size` of them, thrown away unused after `ttl_s`.

    `parallel_requests` to key services may be under way at once, for all tenants together. The defaults bear 50 calls/s
    from a key service that takes 200 ms: of 500 calls with random arrivals none was without a key, and 7 keys were
    left at the lowest; with 12 requests 1 call was, with 8 keys and 8 requests 197, with one request at a time 428.
    """

    size: int = 32
    ttl_s: int = 900
    refill_per_request: int = 4
    parallel_requests: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQLSettings:
    """An index that several nodes share. TLS with a verified name always, 1.3 unless the exception is made.

    No password is here: `passfile_path` names a file in pgpass form, or a client certificate and its key are shown.
    `tls_floor` 1.2 is the explicit exception for a server that cannot do 1.3. `timeout_s` bounds connecting and each
    statement.
    """

    host: str
    database: str
    user: str
    ca_path: Path
    port: int = 5432
    passfile_path: Path | None = None
    certificate_path: Path | None = None
    private_key_path: Path | None = None
    tls_floor: TLSFloor = TLSFloor.TLS_1_3
    timeout_s: int = 5

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{self.user}@{host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Where the index is, if not in an SQLite file, and what numbers and names in it are sealed under.

    `search_key_path`: without it the index holds no number in any form. `key` names the section whose key-encryption
    key wraps the index keys, None: each tenant's own. `backup_key` names that of backups.
    """

    postgresql: PostgreSQLSettings | None = None
    search_key_path: Path | None = None
    key: str | None = None
    backup_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """Days that recordings are kept, counted from the hour in which the call began.

    `tenants` by handle, `trunks` by name. What is in neither is kept until somebody sets a time.
    """

    tenants: Mapping[bytes, int] = field(default_factory=dict)
    trunks: Mapping[str, int] = field(default_factory=dict)

    def days(self, *, tenant_handle: bytes, trunks: Iterable[str | None]) -> int | None:
        """For a call between `trunks`: the longest that one of them asks for, or else what the tenant asks for."""
        own = [self.trunks[name] for name in trunks if name is not None and name in self.trunks]
        return max(own, default=self.tenants.get(tenant_handle))

    def until(
        self, started_hour: datetime, *, tenant_handle: bytes, trunks: Iterable[str | None]
    ) -> datetime | None:
        """The hour before which nothing of the call may be deleted; None: no time is set."""
        days = self.days(tenant_handle=tenant_handle, trunks=trunks)
        return None if days is None else started_hour + timedelta(days=days)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingSettings:
    """Where recordings go and how much of one a crash may cost.

    `spool_directory` takes ciphertext while the call runs; `directory` is the local sink; `index_path` an SQLite
    file, which `index.postgresql` replaces. `record_ms`: a record closes after that much audio; `drain_interval_ms`:
    how often the pump empties the rings; `fsync_interval_ms`: group commit. `min_free_bytes`: below it no required call
    is admitted. `max_spool_bytes`: once the spool holds as much that is not in the sink, the same; None:
    `min_free_bytes` alone bounds it. Nothing is ever deleted that is not stored. `signing_key_path`: the P-256 key that
    signs manifests and checkpoints; `verification_key_paths`: public keys that they are verified by besides its own.
    """

    directory: Path
    spool_directory: Path
    index_path: Path
    keys: Mapping[str, KeySettings]
    sink: SinkSettings = field(default_factory=LocalSinkSettings)
    layout: Layout = Layout.MIXED
    chunk_size: int = 8192
    record_ms: int = 500
    drain_interval_ms: int = 200
    fsync_interval_ms: int = 1000
    segment_seconds: int = 14400
    queue_bytes: int = 64 * 1024 * 1024
    min_free_bytes: int = 256 * 1024 * 1024
    signing_key_path: Path | None = None
    verification_key_paths: tuple[Path, ...] = ()
    max_spool_bytes: int | None = None
    pool: PoolSettings = field(default_factory=PoolSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)

    @property
    def index_place(self) -> Path | PostgreSQLSettings:
        """Where the index is: the SQLite file, or the PostgreSQL database that replaces it."""
        return self.index_path if self.index.postgresql is None else self.index.postgresql

    @property
    def tls_floor_exceptions(self) -> tuple[str, ...]:
        """The sections that may speak TLS 1.2 to their endpoint, by somebody's decision."""
        floors = {f"keys.{name}": _tls_floor(key) for name, key in sorted(self.keys.items())}
        if isinstance(self.sink, S3SinkSettings):
            floors["recording.sink"] = self.sink.tls_floor
        if self.index.postgresql is not None:
            floors["index"] = self.index.postgresql.tls_floor
        return tuple(section for section, floor in floors.items() if floor is not TLSFloor.TLS_1_3)

    @property
    def kill_loss_bound_ms(self) -> int:
        """Audio that kill -9 may cost: an open record plus one drain (docs/recording-format.md, loss bounds)."""
        return self.record_ms + self.drain_interval_ms

    @property
    def power_loss_bound_ms(self) -> int:
        """Audio that a power cut may cost: the above plus one group commit."""
        return self.kill_loss_bound_ms + self.fsync_interval_ms


def _tls_floor(key: KeySettings) -> TLSFloor:
    match key:
        case AWSKMSKeySettings():
            return key.tls_floor
        case VaultTransitKeySettings():
            return key.server.tls_floor
        case RSAKeySettings():
            return TLSFloor.TLS_1_3 if key.transit is None else key.transit.server.tls_floor
        case LocalKeySettings() | PKCS11KeySettings():
            return TLSFloor.TLS_1_3
        case _:
            assert_never(key)
