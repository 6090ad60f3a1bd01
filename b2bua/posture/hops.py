"""The connections that the program makes: key services, store, shared index. TLS 1.3, or an exception in writing.

Services that speak HTTPS are asked what they negotiate; a database begins TLS inside its own protocol and is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from b2bua.posture.endpoints import HANDSHAKE_S, PATIENCE_S
from b2bua.posture.report import Level, Row, Safeguard
from recording.keys.build import build_provider
from recording.settings import RecordingSettings, S3SinkSettings, TLSFloor
from tls.errors import TLSError
from tls.probe import probe
from tls.settings import TLSVersion

HTTPS_PORT: Final = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One service. `floor` is the lowest TLS version that we speak to it."""

    key: str
    service: str
    endpoint: str
    floor: TLSFloor


Negotiated = frozenset[TLSVersion] | str | None
"""The versions that a service was found to accept; why that is not known; None where it was not asked."""


def ask_hops(recording: RecordingSettings) -> Sequence[Row]:
    """A row for each service, and one that counts the exceptions."""
    hops = list(hops_of(recording))
    return [*(judge_hop(hop, _negotiate(hop)) for hop in hops), judge_exceptions(hops)]


def _negotiate(hop: Hop) -> Negotiated:
    place = urlsplit(hop.endpoint)
    if place.scheme != "https" or place.hostname is None:
        return None
    try:
        return probe(
            place.hostname,
            place.port or HTTPS_PORT,
            handshake_limit_s=HANDSHAKE_S,
            patience_s=PATIENCE_S,
        ).accepted_versions
    except TLSError as error:
        return str(error)


def hops_of(recording: RecordingSettings) -> Iterator[Hop]:
    """Every service of this configuration; providers and sinks are built, nothing is sent."""
    for name, settings in recording.keys.items():
        facts = build_provider(name, settings).describe()
        if "endpoint" in facts:
            yield Hop(
                key=f"tls.keys.{name}",
                service=f"service of key {name}",
                endpoint=facts["endpoint"],
                floor=TLSFloor(facts["tls_floor"]),
            )
    if isinstance(recording.sink, S3SinkSettings):
        from recording.sinks.s3 import S3Sink  # noqa: PLC0415 - boto3 takes a second to load

        facts = S3Sink(recording.sink).describe()
        yield Hop(
            key="tls.sink", service="store", endpoint=facts["endpoint"], floor=TLSFloor(facts["tls_floor"])
        )
    shared = recording.index.postgresql
    if shared is not None:
        yield Hop(key="tls.index", service="shared index", endpoint=str(shared), floor=shared.tls_floor)


def judge_hop(hop: Hop, negotiated: Negotiated) -> Row:
    """What we refuse to speak by the client's own settings, and what the service would."""
    is_exception = hop.floor is not TLSFloor.TLS_1_3
    level, told = _judge_negotiated(negotiated, is_exception=is_exception)
    return Row(
        key=hop.key,
        safeguard=Safeguard.TLS,
        subject=f"connection to the {hop.service}",
        finding=f"{hop.endpoint}: "
        + ("TLS 1.2 is let pass, an exception in the configuration" if is_exception else "TLS 1.3 only")
        + f", name verified{told}",
        evidence="the client's own settings"
        + ("" if negotiated is None else "; handshakes with the service, one for each version and suite"),
        level=level,
    )


def _judge_negotiated(negotiated: Negotiated, *, is_exception: bool) -> tuple[Level, str]:
    expected = Level.ATTENTION if is_exception else Level.OK
    if negotiated is None:
        return expected, ""
    if isinstance(negotiated, str):
        return (expected if is_exception else Level.UNKNOWN), f"; not asked what it accepts: {negotiated}"
    versions = sorted(negotiated, key=lambda version: version.value)
    told = f"; it accepts {', '.join(version.label for version in versions) or 'no version'}"
    if TLSVersion.TLS_1_3 in versions:
        return expected, told + (", so the exception is not needed" if is_exception else "")
    return (expected if is_exception else Level.ALARM), told


def judge_exceptions(hops: Sequence[Hop]) -> Row:
    """The SIP side has no setting for an exception; services do."""
    names = [hop.service for hop in hops if hop.floor is not TLSFloor.TLS_1_3]
    return Row(
        key="tls.exceptions",
        safeguard=Safeguard.TLS,
        subject="TLS 1.2 exceptions in force",
        finding=f"{len(names)}: {', '.join(names)}"
        if names
        else "none; for trunks there is no setting for one",
        evidence="the configuration, as the program itself reads it",
        level=Level.ATTENTION if names else Level.OK,
    )
