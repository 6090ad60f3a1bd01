"""The tables of the configuration file: keys, types, bounds, defaults, and the words the documentation page prints.

One class per table; a field's description and example are the page's text and the cure of a refusal, so they
stand once.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from b2bua import config_values as values
from b2bua.settings import (
    DEFAULT_SRTP_SUITES,
    AuditSettings,
    Codec,
    CodesFrom,
    Environment,
    KeyOutagePolicy,
    Limits,
    LogFormat,
    LogLevel,
    LogSettings,
    MediaSettings,
    NoMediaPolicy,
    RecordingPolicy,
    SIPTarget,
    SRTPSuite,
    Tenant,
    TrunkSettings,
)
from recording.settings import Layout, PoolSettings, RecordingSettings

MOST_CALLS = 1000
"""What the SIP library is built for, two legs each, with a margin (packaging/pjsip/config_site.h)."""


MOST_RETAIN_DAYS = 36500
RETAIN_DAYS = (
    "Days that its recordings are kept, from the hour in which the call began; then `b2bua recordings expire` deletes "
    "them. Without it they are kept until somebody sets a time."
)


def _default_of(settings: type, name: str) -> Any:
    """The default that the settings class itself states, so that it is written once."""
    return settings.__dataclass_fields__[name].default  # type: ignore[attr-defined]


def _key(description: str, example: str, **constraints: Any) -> Any:
    """A documented key; `example` is TOML text. Without `default` the key is required."""
    return Field(constraints.pop("default", ...), description=description, examples=[example], **constraints)


def _read(reader: Any) -> BeforeValidator:
    return BeforeValidator(reader)


default_of, documented, read_by = _default_of, _key, _read
"""Their names for the module with the tables of keys."""


EnvironmentValue = Annotated[Environment, _read(values.one_of(Environment, values.by_value))]
LayoutValue = Annotated[Layout, _read(values.one_of(Layout, values.by_value))]
PolicyValue = Annotated[RecordingPolicy, _read(values.one_of(RecordingPolicy, values.by_value))]
LevelValue = Annotated[LogLevel, _read(values.one_of(LogLevel, values.by_value))]
FormatValue = Annotated[LogFormat, _read(values.one_of(LogFormat, values.by_value))]
OutageValue = Annotated[KeyOutagePolicy, _read(values.one_of(KeyOutagePolicy, values.by_value))]
SuiteValue = Annotated[SRTPSuite, _read(values.read_suite)]
CodecValue = Annotated[Codec, _read(values.one_of(Codec, values.by_name))]
ListenValue = Annotated[values.HostPort, _read(values.read_listen)]
HostPortValue = Annotated[values.HostPort, _read(values.read_host_port)]
PortRangeValue = Annotated[values.PortRange, _read(values.read_port_range)]
UnicastValue = Annotated[str, _read(values.read_unicast_ip)]
IdentityValue = Annotated[str, _read(values.read_host_name)]
NetworkValue = Annotated[values.Network, _read(values.read_network)]
TargetValue = Annotated[SIPTarget, _read(values.read_target)]
HandleValue = Annotated[bytes, _read(values.read_handle)]
NumberValue = Annotated[str, _read(values.read_emergency_number)]
DigitsValue = Annotated[str, _read(values.read_digits)]
CodeValue = Annotated[str, _read(values.read_pause_code)]
CodesFromValue = Annotated[CodesFrom, _read(values.one_of(CodesFrom, values.by_value))]
NoMediaValue = Annotated[NoMediaPolicy, _read(values.one_of(NoMediaPolicy, values.by_value))]
HeaderValue = Annotated[str, _read(values.read_header_name)]
ClaimsValue = Annotated[dict[str, str], _read(values.read_claims)]
FindingValue = Annotated[str, _read(values.read_finding_key)]
ChunkSizeValue = Annotated[int, _read(values.read_chunk_size)]
PathText = Annotated[str, Field(min_length=1)]


class Table(BaseModel):
    """A table of the file: no unknown keys, no guessing of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


