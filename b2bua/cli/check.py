"""`b2bua check`: every fault of a configuration at once, or what it would do."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

from b2bua import config
from b2bua.cli import output
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.errors import ConfigurationError
from b2bua.posture.policy import pauses_text
from b2bua.settings import Settings, TrunkSettings, bracketed
from recording.settings import (
    AWSKMSKeySettings,
    KeySettings,
    LocalKeySettings,
    LocalSinkSettings,
    PKCS11KeySettings,
    RecordingSettings,
    RSAKeySettings,
    S3SinkSettings,
    TLSFloor,
    VaultTransitKeySettings,
)
from recording.sinks.sink import LockMode
from tls.certificate import utc_text
from tls.material import TLSMaterial, load_material

ABORT_DAYS = 7
"""A week: an outage of a store over a holiday week-end, and the days in which somebody comes to mend it."""

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "check",
        summary="Say everything that is wrong with a configuration, or what it would listen on and do.",
        example="""
            b2bua check /etc/sealtrunk/b2bua.toml
            b2bua check lab/b2bua.toml --json
        """,
        run=run,
    )
    add_configuration(parser, positional=True)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Judge the file. With --json the faults are in the object, and the exit code is the same."""
    path = configuration_path(arguments)
    try:
        settings = config.load(path)
    except ConfigurationError as error:
        if not arguments.json:
            raise
        output.print_json({"ok": False, "problems": _problems(error)})
        return error.exit_code
    material = load_material(settings.tls, now=datetime.now(UTC))
    if arguments.json:
        output.print_json({"ok": True, **_summary(settings, material)})
    else:
        _print_summary(settings, material)
    return 0


def _problems(error: ConfigurationError) -> list[dict[str, object]]:
    return [
        {
            "path": problem.path,
            "line": problem.line,
            "key": problem.key,
            "what": problem.what,
            "cure": problem.cure,
        }
        for problem in error.problems
    ]


def _summary(settings: Settings, material: TLSMaterial) -> dict[str, object]:
    listener, media, metrics = settings.listener, settings.media, settings.metrics
    recording = settings.recording
    return {
        "environment": settings.environment.value,
        "sip": {
            "listen": f"{listener.where}",
            "public": f"{bracketed(listener.public_host)}:{listener.public_port}",
            "tls": "TLS 1.3 only, client certificates",
            "identities": sorted(identity.host for identity in material.identities),
            "certificate_sha256": material.fingerprint,
            "certificate_not_after": utc_text(material.not_after),
        },
        "media": {
            "address": media.address,
            "public_address": media.public_address,
            "rtp_ports": f"{media.rtp_port_first}-{media.rtp_port_last}",
            "codecs": [codec.name for codec in media.codecs],
        },
        "metrics": None
        if metrics is None
        else f"https://{bracketed(metrics.address)}:{metrics.port}/metrics",
        "trunks": {name: _trunk(trunk) for name, trunk in settings.trunks.items()},
        "routes": [
            {"from": route.source, "prefix": route.prefix, "to": route.destination}
            for route in settings.routes
        ],
        "keys": {name: key_text(key) for name, key in recording.keys.items()},
        "recording": {
            "directory": str(recording.directory),
            "sink": sink_text(recording),
            "spool": str(recording.spool_directory),
            "index": str(recording.index_path),
            "layout": recording.layout.value,
            **_loss_bounds(recording),
        },
        "audit": _audit_text(settings),
        "audit_kill_loss_bound_ms": settings.audit.kill_loss_bound_ms,
        "control": None if settings.control is None else str(settings.control.socket),
        "pauses": pauses_text(settings),
        "max_calls": settings.limits.max_calls,
        "emergency_numbers": len(settings.emergency_numbers),
        "warnings": [str(warning) for warning in material.warnings],
        "advice": _advice(recording),
    }


def _trunk(trunk: TrunkSettings) -> dict[str, object]:
    return {
        "identities": sorted(trunk.identities),
        "sources": [str(network) for network in trunk.sources],
        "target": None if trunk.target is None else trunk.target.uri(None),
        "tenant": trunk.tenant,
        "recording": trunk.recording.value,
        "srtp_suites": [suite.value for suite in trunk.srtp_suites],
        "max_calls": trunk.max_calls,
    }


def _loss_bounds(recording: RecordingSettings) -> dict[str, int]:
    return {
        "kill_loss_bound_ms": recording.kill_loss_bound_ms,
        "power_loss_bound_ms": recording.power_loss_bound_ms,
    }


