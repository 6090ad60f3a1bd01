"""Configuration file -> frozen settings. The only reader of the environment.

`load` finds every fault in one go: syntax, then each table by itself, then what concerns several of them,
then the files named.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from b2bua.config_checks import ALL_CHECKS
from b2bua.config_document import Document, Section, parse
from b2bua.config_files import check_files, material_settings, metrics_material_settings
from b2bua.config_index import check_index_files, index_settings, retention_settings
from b2bua.config_keys import key_settings
from b2bua.config_shape_calls import RouteTable, TenantTable, TrunkTable
from b2bua.config_sink import sink_settings
from b2bua.errors import ConfigurationError, ConfigurationProblem
from b2bua.settings import (
    AuditSettings,
    ControlSettings,
    Limits,
    Listener,
    LogSettings,
    MediaSettings,
    MetricsSettings,
    PauseCodes,
    PostureSettings,
    Route,
    Settings,
    Tenant,
    TrunkSettings,
)
from recording.settings import (
    PoolSettings,
    RecordingSettings,
)

PATH_VARIABLE = "SEALTRUNK_CONFIG"
"""Names the file for commands that were given none; nothing else is read from the environment."""

STANDARD_ERROR = "-"
"""As a value of `audit.plain`."""
MAX_FILE_BYTES = 1 << 20
"""A thousand trunks take a third of this; more is not a configuration."""


def default_path() -> Path | None:
    """The configuration file that the environment names, if it does."""
    value = os.environ.get(PATH_VARIABLE)
    return Path(value) if value else None


def load(path: Path, *, now: datetime | None = None) -> Settings:
    """Read, judge and build.

    Args:
        path: the TOML file; relative paths inside it are relative to its directory.
        now: the moment certificates are judged at, aware; None: the clock.

    Raises:
        ConfigurationError: with every problem found, in the order of the file.
    """
    text = _read(path)
    document, report = parse(text, path)
    for check in ALL_CHECKS:
        check(document, report)
    check_files(document, report, now if now is not None else datetime.now(UTC))
    check_index_files(document, report)
    if report.problems:
        raise ConfigurationError(report.ordered())
    return replace(_build(document), configuration_sha256=hashlib.sha256(text.encode()).hexdigest())


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        cure = "name an existing file, or make a configuration with: b2bua init DIR"
        raise _whole_file(path, f"can't be read ({error.strerror})", cure) from error
    if len(data) > MAX_FILE_BYTES:
        raise _whole_file(path, f"is larger than {MAX_FILE_BYTES} bytes", "name a configuration file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _whole_file(path, "is not UTF-8", "save this line as UTF-8", line=line) from error


def _whole_file(path: Path, what: str, cure: str, *, line: int | None = None) -> ConfigurationError:
    return ConfigurationError(
        [ConfigurationProblem(path=str(path), line=line, key="(file)", what=what, cure=cure)]
    )


def _build(document: Document) -> Settings:
    """The settings of a document in which no check found a fault."""
    assert document.limits is not None
    assert document.posture is not None
    general, limits = document.general.value, document.limits.value
    return Settings(
        environment=general.environment,
        listener=_listener(document),
        tls=material_settings(document),
        media=_media(document),
        trunks={name: _trunk(name, section) for name, section in document.trunks.items()},
        routes=tuple(_route(section) for section in document.routes),
        tenants={name: _tenant(name, section) for name, section in document.tenants.items()},
        recording=_recording(document),
        limits=Limits(
            max_calls=limits.max_calls,
            max_calls_per_s=limits.max_calls_per_s,
            retry_after_s=limits.retry_after_s,
            drain_deadline_s=limits.drain_deadline_s,
            peer_gone_s=limits.peer_gone_s,
            pause_max_s=limits.pause_max_s,
        ),
        metrics=_metrics(document),
        audit=_audit(document),
        log=_log(document),
        posture=PostureSettings(
            fips_required=document.posture.value.fips_required,
            claimed_certificates=dict(document.posture.value.claimed_certificates),
            accepted=frozenset(document.posture.value.accepted),
        ),
        control=_control(document),
        emergency_numbers=frozenset(general.emergency_numbers),
    )


def _optional(document: Document, text: str | None) -> Path | None:
    return None if text is None else document.file(text)


def _listener(document: Document) -> Listener:
    assert document.sip is not None
    listen, public = document.sip.value.listen, document.sip.value.public
    assert listen.port is not None, "read_listen requires a port"
    return Listener(
        address=listen.host,
        port=listen.port,
        public_host=listen.host if public is None else public.host,
        public_port=listen.port if public is None or public.port is None else public.port,
    )


def _media(document: Document) -> MediaSettings:
    assert document.media is not None
    table = document.media.value
    return MediaSettings(
        address=table.address,
        public_address=table.public_address or table.address,
        rtp_port_first=table.rtp_ports.first,
        rtp_port_last=table.rtp_ports.last,
        codecs=tuple(dict.fromkeys(table.codecs)),
    )


def _trunk(name: str, section: Section[TrunkTable]) -> TrunkSettings:
    table = section.value
    return TrunkSettings(
        name=name,
        identities=frozenset(table.identities),
        sources=tuple(table.sources),
        target=table.target,
        tenant=table.tenant,
        addresses=tuple(table.addresses),
        recording=table.recording,
        srtp_suites=tuple(dict.fromkeys(table.srtp_suites)),
        max_calls=table.max_calls,
        no_answer_s=table.no_answer_s,
        pass_headers=frozenset(table.pass_headers),
        pause_codes=_pause_codes(table),
        no_media_s=table.no_media_s,
        on_no_media=table.on_no_media,
    )


def _pause_codes(table: TrunkTable) -> PauseCodes | None:
    if table.pause_code is None or table.resume_code is None:
        return None
    return PauseCodes(
        pause=table.pause_code,
        resume=table.resume_code,
        heard_from=table.pause_codes_from,
        relayed=table.pause_codes_relayed,
    )


def _control(document: Document) -> ControlSettings | None:
    if document.control is None:
        return None
    return ControlSettings(socket=document.file(document.control.value.socket))


def _route(section: Section[RouteTable]) -> Route:
    table = section.value
    return Route(
        source=table.source,
        destination=table.destination,
        prefix=table.prefix,
        strip=table.strip,
        prepend=table.prepend,
    )


def _tenant(name: str, section: Section[TenantTable]) -> Tenant:
    table = section.value
    return Tenant(
        name=name,
        handle=table.handle,
        key=table.key,
        fallback_key=table.fallback_key,
        on_key_outage=table.on_key_outage,
    )


def _recording(document: Document) -> RecordingSettings:
    assert document.recording is not None
    table = document.recording.value
    directory = document.file(table.directory)
    spool, index = _optional(document, table.spool), _optional(document, table.index)
    return RecordingSettings(
        directory=directory,
        spool_directory=spool or directory.with_name(f"{directory.name}-spool"),
        index_path=index or directory.with_name(f"{directory.name}-index.sqlite"),
        keys={
            name: key_settings(section.value, document.file)
            for name, section in document.keys.items()
            if section is not None
        },
        layout=table.layout,
        chunk_size=table.chunk_size,
        record_ms=table.record_ms,
        drain_interval_ms=table.drain_interval_ms,
        fsync_interval_ms=table.fsync_interval_ms,
        segment_seconds=table.segment_seconds,
        queue_bytes=table.queue_bytes,
        min_free_bytes=table.min_free_bytes,
        index=index_settings(document),
        retention=retention_settings(document),
        signing_key_path=_optional(document, table.signing_key),
        verification_key_paths=tuple(document.file(text) for text in table.verification_keys),
        max_spool_bytes=table.max_spool_bytes,
        sink=sink_settings(document),
        pool=PoolSettings(
            size=table.pool.size,
            ttl_s=table.pool.ttl_s,
            refill_per_request=table.pool.refill_per_request,
            parallel_requests=table.pool.parallel_requests,
        ),
    )


def _audit(document: Document) -> AuditSettings:
    assert document.audit is not None
    table = document.audit.value
    if table.directory is None or table.key is None:
        plain = None if table.plain == STANDARD_ERROR else table.plain
        return AuditSettings(path=_optional(document, plain))
    key = document.keys[table.key]
    assert key is not None
    assert document.recording is not None
    recording = document.recording.value
    directory, checkpoints = document.file(table.directory), _optional(document, table.checkpoints)
    return AuditSettings(
        directory=directory,
        key_name=table.key,
        key=key_settings(key.value, document.file),
        segment_seconds=table.segment_seconds,
        commit_ms=table.commit_ms,
        retain_days=table.retain_days,
        signing_key_path=_optional(document, recording.signing_key),
        checkpoints_path=checkpoints or directory.with_name(f"{directory.name}-checkpoints.jws"),
    )


def _log(document: Document) -> LogSettings:
    assert document.log is not None
    table = document.log.value
    if table.directory is None or table.key is None:
        return LogSettings(level=table.level, format=table.format)
    key = document.keys[table.key]
    assert key is not None
    return LogSettings(
        level=table.level,
        format=table.format,
        directory=document.file(table.directory),
        key_name=table.key,
        key=key_settings(key.value, document.file),
        segment_seconds=table.segment_seconds,
    )


def _metrics(document: Document) -> MetricsSettings | None:
    if document.metrics is None:
        return None
    table, material = document.metrics.value, metrics_material_settings(document)
    assert material is not None
    assert table.listen.port is not None
    return MetricsSettings(
        address=table.listen.host,
        port=table.listen.port,
        tls=material,
        client_identities=frozenset(table.clients),
    )
