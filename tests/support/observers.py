"""An observer that keeps what it is told, from whichever thread."""

from __future__ import annotations

import threading


class ListeningObserver:
    """Lists of what was told, in the order of telling."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.started: list[tuple[bytes, str]] = []
        self.finished: list[tuple[bytes, str, str, int]] = []
        self.failed: list[tuple[bytes, str, str]] = []
        self.sealed_records = 0
        self.sealed_bytes = 0
        self.lags: list[tuple[float, int]] = []
        self.key_requests: list[tuple[str, float, str | None]] = []
        self.levels: list[tuple[str, int]] = []

    def recording_started(self, *, file_id: bytes, call_uid: str) -> None:
        with self._lock:
            self.started.append((file_id, call_uid))

    def recording_finished(self, *, file_id: bytes, call_uid: str, state: str, size_bytes: int) -> None:
        with self._lock:
            self.finished.append((file_id, call_uid, state, size_bytes))

    def recording_failed(self, *, file_id: bytes, call_uid: str, reason: str) -> None:
        with self._lock:
            self.failed.append((file_id, call_uid, reason))

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
