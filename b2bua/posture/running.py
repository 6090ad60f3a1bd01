"""What the running service says of itself: its metrics, read with a monitoring client's certificate."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from b2bua.audit_store import POOL, POOL_NAME
from b2bua.errors import MetricsError
from b2bua.posture.endpoints import connect_address
from b2bua.posture.report import Level, Row, Safeguard
from b2bua.settings import MetricsSettings
from tls.certificate import Usage
from tls.context import PeerName, client_context
from tls.material import load_material
from tls.settings import TLSMaterialSettings

TIMEOUT_S = 5.0
MAX_BYTES = 4 << 20
"""A thousand series take a tenth of it."""
_POOL = "sealtrunk_key_pool_level"
_LOSSES = {
    "sealtrunk_recording_failures": "recordings failed",
    "sealtrunk_tap_overruns": "frames were lost before they were sealed",
    "sealtrunk_upload_failures": "attempts to store failed",
    "sealtrunk_audit_failures": "attempts to write audit lines failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings:
    """Certificate and key of a client that `metrics.clients` names."""

    certificate_path: Path
    private_key_path: Path


def ask_running(metrics: MetricsSettings, monitor: MonitorSettings, pool_size: int) -> Sequence[Row]:
    """Level of each tenant's pool, and what went wrong since the service started."""
    samples = read_samples(scrape(metrics, monitor))
    return [
        *judge_pools(samples, pool_size),
        judge_losses(samples),
    ]


def scrape(metrics: MetricsSettings, monitor: MonitorSettings) -> str:
    """The text of /metrics.

    Raises:
        MetricsError: the service answered, and not with metrics. OSError, TLSError: it did not answer us.
    """
    now = datetime.now(UTC)
    server = load_material(metrics.tls, now=now, usages=frozenset({Usage.SERVER}))
    material = load_material(
        TLSMaterialSettings(
            certificate_path=monitor.certificate_path,
            private_key_path=monitor.private_key_path,
            trust_path=metrics.tls.trust_path,
        ),
        now=now,
        usages=frozenset({Usage.CLIENT}),
    )
    context = client_context(server.trust, peer_name=PeerName.HTTPS, material=material)
    name = min(identity.host for identity in server.identities)
    with (
        socket.create_connection(
            (connect_address(metrics.address), metrics.port), timeout=TIMEOUT_S
        ) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        secured.sendall(f"GET /metrics HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := secured.recv(65536):
            answer += piece
            if len(answer) > MAX_BYTES:
                raise MetricsError(f"the metrics endpoint sends more than {MAX_BYTES} bytes")
    if not answer:
        raise MetricsError(
            "the metrics endpoint ends the connection: is the client's name in metrics.clients?"
        )
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        first = head.partition(b"\r\n")[0][:40]
        raise MetricsError(f"the metrics endpoint answers with {first!r}")
    return body.decode()


Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def read_samples(text: str) -> Samples:
    """Value by name and labels. Raises ValueError: not the text format."""
    return {
        (sample.name.removesuffix("_total"), tuple(sorted(sample.labels.items()))): float(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def judge_pools(samples: Samples, size: int) -> Sequence[Row]:
    """A row for each pool; `size` is that of a tenant's."""
    levels = {
        dict(labels)["tenant"]: int(value) for (name, labels), value in samples.items() if name == _POOL
    }
    return [
        judge_pool(tenant, level, POOL.size if tenant == POOL_NAME else size)
        for tenant, level in levels.items()
    ]


def judge_pool(tenant: str, level: int, size: int) -> Row:
    """Calls of a tenant whose pool is empty are refused, where they must be recorded."""
    worst = Level.ALARM if level == 0 else Level.ATTENTION if 2 * level < size else Level.OK
    return Row(
        key=f"pool.{tenant}",
        safeguard=Safeguard.KEY_AGE,
        subject=f"data keys ready for tenant {tenant}",
        finding=f"{level} of {size}",
        evidence="the running service's metrics",
        level=worst,
    )


def judge_losses(samples: Samples) -> Row:
    """What a service would not have to tell if all had gone well."""
    told = []
    for name, words in _LOSSES.items():
        count = sum(value for (sample, _), value in samples.items() if sample == name)
        if count:
            told.append(f"{count:.0f} {words}")
    unrecorded = samples.get(("sealtrunk_refusals", (("reason", "unrecorded"),)), 0)
    if unrecorded:
        told.append(f"{unrecorded:.0f} calls went unrecorded")
    return Row(
        key="process.losses",
        safeguard=Safeguard.INTEGRITY,
        subject="losses since the service started",
        finding="; ".join(told) or "none",
        evidence="the running service's metrics",
        level=Level.ATTENTION if told else Level.OK,
    )
