"""Puts the probes together: which there are for a configuration, and what none of them can know."""

from __future__ import annotations

import functools
import importlib.metadata
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from b2bua.posture.audit import ask_audit
from b2bua.posture.endpoints import ask_endpoint, endpoints_of
from b2bua.posture.hops import ask_hops
from b2bua.posture.keys import ask_key
from b2bua.posture.modules import ask_modules, ask_system_openssl
from b2bua.posture.own_keys import ask_own_keys
from b2bua.posture.policy import policy_rows
from b2bua.posture.probing import Probe, run_probes
from b2bua.posture.process import ask_process
from b2bua.posture.report import Report, Row, Safeguard
from b2bua.posture.running import MonitorSettings, ask_running
from b2bua.posture.sink import ask_sink
from b2bua.posture.storage import ask_files, ask_index, ask_spool
from b2bua.settings import Settings

ENDPOINT_LIMIT_S = 45.0
"""Some twelve handshakes of at most 3 s each; against a service that answers they take two seconds in all."""
KEY_LIMIT_S = 15.0
MODULES_LIMIT_S = 20.0
FILES_LIMIT_S = 10.0
STORE_LIMIT_S = 30.0

CANNOT_KNOW = (
    "Whether a cryptographic module holds a certificate. Numbers shown are claimed by operator, in the configuration.",
    "Whether an assessor accepts nonces that the program builds (NIST SP 800-38D section 8.2.1), not the module.",
    "Whether memory was zeroised. Data keys are wiped where they are held, but the interpreter copies.",
    "Whether cloud policies grant what is meant. Those shipped are tested by tables; they are not evaluated by AWS.",
    "Whether the running service was started with this very file. Listener and certificate are compared, no more.",
    "How many data keys the running service has ready, unless --monitor-certificate lets the report read its metrics.",
    "What lies below: encryption of disks, swap of a hypervisor, who administers the machine and the key service.",
    "What peers do with media and signalling behind their certificate.",
)


def make_report(settings: Settings, monitor: MonitorSettings | None = None) -> Report:
    """Probe everything now. Takes as long as the slowest probe, 45 s at most. `monitor`: to read metrics with."""
    at, began = datetime.now(UTC), time.monotonic()
    rows: Sequence[Row] = [*run_probes(probes_of(settings, monitor)), *policy_rows(settings)]
    return Report(
        at=at,
        took_s=time.monotonic() - began,
        program=f"sealtrunk {importlib.metadata.version('sealtrunk')}",
        environment=settings.environment.value,
        rows=tuple(rows),
        limits=CANNOT_KNOW,
        accepted=settings.posture.accepted,
    )


def probes_of(settings: Settings, monitor: MonitorSettings | None = None) -> Sequence[Probe]:
    """Every probe that this configuration gives reason for."""
    recording = settings.recording
    found = [
        Probe(
            key="process.running",
            safeguard=Safeguard.EVIDENCE,
            subject="running service",
            ask=functools.partial(ask_process, settings.listener),
            limit_s=FILES_LIMIT_S,
        ),
        Probe(
            key="modules",
            safeguard=Safeguard.KEYS_APART,
            subject="cryptographic modules",
            ask=functools.partial(ask_modules, settings.posture),
            limit_s=MODULES_LIMIT_S,
        ),
        Probe(
            key="module.openssl-program",
            safeguard=Safeguard.EVIDENCE,
            subject="the system's openssl program",
            ask=ask_system_openssl,
            limit_s=FILES_LIMIT_S,
        ),
        Probe(
            key="recordings.states",
            safeguard=Safeguard.INTEGRITY,
            subject="segments by state",
            ask=functools.partial(ask_index, recording),
            limit_s=FILES_LIMIT_S,
        ),
        Probe(
            key="recordings.spool",
            safeguard=Safeguard.INTEGRITY,
            subject="segments in the spool",
            ask=functools.partial(ask_spool, recording),
            limit_s=FILES_LIMIT_S,
        ),
        Probe(
            key="sink",
            safeguard=Safeguard.INTEGRITY,
            subject="the store",
            ask=functools.partial(ask_sink, recording),
            limit_s=STORE_LIMIT_S,
        ),
        Probe(
            key="tls.hops",
            safeguard=Safeguard.TLS,
            subject="connections to services",
            ask=functools.partial(ask_hops, recording),
            limit_s=FILES_LIMIT_S,
        ),
        Probe(
            key="files",
            safeguard=Safeguard.AT_REST,
            subject="file modes",
            ask=functools.partial(ask_files, settings),
            limit_s=FILES_LIMIT_S,
        ),
        Probe(
            key="own-keys",
            safeguard=Safeguard.KEY_AGE,
            subject="keys of signing, index and search",
            ask=functools.partial(ask_own_keys, settings),
            limit_s=FILES_LIMIT_S,
        ),
        Probe(
            key="audit",
            safeguard=Safeguard.AUDIT,
            subject="audit log",
            ask=functools.partial(ask_audit, settings),
            limit_s=FILES_LIMIT_S,
        ),
    ]
    found += [
        Probe(
            key=endpoint.key,
            safeguard=Safeguard.TLS,
            subject=endpoint.name,
            ask=functools.partial(ask_endpoint, endpoint),
            limit_s=ENDPOINT_LIMIT_S,
        )
        for endpoint in endpoints_of(settings)
    ]
    found += [
        Probe(
            key=f"keys.{name}",
            safeguard=Safeguard.KEYS_APART,
            subject=f"key-encryption key {name}",
            ask=functools.partial(
                ask_key, name, key, settings.posture.claimed_certificates.get(f"keys.{name}")
            ),
            limit_s=KEY_LIMIT_S,
        )
        for name, key in recording.keys.items()
    ]
    if monitor is not None and settings.metrics is not None:
        found.append(
            Probe(
                key="process.losses",
                safeguard=Safeguard.INTEGRITY,
                subject="the running service's metrics",
                ask=functools.partial(ask_running, settings.metrics, monitor, recording.pool.size),
                limit_s=KEY_LIMIT_S,
            )
        )
    return found
