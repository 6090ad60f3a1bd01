"""What the configuration itself decides: SRTP suites, recording policies, tenants' keys, exceptions. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from b2bua.posture.report import Level, Row, Safeguard
from b2bua.settings import (
    DEFAULT_SRTP_SUITES,
    KeyOutagePolicy,
    RecordingPolicy,
    Settings,
    Tenant,
    TrunkSettings,
)
from recording.settings import (
    AWSKMSKeySettings,
    LocalKeySettings,
    PKCS11KeySettings,
    RSAKeySettings,
    TLSFloor,
    VaultTransitKeySettings,
)

_READ = "the configuration, as the program itself reads it"
_AEAD = frozenset(DEFAULT_SRTP_SUITES)
_POLICY_LEVELS = {
    RecordingPolicy.REQUIRED: (Level.OK, "required: no recording, no call"),
    RecordingPolicy.BEST_EFFORT: (Level.ATTENTION, "best-effort: a call may go on unrecorded"),
    RecordingPolicy.OFF: (Level.ATTENTION, "off: calls are never recorded"),
}


def policy_rows(settings: Settings) -> Sequence[Row]:
    """Every row that needs nothing but the settings."""
    trunks = list(settings.trunks.values())
    return [
        *(judge_suites(trunk) for trunk in trunks),
        *(judge_recording(trunk) for trunk in trunks),
        judge_exceptions(settings),
        judge_emergency(settings),
        *judge_tenants(settings),
        *judge_outages(settings),
        judge_data_keys(settings),
        judge_tokens(),
        *judge_hops(settings),
    ]


def judge_suites(trunk: TrunkSettings) -> Row:
    """AES_CM with HMAC-SHA1 is an exception that a trunk must ask for."""
    names = ", ".join(suite.value for suite in trunk.srtp_suites)
    older = [suite.value for suite in trunk.srtp_suites if suite not in _AEAD]
    return Row(
        key=f"srtp.{trunk.name}",
        safeguard=Safeguard.MEDIA,
        subject=f"SRTP suites of trunk {trunk.name}",
        finding=f"{names}; not AEAD: {', '.join(older)}" if older else f"{names}; SRTP is mandatory",
        evidence=_READ,
        level=Level.ATTENTION if older else Level.OK,
    )


def judge_recording(trunk: TrunkSettings) -> Row:
    """What becomes of a call that can't be recorded."""
    level, finding = _POLICY_LEVELS[trunk.recording]
    return Row(
        key=f"recording.{trunk.name}",
        safeguard=Safeguard.INTEGRITY,
        subject=f"recording on trunk {trunk.name}",
        finding=finding,
        evidence=_READ,
        level=level,
    )


def judge_exceptions(settings: Settings) -> Row:
    """Endpoints that somebody allowed to be spoken to in TLS 1.2. Listeners can't be: their probes show it."""
    exceptions = settings.recording.tls_floor_exceptions
    return Row(
        key="tls.exceptions",
        safeguard=Safeguard.TLS,
        subject="TLS 1.2 exceptions in force",
        finding=f"{len(exceptions)}: {', '.join(exceptions)}" if exceptions else "none",
        evidence=_READ,
        level=Level.ATTENTION if exceptions else Level.OK,
    )


def judge_emergency(settings: Settings) -> Row:
    """Calls that go through unrecorded if need be, on purpose. How many numbers, not which."""
    count = len(settings.emergency_numbers)
    return Row(
        key="recording.emergency",
        safeguard=Safeguard.INTEGRITY,
        subject="emergency numbers",
        finding=f"calls to {count} numbers are never refused or ended for recording or key reasons"
        if count
        else "none is listed: an emergency call is refused like any other where it can't be recorded",
        evidence=_READ,
        level=Level.OK if count else Level.ATTENTION,
    )


def judge_tenants(settings: Settings) -> Sequence[Row]:
    """A key of its own for each tenant, so that one can be revoked without the others."""
    by_key: dict[str, list[str]] = defaultdict(list)
    for tenant in settings.tenants.values():
        for key in tenant.key_names:
            by_key[key].append(tenant.name)
    return [
        Row(
            key=f"tenants.{key}",
            safeguard=Safeguard.TENANTS,
            subject=f"tenants of key {key}",
            finding=f"{', '.join(sorted(tenants))} share it: revoking it revokes all of them"
            if len(tenants) > 1
            else f"{tenants[0]} alone",
            evidence=_READ,
            level=Level.ATTENTION if len(tenants) > 1 else Level.OK,
        )
        for key, tenants in sorted(by_key.items())
    ]


def judge_outages(settings: Settings) -> Sequence[Row]:
    """What each tenant's calls do while its key service is away and no data key is left."""
    return [_outage(tenant) for _, tenant in sorted(settings.tenants.items())]


def _outage(tenant: Tenant) -> Row:
    goes_on = tenant.on_key_outage is KeyOutagePolicy.CONNECT_UNRECORDED
    last = "calls go on unrecorded" if goes_on else "calls that must be recorded are refused"
    fallback = tenant.fallback_key
    return Row(
        key=f"tenants.{tenant.name}.outage",
        safeguard=Safeguard.INTEGRITY,
        subject=f"key service of tenant {tenant.name} away",
        finding=last if fallback is None else f"public key {fallback} wraps; without it {last}",
        evidence=_READ,
        level=Level.ATTENTION if goes_on else Level.OK,
    )


def judge_data_keys(settings: Settings) -> Row:
    """One data key for each segment, and how long an unused one is kept."""
    recording = settings.recording
    return Row(
        key="keys.data",
        safeguard=Safeguard.KEY_AGE,
        subject="data keys",
        finding=f"one for each segment of at most {recording.segment_seconds} s; unused ones are thrown away after "
        f"{recording.pool.ttl_s} s",
        evidence=_READ,
        level=Level.OK,
    )


def judge_tokens() -> Row:
    """There is nothing yet that would take a token."""
    return Row(
        key="tokens",
        safeguard=Safeguard.TOKENS,
        subject="tokens for the HTTP API",
        finding="this version has no HTTP API and issues no tokens",
        evidence="the program's own parts",
        level=Level.OK,
    )


def judge_hops(settings: Settings) -> Sequence[Row]:
    """The connections that this process makes to key services."""
    return [
        Row(
            key=f"tls.keys.{name}",
            safeguard=Safeguard.TLS,
            subject=f"connection to the service of key {name}",
            finding=(
                "TLS 1.3 only" if floor is TLSFloor.TLS_1_3 else "TLS 1.2 by exception, AEAD suites only"
            )
            + ", names verified against "
            + ("the platform's authorities" if ca_path is None else str(ca_path)),
            evidence="the client's own settings; what the service accepts from others is not asked",
            level=Level.OK if floor is TLSFloor.TLS_1_3 else Level.ATTENTION,
        )
        for name, (floor, ca_path) in _hops(settings).items()
    ]


def _hops(settings: Settings) -> dict[str, tuple[TLSFloor, Path | None]]:
    """TLS floor and trust anchors towards each key service."""
    found: dict[str, tuple[TLSFloor, Path | None]] = {}
    for name, key in settings.recording.keys.items():
        match key:
            case AWSKMSKeySettings():
                found[name] = (key.tls_floor, key.ca_path)
            case VaultTransitKeySettings(server=server):
                found[name] = (server.tls_floor, server.ca_path)
            case RSAKeySettings(transit=VaultTransitKeySettings(server=server)):
                found[name] = (server.tls_floor, server.ca_path)
            case LocalKeySettings() | PKCS11KeySettings() | RSAKeySettings():
                pass
            case _:
                assert_never(key)
    return found
