"""Puts the probes together: which there are for a configuration, and what none of them can know."""

from __future__ import annotations

import functools
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from b2bua.posture.audit import ask_audit
from b2bua.posture.endpoints import ask_endpoint, endpoints_of
from b2bua.posture.hops import ask_hops
from b2bua.posture.keys import ask_key
from b2bua.posture.modules import ask_modules, ask_system_openssl
from b2bua.posture.own_keys import ask_index_keys, ask_own_keys
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


_OF_EVERY: Sequence[tuple[str, Safeguard, str, Callable[[Settings], Sequence[Row]], float]] = (
    (
        "process.running",
        Safeguard.EVIDENCE,
        "running service",
        lambda settings: ask_process(settings.listener),
        FILES_LIMIT_S,
    ),
    (
        "modules",
        Safeguard.KEYS_APART,
        "cryptographic modules",
        lambda settings: ask_modules(settings.posture),
        MODULES_LIMIT_S,
    ),
    (
        "module.openssl-program",
        Safeguard.EVIDENCE,
        "the system's openssl program",
        lambda _: ask_system_openssl(),
        FILES_LIMIT_S,
    ),
    (
        "recordings.states",
        Safeguard.INTEGRITY,
        "segments by state",
        lambda settings: ask_index(settings.recording),
        FILES_LIMIT_S,
    ),
    (
        "recordings.spool",
        Safeguard.INTEGRITY,
        "segments in the spool",
        lambda settings: ask_spool(settings.recording),
        FILES_LIMIT_S,
    ),
    ("sink", Safeguard.INTEGRITY, "the store", lambda settings: ask_sink(settings.recording), STORE_LIMIT_S),
    (
        "tls.hops",
        Safeguard.TLS,
        "connections to services",
        lambda settings: ask_hops(settings.recording),
        ENDPOINT_LIMIT_S,
    ),
    ("files", Safeguard.AT_REST, "file modes", ask_files, FILES_LIMIT_S),
    ("own-keys", Safeguard.KEY_AGE, "keys of signing and search", ask_own_keys, FILES_LIMIT_S),
    ("index-keys", Safeguard.KEY_AGE, "keys of the index", ask_index_keys, FILES_LIMIT_S),
    ("audit", Safeguard.AUDIT, "audit log", ask_audit, FILES_LIMIT_S),
)
"""Key, safeguard, subject, question and limit of the probes that every configuration gives reason for."""


def probes_of(settings: Settings, monitor: MonitorSettings | None = None) -> Sequence[Probe]:
    """Every probe that this configuration gives reason for."""
    found = [
        Probe(
            key=key,
            safeguard=safeguard,
            subject=subject,
            ask=functools.partial(ask, settings),
            limit_s=limit_s,
        )
        for key, safeguard, subject, ask, limit_s in _OF_EVERY
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
        for name, key in settings.recording.keys.items()
    ]
    if monitor is not None and settings.metrics is not None:
        found.append(
            Probe(
                key="process.losses",
                safeguard=Safeguard.INTEGRITY,
                subject="the running service's metrics",
                ask=functools.partial(ask_running, settings.metrics, monitor, settings.recording.pool.size),
                limit_s=KEY_LIMIT_S,
            )
        )
    return found