def key_text(key: KeySettings) -> str:
    """One line about where a key-encryption key is."""
    match key:
        case LocalKeySettings():
            return f"local file {key.kek_path} (development only)"
        case AWSKMSKeySettings():
            return f"AWS KMS {key.key_id} in {key.region}" + (
                f" at {key.endpoint_url}" if key.endpoint_url else ""
            )
        case VaultTransitKeySettings():
            return f"transit key {key.key} of {key.server.address}, mount {key.server.mount}"
        case PKCS11KeySettings():
            return f"key {key.key} of PKCS#11 token {key.token} through {key.module_path}"
        case RSAKeySettings():
            return f"RSA public key {key.public_key_path or key.private_key_path}"
        case _:
            assert_never(key)


def _audit_text(settings: Settings) -> str:
    audit = settings.audit
    if audit.directory is not None:
        return f"{audit.directory}, sealed under {audit.key_name}"
    return f"in clear, {audit.path or 'standard error'} (development only)"


def sink_text(recording: RecordingSettings) -> str:
    """One line about where recordings are kept."""
    match recording.sink:
        case LocalSinkSettings():
            return str(recording.directory)
        case S3SinkSettings() as s3:
            place = f"S3 bucket {s3.bucket}{f'/{s3.prefix}' if s3.prefix else ''}"
            lock = (
                "no Object Lock"
                if s3.object_lock_mode is None
                else f"Object Lock {s3.object_lock_mode.value}"
            )
            return f"{place} at {s3.endpoint_url or f'AWS in {s3.region}'}, {lock}"
        case _:
            assert_never(recording.sink)


def _advice(recording: RecordingSettings) -> list[str]:
    """What only an operator of the bucket can set, and exceptions that somebody wrote down."""
    s3 = recording.sink
    if not isinstance(s3, S3SinkSettings):
        return []
    advice = [
        (
            f"bucket {s3.bucket}: give it a lifecycle rule AbortIncompleteMultipartUpload, DaysAfterInitiation above "
            f"the longest outage that the spool is sized for ({ABORT_DAYS} is a good start); what it aborts "
            "too early is sent again from the spool"
        )
    ]
    if s3.object_lock_mode is LockMode.COMPLIANCE:
        advice.append(
            "object_lock_mode COMPLIANCE: until its day comes nobody deletes a recording, nor may ask to"
        )
    if s3.tls_floor is not TLSFloor.TLS_1_3:
        advice.append(
            f"recording.sink speaks TLS {s3.tls_floor.value} at its lowest: an exception that posture shows"
        )
    return advice


def _print_summary(settings: Settings, material: TLSMaterial) -> None:
    listener, media, recording = settings.listener, settings.media, settings.recording
    metrics = (
        "none"
        if settings.metrics is None
        else f"{bracketed(settings.metrics.address)}:{settings.metrics.port}, https"
    )
    output.print_table(
        ["what", "how"],
        [
            ["environment", settings.environment.value],
            ["SIP", f"{listener.where}, TLS 1.3 only, client certificates"],
            ["told to peers", f"{bracketed(listener.public_host)}:{listener.public_port}"],
            ["our identities", ", ".join(sorted(identity.host for identity in material.identities))],
            ["certificate until", utc_text(material.not_after)],
            ["media", f"SRTP only, {media.address}, ports {media.rtp_port_first}-{media.rtp_port_last}"],
            ["metrics", metrics],
            ["recordings", f"{sink_text(recording)}, {recording.layout.value}"],
            *[[f"key {name}", key_text(key)] for name, key in recording.keys.items()],
            ["audit", _audit_text(settings)],
            ["commands", "no control socket" if settings.control is None else settings.control.socket],
            ["a recording", pauses_text(settings)],
            ["calls at once", settings.limits.max_calls],
            ["emergency numbers", len(settings.emergency_numbers)],
            ["a killed process loses at most", f"{recording.kill_loss_bound_ms} ms of audio"],
            ["a power cut loses at most", f"{recording.power_loss_bound_ms} ms of audio"],
            [
                "of the audit log either loses",
                f"{settings.audit.kill_loss_bound_ms} ms and the commit under way",
            ],
        ],
    )
    output.print_line()
    output.print_table(
        ["trunk", "identities", "from", "target", "recording", "tenant", "SRTP suites"],
        [
            [
                name,
                ", ".join(sorted(trunk.identities)),
                ", ".join(map(str, trunk.sources)),
                None if trunk.target is None else trunk.target.uri(None),
                trunk.recording.value,
                trunk.tenant,
                ", ".join(suite.value for suite in trunk.srtp_suites),
            ]
            for name, trunk in settings.trunks.items()
        ],
    )
    output.print_line()
    output.print_table(
        ["calls from", "beginning with", "go to"],
        [[route.source, route.prefix or "anything", route.destination] for route in settings.routes],
    )
    for text in _advice(recording):
        output.print_line(f"advice: {text}")
    for warning in material.warnings:
        output.print_error(f"warning: {warning}")
