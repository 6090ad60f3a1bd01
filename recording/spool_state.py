"""What lies beside each spooled file: a state file without anything readable about the call, and its owner's lock.

A state file is replaced as a whole (temporary file, fsync, rename). The lock is held with flock for as long as the
process lives, so a crash gives it back by itself and a recovery can tell a dead owner's files from a live one's.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from recording.errors import RecordingError
from recording.format.content import RecordingKind
from recording.index.entry import NO_PARTIES, IndexEntry, IndexState, SealedParties
from recording.sinks.sink import EXTENSION, ObjectName
from recording.sinks.upload_state import remove_upload

STATE_EXTENSION: Final = ".json"
LOCK_EXTENSION: Final = ".lock"
TEMPORARY_EXTENSION: Final = ".tmp"
_VERSION: Final = 1
_MAX_BYTES: Final = 8192
_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700


_Value = TypeVar("_Value")


class SpoolError(RecordingError):
    """The spool cannot do what was asked; says which file and what the operating system answered."""

    exit_code = 46
    reason_label = "spool_failed"


class SpoolFullError(SpoolError):
    """More sealed bytes wait to be written than `queue_bytes` allows: the disk does not keep up. Nothing was taken."""

    exit_code = 47
    reason_label = "queue_full"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolState:
    """A spooled segment as its state file tells it. `ended`: record count once FINAL is on disk, None before.

    `previous`: the segment before, if there is one.

    `owner` names the lock file of the process that writes the segment. `started_hour` is aware UTC, cut to the hour.
    """

    file_id: bytes
    owner: str
    recording: bytes
    segment: int
    call_uid: str
    tenant_handle: bytes
    provider: int
    key_id: str
    started_hour: datetime
    ended: int | None = None
    trunk_a: str | None = None
    trunk_b: str | None = None
    retain_until: datetime | None = None
    parties: SealedParties = NO_PARTIES
    kind: RecordingKind = RecordingKind.AUDIO
    parent: bytes | None = None
    previous: bytes | None = None

    @property
    def object_name(self) -> ObjectName:
        return ObjectName(
            tenant_handle=self.tenant_handle,
            file_id=self.file_id,
            started_hour=self.started_hour,
            retain_until=self.retain_until,
        )

    def entry(
        self, state: IndexState, *, records: int = 0, size_bytes: int = 0, object_key: str | None = None
    ) -> IndexEntry:
        return IndexEntry(
            file_id=self.file_id,
            recording=self.recording,
            segment=self.segment,
            call_uid=self.call_uid,
            tenant_handle=self.tenant_handle,
            state=state,
            provider=self.provider,
            key_id=self.key_id,
            started_hour=self.started_hour,
            records=records,
            size_bytes=size_bytes,
            object_key=object_key,
            trunk_a=self.trunk_a,
            trunk_b=self.trunk_b,
            retain_until=self.retain_until,
            parties=self.parties,
            kind=self.kind,
            parent=self.parent,
        )

    def build(self) -> bytes:
        document = {
            "v": _VERSION,
            "file_id": self.file_id.hex(),
            "owner": self.owner,
            "recording": self.recording.hex(),
            "segment": self.segment,
            "call_uid": self.call_uid,
            "tenant_handle": self.tenant_handle.hex(),
            "provider": self.provider,
            "key_id": self.key_id,
            "started_hour": self.started_hour.astimezone(UTC).isoformat(),
            "ended": self.ended,
            "trunk_a": self.trunk_a,
            "trunk_b": self.trunk_b,
            "retain_until": None if self.retain_until is None else self.retain_until.isoformat(),
            "parties": [
                None if part is None else part.hex()
                for part in (self.parties.sealed, self.parties.blind_from, self.parties.blind_to)
            ],
            "kind": self.kind.value,
            "parent": None if self.parent is None else self.parent.hex(),
            "previous": None if self.previous is None else self.previous.hex(),
        }
        return json.dumps(document).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises SpoolError for anything that `build` did not write."""
        try:
            found = json.loads(data)
            if found["v"] != _VERSION:
                raise SpoolError(f"spool state of version {found['v']!r}; this program knows {_VERSION}")
            state = cls(
                file_id=bytes.fromhex(found["file_id"]),
                owner=_owner(found["owner"]),
                recording=bytes.fromhex(found["recording"]),
                segment=_whole(found["segment"], below=1 << 32),
                call_uid=str(found["call_uid"]),
                tenant_handle=bytes.fromhex(found["tenant_handle"]),
                provider=_whole(found["provider"], below=1 << 16),
                key_id=str(found["key_id"]),
                started_hour=datetime.fromisoformat(found["started_hour"]),
                ended=None if found["ended"] is None else _whole(found["ended"], below=1 << 63),
                trunk_a=_optional(str, found.get("trunk_a")),
                trunk_b=_optional(str, found.get("trunk_b")),
                retain_until=_optional(datetime.fromisoformat, found.get("retain_until")),
                parties=_parties(*found.get("parties", (None, None, None))),
                kind=RecordingKind(found.get("kind", RecordingKind.AUDIO.value)),
                parent=None if found.get("parent") is None else bytes.fromhex(found["parent"]),
                previous=None if found.get("previous") is None else bytes.fromhex(found["previous"]),
            )
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise SpoolError("not a spool state file, or cut off") from error
        if len(state.file_id) != 16 or len(state.tenant_handle) != 16 or state.started_hour.tzinfo is None:
            raise SpoolError("a spool state file with ids or a time that cannot be")
        return state


