"""Every Prometheus collector, and the endpoint that serves them. Label sets are bounded; no id or number is a label."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import make_wsgi_app

from b2bua.https import HTTPSServer
from b2bua.settings import MetricsSettings
from recording.format.manifest import Manifest

OTHER = "other"
"""Stands for every label value beyond the bound, and for one that isn't a label."""
MAX_LABEL_VALUES = 200
"""Per label. Trunks and tenants are some tens, reasons less; a series costs the scraper memory for ever."""

_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_SETUP_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 180)
"""Seconds from INVITE to its 200: from a machine that answers at once to one a person lets ring."""
_KEY_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class _Label:
    """Lets the first `MAX_LABEL_VALUES` well-formed values through, the rest become `OTHER`."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if _LABEL.fullmatch(value) is None or re.search(r"[0-9]{5}", value):
            return OTHER
        with self._lock:
            if len(self._known) >= MAX_LABEL_VALUES:
                return OTHER
            self._known.add(value)
        return value


class Metrics:
    """What is counted. Any thread may call any method; none waits, none raises.

    It is a `recording.observer.RecordingObserver`. The registry is its own: several instances may live in one process.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._label: dict[str, _Label] = {
            name: _Label()
            for name in ("trunk", "direction", "reason", "outcome", "suite", "state", "key", "name")
        }
        self._in_progress: set[bytes] = set()
        self._lock = threading.Lock()
        self._started = self._counter("calls_started", "Calls begun", "trunk", "direction")
        self._ended = self._counter("calls_ended", "Calls ended", "trunk", "direction", "termination")
        self._legs = self._gauge("legs", "Legs that are up", "trunk")
        self._setup = self._histogram("setup_seconds", "From INVITE to its 200", _SETUP_BUCKETS)
        self._refused = self._counter("refusals", "Requests and calls refused", "reason")
        self._handshakes = self._counter("handshakes", "TLS connections of peers, ok or why not", "outcome")
        self._suites = self._counter("srtp_legs", "Legs secured, by SRTP suite", "suite")
        self._overruns = self._counter("tap_overruns", "20 ms frames that found a full ring")
        self._recordings = self._gauge("recordings_in_progress", "Segments being written")
        self._finished = self._counter("recordings", "Segments finished", "state")
        self._failed = self._counter("recording_failures", "Recordings that failed", "reason")
        self._signed = self._counter("manifests_signed", "Manifests of finished segments that were signed")
        self._records = self._counter("records_sealed", "Records sealed")
        self._sealed_bytes = self._counter("sealed_bytes", "Bytes sealed")
        self._lag = self._gauge("recorder_lag_seconds", "Age of the oldest sealed record not yet on disk")
        self._queued = self._gauge("recorder_queued_bytes", "Sealed bytes that wait for the disk")
        self._key_time = self._histogram(
            "key_request_seconds", "Key provider calls", _KEY_BUCKETS, "provider"
        )
        self._key_errors = self._counter("key_errors", "Key provider calls that failed", "provider", "error")
        self._pool = self._gauge("key_pool_level", "Data keys ready", "tenant")
        self._pauses = self._counter("recording_pauses", "Recordings paused, and by what", "by")
        self._resumes = self._counter("recording_resumes", "Pauses ended, and by what", "by")
        self._absent = self._counter(
            "media_absent",
            "Legs of answered calls from which nothing authentic came, and what came instead",
            "trunk",
            "leg",
            "cause",
        )
        self._missing = self._counter(
            "media_loss_bursts", "Losses of 200 ms of a leg's audio or more", "trunk", "leg"
        )
        self._digits_lost = self._counter(
            "dtmf_lost",
            "Digits that did not cross: too many at once, or the peer takes none",
            "trunk",
            "reason",
        )
        self._commands = self._counter("control_commands", "Commands of operators", "command")
        self._spooled = self._gauge("spool_bytes", "Bytes in the spool, of running and of waiting recordings")
        self._waiting = self._gauge("uploads_waiting", "Finished segments that are not in the sink yet")
        self._sent_bytes = self._counter("upload_bytes", "Bytes that a remote store has taken")
        self._uploads = self._counter("uploads", "Segments stored in the sink for good")
        self._stored_bytes = self._counter("stored_bytes", "Bytes of the segments stored in the sink")
        self._upload_errors = self._counter("upload_failures", "Attempts to store that failed", "reason")
        self._parts = self._gauge("upload_parts_in_flight", "Parts being sent to a remote store")
        self._log_drops = self._gauge("log_lines_dropped", "Lines that the sealed log file could not take")
        self._audited = self._counter("audit_lines", "Audit lines that are durable")
        self._audit_failures = self._counter("audit_failures", "Attempts to write audit lines that failed")
        self._floors = self._gauge(
            "tls_floor_exceptions", "Endpoints that may be spoken to in TLS 1.2", "endpoint"
        )
        self._outage_steps = self._counter(
            "key_outage_steps", "Calls that found no data key ready: what became of them", "step"
        )
        self._expiry = self._gauge("certificate_expiry_timestamp_seconds", "When a certificate ends", "name")

    # --- calls

    def call_started(self, trunk: str, direction: str) -> None:
        """`direction` is "in" for the side that called us, "out" for the side we called."""
        self._started.labels(self._label["trunk"](trunk), self._label["direction"](direction)).inc()

    def call_ended(self, trunk: str, direction: str, termination: str) -> None:
        """`termination` is a `Reason`'s value."""
        self._ended.labels(
            self._label["trunk"](trunk),
            self._label["direction"](direction),
            self._label["reason"](termination),
        ).inc()

    def leg_up(self, trunk: str) -> None:
        """A leg was established."""
        self._legs.labels(self._label["trunk"](trunk)).inc()

    def leg_down(self, trunk: str) -> None:
        """An established leg ended."""
        self._legs.labels(self._label["trunk"](trunk)).dec()

    def setup_latency(self, seconds: float) -> None:
        """A call was answered this long after its INVITE came."""
        self._setup.observe(seconds)

    def refused(self, reason: str) -> None:
        """A request was refused, a call went unrecorded, or our own code failed."""
        self._refused.labels(self._label["reason"](reason)).inc()

    def handshake(self, outcome: str) -> None:
        """A connection of a peer: "ok", or why it was refused."""
        self._handshakes.labels(self._label["outcome"](outcome)).inc()

    def srtp_suite(self, suite: str) -> None:
        """A leg's media was found secured with this suite."""
        self._suites.labels(self._label["suite"](suite)).inc()

    def tap_overruns(self, count: int) -> None:
        """Frames that a full ring refused since the last call."""
        self._overruns.inc(count)

    def set_tls_floor_exceptions(self, endpoints: Iterable[str]) -> None:
        """The sections of the configuration with an exception from TLS 1.3, one series each."""
        for endpoint in endpoints:
            self._floors.labels(self._label["name"](endpoint)).set(1)

    def set_certificate_expiry(self, name: str, epoch: float) -> None:
        """When the certificate in use ends, in seconds since 1970."""
        self._expiry.labels(self._label["name"](name)).set(epoch)

    def follow_certificate_expiry(self, name: str, epoch: Callable[[], float]) -> None:
        """As `set_certificate_expiry`, asked for at each scrape."""
        self._expiry.labels(self._label["name"](name)).set_function(epoch)

    def follow_log_drops(self, count: Callable[[], int]) -> None:
        """How many lines the sealed log file could not take, asked for at each scrape."""
        self._log_drops.set_function(count)

    # --- the audit log

    def audit_written(self, *, count: int) -> None:
        """Audit lines became durable."""
        self._audited.inc(count)

    def audit_failed(self) -> None:
        """An attempt to write audit lines failed; they wait and are tried again."""
        self._audit_failures.inc()

    # --- the recorder

    def recording_started(self, *, file_id: bytes, call_uid: str) -> None:
        """A segment was begun."""
        del call_uid
        with self._lock:
            self._in_progress.add(file_id)
            self._recordings.set(len(self._in_progress))

    def recording_finished(self, *, file_id: bytes, call_uid: str, state: str, size_bytes: int) -> None:
        """A segment is whole on disk, or is what could be kept."""
        del call_uid, size_bytes
        self._no_longer(file_id)
        self._finished.labels(self._label["state"](state)).inc()

    def recording_failed(self, *, file_id: bytes, call_uid: str, reason: str) -> None:
        """A segment was given up."""
        del call_uid
        self._no_longer(file_id)
        self._failed.labels(self._label["reason"](reason)).inc()

    def media_absent(self, trunk: str, leg: str, cause: str) -> None:
        """An answered call's leg ("A" or "B") delivers no audio; `cause` is an `AbsenceCause`'s value."""
        self._absent.labels(
            self._label["trunk"](trunk), self._label["outcome"](leg), self._label["reason"](cause)
        ).inc()

    def audio_missing(self, trunk: str, leg: str) -> None:
        """A burst of a leg's packets was lost."""
        self._missing.labels(self._label["trunk"](trunk), self._label["outcome"](leg)).inc()

    def digit_lost(self, trunk: str, reason: str) -> None:
        """A digit to or from this trunk did not cross: "excess", or "not_sent"."""
        self._digits_lost.labels(self._label["trunk"](trunk), self._label["reason"](reason)).inc()

    def control_command(self, command: str) -> None:
        """An operator's command that changes something."""
        self._commands.labels(self._label["outcome"](command)).inc()

    def recording_paused(self, by: str) -> None:
        """A recording was paused: "command" or "dtmf"."""
        self._pauses.labels(self._label["outcome"](by)).inc()

    def recording_resumed(self, by: str) -> None:
        """A pause was ended: the same, or "limit" for one that was forgotten."""
        self._resumes.labels(self._label["outcome"](by)).inc()

    def recording_signed(self, *, call_uid: str, manifest: Manifest) -> None:
        """A segment's manifest was signed."""
        del call_uid, manifest
        self._signed.inc()

    def records_sealed(self, *, count: int, sealed_bytes: int) -> None:
        """Since the last call."""
        self._records.inc(count)
        self._sealed_bytes.inc(sealed_bytes)

    def spool_lag(self, *, seconds: float, queued_bytes: int) -> None:
        """How far the disk is behind."""
        self._lag.set(seconds)
        self._queued.set(queued_bytes)

    def key_requested(self, *, provider: str, seconds: float, error: str | None) -> None:
        """A call of a key provider, and the name of its error if it failed."""
        name = self._label["key"](provider)
        self._key_time.labels(name).observe(seconds)
        if error is not None:
            self._key_errors.labels(name, self._label["reason"](error)).inc()

    def fallback_key_used(self, *, tenant: str, tenant_handle: bytes, file_id: bytes, provider: str) -> None:
        """A segment's data key was wrapped by a tenant's public key, its key service being away."""
        del tenant, tenant_handle, file_id, provider
        self.key_outage_step("fallback")

    def key_outage_step(self, step: str) -> None:
        """`fallback`, `rejected` or `unrecorded`."""
        self._outage_steps.labels(self._label["reason"](step)).inc()

    def pool_level(self, *, tenant: str, level: int) -> None:
        """Data keys ready for a tenant."""
        self._pool.labels(self._label["name"](tenant)).set(level)

    def spool_level(self, *, spooled_bytes: int, waiting_files: int) -> None:
        """What lies in the spool, at the last look."""
        self._spooled.set(spooled_bytes)
        self._waiting.set(waiting_files)

    def upload_sent(self, *, sent_bytes: int) -> None:
        """A remote store has taken these bytes, a part or a whole segment."""
        self._sent_bytes.inc(sent_bytes)

    def upload_finished(self, *, file_id: bytes, size_bytes: int) -> None:
        """A segment is in the sink and was found there."""
        del file_id
        self._uploads.inc()
        self._stored_bytes.inc(size_bytes)

    def upload_failed(self, *, file_id: bytes, reason: str) -> None:
        """An attempt failed; the segment is in the spool, and it is tried again."""
        del file_id
        self._upload_errors.labels(self._label["reason"](reason)).inc()

    def parts_in_flight(self, *, change: int) -> None:
        """One more part is being sent, or one less."""
        self._parts.inc(change)

    def _no_longer(self, file_id: bytes) -> None:
        with self._lock:
            self._in_progress.discard(file_id)
            self._recordings.set(len(self._in_progress))

    # --- collectors

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"sealtrunk_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"sealtrunk_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"sealtrunk_{name}", text, labels, buckets=buckets, registry=self.registry)


