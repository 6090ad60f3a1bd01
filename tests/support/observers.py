"""An observer that keeps what it is told, from whichever thread."""

from __future__ import annotations

import threading

from recording.format.manifest import Manifest


class ListeningObserver:
    """Lists of what was told, in the order of telling."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.started: list[tuple[bytes, str]] = []
        self.finished: list[tuple[bytes, str, str, int]] = []
        self.failed: list[tuple[bytes, str, str]] = []
        self.signed: list[tuple[str, Manifest]] = []
        self.sealed_records = 0
        self.sealed_bytes = 0
        self.lags: list[tuple[float, int]] = []
        self.key_requests: list[tuple[str, float, str | None]] = []
        self.levels: list[tuple[str, int]] = []
        self.fallbacks: list[tuple[str, bytes, str]] = []
        self.spool_levels: list[tuple[int, int]] = []
        self.sent_bytes = 0
        self.uploads: list[tuple[bytes, int]] = []
        self.upload_failures: list[tuple[bytes, str]] = []
        self.parts = 0
        self.most_parts = 0

    def recording_started(self, *, file_id: bytes, call_uid: str) -> None:
        with self._lock:
            self.started.append((file_id, call_uid))

    def recording_finished(self, *, file_id: bytes, call_uid: str, state: str, size_bytes: int) -> None:
        with self._lock:
            self.finished.append((file_id, call_uid, state, size_bytes))

    def recording_failed(self, *, file_id: bytes, call_uid: str, reason: str) -> None:
        with self._lock:
            self.failed.append((file_id, call_uid, reason))

    def recording_signed(self, *, call_uid: str, manifest: Manifest) -> None:
        with self._lock:
            self.signed.append((call_uid, manifest))

    def records_sealed(self, *, count: int, sealed_bytes: int) -> None:
        with self._lock:
            self.sealed_records += count
            self.sealed_bytes += sealed_bytes

    def spool_lag(self, *, seconds: float, queued_bytes: int) -> None:
        with self._lock:
            self.lags.append((seconds, queued_bytes))

    def key_requested(self, *, provider: str, seconds: float, error: str | None) -> None:
        with self._lock:
            self.key_requests.append((provider, seconds, error))

    def pool_level(self, *, tenant: str, level: int) -> None:
        with self._lock:
            self.levels.append((tenant, level))

    def fallback_key_used(self, *, tenant: str, tenant_handle: bytes, file_id: bytes, provider: str) -> None:
        del tenant_handle
        with self._lock:
            self.fallbacks.append((tenant, file_id, provider))

    def spool_level(self, *, spooled_bytes: int, waiting_files: int) -> None:
        with self._lock:
            self.spool_levels.append((spooled_bytes, waiting_files))

    def upload_sent(self, *, sent_bytes: int) -> None:
        with self._lock:
            self.sent_bytes += sent_bytes

    def upload_finished(self, *, file_id: bytes, size_bytes: int) -> None:
        with self._lock:
            self.uploads.append((file_id, size_bytes))

    def upload_failed(self, *, file_id: bytes, reason: str) -> None:
        with self._lock:
            self.upload_failures.append((file_id, reason))

    def parts_in_flight(self, *, change: int) -> None:
        with self._lock:
            self.parts += change
            self.most_parts = max(self.most_parts, self.parts)
