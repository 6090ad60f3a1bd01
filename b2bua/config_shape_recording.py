"""Tables about how calls are recorded; index and sink have modules of their own."""

from __future__ import annotations

from typing import Annotated

from b2bua import config_values as values
from b2bua.config_table import PathText, Table, default_of, documented, read_by
from recording.settings import Layout, PoolSettings, RecordingSettings

LayoutValue = Annotated[Layout, read_by(values.one_of(Layout, values.by_value))]
ChunkSizeValue = Annotated[int, read_by(values.read_chunk_size)]


class Pool(Table):
    """Data keys kept ready, so that call set-up does not wait for the key provider."""

    size: int = documented(
        "Single-use data keys ready per tenant.",
        "32",
        default=default_of(PoolSettings, "size"),
        ge=1,
        le=1024,
    )
    ttl_s: int = documented(
        "Seconds after which an unused key is thrown away.",
        "900",
        default=default_of(PoolSettings, "ttl_s"),
        ge=10,
        le=86400,
    )
    refill_per_request: int = documented(
        "Keys asked for at most before other tenants get their turn.",
        "4",
        default=default_of(PoolSettings, "refill_per_request"),
        ge=1,
        le=64,
    )
    parallel_requests: int = documented(
        "Requests to key providers under way at once: so many keys come in the time of one request.",
        "16",
        default=default_of(PoolSettings, "parallel_requests"),
        ge=1,
        le=64,
    )


class Recording(Table):
    """Where recordings go and how much of one a crash may cost; `b2bua check` prints the bounds."""

    directory: PathText = documented(
        "Directory of the finished recordings; with an S3 sink only the defaults below come from it.",
        '"recordings"',
    )
    spool: PathText | None = documented(
        "Directory for running ones, ciphertext too. Default: beside it, with `-spool`.",
        '"spool"',
        default=None,
    )
    index: PathText | None = documented(
        "SQLite catalogue. Default: beside it, with `-index.sqlite`.", '"index.sqlite"', default=None
    )
    layout: LayoutValue = documented(
        "`mixed`: one channel; `split`: two, caller first.",
        '"split"',
        default=default_of(RecordingSettings, "layout"),
    )
    chunk_size: ChunkSizeValue = documented(
        "Bytes in a sealed record: 4096, 8192, 16384, 32768 or 65536.",
        "8192",
        default=default_of(RecordingSettings, "chunk_size"),
    )
    record_ms: int = documented(
        "Audio after which a record closes, in ms, a multiple of 20.",
        "500",
        default=default_of(RecordingSettings, "record_ms"),
        ge=20,
        le=500,
        multiple_of=20,
    )
    drain_interval_ms: int = documented(
        "How often audio leaves the native rings, in ms.",
        "200",
        default=default_of(RecordingSettings, "drain_interval_ms"),
        ge=20,
        le=1000,
    )
    fsync_interval_ms: int = documented(
        "How often the spool is made durable, in ms.",
        "1000",
        default=default_of(RecordingSettings, "fsync_interval_ms"),
        ge=50,
        le=10000,
    )
    segment_seconds: int = documented(
        "Length after which a recording goes on in a new file with a new key.",
        "3600",
        default=default_of(RecordingSettings, "segment_seconds"),
        ge=10,
        le=14400,
    )
    queue_bytes: int = documented(
        "Sealed bytes that may wait for the disk; beyond it the recorder has failed.",
        "67108864",
        default=default_of(RecordingSettings, "queue_bytes"),
        ge=1 << 20,
        le=1 << 34,
    )
    min_free_bytes: int = documented(
        "Free disk space below which no call that must be recorded is taken.",
        "268435456",
        default=default_of(RecordingSettings, "min_free_bytes"),
        ge=1 << 20,
    )
    signing_key: PathText | None = documented(
        "PEM file of mode 0600 with the P-256 key that signs each segment's manifest and the audit log's checkpoints. "
        "Production requires it.",
        '"keys/signing.pem"',
        default=None,
    )
    verification_keys: list[PathText] = documented(
        "PEM files with public keys that manifests are verified by, besides that of `signing_key`: former ones, "
        "other recorders'.",
        '["keys/signing-2026.pub"]',
        default=[],
    )
    max_spool_bytes: int | None = documented(
        "Bytes in the spool, running recordings and what is not in the sink yet, above which no call that must be "
        "recorded is taken. Calls that run go on, and nothing is deleted that is not stored. Default: "
        "`min_free_bytes` alone decides.",
        "107374182400",
        default=None,
        ge=1 << 20,
    )
    pool: Pool = documented("Table `recording.pool`.", "{ size = 16 }", default=Pool())
