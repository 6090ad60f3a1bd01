"""What the recorder tells whoever watches it. Metrics and audit subscribe; the recorder knows neither."""

from __future__ import annotations

from typing import Protocol


class RecordingObserver(Protocol):
    """Called from the pump, spool and keys threads; implementations must be quick, thread-safe and must not raise."""

    def recording_started(self, *, file_id: bytes, call_uid: str) -> None: ...
    def recording_finished(self, *, file_id: bytes, call_uid: str, state: str, size_bytes: int) -> None: ...
    def recording_failed(self, *, file_id: bytes, call_uid: str, reason: str) -> None: ...
    def records_sealed(self, *, count: int, sealed_bytes: int) -> None: ...
    def spool_lag(self, *, seconds: float, queued_bytes: int) -> None: ...
    def key_requested(self, *, provider: str, seconds: float, error: str | None) -> None: ...
    def pool_level(self, *, tenant: str, level: int) -> None: ...


class SilentObserver:
    """An observer that listens to nothing, for the command line's readers."""

    def recording_started(self, *, file_id: bytes, call_uid: str) -> None:
        del file_id, call_uid

    def recording_finished(self, *, file_id: bytes, call_uid: str, state: str, size_bytes: int) -> None:
        del file_id, call_uid, state, size_bytes

    def recording_failed(self, *, file_id: bytes, call_uid: str, reason: str) -> None:
        del file_id, call_uid, reason

    def records_sealed(self, *, count: int, sealed_bytes: int) -> None:
        del count, sealed_bytes

    def spool_lag(self, *, seconds: float, queued_bytes: int) -> None:
        del seconds, queued_bytes

    def key_requested(self, *, provider: str, seconds: float, error: str | None) -> None:
        del provider, seconds, error

    def pool_level(self, *, tenant: str, level: int) -> None:
        del tenant, level
