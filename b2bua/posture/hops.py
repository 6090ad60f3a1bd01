"""The connections that the program makes: key services, store, shared index. TLS 1.3, or an exception in writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from b2bua.posture.report import Level, Row, Safeguard
from recording.keys.build import build_provider
from recording.settings import RecordingSettings, S3SinkSettings, TLSFloor


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One service. `floor` is the lowest TLS version that we speak to it."""

    key: str
    service: str
    endpoint: str
    floor: TLSFloor


def ask_hops(recording: RecordingSettings) -> Sequence[Row]:
    """A row for each service, and one that counts the exceptions."""
    hops = list(hops_of(recording))
    return [*(judge_hop(hop) for hop in hops), judge_exceptions(hops)]


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


def judge_hop(hop: Hop) -> Row:
    """What we refuse to speak, by the client's own settings."""
    is_exception = hop.floor is not TLSFloor.TLS_1_3
    return Row(
        key=hop.key,
        safeguard=Safeguard.TLS,
        subject=f"connection to the {hop.service}",
        finding=f"{hop.endpoint}: "
        + ("TLS 1.2 is let pass, an exception in the configuration" if is_exception else "TLS 1.3 only")
        + ", name verified",
        evidence="the client's own settings; what the service accepts from others is not asked",
        level=Level.ATTENTION if is_exception else Level.OK,
    )


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
