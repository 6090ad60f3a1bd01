"""Tables about calls: the listener, media, admission, and who calls whom."""

from __future__ import annotations

from typing import Annotated

from b2bua import config_values as values
from b2bua.config_table import PathText, Table, default_of, documented, read_by
from b2bua.settings import (
    DEFAULT_SRTP_SUITES,
    Codec,
    CodesFrom,
    KeyOutagePolicy,
    Limits,
    MediaSettings,
    NoMediaPolicy,
    RecordingPolicy,
    SIPTarget,
    SRTPSuite,
    Tenant,
    TrunkSettings,
)

MOST_CALLS = 1000
"""What the SIP library is built for, two legs each, with a margin (packaging/pjsip/config_site.h)."""

MOST_RETAIN_DAYS = 36500
RETAIN_DAYS = (
    "Days that its recordings are kept, from the hour in which the call began; then `b2bua recordings expire` deletes "
    "them. Without it they are kept until somebody sets a time."
)

PolicyValue = Annotated[RecordingPolicy, read_by(values.one_of(RecordingPolicy, values.by_value))]
OutageValue = Annotated[KeyOutagePolicy, read_by(values.one_of(KeyOutagePolicy, values.by_value))]
SuiteValue = Annotated[SRTPSuite, read_by(values.read_suite)]
CodecValue = Annotated[Codec, read_by(values.one_of(Codec, values.by_name))]
ListenValue = Annotated[values.HostPort, read_by(values.read_listen)]
HostPortValue = Annotated[values.HostPort, read_by(values.read_host_port)]
PortRangeValue = Annotated[values.PortRange, read_by(values.read_port_range)]
UnicastValue = Annotated[str, read_by(values.read_unicast_ip)]
IdentityValue = Annotated[str, read_by(values.read_host_name)]
NetworkValue = Annotated[values.Network, read_by(values.read_network)]
TargetValue = Annotated[SIPTarget, read_by(values.read_target)]
HandleValue = Annotated[bytes, read_by(values.read_handle)]
DigitsValue = Annotated[str, read_by(values.read_digits)]
CodeValue = Annotated[str, read_by(values.read_pause_code)]
CodesFromValue = Annotated[CodesFrom, read_by(values.one_of(CodesFrom, values.by_value))]
NoMediaValue = Annotated[NoMediaPolicy, read_by(values.one_of(NoMediaPolicy, values.by_value))]
HeaderValue = Annotated[str, read_by(values.read_header_name)]


class SIP(Table):
    """The SIP listener: TLS 1.3 with client certificates."""

    listen: ListenValue = documented("Address and port to accept TLS connections on.", '"127.0.0.1:5061"')
    public: HostPortValue | None = documented(
        "Host and port that peers reach, written into Contact and Via. Default: `listen`, if that is one "
        "address.",
        '"edge.example.test:5061"',
        default=None,
    )


class TLS(Table):
    """The certificate of the SIP endpoint, for incoming and outgoing connections."""

    certificate: PathText = documented("PEM file: our certificate, then its intermediates.", '"tls/edge.pem"')
    private_key: PathText = documented("PEM file of mode 0600.", '"tls/edge.key"')
    trust: PathText = documented(
        "PEM file with the certificate authorities that vouch for peers.", '"tls/ca.pem"'
    )
    crl: PathText | None = documented(
        "PEM file with revocation lists, one current list per authority.", '"tls/ca.crl"', default=None
    )


class Media(Table):
    """RTP: SRTP only, on even ports, RTCP on the odd ones."""

    address: UnicastValue = documented("Address to bind media to.", '"127.0.0.1"')
    public_address: UnicastValue | None = documented(
        "Address written into SDP. Default: `address`.", '"192.0.2.10"', default=None
    )
    rtp_ports: PortRangeValue = documented("First and last port; a call takes four.", '"20000-23999"')
    codecs: list[CodecValue] = documented(
        "Codecs offered, best first: PCMU, PCMA, G722.",
        '["PCMU", "PCMA"]',
        default=list(default_of(MediaSettings, "codecs")),
        min_length=1,
    )


class LimitsTable(Table):
    """Admission. Above a limit a call gets 503 with Retry-After."""

    max_calls: int = documented(
        "Calls at once.", "500", default=default_of(Limits, "max_calls"), ge=1, le=MOST_CALLS
    )
    max_calls_per_s: int = documented(
        "New calls in a second.", "100", default=default_of(Limits, "max_calls_per_s"), ge=1, le=10000
    )
    retry_after_s: int = documented(
        "Seconds in Retry-After.", "5", default=default_of(Limits, "retry_after_s"), ge=1, le=3600
    )
    drain_deadline_s: int = documented(
        "Seconds that calls may go on after SIGTERM.",
        "300",
        default=default_of(Limits, "drain_deadline_s"),
        ge=0,
        le=14400,
    )
    peer_gone_s: int = documented(
        "Seconds without a connection and without audio after which a peer is gone and its calls end.",
        "30",
        default=default_of(Limits, "peer_gone_s"),
        ge=1,
        le=3600,
    )
    pause_max_s: int = documented(
        "Seconds after which a paused recording goes on by itself.",
        "300",
        default=default_of(Limits, "pause_max_s"),
        ge=1,
        le=3600,
    )


