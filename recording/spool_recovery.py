"""What dead processes left in the spool: trimmed to whole records, entered in the index, moved to the sink.

Needs no key, and may be done again at any moment: every step is idempotent, and a live process's files are left
alone.
Source: docs/recording-format.md, Crash, truncation, tampering.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from recording.errors import FormatError, TruncatedRecordingError
from recording.format.header import MAGIC
from recording.format.slots import parse_area
from recording.index import IndexEntry, IndexState, RecordingIndex, utc_hour
from recording.reader import read_head
from recording.recovery import recover_file
from recording.sinks.sink import EXTENSION, ObjectName, Sink, SinkError
from recording.spool_state import (
    LOCK_EXTENSION,
    STATE_EXTENSION,
    TEMPORARY_EXTENSION,
    OwnerLock,
    SpoolError,
    SpoolState,
    make_spool_directory,
    read_state,
    remove_spooled,
    segment_path,
    state_path,
    write_state,
)
from recording.voucher import Voucher

# Held while files are recovered whose state file is lost, so that two recoveries do not meet on one.
_ORPHANS: Final = "0" * 32
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredFile:
    """What became of one file. `problem` says why it is not in the sink yet, or why it was left alone."""

    entry: IndexEntry
    problem: str | None = None

    @property
    def is_stored(self) -> bool:
        return self.entry.object_key is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReport:
    """`files`: all that was handled. `waiting`: those whose upload failed; they are in the spool, whole."""

    files: tuple[RecoveredFile, ...]
    waiting: tuple[tuple[SpoolState, IndexEntry], ...]


def recover_spool(
    directory: Path,
    *,
    index: RecordingIndex,
    sink: Sink,
    voucher: Voucher | None = None,
    new_owner: str | None = None,
    only_owner: str | None = None,
    is_deferred: bool = False,
    on_progress: Callable[[int, int, RecoveredFile], None] | None = None,
) -> RecoveryReport:
    """Recover every file in `directory` whose owner no longer lives.

    Args:
        directory: the spool; a missing one is made and has nothing to recover.
        index: gets an entry for each file.
        sink: where the files go. One that fails leaves its file in the spool.
        voucher: signs what is recovered, which is read for it, and stores the manifests.
        new_owner: the living owner who takes over the files that could not be stored; None leaves them as they are.
        only_owner: recover this owner's files alone, who is dead like the others; None: everybody's.
        is_deferred: leave all that is to be stored for `new_owner` to upload, so that a slow store delays no start.
        on_progress: called after each file with how many are done, how many there are, and what became of it.

    Raises:
        SpoolError: the spool cannot be read or written.
        IndexUnavailableError: the index cannot be written; what was not entered is found again next time.
    """
    make_spool_directory(directory)
    try:
        with _dead_files(directory, only_owner) as states:
            recovery = _Recovery(
                directory=directory,
                index=index,
                sink=sink,
                voucher=voucher,
                new_owner=new_owner,
                is_deferred=is_deferred,
            )
            files = []
            for number, state in enumerate(states, start=1):
                files.append(recovery.recover(state))
                if on_progress is not None:
                    on_progress(number, len(states), files[-1])
            return RecoveryReport(files=tuple(files), waiting=tuple(recovery.waiting))
    except OSError as error:
        raise SpoolError(
            f"{error.filename or directory}: {error.strerror}; the spool could not be recovered"
        ) from error


class _Recovery:
    def __init__(
        self,
        *,
        directory: Path,
        index: RecordingIndex,
        sink: Sink,
        voucher: Voucher | None,
        new_owner: str | None,
        is_deferred: bool,
    ) -> None:
        self._voucher = voucher
        self._directory = directory
        self._index = index
        self._sink = sink
        self._new_owner = new_owner
        self._is_deferred = is_deferred
        self.waiting: list[tuple[SpoolState, IndexEntry]] = []

    def recover(self, state: SpoolState) -> RecoveredFile:
        path = segment_path(self._directory, state.file_id)
        if not path.exists():
            return self._without_file(state)
        try:
            outcome = recover_file(path)
        except TruncatedRecordingError:
            return self._without_records(state)
        except FormatError as error:
            if _is_blank(path):
                return self._without_records(state)
            entry = state.entry(IndexState.CORRUPT, size_bytes=path.stat().st_size)
            self._index.put([entry])
            return RecoveredFile(entry=entry, problem=f"left alone in the spool: {error}")
        if outcome.records == 0:
            return self._without_records(state)
        is_complete = state.ended == outcome.records and not outcome.is_changed
        entry = state.entry(
            IndexState.COMPLETE if is_complete else IndexState.INCOMPLETE,
            records=outcome.records,
            size_bytes=outcome.size_after,
        )
        self._index.put([entry])
        return self._store(state, entry, path)

    def _store(self, state: SpoolState, entry: IndexEntry, path: Path) -> RecoveredFile:
        name = state.object_name
        if self._voucher is not None:
            with path.open("rb") as file:
                self._sign(self._voucher, state, entry, file)
        if self._is_deferred:
            return self._leave(state, entry, "it is uploaded next")
        try:
            size_bytes = self._sink.put(path, name)
            self._vouch(name)
        except SinkError as error:
            return self._leave(state, entry, str(error))
        entry = replace(entry, object_key=name.key, size_bytes=size_bytes)
        self._index.put([entry])
        remove_spooled(self._directory, state.file_id)
        return RecoveredFile(entry=entry)

    def _sign(self, voucher: Voucher, state: SpoolState, entry: IndexEntry, file: BinaryIO) -> None:
        voucher.sign_file(state, file, records=entry.records, is_complete=entry.state is IndexState.COMPLETE)

    def _vouch(self, name: ObjectName) -> None:
        if self._voucher is not None:
            self._voucher.store(name)

    def _leave(self, state: SpoolState, entry: IndexEntry, problem: str) -> RecoveredFile:
        """In the spool, for whoever uploads it."""
        if self._new_owner is not None:
            state = replace(state, owner=self._new_owner)
            write_state(self._directory, state)
        self.waiting.append((state, entry))
        return RecoveredFile(entry=entry, problem=problem)

    def _without_records(self, state: SpoolState) -> RecoveredFile:
        entry = state.entry(IndexState.FAILED)
        self._index.put([entry])
        remove_spooled(self._directory, state.file_id)
        return RecoveredFile(entry=entry, problem="not one whole record was written")

    def _without_file(self, state: SpoolState) -> RecoveredFile:
        """The crash came before the file was made, or after it was moved to the sink."""
        key = state.object_name.key
        known = self._index.get(state.file_id)
        if (
            known is not None and known.object_key == key
        ):  # the crash came between the removal of the two files
            remove_spooled(self._directory, state.file_id)
            return RecoveredFile(entry=known)
        try:
            size_bytes = self._sink.size(key)
            if size_bytes is None:
                return self._without_records(state)
            with self._sink.open(key) as file:
                head = read_head(file)
                records = (size_bytes - head.body_offset) // head.core.record_len
                entry = state.entry(
                    IndexState.COMPLETE if state.ended == records else IndexState.INCOMPLETE,
                    records=records,
                    size_bytes=size_bytes,
                    object_key=key,
                )
                if self._voucher is not None and self._sink.manifest(key) is None:
                    self._sign(self._voucher, state, entry, file)
            self._vouch(state.object_name)
        except SinkError as error:
            return RecoveredFile(entry=state.entry(IndexState.RECORDING), problem=str(error))
        self._index.put([entry])
        remove_spooled(self._directory, state.file_id)
        return RecoveredFile(entry=entry)


@contextlib.contextmanager
def _dead_files(directory: Path, only_owner: str | None) -> Iterator[list[SpoolState]]:
    """The states of files whose owner is dead. The owners' locks are held inside, and removed afterwards."""
    by_owner, orphans = _scan(directory)
    if only_owner is not None:
        by_owner, orphans = {only_owner: by_owner.get(only_owner, [])}, []
    locks = []
    states = []
    try:
        for owner in sorted(by_owner):
            if (lock := OwnerLock.try_acquire(directory, owner)) is not None:
                locks.append(lock)
                for temporary in directory.glob(f"*.{owner}{TEMPORARY_EXTENSION}"):
                    temporary.unlink(missing_ok=True)  # a state that was not to be: the one before it counts
                # Read again: another recovery may have been here between our look and our lock.
                states += [state for path in by_owner[owner] if (state := _state(path)) is not None]
        if orphans and (lock := OwnerLock.try_acquire(directory, _ORPHANS)) is not None:
            locks.append(lock)
            states += [state for path in orphans if (state := _state_from_head(path)) is not None]
        yield [state for state in states if state.owner in {lock.owner for lock in locks}]
    finally:
        for lock in locks:
            lock.release()