def _always() -> bool:
    return True


class MetricsServer:
    """`/metrics`, `/livez` and `/readyz` over TLS 1.3 for clients whose certificates are named in the settings.

    `is_ready` and `is_alive` are asked from a worker thread and must return at once.
    """

    def __init__(
        self,
        settings: MetricsSettings,
        metrics: Metrics,
        *,
        is_ready: Callable[[], bool],
        is_alive: Callable[[], bool] = _always,
    ) -> None:
        """Bind. Raises MetricsError, MaterialError or ContextError."""
        self._prometheus = make_wsgi_app(metrics.registry)
        self._checks = {"/livez": is_alive, "/readyz": is_ready}
        self._server = HTTPSServer(
            self._application,
            address=settings.address,
            port=settings.port,
            tls=settings.tls,
            client_identities=settings.client_identities,
            name="metrics",
        )
        metrics.follow_certificate_expiry("metrics", self._expiry_epoch)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.port

    def start(self) -> None:
        """Begin to serve."""
        self._server.start()

    def stop(self) -> None:
        """End; requests in progress are answered."""
        self._server.stop()

    def _expiry_epoch(self) -> float:
        return self._server.certificate_not_after.timestamp()

    def _application(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "GET":
            return _text(start_response, "405 Method Not Allowed", [("Allow", "GET")])
        if path == "/metrics":
            body: list[bytes] = self._prometheus(environ, start_response)
            return body
        if path not in self._checks:
            return _text(start_response, "404 Not Found", [])
        if self._checks[path]():
            return _text(start_response, "200 OK", [])
        return _text(start_response, "503 Service Unavailable", [])


def _text(start_response: StartResponse, status: str, headers: list[tuple[str, str]]) -> list[bytes]:
    """The status as the body too, for a person with a command-line client."""
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
    return [f"{status}\n".encode()]