class General(Table):
    """Keys above the first table."""

    environment: EnvironmentValue = _key(
        "`production` refuses local keys and a development certificate authority.",
        '"development"',
        default=Environment.PRODUCTION,
    )
    emergency_numbers: list[NumberValue] = _key(
        "Numbers, as dialled, whose calls are never refused or ended for recording, key or admission "
        "reasons. TLS and SRTP policy stays.",
        '["112", "911"]',
        default=[],
    )


class SIP(Table):
    """The SIP listener: TLS 1.3 with client certificates."""

    listen: ListenValue = _key("Address and port to accept TLS connections on.", '"127.0.0.1:5061"')
    public: HostPortValue | None = _key(
        "Host and port that peers reach, written into Contact and Via. Default: `listen`, if that is one "
        "address.",
        '"edge.example.test:5061"',
        default=None,
    )


class TLS(Table):
    """The certificate of the SIP endpoint, for incoming and outgoing connections."""

    certificate: PathText = _key("PEM file: our certificate, then its intermediates.", '"tls/edge.pem"')
    private_key: PathText = _key("PEM file of mode 0600.", '"tls/edge.key"')
    trust: PathText = _key("PEM file with the certificate authorities that vouch for peers.", '"tls/ca.pem"')
    crl: PathText | None = _key(
        "PEM file with revocation lists, one current list per authority.", '"tls/ca.crl"', default=None
    )


class Media(Table):
    """RTP: SRTP only, on even ports, RTCP on the odd ones."""

    address: UnicastValue = _key("Address to bind media to.", '"127.0.0.1"')
    public_address: UnicastValue | None = _key(
        "Address written into SDP. Default: `address`.", '"192.0.2.10"', default=None
    )
    rtp_ports: PortRangeValue = _key("First and last port; a call takes four.", '"20000-23999"')
    codecs: list[CodecValue] = _key(
        "Codecs offered, best first: PCMU, PCMA, G722.",
        '["PCMU", "PCMA"]',
        default=list(_default_of(MediaSettings, "codecs")),
        min_length=1,
    )


class Pool(Table):
    """Data keys kept ready, so that call set-up does not wait for the key provider."""

    size: int = _key(
        "Single-use data keys ready per tenant.",
        "8",
        default=_default_of(PoolSettings, "size"),
        ge=1,
        le=1024,
    )
    ttl_s: int = _key(
        "Seconds after which an unused key is thrown away.",
        "900",
        default=_default_of(PoolSettings, "ttl_s"),
        ge=10,
        le=86400,
    )
    refill_per_request: int = _key(
        "Keys asked for at most before other tenants get their turn.",
        "4",
        default=_default_of(PoolSettings, "refill_per_request"),
        ge=1,
        le=64,
    )