def _scan(directory: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """State files by owner, owners with a lock file only included, and segments that have no readable state file.

    A state file is written before its segment and removed after it. So segments are listed first: one that a living
    process makes meanwhile is not taken for an orphan.
    """
    segments = sorted(directory.glob(f"*{EXTENSION}"))
    by_owner: dict[str, list[Path]] = {}
    known = set()
    for path in sorted(directory.glob(f"*{STATE_EXTENSION}")):
        if (state := _state(path)) is not None:
            by_owner.setdefault(state.owner, []).append(path)
            known.add(state.file_id.hex())
    for path in directory.glob(f"*{LOCK_EXTENSION}"):
        if _is_owner(path.stem):
            by_owner.setdefault(path.stem, [])
    for path in directory.glob(f"*{TEMPORARY_EXTENSION}"):
        owner = path.stem.rpartition(".")[2]
        if _is_owner(owner):
            by_owner.setdefault(owner, [])
    return by_owner, [path for path in segments if path.stem not in known]


def _state(path: Path) -> SpoolState | None:
    """What a state file says, None where it says nothing, is gone, or speaks of another file."""
    with contextlib.suppress(SpoolError):
        state = read_state(path)
        if path == state_path(path.parent, state.file_id):
            return state
    return None


def _is_owner(name: str) -> bool:
    return len(name) == len(_ORPHANS) and set(name) <= set("0123456789abcdef") and name != _ORPHANS


def _is_blank(path: Path) -> bool:
    """Whether nothing of the head reached the disk: a few bytes of it, or zeros where a power cut left them."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
        if MAGIC.startswith(start):
            return True
        while not any(start):
            if not (start := file.read(_BLOCK_BYTES)):
                return True
    return False


def _state_from_head(path: Path) -> SpoolState | None:
    """A state for a segment that lost its own, from what its head says in clear; None for what is not one of ours.

    Which recording it belongs to is sealed within; the index names it by its file id.
    """
    try:
        with path.open("rb") as file:
            head = read_head(file)
            modified_at = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, tz=UTC)
        slots = parse_area(head.slots_area)
    except (FormatError, TruncatedRecordingError, FileNotFoundError):
        return None
    if path.stem != head.core.file_id.hex():
        return None
    return SpoolState(
        file_id=head.core.file_id,
        owner=_ORPHANS,
        recording=head.core.file_id,
        segment=head.core.segment_no,
        call_uid="",
        tenant_handle=head.core.tenant_handle,
        provider=slots[0].provider if slots else 0,
        key_id=slots[0].key_id.decode("ascii", "backslashreplace") if slots else "",
        started_hour=utc_hour(modified_at),
    )
