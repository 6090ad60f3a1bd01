"""The recorder of a process: keys, spool, index and sink behind what a call needs of them."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from recording.call_recording import CallRecording, RecorderParts
from recording.errors import RecordingError
from recording.format.content import RecordingMeta
from recording.format.limits import CHUNK_SIZES, MAX_SEGMENT_SECONDS, RECORD_MS
from recording.index import RecordingIndex
from recording.index.parties import PartySealer
from recording.index.search_key import SearchKey
from recording.keys.errors import NoKeyError
from recording.keys.pool import KeyPool, PooledKey, TenantKey
from recording.keys.provider import KeyProvider
from recording.observer import RecordingObserver
from recording.settings import Layout, RecordingSettings, S3SinkSettings
from recording.sinks.build import build_sink
from recording.sinks.retry import RetryingSink
from recording.sinks.sink import SinkUnavailableError
from recording.spool import Spool
from recording.spool_recovery import RecoveredFile, RecoveryReport, recover_spool
from recording.spool_state import OwnerLock, make_spool_directory
from recording.uploader import Uploader
from recording.voucher import build_voucher

__all__ = [
    "CallRecording",
    "Readiness",
    "Recorder",
    "RecorderUnavailable",
    "Reservation",
    "TenantKey",
    "UnavailableReason",
]

Progress = Callable[[int, int, RecoveredFile], None]


class UnavailableReason(enum.Enum):
    """Why a call cannot be recorded. The value is a metric label."""

    NOT_RUNNING = "recorder_not_running"
    UNKNOWN_TENANT = "unknown_tenant"
    NO_KEY = "no_key"
    NO_SPACE = "no_space"
    QUEUE_FULL = "queue_full"


class RecorderUnavailable(RecordingError):  # noqa: N818  # says a state, as HTTP's 503 does
    """No recording can start now. Raised before the far leg is rung; the trunk's policy decides what follows."""

    exit_code = 49

    def __init__(self, reason: UnavailableReason) -> None:
        super().__init__(f"the recorder cannot take a call: {reason.value}")
        self.reason = reason

    @property
    def reason_label(self) -> str:
        return self.reason.value