class Recording(Table):
    """Where recordings go and how much of one a crash may cost; `b2bua check` prints the bounds."""

    directory: PathText = _key(
        "Directory of the finished recordings; with an S3 sink only the defaults below come from it.",
        '"recordings"',
    )
    spool: PathText | None = _key(
        "Directory for running ones, ciphertext too. Default: beside it, with `-spool`.",
        '"spool"',
        default=None,
    )
    index: PathText | None = _key(
        "SQLite catalogue. Default: beside it, with `-index.sqlite`.", '"index.sqlite"', default=None
    )
    layout: LayoutValue = _key(
        "`mixed`: one channel; `split`: two, caller first.",
        '"split"',
        default=_default_of(RecordingSettings, "layout"),
    )
    chunk_size: ChunkSizeValue = _key(
        "Bytes in a sealed record: 4096, 8192, 16384, 32768 or 65536.",
        "8192",
        default=_default_of(RecordingSettings, "chunk_size"),
    )
    record_ms: int = _key(
        "Audio after which a record closes, in ms, a multiple of 20.",
        "500",
        default=_default_of(RecordingSettings, "record_ms"),
        ge=20,
        le=500,
        multiple_of=20,
    )
    drain_interval_ms: int = _key(
        "How often audio leaves the native rings, in ms.",
        "200",
        default=_default_of(RecordingSettings, "drain_interval_ms"),
        ge=20,
        le=1000,
    )
    fsync_interval_ms: int = _key(
        "How often the spool is made durable, in ms.",
        "1000",
        default=_default_of(RecordingSettings, "fsync_interval_ms"),
        ge=50,
        le=10000,
    )
    segment_seconds: int = _key(
        "Length after which a recording goes on in a new file with a new key.",
        "3600",
        default=_default_of(RecordingSettings, "segment_seconds"),
        ge=10,
        le=14400,
    )
    queue_bytes: int = _key(
        "Sealed bytes that may wait for the disk; beyond it the recorder has failed.",
        "67108864",
        default=_default_of(RecordingSettings, "queue_bytes"),
        ge=1 << 20,
        le=1 << 34,
    )
    min_free_bytes: int = _key(
        "Free disk space below which no call that must be recorded is taken.",
        "268435456",
        default=_default_of(RecordingSettings, "min_free_bytes"),
        ge=1 << 20,
    )
    signing_key: PathText | None = _key(
        "PEM file of mode 0600 with the P-256 key that signs each segment's manifest and the audit log's checkpoints. "
        "Production requires it.",
        '"keys/signing.pem"',
        default=None,
    )
    verification_keys: list[PathText] = _key(
        "PEM files with public keys that manifests are verified by, besides that of `signing_key`: former ones, "
        "other recorders'.",
        '["keys/signing-2026.pub"]',
        default=[],
    )
    max_spool_bytes: int | None = _key(
        "Bytes in the spool, running recordings and what is not in the sink yet, above which no call that must be "
        "recorded is taken. Calls that run go on, and nothing is deleted that is not stored. Default: "
        "`min_free_bytes` alone decides.",
        "107374182400",
        default=None,
        ge=1 << 20,
    )
    pool: Pool = _key("Table `recording.pool`.", "{ size = 16 }", default=Pool())


class TenantTable(Table):
    """The owner of keys and recordings."""

    handle: HandleValue = _key(
        "32 random hex digits, the only name of the tenant in clear on disk.", '"6f1d0c…"'
    )
    key: str = _key("Name of a `[keys.NAME]` table.", '"dev"')
    fallback_key: str | None = _key(
        "Name of a `[keys.NAME]` table with `rsa-oaep-sha256`, whose public part wraps data keys while `key` is "
        "away and the pool is empty. Each use is audited.",
        '"escrow"',
        default=None,
    )
    on_key_outage: OutageValue = _key(
        "What becomes of a call that must be recorded when there is no data key at all: `reject` answers 503, "
        "`connect-unrecorded` lets it go on without a recording, audited and alarmed.",
        '"reject"',
        default=_default_of(Tenant, "on_key_outage"),
    )
    retain_days: int | None = _key(RETAIN_DAYS, "3650", default=None, ge=1, le=MOST_RETAIN_DAYS)


