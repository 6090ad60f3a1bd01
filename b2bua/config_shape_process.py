"""Tables about the process: what it is for, and what it tells to whom."""

from __future__ import annotations

from typing import Annotated

from b2bua import config_values as values
from b2bua.config_table import PathText, Table, default_of, documented, read_by
from b2bua.settings import AuditSettings, Environment, LogFormat, LogLevel, LogSettings

EnvironmentValue = Annotated[Environment, read_by(values.one_of(Environment, values.by_value))]
LevelValue = Annotated[LogLevel, read_by(values.one_of(LogLevel, values.by_value))]
FormatValue = Annotated[LogFormat, read_by(values.one_of(LogFormat, values.by_value))]
ListenValue = Annotated[values.HostPort, read_by(values.read_listen)]
IdentityValue = Annotated[str, read_by(values.read_host_name)]
NumberValue = Annotated[str, read_by(values.read_emergency_number)]
ClaimsValue = Annotated[dict[str, str], read_by(values.read_claims)]
FindingValue = Annotated[str, read_by(values.read_finding_key)]


class General(Table):
    """Keys above the first table."""

    environment: EnvironmentValue = documented(
        "`production` refuses local keys and a development certificate authority.",
        '"development"',
        default=Environment.PRODUCTION,
    )
    emergency_numbers: list[NumberValue] = documented(
        "Numbers, as dialled, whose calls are never refused or ended for recording, key or admission "
        "reasons. TLS and SRTP policy stays.",
        '["112", "911"]',
        default=[],
    )


class MetricsTable(Table):
    """Prometheus, liveness and readiness over TLS 1.3 with client certificates. Without the table nothing listens."""

    listen: ListenValue = documented("Address and port.", '"127.0.0.1:9443"')
    clients: list[IdentityValue] = documented(
        "DNS names, one of which a client's certificate carries.", '["prometheus.example.test"]', min_length=1
    )
    certificate: PathText | None = documented(
        "Default: `tls.certificate`.", '"tls/metrics.pem"', default=None
    )
    private_key: PathText | None = documented(
        "Default: `tls.private_key`.", '"tls/metrics.key"', default=None
    )
    trust: PathText | None = documented("Default: `tls.trust`.", '"tls/ca.pem"', default=None)
    crl: PathText | None = documented("Default: `tls.crl`.", '"tls/ca.crl"', default=None)


class AuditTable(Table):
    """Who was let in, refused, recorded or read, and why: sealed lines with ids, trunk, status and reason only."""

    directory: PathText | None = documented(
        "Directory of the sealed log, of its own. `b2bua audit` verifies and reads it.",
        '"audit"',
        default=None,
    )
    key: str | None = documented(
        "Name of a `[keys.NAME]` table that no tenant uses. The log's writer needs no right to unwrap under it.",
        '"audit"',
        default=None,
    )
    segment_seconds: int = documented(
        "Length after which the log goes on in a new file with a new data key.",
        "300",
        default=default_of(AuditSettings, "segment_seconds"),
        ge=10,
        le=14400,
    )
    commit_ms: int = documented(
        "How long a line may wait, in ms, to be written and synced with others: what kill -9 may cost.",
        "200",
        default=default_of(AuditSettings, "commit_ms"),
        ge=0,
        le=5000,
    )
    retain_days: int = documented(
        "Age in days from which `b2bua audit expire` may remove a file of the log, by its newest line. The default is "
        "six years (45 CFR 164.316(b)(2)(i)). Nothing is removed by itself.",
        "3653",
        default=default_of(AuditSettings, "retain_days"),
        ge=1,
        le=36525,
    )
    checkpoints: PathText | None = documented(
        "File for signed heads of the log's chain, one for each file that ends; `recording.signing_key` signs them. "
        "Keep it, or a copy, where who may write `directory` may not. Default: beside it, with `-checkpoints.jws`.",
        '"/mnt/other/audit-checkpoints.jws"',
        default=None,
    )
    plain: PathText | None = documented(
        "Development only, instead of `directory` and `key`: a file for lines in clear, or `-` for standard error.",
        '"audit.jsonl"',
        default=None,
    )


class ControlTable(Table):
    """Commands to a running process (`b2bua calls`) over a Unix-domain socket. Without the table there is none."""

    socket: PathText = documented(
        "The socket. Its directory is made with mode 0700 and must be this user's alone.",
        '"run/control.sock"',
    )


class LogTable(Table):
    """Events of the process on standard error, and in a sealed file if one is named; no numbers, URIs or keys."""

    level: LevelValue = documented("`debug`, `info`, `warning` or `error`.", '"info"', default=LogLevel.INFO)
    format: FormatValue = documented("`text` or `json`.", '"text"', default=LogFormat.TEXT)
    directory: PathText | None = documented(
        "Directory of a sealed log file, of its own; `b2bua log show` reads it. Never in clear.",
        '"log"',
        default=None,
    )
    key: str | None = documented(
        "Name of a `[keys.NAME]` table that no tenant uses, for the sealed log file.", '"log"', default=None
    )
    segment_seconds: int = documented(
        "Length after which the log file goes on in a new one with a new data key.",
        "3600",
        default=default_of(LogSettings, "segment_seconds"),
        ge=10,
        le=14400,
    )


class PostureTable(Table):
    """What `b2bua posture` cannot find out by itself."""

    fips_required: bool | None = documented(
        "Whether a FIPS provider must be in force. Left out: the report asks for it to be said.",
        "false",
        default=None,
    )
    claimed_certificates: ClaimsValue = documented(
        "CMVP certificate numbers, shown as claimed by operator: of the modules `sip`, `python-ssl`, `cryptography`, "
        "and of keys as `keys.NAME`.",
        '{ sip = "4282" }',
        default={},
    )
    accepted: list[FindingValue] = documented(
        "Findings that were taken note of and no longer count in the verdict, by their key; an alarm always counts.",
        '["sink.lock"]',
        default=[],
    )
