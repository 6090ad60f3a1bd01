"""What the recorder tells whoever watches it. Metrics and audit subscribe; the recorder knows neither."""

from __future__ import annotations

from typing import Protocol

from recording.format.manifest import Manifest


class RecordingObserver(Protocol):
    """Called from the pump, spool, keys and uploader threads.

    Implementations must be quick, thread-safe and must not raise.
    """

    def recording_started(self, *, file_id: bytes, call_uid: str) -> None: ...
    def recording_finished(self, *, file_id: bytes, call_uid: str, state: str, size_bytes: int) -> None: ...
    def recording_failed(self, *, file_id: bytes, call_uid: str, reason: str) -> None: ...
    def recording_signed(self, *, call_uid: str, manifest: Manifest) -> None: ...
    def records_sealed(self, *, count: int, sealed_bytes: int) -> None: ...
    def spool_lag(self, *, seconds: float, queued_bytes: int) -> None: ...
    def key_requested(self, *, provider: str, seconds: float, error: str | None) -> None: ...
    def pool_level(self, *, tenant: str, level: int) -> None: ...
    def fallback_key_used(
        self, *, tenant: str, tenant_handle: bytes, file_id: bytes, provider: str
    ) -> None: ...
    def spool_level(self, *, spooled_bytes: int, waiting_files: int) -> None: ...
    def upload_sent(self, *, sent_bytes: int) -> None: ...
    def upload_finished(self, *, file_id: bytes, size_bytes: int) -> None: ...
    def upload_failed(self, *, file_id: bytes, reason: str) -> None: ...
    def parts_in_flight(self, *, change: int) -> None: ...


class SilentObserver:
    """An observer that listens to nothing, for the command line's readers."""

    def recording_started(self, *, file_id: bytes, call_uid: str) -> None:
        del file_id, call_uid

    def recording_finished(self, *, file_id: bytes, call_uid: str, state: str, size_bytes: int) -> None:
        del file_id, call_uid, state, size_bytes

    def recording_failed(self, *, file_id: bytes, call_uid: str, reason: str) -> None:
        del file_id, call_uid, reason

    def recording_signed(self, *, call_uid: str, manifest: Manifest) -> None:
        del call_uid, manifest

    def records_sealed(self, *, count: int, sealed_bytes: int) -> None:
        del count, sealed_bytes

    def spool_lag(self, *, seconds: float, queued_bytes: int) -> None:
        del seconds, queued_bytes

    def key_requested(self, *, provider: str, seconds: float, error: str | None) -> None:
        del provider, seconds, error

    def pool_level(self, *, tenant: str, level: int) -> None:
        del tenant, level

    def fallback_key_used(self, *, tenant: str, tenant_handle: bytes, file_id: bytes, provider: str) -> None:
        del tenant, tenant_handle, file_id, provider

    def spool_level(self, *, spooled_bytes: int, waiting_files: int) -> None:
        del spooled_bytes, waiting_files

    def upload_sent(self, *, sent_bytes: int) -> None:
        del sent_bytes

    def upload_finished(self, *, file_id: bytes, size_bytes: int) -> None:
        del file_id, size_bytes

    def upload_failed(self, *, file_id: bytes, reason: str) -> None:
        del file_id, reason

    def parts_in_flight(self, *, change: int) -> None:
        del change
