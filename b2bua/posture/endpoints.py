"""The TLS endpoints: what the listener that runs now negotiates, or a throw-away one with the same material.

Every question is a handshake that a running service counts and audits as a refused peer.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from b2bua.posture.report import Level, Row, Safeguard
from b2bua.settings import Settings, bracketed
from tls.certificate import Usage, utc_text
from tls.context import server_context
from tls.material import BOTH_USAGES, TLSMaterial, load_material
from tls.probe import ProbeReport, probe
from tls.settings import EXPIRY_WARNING, TLSMaterialSettings

LOOPBACK = "127.0.0.1"
CONNECT_S = 2.0
HANDSHAKE_S = 3.0
PATIENCE_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One of our listeners. `is_same_code`: a throw-away listener runs the very code that the service runs."""

    key: str
    name: str
    address: str
    port: int
    tls: TLSMaterialSettings
    usages: frozenset[Usage]
    is_same_code: bool

    @property
    def where(self) -> str:
        """As operators write it."""
        return f"{bracketed(self.address)}:{self.port}"


def endpoints_of(settings: Settings) -> Sequence[Endpoint]:
    """The SIP listener and, where there is one, the metrics endpoint."""
    listener, metrics = settings.listener, settings.metrics
    found = [
        Endpoint(
            key="tls.sip",
            name="SIP listener",
            address=listener.address,
            port=listener.port,
            tls=settings.tls,
            usages=BOTH_USAGES,
            is_same_code=False,
        )
    ]
    if metrics is not None:
        found.append(
            Endpoint(
                key="tls.metrics",
                name="metrics endpoint",
                address=metrics.address,
                port=metrics.port,
                tls=metrics.tls,
                usages=frozenset({Usage.SERVER}),
                is_same_code=True,
            )
        )
    return found


def ask_endpoint(endpoint: Endpoint) -> Sequence[Row]:
    """What the endpoint negotiates, and how long its certificate lasts."""
    material = load_material(endpoint.tls, now=datetime.now(UTC), usages=endpoint.usages)
    if is_listening(endpoint):
        report = _probe(connect_address(endpoint.address), endpoint.port, material)
        return [
            judge_endpoint(endpoint, report, is_service=True),
            judge_certificate(endpoint, material, report, now=datetime.now(UTC)),
        ]
    with throw_away_listener(material) as port:
        report = _probe(LOOPBACK, port, material)
    return [
        judge_endpoint(endpoint, report, is_service=False),
        judge_certificate(endpoint, material, None, now=datetime.now(UTC)),
    ]


def is_listening(endpoint: Endpoint) -> bool:
    """Whether somebody takes connections there."""
    try:
        with socket.create_connection((connect_address(endpoint.address), endpoint.port), timeout=CONNECT_S):
            return True
    except OSError:
        return False


def connect_address(address: str) -> str:
    """Where a client on this machine finds a listener: one on every address is reached on loopback."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound


def _probe(host: str, port: int, material: TLSMaterial) -> ProbeReport:
    name = min(identity.host for identity in material.identities)
    return probe(
        host,
        port,
        server_name=name,
        handshake_limit_s=HANDSHAKE_S,
        patience_s=PATIENCE_S,
    )


def judge_endpoint(endpoint: Endpoint, report: ProbeReport, *, is_service: bool) -> Row:
    """Versions and suites against the policy. A stand-in for another implementation shows less than ok."""
    versions = ", ".join(each.label for each in sorted(report.accepted_versions, key=lambda v: v.value))
    suites = ", ".join(suite.name for suite in report.cipher_suites)
    facts = [
        f"accepts {versions or 'no version'} with {suites or 'no suite'}",
        f"client certificate {report.client_certificate.value}",
        f"{report.tickets} tickets",
    ]
    findings = [str(finding) for finding in report.findings]
    level = Level.ALARM if findings else Level.OK
    if is_service:
        evidence = f"handshakes with {endpoint.where}, one for each version and suite"
    else:
        evidence = f"handshakes with a throw-away listener with the same material; nothing listens at {endpoint.where}"
        if not endpoint.is_same_code:
            facts.append("the SIP library's own listener was not probed, since none runs")
            level = Level.ALARM if findings else Level.UNKNOWN
    return Row(
        key=endpoint.key,
        safeguard=Safeguard.TLS,
        subject=endpoint.name,
        finding="; ".join([*facts, *findings]),
        evidence=evidence,
        level=level,
    )


def judge_certificate(
    endpoint: Endpoint, material: TLSMaterial, report: ProbeReport | None, *, now: datetime
) -> Row:
    """How long the certificate lasts, and whether the service shows the one that the files hold."""
    served = None if report is None else report.fingerprint
    left = material.not_after - now
    checks = (
        (left.total_seconds() <= 0, Level.ALARM, "has expired"),
        (
            served is not None and served != material.fingerprint,
            Level.ATTENTION,
            "the service shows another certificate than the file holds: the reload was refused or has yet to come",
        ),
        (left < EXPIRY_WARNING, Level.ATTENTION, f"ends in {left.days} days"),
    )
    level, word = next(
        ((level, word) for failed, level, word in checks if failed), (Level.OK, f"good for {left.days} days")
    )
    return Row(
        key=f"{endpoint.key}.certificate",
        safeguard=Safeguard.TLS,
        subject=f"certificate of the {endpoint.name}",
        finding=f"until {utc_text(material.not_after)}: {word}",
        evidence=f"{endpoint.tls.certificate_path}"
        + ("" if served is None else f", compared with what {endpoint.where} shows"),
        level=level,
    )


@contextlib.contextmanager
def throw_away_listener(material: TLSMaterial) -> Iterator[int]:
    """A TLS listener on loopback with the product's own server context; the port. It ends with the block."""
    context = server_context(material)
    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(
            target=_shake_hands, args=(listener, context), name="probe-listener", daemon=True
        )
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _shake_hands(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Take connections until the listener is shut down; each gets a handshake and nothing else."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.settimeout(HANDSHAKE_S)
        with (
            contextlib.suppress(OSError),
            connection,
            context.wrap_socket(connection, server_side=True) as secured,
        ):
            secured.recv(1)  # to stay open, as the service would, until the client goes
