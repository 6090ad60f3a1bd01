"""The composition root: builds every object of a serving process and fixes the order of start and stop.

The calling thread becomes the SIP thread. Start: audit, keys and spool, metrics, SIP, so that who asks whether it is
ready is answered from the first moment. Stop: SIP, pump, metrics, recorder, audit; so that what ends a call is always
still recorded and audited.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType

import structlog

from b2bua import log
from b2bua.audit import AuditLog
from b2bua.control.server import ControlServer
from b2bua.core_dump import forbid_core_files, forbid_dumping
from b2bua.engine import Engine
from b2bua.errors import ReadinessError
from b2bua.log_file import LogFile
from b2bua.media.pump import Pump
from b2bua.metrics import Metrics, MetricsServer
from b2bua.native import _native
from b2bua.reload import CertificateReload
from b2bua.settings import KeyOutagePolicy, RecordingPolicy, Settings
from b2bua.sip import endpoint as sip
from b2bua.sip.library_log import LibraryLog
from b2bua.sip.loop import SIPLoop
from b2bua.sip.resolver import HostTable
from b2bua.watch import Watch
from recording.keys.build import build_providers
from recording.recorder import Recorder, TenantKey
from tls.material import TLSMaterial, load_material
from tls.policy import PeerVerifier

_log = structlog.get_logger(__name__)

KEYS_READY_S = 5.0
"""How long start-up waits for the first data keys, as the provider itself waits for an answer.

A key service that is away delays nothing further: the process serves, is not ready, and refuses what may not go
unrecorded or unaudited until it has keys. Who calls an emergency number is served at once.
"""
RECORDER_STOP_S = 10.0
MATERIAL_CHECK_S = 5.0
DESCRIPTORS_PER_CALL = 8
"""Two legs with an RTP and an RTCP socket each, a spool file, and room for the legs' connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a supervisor learns when the process serves."""

    sip_address: str
    sip_port: int
    metrics_port: int | None


def tenant_keys(settings: Settings) -> dict[str, TenantKey]:
    """Each tenant's key and what it does without."""
    return {
        tenant.name: TenantKey(
            handle=tenant.handle,
            provider=tenant.key,
            fallback=tenant.fallback_key,
            may_lack_keys=tenant.on_key_outage is KeyOutagePolicy.CONNECT_UNRECORDED,
        )
        for tenant in settings.tenants.values()
    }


