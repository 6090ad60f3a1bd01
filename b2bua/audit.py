"""Who was let in, refused, recorded or read, and why: JSON lines with ids, trunk, status and reason only.

No number, URI, Call-ID or name can get in: a line is built from typed fields whose form is checked here, at the one
boundary, and there is no field for anything else. Source: 45 CFR 164.312(b), audit controls.
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Protocol

import structlog

from b2bua.audit_store import PlainStore, SealedStore, Store, StoreError
from b2bua.errors import AuditError
from b2bua.journal.expiry import EXPIRED_EVENT
from b2bua.journal.segment import Recovered
from b2bua.journal.verify import RECOVERED_EVENT
from b2bua.settings import AuditSettings
from recording.observer import RecordingObserver

_log = structlog.get_logger(__name__)

QUEUE_LINES = 20_000
"""Lines that may wait for a slow disk: ten lines a call, 500 calls a second for four seconds."""
RETRY_S = 1.0
_BATCH_LINES = 500


class AuditEvent(enum.Enum):
    """What a line tells."""

    SERVICE_STARTED = "service_started"
    SERVICE_STOPPED = "service_stopped"
    CALL_STARTED = "call_started"
    CALL_ANSWERED = "call_answered"
    CALL_ENDED = "call_ended"
    CALL_UNRECORDED = "call_unrecorded"
    REQUEST_REFUSED = "request_refused"
    PEER_ACCEPTED = "peer_accepted"
    PEER_REFUSED = "peer_refused"
    PEER_CLOSED = "peer_closed"
    MEDIA_ABSENT = "media_absent"
    MEDIA_RETURNED = "media_returned"
    RECORDING_STARTED = "recording_started"
    RECORDING_FINISHED = "recording_finished"
    RECORDING_FAILED = "recording_failed"
    RECORDING_PAUSED = "recording_paused"
    RECORDING_RESUMED = "recording_resumed"
    RECORDING_STORED = "recording_stored"
    UPLOAD_FAILED = "upload_failed"
    RECORDING_SIGNED = "recording_signed"
    RECORDING_READ = "recording_read"
    EXPORT_SEALED = "export_sealed"
    EXPORT_PLAINTEXT = "export_plaintext"
    ARTEFACT_ATTACHED = "artefact_attached"
    RECORDING_HELD = "recording_held"
    RECORDING_RELEASED = "recording_released"
    DELETION_BEGUN = "deletion_begun"
    DELETION_REFUSED = "deletion_refused"
    RECORDING_DELETED = "recording_deleted"
    EXPIRY_ENDED = "expiry_ended"
    LOCKS_REPEATED = "locks_repeated"
    INDEX_SEARCHED = "index_searched"
    INDEX_READ = "index_read"
    INDEX_REBUILT = "index_rebuilt"
    INDEX_BACKED_UP = "index_backed_up"
    INDEX_RESTORED = "index_restored"
    KEY_FAILED = "key_failed"
    KEY_FALLBACK = "key_fallback"
    KEY_CHANGE_STARTED = "key_change_started"
    KEY_ROTATED = "key_rotated"
    KEY_REWRAPPED = "key_rewrapped"
    KEY_DISABLED = "key_disabled"
    KEY_DESTROYED = "key_destroyed"
    KEY_REFUSED = "key_refused"
    CERTIFICATE_RELOADED = "certificate_reloaded"
    CERTIFICATE_REFUSED = "certificate_refused"
    CONTROL_COMMAND = "control_command"
    CONTROL_REFUSED = "control_refused"
    FAULT = "fault"
    LINES_LOST = "lines_lost"
    AUDIT_RECOVERED = RECOVERED_EVENT
    AUDIT_READ = "audit_read"
    AUDIT_EXPORTED = "audit_exported"
    LOG_READ = "log_read"
    AUDIT_VERIFIED = "audit_verified"
    AUDIT_EXPIRED = EXPIRED_EVENT
    AUDIT_EXPIRY_REFUSED = "audit_expiry_refused"


TICKET = r"[A-Z]{2,4}-[0-9]{1,6}"
"""Letters that make no name, digits that make no phone number."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One line. Fields left None are not written.

    `trunk` is the calling side's, `far_trunk` the called side's. `leg` is A or B. `source` is the address of a peer,
    without port. `action` is what was done with a recording, `ticket` names the request behind it. `by` is what caused
    it, `policy` a recording policy, `uid` a user of this machine. `count` is of lines, records or packets. `at` is
    aware UTC.

    Raises:
        AuditError: on construction, if a field has not the form it must have.
    """

    event: AuditEvent
    call_uid: str | None = None
    leg: str | None = None
    trunk: str | None = None
    far_trunk: str | None = None
    tenant_handle: str | None = None
    status: int | None = None
    reason: str | None = None
    action: str | None = None
    ticket: str | None = None
    by: str | None = None
    policy: str | None = None
    uid: int | None = None
    file_id: str | None = None
    key_id: str | None = None
    key: str | None = None
    far_key: str | None = None
    fingerprint: str | None = None
    source: str | None = None
    count: int | None = None
    at: datetime = field(default_factory=_utc_now)

    def __post_init__(self) -> None:
        for name, is_allowed in _FORMS.items():
            value = getattr(self, name)
            if value is not None and not is_allowed(value):
                # The value is not quoted: it is what must not be written anywhere.
                raise AuditError(f"audit field {name} of {self.event.value} has not the form of such a field")

    def build(self) -> bytes:
        """The line, with its newline."""
        values: dict[str, object] = {
            "at": self.at.astimezone(UTC).isoformat(timespec="milliseconds"),
            "event": self.event.value,
        }
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.name not in values and value is not None:
                values[each.name] = value
        return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _matches(pattern: str) -> Callable[[object], bool]:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _is_label(value: object) -> bool:
    return (
        isinstance(value, str)
        and re.fullmatch(r"[a-z][a-z0-9_.-]{0,63}", value) is not None
        and re.search(r"[0-9]{5}", value) is None
    )


def _is_address(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return "%" not in value


def _is_number(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


_FORMS: Mapping[str, Callable[[object], bool]] = MappingProxyType(
    {
        "call_uid": _matches(r"[0-9a-f]{16,64}"),
        "leg": _matches(r"[AB]"),
        "trunk": _is_label,
        "far_trunk": _is_label,
        "tenant_handle": _matches(r"[0-9a-f]{32}"),
        "status": _is_number(100, 699),
        "reason": _is_label,
        "action": _is_label,
        "ticket": _matches(TICKET),
        "by": _is_label,
        "policy": _is_label,
        "uid": _is_number(0, (1 << 32) - 1),
        "file_id": _matches(r"[0-9a-f]{32}"),
        "key_id": _matches(
            r"[0-9a-f]{16}|[0-9a-f-]{36}|mrk-[0-9a-f]{32}|alias/[A-Za-z0-9/_-]{1,250}|arn:[a-z-]+:kms:[^@\s]{1,300}"
        ),
        "key": _is_label,
        "far_key": _is_label,
        "fingerprint": _matches(r"[0-9a-f]{64}"),
        "source": _is_address,
        "count": _is_number(0, 1 << 53),
    }
)
"""The allow list: each field and what it may hold. 16 hex digits can't be a phone number (E.164: 15)."""


