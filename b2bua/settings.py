"""Frozen settings of a running B2BUA, as `b2bua.config` builds them from TOML.

No I/O, no defaults from the environment.

Paths are absolute. Durations carry their unit in the name. Identities are lower-case host names.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recording.settings import KeySettings, RecordingSettings
from tls.settings import TLSMaterialSettings


class Environment(enum.Enum):
    """`production` refuses development keys and a development certificate authority."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class SRTPSuite(enum.Enum):
    """The SRTP suites a trunk may allow, by their SDES names. No NULL, short-tag or AES-192 suite is ever a member.

    Source: RFC 7714 section 14.2 (AEAD), RFC 4568 section 6.2 (AES_CM), RFC 6188 section 4 (AES_256_CM).
    """

    AEAD_AES_256_GCM = "AEAD_AES_256_GCM"
    AEAD_AES_128_GCM = "AEAD_AES_128_GCM"
    AES_256_CM_HMAC_SHA1_80 = "AES_256_CM_HMAC_SHA1_80"
    AES_CM_128_HMAC_SHA1_80 = "AES_CM_128_HMAC_SHA1_80"


DEFAULT_SRTP_SUITES = (SRTPSuite.AEAD_AES_256_GCM, SRTPSuite.AEAD_AES_128_GCM)


class RecordingPolicy(enum.Enum):
    """What a trunk asks of the recorder.

    required: no recorder or no key, no call; a recorder that fails later ends the call.
    best-effort: the call goes on unrecorded, audited and alarmed. off: never recorded.
    """

    REQUIRED = "required"
    BEST_EFFORT = "best-effort"
    OFF = "off"


class KeyOutagePolicy(enum.Enum):
    """What becomes of a call that must be recorded when its tenant has no data key, not even a fallback one."""

    REJECT = "reject"
    CONNECT_UNRECORDED = "connect-unrecorded"


class Codec(enum.Enum):
    """Codecs offered to a leg, by pjmedia's identifier."""

    PCMU = "PCMU/8000/1"
    PCMA = "PCMA/8000/1"
    G722 = "G722/16000/1"