class TrunkTable(Table):
    """A peer. Its certificate decides which trunk a connection belongs to."""

    identities: list[IdentityValue] = _key(
        "DNS names, one of which its certificate carries as subjectAltName.",
        '["pbx.example.test"]',
        min_length=1,
    )
    sources: list[NetworkValue] = _key(
        "Networks its connections come from.", '["192.0.2.0/24"]', min_length=1
    )
    target: TargetValue | None = _key(
        "Where calls to it go: `sips:HOST:PORT` or `sip:HOST:PORT;transport=tls`. Without it the trunk "
        "only calls in.",
        '"sips:pbx.example.test:5061"',
        default=None,
    )
    addresses: list[UnicastValue] = _key(
        "Addresses of the target. Default: its name is looked up.", '["192.0.2.20"]', default=[]
    )
    tenant: str = _key("Name of a `[tenants.NAME]` table.", '"clinic"')
    recording: PolicyValue = _key(
        "`required`: no recording, no call; `best-effort`: the call goes on, audited; `off`.",
        '"required"',
        default=RecordingPolicy.REQUIRED,
    )
    srtp_suites: list[SuiteValue] = _key(
        "SRTP suites allowed, best first.",
        '["AEAD_AES_256_GCM"]',
        default=list(DEFAULT_SRTP_SUITES),
        min_length=1,
    )
    max_calls: int = _key("Calls at once with a leg on this trunk.", "100", default=100, ge=1, le=MOST_CALLS)
    no_answer_s: int = _key("Seconds a call may ring.", "180", default=180, ge=5, le=600)
    retain_days: int | None = _key(
        "The same for calls with a leg on this trunk, in place of the tenant's. Of two trunks the longer one counts.",
        "365",
        default=None,
        ge=1,
        le=MOST_RETAIN_DAYS,
    )
    pass_headers: list[HeaderValue] = _key(
        "Headers relayed to the other leg besides the standard ones.", '["X-Call-Reference"]', default=[]
    )
    pause_code: CodeValue | None = _key(
        "Digits (RFC 4733) by which a party on this trunk pauses the recording, for card numbers. Set with "
        "`resume_code`.",
        '"*71"',
        default=None,
    )
    resume_code: CodeValue | None = _key("Digits that end the pause.", '"*72"', default=None)
    pause_codes_from: CodesFromValue = _key(
        "Where the codes are listened for: `a`, on legs by which this trunk calls; `b`, on legs by which it is "
        "called; `both`.",
        '"b"',
        default=CodesFrom.BOTH,
    )
    pause_codes_relayed: bool = _key(
        "Whether the digits of a code cross to the other party as all digits do. If not, a digit that may "
        "begin a code is withheld for up to 3 s.",
        "true",
        default=True,
    )
    no_media_s: int = _key(
        "Seconds after which a leg of an answered call is reported whose peer says that it sends and from which "
        "no packet comes that authenticates.",
        "10",
        default=_default_of(TrunkSettings, "no_media_s"),
        ge=2,
        le=600,
    )
    on_no_media: NoMediaValue = _key(
        "`report`: count, audit and warn; `end`: end the call as well, unless it is to an emergency number.",
        '"report"',
        default=NoMediaPolicy.REPORT,
    )


class RouteTable(Table):
    """Calls of one trunk whose number begins with `prefix` go to another; the longest prefix wins."""

    source: str = _key("Trunk the call comes from.", '"pbx"', alias="from")
    destination: str = _key("Trunk it goes to.", '"carrier"', alias="to")
    prefix: DigitsValue = _key("Beginning of the called number.", '"+49"', default="")
    strip: int = _key("Characters taken off its beginning.", "1", default=0, ge=0, le=32)
    prepend: DigitsValue = _key("Digits then put before it.", '"00"', default="")


class LimitsTable(Table):
    """Admission. Above a limit a call gets 503 with Retry-After."""

    max_calls: int = _key(
        "Calls at once.", "500", default=_default_of(Limits, "max_calls"), ge=1, le=MOST_CALLS
    )
    max_calls_per_s: int = _key(
        "New calls in a second.", "100", default=_default_of(Limits, "max_calls_per_s"), ge=1, le=10000
    )
    retry_after_s: int = _key(
        "Seconds in Retry-After.", "5", default=_default_of(Limits, "retry_after_s"), ge=1, le=3600
    )
    drain_deadline_s: int = _key(
        "Seconds that calls may go on after SIGTERM.",
        "300",
        default=_default_of(Limits, "drain_deadline_s"),
        ge=0,
        le=14400,
    )
    peer_gone_s: int = _key(
        "Seconds without a connection and without audio after which a peer is gone and its calls end.",
        "30",
        default=_default_of(Limits, "peer_gone_s"),
        ge=1,
        le=3600,
    )
    pause_max_s: int = _key(
        "Seconds after which a paused recording goes on by itself.",
        "300",
        default=_default_of(Limits, "pause_max_s"),
        ge=1,
        le=3600,
    )