def _optional(read: Callable[[Any], _Value], value: object) -> _Value | None:
    """A state file of the first programs has no such key."""
    return None if value is None else read(value)


def _parties(sealed: object, blind_from: object, blind_to: object) -> SealedParties:
    return SealedParties(
        sealed=_optional(bytes.fromhex, sealed),
        blind_from=_optional(bytes.fromhex, blind_from),
        blind_to=_optional(bytes.fromhex, blind_to),
    )


def segment_path(directory: Path, file_id: bytes) -> Path:
    """Where a segment lies while it is spooled."""
    return directory / f"{file_id.hex()}{EXTENSION}"


def state_path(directory: Path, file_id: bytes) -> Path:
    """Where its state file lies."""
    return directory / f"{file_id.hex()}{STATE_EXTENSION}"


def write_state(directory: Path, state: SpoolState, *, sync: bool = True) -> None:
    """Replace the state file.

    With `sync` its content is durable on return, its name once the directory is synced. Without, both are to be
    synced later. Raises OSError; the former state file is there then.
    """
    path = state_path(directory, state.file_id)
    # Named after its owner: one that a killed process left can be told from that of a living one.
    temporary = directory / f"{state.file_id.hex()}.{state.owner}{TEMPORARY_EXTENSION}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            file.write(state.build())
            file.flush()
            if sync:
                os.fsync(fd)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def sync_state(directory: Path, file_id: bytes) -> None:
    """Make the content of a state file durable that was written without `sync`. Raises OSError."""
    fd = os.open(state_path(directory, file_id), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_spooled(directory: Path, file_id: bytes) -> None:
    """Forget a file: first the segment, for a state file alone is one that recovery understands. Raises OSError."""
    segment_path(directory, file_id).unlink(missing_ok=True)
    remove_upload(segment_path(directory, file_id))
    state_path(directory, file_id).unlink(missing_ok=True)


def read_state(path: Path) -> SpoolState:
    """Raises SpoolError where the file cannot be read or understood."""
    try:
        with path.open("rb") as file:
            return SpoolState.parse(file.read(_MAX_BYTES))
    except OSError as error:
        raise SpoolError(f"{path}: {error.strerror}") from error


def sync_directory(directory: Path) -> None:
    """Make names in `directory` durable. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_spool_directory(directory: Path) -> None:
    """Make the directory where it is missing; refuse one that others may enter.

    Raises:
        SpoolError: says what is wrong and how to mend it.
    """
    try:
        directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        mode = directory.stat().st_mode
    except OSError as error:
        raise SpoolError(f"{directory}: {error.strerror}; the spool needs a directory of its own") from error
    if mode & 0o077:
        raise SpoolError(
            f"{directory} has mode {mode & 0o7777:04o}, others may enter it; run: chmod 700 {directory}"
        )


class OwnerLock:
    """The mark of a living process in the spool. One per `Recorder`."""

    def __init__(self, directory: Path, owner: str, fd: int) -> None:
        self._directory = directory
        self.owner = owner
        self._fd = fd

    @classmethod
    def create(cls, directory: Path) -> Self:
        """A new owner, alive from now on. Raises SpoolError."""
        owner = secrets.token_hex(16)
        lock = cls.try_acquire(directory, owner)
        if lock is None:
            raise SpoolError(f"{directory}: the new lock {owner} is held by somebody else")
        return lock

    @classmethod
    def try_acquire(cls, directory: Path, owner: str) -> Self | None:
        """The lock of `owner`, if no living process holds it; None if one does. Raises SpoolError."""
        path = directory / f"{_owner(owner)}{LOCK_EXTENSION}"
        try:
            while True:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_still(path, fd):
                        return cls(directory, owner, fd)
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)  # whoever held it removed it between our open and our lock
        except BlockingIOError:
            return None
        except OSError as error:
            raise SpoolError(
                f"{path}: {error.strerror}; the spool must be writable and support flock"
            ) from error

    def release(self) -> None:
        """Remove the lock file and give the lock back. Only once no file of this owner is being written."""
        if self._fd < 0:
            return
        (self._directory / f"{self.owner}{LOCK_EXTENSION}").unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1


def _is_still(path: Path, fd: int) -> bool:
    """Whether `path` still names the open file: a lock on a removed file would guard nothing."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _owner(name: object) -> str:
    """An owner's name, which becomes a file name: 32 hex digits and nothing else."""
    if not isinstance(name, str) or len(name) != 32 or not set(name) <= set("0123456789abcdef"):
        raise ValueError("an owner is 32 lower-case hex digits")
    return name


def _whole(value: object, *, below: int) -> int:
    """A number as `build` writes it. JSON has infinities and numbers that no file system and no index takes."""
    if type(value) is not int or not 0 <= value < below:
        raise ValueError("not a whole number of its range")
    return value