class TenantTable(Table):
    """The owner of keys and recordings."""

    handle: HandleValue = documented(
        "32 random hex digits, the only name of the tenant in clear on disk.", '"6f1d0c…"'
    )
    key: str = documented("Name of a `[keys.NAME]` table.", '"dev"')
    fallback_key: str | None = documented(
        "Name of a `[keys.NAME]` table with `rsa-oaep-sha256`, whose public part wraps data keys while `key` is "
        "away and the pool is empty. Each use is audited.",
        '"escrow"',
        default=None,
    )
    on_key_outage: OutageValue = documented(
        "What becomes of a call that must be recorded when there is no data key at all: `reject` answers 503, "
        "`connect-unrecorded` lets it go on without a recording, audited and alarmed.",
        '"reject"',
        default=default_of(Tenant, "on_key_outage"),
    )
    retain_days: int | None = documented(RETAIN_DAYS, "3650", default=None, ge=1, le=MOST_RETAIN_DAYS)


class TrunkTable(Table):
    """A peer. Its certificate decides which trunk a connection belongs to."""

    identities: list[IdentityValue] = documented(
        "DNS names, one of which its certificate carries as subjectAltName.",
        '["pbx.example.test"]',
        min_length=1,
    )
    sources: list[NetworkValue] = documented(
        "Networks its connections come from.", '["192.0.2.0/24"]', min_length=1
    )
    target: TargetValue | None = documented(
        "Where calls to it go: `sips:HOST:PORT` or `sip:HOST:PORT;transport=tls`. Without it the trunk "
        "only calls in.",
        '"sips:pbx.example.test:5061"',
        default=None,
    )
    addresses: list[UnicastValue] = documented(
        "Addresses of the target. Default: its name is looked up.", '["192.0.2.20"]', default=[]
    )
    tenant: str = documented("Name of a `[tenants.NAME]` table.", '"clinic"')
    recording: PolicyValue = documented(
        "`required`: no recording, no call; `best-effort`: the call goes on, audited; `off`.",
        '"required"',
        default=RecordingPolicy.REQUIRED,
    )
    srtp_suites: list[SuiteValue] = documented(
        "SRTP suites allowed, best first.",
        '["AEAD_AES_256_GCM"]',
        default=list(DEFAULT_SRTP_SUITES),
        min_length=1,
    )
    max_calls: int = documented(
        "Calls at once with a leg on this trunk.", "100", default=100, ge=1, le=MOST_CALLS
    )
    no_answer_s: int = documented("Seconds a call may ring.", "180", default=180, ge=5, le=600)
    retain_days: int | None = documented(
        "The same for calls with a leg on this trunk, in place of the tenant's. Of two trunks the longer one counts.",
        "365",
        default=None,
        ge=1,
        le=MOST_RETAIN_DAYS,
    )
    pass_headers: list[HeaderValue] = documented(
        "Headers relayed to the other leg besides the standard ones.", '["X-Call-Reference"]', default=[]
    )
    pause_code: CodeValue | None = documented(
        "Digits (RFC 4733) by which a party on this trunk pauses the recording, for card numbers. Set with "
        "`resume_code`.",
        '"*71"',
        default=None,
    )
    resume_code: CodeValue | None = documented("Digits that end the pause.", '"*72"', default=None)
    pause_codes_from: CodesFromValue = documented(
        "Where the codes are listened for: `a`, on legs by which this trunk calls; `b`, on legs by which it is "
        "called; `both`.",
        '"b"',
        default=CodesFrom.BOTH,
    )
    pause_codes_relayed: bool = documented(
        "Whether the digits of a code cross to the other party as all digits do. If not, a digit that may "
        "begin a code is withheld for up to 3 s.",
        "true",
        default=True,
    )
    no_media_s: int = documented(
        "Seconds after which a leg of an answered call is reported whose peer says that it sends and from which "
        "no packet comes that authenticates.",
        "10",
        default=default_of(TrunkSettings, "no_media_s"),
        ge=2,
        le=600,
    )
    on_no_media: NoMediaValue = documented(
        "`report`: count, audit and warn; `end`: end the call as well, unless it is to an emergency number.",
        '"report"',
        default=NoMediaPolicy.REPORT,
    )


class RouteTable(Table):
    """Calls of one trunk whose number begins with `prefix` go to another; the longest prefix wins."""

    source: str = documented("Trunk the call comes from.", '"pbx"', alias="from")
    destination: str = documented("Trunk it goes to.", '"carrier"', alias="to")
    prefix: DigitsValue = documented("Beginning of the called number.", '"+49"', default="")
    strip: int = documented("Characters taken off its beginning.", "1", default=0, ge=0, le=32)
    prepend: DigitsValue = documented("Digits then put before it.", '"00"', default="")