class MetricsTable(Table):
    """Prometheus, liveness and readiness over TLS 1.3 with client certificates. Without the table nothing listens."""

    listen: ListenValue = _key("Address and port.", '"127.0.0.1:9443"')
    clients: list[IdentityValue] = _key(
        "DNS names, one of which a client's certificate carries.", '["prometheus.example.test"]', min_length=1
    )
    certificate: PathText | None = _key("Default: `tls.certificate`.", '"tls/metrics.pem"', default=None)
    private_key: PathText | None = _key("Default: `tls.private_key`.", '"tls/metrics.key"', default=None)
    trust: PathText | None = _key("Default: `tls.trust`.", '"tls/ca.pem"', default=None)
    crl: PathText | None = _key("Default: `tls.crl`.", '"tls/ca.crl"', default=None)


class AuditTable(Table):
    """Who was let in, refused, recorded or read, and why: sealed lines with ids, trunk, status and reason only."""

    directory: PathText | None = _key(
        "Directory of the sealed log, of its own. `b2bua audit` verifies and reads it.",
        '"audit"',
        default=None,
    )
    key: str | None = _key(
        "Name of a `[keys.NAME]` table that no tenant uses. The log's writer needs no right to unwrap under it.",
        '"audit"',
        default=None,
    )
    segment_seconds: int = _key(
        "Length after which the log goes on in a new file with a new data key.",
        "300",
        default=_default_of(AuditSettings, "segment_seconds"),
        ge=10,
        le=14400,
    )
    commit_ms: int = _key(
        "How long a line may wait, in ms, to be written and synced with others: what kill -9 may cost.",
        "200",
        default=_default_of(AuditSettings, "commit_ms"),
        ge=0,
        le=5000,
    )
    checkpoints: PathText | None = _key(
        "File for signed heads of the log's chain, one for each file that ends; `recording.signing_key` signs them. "
        "Keep it, or a copy, where who may write `directory` may not. Default: beside it, with `-checkpoints.jws`.",
        '"/mnt/other/audit-checkpoints.jws"',
        default=None,
    )
    plain: PathText | None = _key(
        "Development only, instead of `directory` and `key`: a file for lines in clear, or `-` for standard error.",
        '"audit.jsonl"',
        default=None,
    )


class ControlTable(Table):
    """Commands to a running process (`b2bua calls`) over a Unix-domain socket. Without the table there is none."""

    socket: PathText = _key(
        "The socket. Its directory is made with mode 0700 and must be this user's alone.",
        '"run/control.sock"',
    )


class LogTable(Table):
    """Events of the process on standard error, and in a sealed file if one is named; no numbers, URIs or keys."""

    level: LevelValue = _key("`debug`, `info`, `warning` or `error`.", '"info"', default=LogLevel.INFO)
    format: FormatValue = _key("`text` or `json`.", '"text"', default=LogFormat.TEXT)
    directory: PathText | None = _key(
        "Directory of a sealed log file, of its own; `b2bua log show` reads it. Never in clear.",
        '"log"',
        default=None,
    )
    key: str | None = _key(
        "Name of a `[keys.NAME]` table that no tenant uses, for the sealed log file.", '"log"', default=None
    )
    segment_seconds: int = _key(
        "Length after which the log file goes on in a new one with a new data key.",
        "3600",
        default=_default_of(LogSettings, "segment_seconds"),
        ge=10,
        le=14400,
    )


class PostureTable(Table):
    """What `b2bua posture` cannot find out by itself."""

    fips_required: bool | None = _key(
        "Whether a FIPS provider must be in force. Left out: the report asks for it to be said.",
        "false",
        default=None,
    )
    claimed_certificates: ClaimsValue = _key(
        "CMVP certificate numbers, shown as claimed by operator: of the modules `sip`, `python-ssl`, `cryptography`, "
        "and of keys as `keys.NAME`.",
        '{ sip = "4282" }',
        default={},
    )
    accepted: list[FindingValue] = _key(
        "Findings that were taken note of and no longer count in the verdict, by their key; an alarm always counts.",
        '["sink.lock"]',
        default=[],
    )