class Application:
    """One serving process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._audit = AuditLog(settings.audit, observer=self._metrics, pool_observer=self._metrics)
        self._watch = Watch(metrics=self._metrics, audit=self._audit)
        self._serving = False

    def run(self, on_ready: Callable[[Ready], None]) -> None:
        """Serve until SIGTERM or SIGINT has drained the last call; a second signal ends them at once.

        Raises:
            ReadinessError, EngineError, ControlError, RecordingError, TLSError: it could not come up; nothing is
                left running.
        """
        with contextlib.ExitStack() as stack:
            self._start_log(stack)
            _prepare_process(self._settings)
            stack.callback(self._audit.close)
            self._audit.start()
            self._serve(stack, on_ready)

    def _serve(self, stack: contextlib.ExitStack, on_ready: Callable[[Ready], None]) -> None:
        settings = self._settings
        now = datetime.now(UTC)
        material = load_material(settings.tls, now=now)
        self._metrics.set_certificate_expiry("sip", material.not_after.timestamp())
        verifier = PeerVerifier(material.trust)
        self._metrics.set_tls_floor_exceptions(settings.recording.tls_floor_exceptions)
        recorder = self._start_recorder(stack)
        metrics_port = self._start_metrics(stack, recorder)
        self._wait_for_keys(recorder)
        loop = SIPLoop()
        pump = Pump(
            interval_ms=settings.recording.drain_interval_ms,
            max_taps=settings.limits.max_calls,
            on_overrun=self._watch.tap_overruns,
        )
        engine = Engine(
            settings=settings,
            loop=loop,
            recorder=recorder,
            pump=pump,
            observer=self._watch,
            is_audited=self._is_audited,
        )
        stack.callback(pump.stop, RECORDER_STOP_S)
        pump.start()
        library_log = LibraryLog(loop)
        stack.callback(library_log.take)
        sip_stack = sip.start(settings=settings, verifier=verifier, handler=engine)
        stack.callback(sip.stop, sip_stack)
        library_log.start()
        engine.attach(sip_stack.accounts)
        self._start_resolver(stack, loop)
        reload = CertificateReload(
            settings=settings,
            material=material,
            stack=sip_stack,
            verifier=verifier,
            on_outcome=self._reloaded,
        )
        self._poll_certificates(loop, reload)
        self._start_control(stack, engine)
        with self._signals(loop, engine, lambda: reload.check(force=True)):
            self._serving = True
            self._watch.service(started=True, configuration_sha256=settings.configuration_sha256)
            on_ready(
                Ready(
                    sip_address=settings.listener.address,
                    sip_port=_native.listener_port(sip_stack.transport_id),
                    metrics_port=metrics_port,
                )
            )
            loop.run(sip_stack.poll)
            self._serving = False
            self._watch.service(started=False)

    def _start_recorder(self, stack: contextlib.ExitStack) -> Recorder | None:
        settings = self._settings
        if all(trunk.recording is RecordingPolicy.OFF for trunk in settings.trunks.values()):
            return None
        recorder = Recorder(
            settings.recording,
            tenant_keys(settings),
            build_providers(settings.recording.keys),
            observer=self._watch,
        )
        stack.callback(recorder.stop, RECORDER_STOP_S)
        recorder.start()
        return recorder

    def _wait_for_keys(self, recorder: Recorder | None) -> None:
        """Until everything is there that the first call needs; not beyond the first failure."""
        end = time.monotonic() + KEYS_READY_S
        if not self._audit.wait_ready(KEYS_READY_S):
            _log.error("not_ready", problem=self._audit.problem(), cure="see `b2bua keys status`")
        left_s = max(0.0, end - time.monotonic())
        if recorder is not None and not recorder.wait_ready(left_s, until_failure=True):
            _log.error("not_ready", problem=str(recorder.readiness()), cure="see `b2bua keys status`")

    def _start_resolver(self, stack: contextlib.ExitStack, loop: SIPLoop) -> None:
        table = HostTable(
            self._settings.trunks.values(), lambda hosts: loop.post(lambda: _native.hosts_set(dict(hosts)))
        )
        _native.hosts_set(dict(table.first()))
        stack.callback(table.stop)
        table.start()

    def _start_metrics(self, stack: contextlib.ExitStack, recorder: Recorder | None) -> int | None:
        if self._settings.metrics is None:
            return None

        def is_ready() -> bool:
            is_recording = recorder is None or recorder.readiness().is_ready
            return self._serving and is_recording and self._is_audited()

        server = MetricsServer(self._settings.metrics, self._metrics, is_ready=is_ready)
        stack.callback(server.stop)
        server.start()
        return server.port

    def _start_control(self, stack: contextlib.ExitStack, engine: Engine) -> None:
        if self._settings.control is None:
            return
        server = ControlServer(self._settings.control, submit=engine.operate, observer=self._watch)
        stack.callback(server.stop)
        server.start()

    def _start_log(self, stack: contextlib.ExitStack) -> None:
        settings = self._settings.log
        if settings.directory is None:
            log.set_up(settings)
            return
        file = LogFile(settings)
        self._metrics.follow_log_drops(lambda: file.dropped)
        stack.callback(file.close)
        file.start()
        log.set_up(settings, write_sealed=file.write)

    def _is_audited(self) -> bool:
        return self._audit.problem() is None

    def _poll_certificates(self, loop: SIPLoop, reload: CertificateReload) -> None:
        def check() -> None:
            try:
                reload.check()
            finally:
                loop.call_later(MATERIAL_CHECK_S, check)

        loop.call_later(MATERIAL_CHECK_S, check)

    def _reloaded(self, material: TLSMaterial, taken: bool) -> None:
        self._watch.certificate_reloaded(fingerprint=material.fingerprint, taken=taken)
        if taken:
            self._metrics.set_certificate_expiry("sip", material.not_after.timestamp())

    @contextlib.contextmanager
    def _signals(self, loop: SIPLoop, engine: Engine, reload: Callable[[], None]) -> Iterator[None]:
        terminations = 0

        def terminate(number: int, frame: FrameType | None) -> None:
            nonlocal terminations
            del number, frame
            terminations += 1
            self._serving = False
            deadline = self._settings.limits.drain_deadline_s if terminations == 1 else 0
            loop.post(lambda: engine.drain(deadline_s=deadline, on_idle=loop.stop))

        def hang_up(number: int, frame: FrameType | None) -> None:
            del number, frame
            loop.post(reload)

        before = {
            number: signal.signal(number, handler)
            for number, handler in (
                (signal.SIGTERM, terminate),
                (signal.SIGINT, terminate),
                (signal.SIGHUP, hang_up),
            )
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _prepare_process(settings: Settings) -> None:
    """No core dump may carry plaintext audio or keys to a disk; enough descriptors for the calls that may come.

    Raises:
        ReadinessError: core dumps can't be forbidden, or the hard limit of descriptors is too low for
            limits.max_calls.
    """
    forbid_dumping()
    forbid_core_files()
    wanted = 256 + DESCRIPTORS_PER_CALL * settings.limits.max_calls
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ReadinessError(
            f"{settings.limits.max_calls} calls need {wanted} file descriptors, the hard limit is {hard}; "
            "raise it (LimitNOFILE) or lower limits.max_calls"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