@dataclass(slots=True, kw_only=True)
class Reservation:
    """A data key set aside for one call. Hand it to `Recorder.open` or back to `Recorder.release`, once."""

    tenant: str
    _key: PooledKey | None = field(repr=False)

    def take_key(self) -> PooledKey | None:
        """The key, the first time; for the recorder only."""
        key, self._key = self._key, None
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """`problems`: what keeps calls from being served as the configuration says, or will. Empty: all is well.

    `warnings`: what an operator must act on although calls are served: a tenant lives on its fallback key, or without;
    a remote store takes nothing, and the spool still has room.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        return "; ".join((*self.problems, *self.warnings)) or "ready"


class Recorder:
    """Built once per process, started once, stopped once, both from the same thread.

    `reserve`, `release`, `open`, `readiness` may be called from any thread and never wait for a disk or a service.
    """

    def __init__(
        self,
        settings: RecordingSettings,
        tenants: Mapping[str, TenantKey],
        providers: Mapping[str, KeyProvider],
        observer: RecordingObserver,
    ) -> None:
        """No thread and no file yet.

        Raises:
            KeyConfigurationError: a tenant names a provider that is not there; or the signing key cannot be used.
            SinkRefusedError: the sink's settings cannot be used.
            ValueError: a setting is out of the format's bounds.
        """
        _check_settings(settings)
        self._settings = settings
        self._observer = observer
        self._tenants = dict(tenants)
        self._providers = providers
        self._sealer: PartySealer | None = None
        self._sink = build_sink(settings, observer=observer)
        self._retrying = RetryingSink(self._sink)
        self._pool = KeyPool(tenants=tenants, providers=providers, settings=settings.pool, observer=observer)
        self._voucher = build_voucher(settings, self._retrying, observer)
        self._is_remote = isinstance(settings.sink, S3SinkSettings)
        self._uploader = Uploader(
            self._retrying,
            observer=observer,
            vouch=self._voucher.store,
            threads=settings.sink.max_concurrency if isinstance(settings.sink, S3SinkSettings) else 1,
        )
        self._index: RecordingIndex | None = None
        self._lock: OwnerLock | None = None
        self._spool: Spool | None = None
        self._parts: RecorderParts | None = None
        self._is_stopped: bool | None = None

    def start(self, on_progress: Progress | None = None) -> RecoveryReport:
        """Recover what dead processes left in the spool, then start the threads. Returns what was recovered.

        Raises:
            SpoolError, SinkError, IndexUnavailableError: says what cannot be used. Call `stop` then too.
        """
        settings = self._settings
        make_spool_directory(settings.spool_directory)
        self._check_sink()
        self._lock = OwnerLock.create(settings.spool_directory)
        self._index = RecordingIndex(settings.index_place)
        self._sealer = self._start_sealer(self._index)
        report = recover_spool(
            settings.spool_directory,
            index=self._index,
            sink=self._sink,
            voucher=self._voucher,
            new_owner=self._lock.owner,
            is_deferred=self._is_remote,
            on_progress=on_progress,
        )
        spool = Spool(
            directory=settings.spool_directory,
            index=self._index,
            uploader=self._uploader,
            observer=self._observer,
            queue_bytes=settings.queue_bytes,
            fsync_interval_ms=settings.fsync_interval_ms,
            min_free_bytes=settings.min_free_bytes,
            voucher=self._voucher,
            max_spool_bytes=settings.max_spool_bytes,
        )
        self._spool = spool
        for state, entry in report.waiting:
            spool.adopt(state, entry)
        self._parts = RecorderParts(
            settings=settings,
            owner=self._lock.owner,
            pool=self._pool,
            spool=spool,
            observer=self._observer,
            sealer=self._sealer,
        )
        spool.start()
        self._uploader.start(spool.stored)
        self._pool.start()
        return report

    def _start_sealer(self, index: RecordingIndex) -> PartySealer | None:
        """Without a search key the index holds no number in any form."""
        path = self._settings.index.search_key_path
        if path is None:
            return None
        sealer = PartySealer(
            index=index,
            tenants=self._tenants,
            providers=self._providers,
            search_key=SearchKey(path),
            key=self._settings.index.key,
        )
        sealer.start()
        return sealer

    def _check_sink(self) -> None:
        """A store that is away is what the spool is for; one that refuses, or does not lock as asked, is not."""
        try:
            self._sink.health()
        except SinkUnavailableError:
            if not self._is_remote:
                raise

    def stop(self, deadline_s: float = 10.0) -> bool:
        """Write, sync and store what is left, within the deadline; wipe keys. Finish the calls' recordings before.

        Does nothing a second time.

        Returns:
            Whether everything is in the sink. What is not stays in the spool, whole, and is recovered by the next
            start.
        """
        if self._is_stopped is not None:
            return self._is_stopped
        end = time.monotonic() + deadline_s
        self._pool.stop(min(1.0, deadline_s))
        if self._sealer is not None:
            self._sealer.stop(min(1.0, _left(end)))
        is_done = True
        if self._spool is not None:
            is_done = self._spool.flush(_left(end) / 2)
            is_done = self._uploader.drain(_left(end) * 0.75) and is_done
            self._retrying.stop()
            is_done = self._uploader.stop(max(0.1, _left(end))) and is_done
            is_done = self._spool.stop(max(0.1, _left(end))) and is_done
            is_done = is_done and self._uploader.pending == 0
        if self._spool is None or not self._spool.is_running:
            if self._index is not None:
                self._index.close()
            if self._lock is not None:
                self._lock.release()
        self._is_stopped = is_done
        return is_done

    def wait_ready(self, timeout_s: float, *, until_failure: bool = False) -> bool:
        """Wait until every tenant's keys are in stock. For start-up; not for the SIP or pump thread.

        `until_failure`: no longer than until a provider has failed once.
        """
        end = time.monotonic() + timeout_s
        is_stocked = self._pool.wait_ready(
            timeout_s, level=self._settings.pool.size, until_failure=until_failure
        )
        if self._sealer is not None:
            # Not asked whether it is: without it names are missing in the index, and nothing of a recording.
            self._sealer.wait_ready(_left(end))
        return is_stocked and self.readiness().is_ready

    def readiness(self) -> Readiness:
        """What stands in the way of recording a call now, and what will if nobody acts."""
        spool = self._spool
        if spool is None or not spool.is_running:
            return Readiness(problems=("the spool thread does not run",))
        checks = (
            (not self._pool.is_running, "a keys thread does not run"),
            (not self._uploader.is_running, "the uploader thread does not run"),
            (not spool.has_space, f"the spool has no room: {spool.space_problem}"),
            (not spool.has_queue_room, "sealed records pile up in memory: the spool's disk is too slow"),
            (spool.index_problem is not None, f"index: {spool.index_problem}"),
        )
        problems = [text for is_wrong, text in checks if is_wrong]
        warnings: list[str] = []
        shortages = list(self._pool.problems().items())
        shortages += [(name, "none is ready") for name in sorted(self._tenants) if not self._pool.level(name)]
        for name, text in shortages:
            told = problems if self._tenants[name].waits_for_keys else warnings
            told.append(f"keys of tenant {name}: {text}")
        if self._sealer is not None and self._sealer.problem is not None:
            warnings.append(f"names are not sealed into the index: {self._sealer.problem}")
        if self._uploader.problem is not None:
            # A remote store's outage is what the spool is for, and `has_space` tells when that ends.
            (warnings if self._is_remote else problems).append(f"sink: {self._uploader.problem}")
        return Readiness(problems=tuple(problems), warnings=tuple(warnings))

    def reserve(self, tenant: str) -> Reservation:
        """Set a data key aside for a call that is about to be set up.

        Raises:
            RecorderUnavailable: says why this call could not be recorded.
        """
        spool = self._spool
        if spool is None or not spool.is_running:
            raise RecorderUnavailable(UnavailableReason.NOT_RUNNING)
        if tenant not in self._tenants:
            raise RecorderUnavailable(UnavailableReason.UNKNOWN_TENANT)
        if not spool.has_space:
            raise RecorderUnavailable(UnavailableReason.NO_SPACE)
        if not spool.has_queue_room:
            raise RecorderUnavailable(UnavailableReason.QUEUE_FULL)
        try:
            return Reservation(tenant=tenant, _key=self._pool.take(tenant))
        except NoKeyError as error:
            raise RecorderUnavailable(UnavailableReason.NO_KEY) from error

    def release(self, reservation: Reservation) -> None:
        """Wipe the key of a reservation that no recording came of. Does nothing to one that was used or released."""
        if (key := reservation.take_key()) is not None:
            key.wipe()

    def open(
        self,
        reservation: Reservation,
        *,
        meta: RecordingMeta,
        layout: Layout,
        on_failure: Callable[[RecordingError], None],
    ) -> CallRecording:
        """A recording that begins with its first audio. Uses the reservation up, also where this raises.

        Args:
            reservation: from `reserve`, not used before.
            meta: gives `call_uid`, `rate_hz`, the parties and, if known, `started_at`; segment, recording id, layout
                and links are filled in here.
            layout: mixed or split.
            on_failure: called at most once, from the pump or the spool thread; it must be quick and must not raise.

        Raises:
            RecorderUnavailable: the recorder is not running.
            MalformedContentError: `meta` does not fit into one record.
        """
        key = reservation.take_key()
        parts = self._parts
        if key is None or parts is None or not parts.spool.is_running:
            if key is not None:
                key.wipe()
            raise RecorderUnavailable(
                UnavailableReason.NO_KEY if key is None else UnavailableReason.NOT_RUNNING
            )
        try:
            return CallRecording(parts=parts, key=key, meta=meta, layout=layout, on_failure=on_failure)
        except BaseException:
            key.wipe()
            raise


def recover(
    settings: RecordingSettings,
    on_progress: Progress | None = None,
    *,
    only_owner: str | None = None,
    observer: RecordingObserver | None = None,
) -> RecoveryReport:
    """What `b2bua recordings recover` does: recover the spool without a key, beside a living recorder or without one.

    `only_owner`: the files of this dead owner alone. `observer` is told of the manifests that are signed.

    Raises:
        SpoolError, SinkError, IndexUnavailableError, KeyConfigurationError: says what cannot be used.
    """
    index = RecordingIndex(settings.index_place)
    sink = RetryingSink(build_sink(settings))
    try:
        return recover_spool(
            settings.spool_directory,
            index=index,
            sink=sink,
            voucher=build_voucher(settings, sink, observer),
            only_owner=only_owner,
            on_progress=on_progress,
        )
    finally:
        index.close()


def _left(end: float) -> float:
    return max(0.0, end - time.monotonic())


def _check_settings(settings: RecordingSettings) -> None:
    rules = (
        (settings.chunk_size in CHUNK_SIZES, f"chunk_size must be one of {CHUNK_SIZES}"),
        (0 < settings.record_ms <= RECORD_MS, f"record_ms must be within 1..{RECORD_MS}"),
        (
            0 < settings.segment_seconds <= MAX_SEGMENT_SECONDS,
            f"segment_seconds must be within 1..{MAX_SEGMENT_SECONDS}",
        ),
        (settings.fsync_interval_ms > 0, "fsync_interval_ms must be positive"),
        (settings.queue_bytes >= 1 << 20, "queue_bytes must be at least 1 MiB"),
    )
    for is_kept, rule in rules:
        if not is_kept:
            raise ValueError(rule)
