"""Where audit lines go: a sealed, chained log, or in clear to a file or standard error. The audit thread's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import structlog

from b2bua.errors import AuditError, JournalError
from b2bua.journal.chained import ChainedJournal
from b2bua.journal.checkpoint import Checkpoint, append_checkpoint
from b2bua.journal.segment import Recovered
from b2bua.settings import AuditSettings
from recording.errors import RecordingError
from recording.keys.build import build_provider
from recording.keys.pool import KeyPool, PooledKey, TenantKey
from recording.keys.provider import KeyContext, KeyProvider
from recording.observer import RecordingObserver
from recording.settings import PoolSettings
from recording.signing import SigningKey

_log = structlog.get_logger(__name__)

_STANDARD_ERROR: Final = 2
POOL: Final = PoolSettings(size=2, ttl_s=3600, refill_per_request=1, parallel_requests=1)
"""One key for the next file and one in reserve: a file lasts minutes, and an old one goes on while there is no key."""
POOL_NAME: Final = "audit"


class StoreError(AuditError):
    """Lines could not be written; the first `written` of them were."""

    def __init__(self, message: str, *, written: int = 0) -> None:
        super().__init__(message)
        self.written = written


class Store(Protocol):
    """`append` returns when all lines are durable, and raises StoreError otherwise. `problem` may be asked any time."""

    def append(self, lines: Sequence[bytes]) -> None: ...
    def idle(self) -> float | None:
        """Do what time asks for; how many seconds until there is more of that, None: nothing."""
        ...

    def problem(self) -> str | None:
        """Why the next line could not be taken, None: it could."""
        ...

    def start(self) -> None: ...
    def wait_ready(self, timeout_s: float) -> bool: ...
    def close(self) -> None: ...


class PlainStore:
    """Lines in clear, appended to a file or to standard error."""

    def __init__(self, path: Path | None) -> None:
        """Open the file (made with mode 0600). Raises AuditError."""
        self._path = path
        self._descriptor = _STANDARD_ERROR if path is None else _open(path)
        self._is_cut = False

    def append(self, lines: Sequence[bytes]) -> None:
        written = 0
        try:
            for line in lines:
                self._write_whole(line)
                written += 1
            if self._path is not None:
                os.fdatasync(self._descriptor)
        except OSError as error:
            where = self._path or "standard error"
            raise StoreError(f"{where}: {error.strerror}", written=written) from error

    def idle(self) -> float | None:
        return None

    def problem(self) -> str | None:
        return None

    def start(self) -> None:
        pass

    def wait_ready(self, timeout_s: float) -> bool:
        del timeout_s
        return True

    def close(self) -> None:
        if self._path is not None and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_whole(self, line: bytes) -> None:
        """All of a line. What a full disk has cut off is ended first, and the line then written whole again."""
        view = memoryview(b"\n" + line if self._is_cut else line)
        length = len(view)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            self._is_cut = self._is_cut or len(view) != length
            raise
        self._is_cut = False


class SealedStore:
    """A chained log in containers. It may ask for data keys and never opens one."""

    def __init__(
        self,
        settings: AuditSettings,
        *,
        mark: Callable[[Recovered], bytes],
        pool_observer: RecordingObserver | None,
    ) -> None:
        """Open the log's head.

        Args:
            settings: with directory and key.
            mark: the line that tells of a file that its writer left open.
            pool_observer: given, keys are kept ready by a thread of their own, for a process that serves; otherwise
                the provider is asked when a key is needed.

        Raises:
            JournalError: the directory can't be used. KeyConfigurationError: the key section or signing key can't.
        """
        assert settings.directory is not None
        assert settings.key is not None
        assert settings.key_name is not None
        self._provider = build_provider(settings.key_name, settings.key)
        self._journal = ChainedJournal(
            settings.directory,
            take_key=self._take_key,
            mark=mark,
            segment_seconds=settings.segment_seconds,
        )
        self._checkpoints = settings.checkpoints_path
        path = settings.signing_key_path
        # A command of somebody who may not sign leaves that to the server.
        self._signing_key = SigningKey.load(path) if path is not None and os.access(path, os.R_OK) else None
        self._signed_files = 0
        self._pool: KeyPool | None = None
        if pool_observer is not None:
            self._pool = KeyPool(
                tenants={POOL_NAME: TenantKey(handle=self._journal.log_id, provider=settings.key_name)},
                providers={settings.key_name: self._provider},
                settings=POOL,
                observer=pool_observer,
            )

    def append(self, lines: Sequence[bytes]) -> None:
        written = 0
        try:
            while written < len(lines):
                written += self._journal.append(lines[written:])
        except (JournalError, RecordingError) as error:
            raise StoreError(str(error), written=written) from error
        self._checkpoint()

    def idle(self) -> float | None:
        self._journal.tick()
        self._checkpoint()
        return self._journal.seconds_left()

    def problem(self) -> str | None:
        if self._pool is None or self._journal.has_segment or self._pool.level(POOL_NAME):
            return None
        return f"no data key for the audit log: {self._pool.problems().get(POOL_NAME, 'none is ready yet')}"

    def start(self) -> None:
        if self._pool is not None:
            self._pool.start()

    def wait_ready(self, timeout_s: float) -> bool:
        return self._pool is None or self._pool.wait_ready(timeout_s, until_failure=True)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.stop(1.0)
        self._journal.close()
        self._checkpoint()

    def _checkpoint(self) -> None:
        """Sign where the chain stands, once for each file that has ended. Lines do not depend on it."""
        head = self._journal.last
        if self._journal.ended == self._signed_files or head is None:
            return
        self._signed_files = self._journal.ended
        if self._signing_key is None or self._checkpoints is None:
            return
        checkpoint = Checkpoint(
            log_id=head.log_id, chain=head.chain, files=head.segments, at=datetime.now(UTC)
        )
        try:
            append_checkpoint(self._checkpoints, checkpoint, self._signing_key)
        except OSError as error:
            _log.error("audit_checkpoint_not_written", problem=error.strerror)

    def _take_key(self, log_id: bytes) -> PooledKey:
        if self._pool is not None:
            return self._pool.take(POOL_NAME)
        return new_key(self._provider, log_id)


def new_key(provider: KeyProvider, handle: bytes) -> PooledKey:
    """A data key asked for now, for one file. Raises RecordingError as the provider does."""
    context = KeyContext(file_id=os.urandom(16), tenant_handle=handle)
    return PooledKey(
        file_id=context.file_id,
        tenant=POOL_NAME,
        tenant_handle=handle,
        key=provider.new_key(context),
        expires_ns=0,
    )


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise AuditError(f"{path}: {error.strerror}; name a file in a directory of this user's") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) and mode & 0o077:
        os.close(descriptor)
        raise AuditError(
            f"{path} has mode {stat.S_IMODE(mode):04o}, others may use it; run: chmod 600 {path}"
        )
    return descriptor
