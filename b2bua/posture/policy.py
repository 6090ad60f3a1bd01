"""What the configuration itself decides: SRTP suites, recording policies, tenants' keys, exceptions. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from b2bua.posture.report import Level, Row, Safeguard
from b2bua.settings import (
    DEFAULT_SRTP_SUITES,
    KeyOutagePolicy,
    RecordingPolicy,
    Settings,
    Tenant,
    TrunkSettings,
)
from recording.settings import IndexSettings, RetentionSettings

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
        judge_emergency(settings),
        judge_pauses(settings),
        *judge_tenants(settings),
        *(judge_outage(tenant) for tenant in settings.tenants.values()),
        *(judge_retention(tenant, settings.recording.retention) for tenant in settings.tenants.values()),
        judge_numbers(settings.recording.index),
        judge_data_keys(settings),
        judge_tokens(),
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


def pauses_text(settings: Settings) -> str:
    """Who may take what is said out of a recording, and for how long at most."""
    by_digits = [trunk.name for trunk in settings.trunks.values() if trunk.pause_codes is not None]
    ways = [] if settings.control is None else ["by command"]
    if by_digits:
        ways.append(f"by digits on {', '.join(by_digits)}")
    if not ways:
        return "nobody can pause one"
    return (
        f"can be paused {' and '.join(ways)}, for {settings.limits.pause_max_s} s at a time; each is audited"
    )


def judge_pauses(settings: Settings) -> Row:
    """A trunk's codes let whoever is on the line pause, as often as he likes: that is worth a decision."""
    by_digits = any(trunk.pause_codes is not None for trunk in settings.trunks.values())
    return Row(
        key="recording.pauses",
        safeguard=Safeguard.INTEGRITY,
        subject="pauses of recordings",
        finding=pauses_text(settings),
        evidence=_READ,
        level=Level.ATTENTION if by_digits else Level.OK,
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


def judge_outage(tenant: Tenant) -> Row:
    """What a tenant's calls do while its key service is away and no data key is left."""
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


def judge_retention(tenant: Tenant, retention: RetentionSettings) -> Row:
    """How long recordings are kept. Without a time nothing ever goes, which is no safe default either."""
    days = retention.tenants.get(tenant.handle)
    others = ", ".join(f"{name} {number} days" for name, number in sorted(retention.trunks.items()))
    return Row(
        key=f"retention.{tenant.name}",
        safeguard=Safeguard.INTEGRITY,
        subject=f"retention of tenant {tenant.name}",
        finding=("no time is set: kept until somebody sets one" if days is None else f"{days} days")
        + (f"; on trunk {others}" if others else ""),
        evidence=_READ,
        level=Level.ATTENTION if days is None else Level.OK,
    )


def judge_numbers(index: IndexSettings) -> Row:
    """Numbers in the index: sealed and found by a keyed hash, or not there at all."""
    return Row(
        key="index.numbers",
        safeguard=Safeguard.AT_REST,
        subject="numbers and names in the index",
        finding="none is in it, in any form"
        if index.search_key_path is None
        else "sealed under "
        + ("each tenant's key" if index.key is None else f"key {index.key}")
        + ", found by a keyed "
        "hash: who holds its key and the index can test guesses",
        evidence=_READ,
        level=Level.OK,
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