class AuditObserver(Protocol):
    """Called from the audit thread; must be quick and must not raise."""

    def audit_written(self, *, count: int) -> None: ...
    def audit_failed(self) -> None: ...


class AuditLog:
    """Appends lines to the sealed log, or in clear to a file. `write` may be called from any thread and never waits.

    A thread named `audit` writes and syncs. What fails to be written waits and is tried again; when more than
    `QUEUE_LINES` wait, the oldest are given up and a `lines_lost` line says how many.
    """

    def __init__(
        self,
        settings: AuditSettings,
        *,
        observer: AuditObserver | None = None,
        pool_observer: RecordingObserver | None = None,
        uid: int | None = None,
    ) -> None:
        """Open the log.

        Args:
            settings: where and how.
            observer: learns what was written and what failed.
            pool_observer: for a process that serves: data keys are kept ready, and this learns how many.
            uid: for a command: the user of this machine who gave it; each line says so.

        Raises:
            AuditError: the file can't be opened, or others may read or write it.
            JournalError, KeyConfigurationError: the same of the sealed log and its key.
        """
        self._store: Store
        if settings.directory is None:
            self._where = str(settings.path or "standard error")
            self._store = PlainStore(settings.path)
        else:
            self._where = str(settings.directory)
            self._store = SealedStore(settings, mark=_recovered, pool_observer=pool_observer)
        self._commit_s = 0 if settings.directory is None else settings.commit_ms / 1000
        self._observer = observer
        self._uid = uid
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._lost = 0
        self._queued_count = 0
        self._settled_count = 0
        self._flush_to = 0
        self._is_closing = False
        self._failure: str | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._failure is not None

    def problem(self) -> str | None:
        """Why lines can't be taken now: new calls are refused then. None: they can. Any thread, at once."""
        if self._failure is not None:
            return self._failure
        if len(self._lines) * 2 > QUEUE_LINES:
            return f"{len(self._lines)} lines wait to be written"
        return self._store.problem()

    def start(self) -> None:
        """Begin to write; lines written before wait until then."""
        assert self._thread is None, "an audit log is started once"
        self._store.start()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until there is a data key to begin with, or its provider has failed. For start-up."""
        return self._store.wait_ready(timeout_s)

    def write(self, line: AuditLine) -> None:
        """Queue one line."""
        if self._uid is not None and line.uid is None:
            line = dataclasses.replace(line, uid=self._uid)
        data = line.build()
        with self._changed:
            if len(self._lines) >= QUEUE_LINES:
                self._lines.popleft()
                self._lost += 1
                self._settled_count += 1
            self._lines.append(data)
            self._queued_count += 1
            self._changed.notify_all()

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until every line written so far is durable: what must not happen unaudited comes after this.

        Raises:
            AuditError: it is not, and why.
        """
        with self._changed:
            wanted = self._flush_to = self._queued_count
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._settled_count >= wanted or self._failure is not None, timeout_s
            )
            if self._settled_count < wanted:
                raise AuditError(
                    f"the audit log {self._where} can't be written, so nothing was done: "
                    f"{self._failure or 'it does not answer'}"
                )

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, then close the log. Does nothing twice.

        Raises:
            AuditError: lines could not be written in time; says how many.
        """
        with self._changed:
            if self._is_closing:
                return
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is None:
            self._write_batch()
        else:
            self._thread.join(timeout_s)
        unwritten = len(self._lines)
        if self._thread is None or not self._thread.is_alive():
            self._store.close()
        if unwritten:
            raise AuditError(f"{unwritten} audit lines could not be written to {self._where}")

    def _run(self) -> None:
        while True:
            pause_s = self._store.idle()
            with self._changed:
                if not self._lines and not self._is_closing:
                    self._changed.wait(pause_s)
                if not self._lines:
                    if self._is_closing:
                        return
                    continue
                self._changed.wait_for(self._is_urgent, self._commit_s)
            if not self._write_batch():
                with self._changed:
                    if self._is_closing:
                        return
                    self._changed.wait(RETRY_S)

    def _is_urgent(self) -> bool:
        return self._is_closing or self._flush_to > self._settled_count or len(self._lines) >= _BATCH_LINES

    def _write_batch(self) -> bool:
        """Write and sync some lines. On failure they stay queued, and whole lines only count as written."""
        with self._changed:
            if self._lost:
                self._lines.appendleft(AuditLine(event=AuditEvent.LINES_LOST, count=self._lost).build())
                self._lost = 0
                self._queued_count += 1
            batch = [self._lines.popleft() for _ in range(min(len(self._lines), _BATCH_LINES))]
        if not batch:
            return True
        try:
            self._store.append(batch)
        except StoreError as error:
            self._note_failure(error, batch[error.written :])
            return False
        with self._changed:
            self._failure = None
            self._settled_count += len(batch)
            self._changed.notify_all()
        if self._observer is not None:
            self._observer.audit_written(count=len(batch))
        return True

    def _note_failure(self, error: StoreError, unwritten: list[bytes]) -> None:
        if self._failure is None:
            _log.error("audit_not_written", problem=str(error))
        with self._changed:
            self._failure = str(error)
            self._settled_count += error.written
            self._lines.extendleft(reversed(unwritten))
            self._changed.notify_all()
        if self._observer is not None:
            self._observer.audit_failed()


def _recovered(file: Recovered) -> bytes:
    return AuditLine(
        event=AuditEvent.AUDIT_RECOVERED, file_id=file.file_id.hex(), count=file.lost_lines
    ).build()