class LogLevel(enum.Enum):
    """Least severe log event that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.Enum):
    """`text`: event name and key=value; `json`: one object a line."""

    TEXT = "text"
    JSON = "json"


def bracketed(host: str) -> str:
    """A host as it stands before a port: an IPv6 address in brackets. Source: RFC 3986 section 3.2.2."""
    return f"[{host}]" if ":" in host else host


class URIScheme(enum.Enum):
    """RFC 3261 section 19.1; both run over TLS here."""

    SIP = "sip"
    SIPS = "sips"


@dataclass(frozen=True, slots=True, kw_only=True)
class SIPTarget:
    """The next hop of a trunk.

    With SIP the URI carries ;transport=tls. `port` None means 5061 (or SRV where DNS is set up).

    Source: RFC 3261 section 19.1, RFC 5630.
    """

    scheme: URIScheme
    host: str
    port: int | None = None

    @property
    def host_port(self) -> str:
        host = bracketed(self.host)
        return host if self.port is None else f"{host}:{self.port}"

    def uri(self, user: str | None) -> str:
        """The request URI for `user` (already escaped), e.g. `sips:alice@pbx.example:5061`."""
        userinfo = "" if user is None else f"{user}@"
        suffix = ";transport=tls" if self.scheme is URIScheme.SIP else ""
        return f"{self.scheme.value}:{userinfo}{self.host_port}{suffix}"


class CodesFrom(enum.Enum):
    """On which of its legs a trunk listens for pause codes: where it calls (A), where it is called (B)."""

    A = "a"
    B = "b"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseCodes:
    """Digits by which a party pauses and resumes the recording; neither is the beginning of the other.

    `relayed`: they cross to the far end like any digits.
    """

    pause: str = field(repr=False)
    resume: str = field(repr=False)
    heard_from: CodesFrom = CodesFrom.BOTH
    relayed: bool = True


class NoMediaPolicy(enum.Enum):
    """What becomes of an answered call one side of which sends nothing that authenticates."""

    REPORT = "report"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkSettings:
    """One configured peer.

    `identities` are host names that its certificate's SAN must carry (RFC 5922), any one of them.

    `sources` are the networks its connections may come from. `addresses` are IP literals where `target.host` is
    reached; empty: the
    name is looked up off the SIP thread. `max_calls` counts calls with a leg on this trunk. `target` None: this
    trunk only calls in.
    """

    name: str
    identities: frozenset[str]
    sources: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    target: SIPTarget | None
    tenant: str
    addresses: tuple[str, ...] = ()
    recording: RecordingPolicy = RecordingPolicy.REQUIRED
    srtp_suites: tuple[SRTPSuite, ...] = DEFAULT_SRTP_SUITES
    max_calls: int = 100
    no_answer_s: int = 180
    pass_headers: frozenset[str] = frozenset()
    pause_codes: PauseCodes | None = None
    no_media_s: int = 10
    on_no_media: NoMediaPolicy = NoMediaPolicy.REPORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Calls of trunk `source` whose called user part starts with `prefix` go out on `destination`.

    Longest prefix wins.
    """

    source: str
    destination: str
    prefix: str = ""
    strip: int = 0
    prepend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Owner of keys and recordings.

    `handle` is 16 random bytes, never derived from the name; `key` names a key provider section. While that one is
    away, `fallback_key` names one that wraps with a public key; with no data key at all `on_key_outage` decides.
    """

    name: str
    handle: bytes
    key: str
    fallback_key: str | None = None
    on_key_outage: KeyOutagePolicy = KeyOutagePolicy.REJECT

    @property
    def key_names(self) -> tuple[str, ...]:
        """Every key section that new data keys of the tenant may be under."""
        return (self.key,) if self.fallback_key is None else (self.key, self.fallback_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where SIP over TLS is accepted.

    `public_*` is what Contact and Via say; never a name that needs a look-up to bind.
    """

    address: str
    port: int
    public_host: str
    public_port: int

    @property
    def where(self) -> str:
        """Where it listens, as operators write it."""
        return f"{bracketed(self.address)}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSettings:
    """RTP addresses and ports. `rtp_port_first` is even; each leg takes an RTP and an RTCP port."""

    address: str
    public_address: str
    rtp_port_first: int
    rtp_port_last: int
    codecs: tuple[Codec, ...] = (Codec.PCMU, Codec.PCMA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Admission.

    Above `max_calls` or `max_calls_per_s` a new call gets 503 with Retry-After `retry_after_s` (RFC 3261
    21.5.4).
    """

    max_calls: int = 500
    max_calls_per_s: int = 100
    retry_after_s: int = 5
    drain_deadline_s: int = 300
    peer_gone_s: int = 30
    pause_max_s: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """The Prometheus, liveness and readiness endpoint: TLS 1.3 with client certificates, like every other one."""

    address: str
    port: int
    tls: TLSMaterialSettings
    client_identities: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """Audit lines are JSON, one a line, with ids, trunk, status and reason only.

    With a `directory` they are sealed there under the key that `key_name` names; `key` is that section's settings.
    Without, they go in clear to `path`, None: standard error; production refuses that. `commit_ms`: how long a line may
    wait for others to be written with it. `retain_days`: a line's age from which `b2bua audit expire` may take it away;
    six years. Source: 45 CFR 164.316(b)(2)(i). Each time a file ends, the chain's head is signed by the key in
    `signing_key_path` and added to `checkpoints_path`.
    """

    directory: Path | None = None
    key_name: str | None = None
    key: KeySettings | None = None
    segment_seconds: int = 300
    commit_ms: int = 200
    retain_days: int = 2192
    path: Path | None = None
    signing_key_path: Path | None = None
    checkpoints_path: Path | None = None

    @property
    def kill_loss_bound_ms(self) -> int:
        """Lines of how long kill -9 may cost, besides the commit that is under way."""
        return self.commit_ms if self.directory is not None else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """The Unix-domain socket for commands to a running process; its directory is this user's alone."""

    socket: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What `b2bua.log.set_up` writes to standard error; with a `directory` a serving process seals it there too.

    `key_name` names the key section of that file; `key` is that section's settings.
    """

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.TEXT
    directory: Path | None = None
    key_name: str | None = None
    key: KeySettings | None = None
    segment_seconds: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class PostureSettings:
    """What the operator tells the posture report.

    `fips_required` None: the operator has not said. `claimed_certificates`: CMVP numbers by module ("sip",
    "python-ssl", "cryptography") or key ("keys.NAME"), shown as claims. `accepted`: keys of findings taken note of.
    """

    fips_required: bool | None = None
    claimed_certificates: Mapping[str, str] = field(default_factory=dict)
    accepted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything `b2bua serve` needs."""

    environment: Environment
    listener: Listener
    tls: TLSMaterialSettings
    media: MediaSettings
    trunks: Mapping[str, TrunkSettings]
    routes: tuple[Route, ...]
    tenants: Mapping[str, Tenant]
    recording: RecordingSettings
    limits: Limits = field(default_factory=Limits)
    metrics: MetricsSettings | None = None
    audit: AuditSettings = field(default_factory=AuditSettings)
    log: LogSettings = field(default_factory=LogSettings)
    posture: PostureSettings = field(default_factory=PostureSettings)
    control: ControlSettings | None = None
    emergency_numbers: frozenset[str] = frozenset()
    configuration_sha256: str | None = None
