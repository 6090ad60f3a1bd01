"""Rewrapping: recordings get their data keys wrapped by another key, or by its newest version, without being touched.

Slots are read and a sidecar of the next generation is written; no data key is shown to this process and no record is
read. Every step may be done again: whether a file is done is asked of its slots and of the key service, not of a note
that this program kept, so a run that was killed goes on where it was. Source: docs/recording-format.md, Key slots.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import enum
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, Protocol, Self, TypeVar

from recording.errors import FormatError, RecordingError, TruncatedRecordingError, UnwrapError
from recording.format import limits
from recording.format.slots import KeySlot, Sidecar, SlotProvider, parse_area, parse_sidecar
from recording.keys.errors import SlotNotMovedError
from recording.keys.provider import KeyContext, KeyProvider
from recording.reader import read_head
from recording.sinks.sink import (
    ObjectConflictError,
    ObjectMissingError,
    Sink,
    SinkRefusedError,
    directory_of,
    sidecars,
)

CONCURRENCY: Final = 8
"""Requests at once: as many connections as a provider keeps (recording.keys.https). More make it slower, not faster."""
_AHEAD: Final = (
    4  # files handed to each worker in advance, so that none waits; bounds what a stop leaves undone
)


_OF_ONE_FILE: Final = (
    SlotNotMovedError,
    UnwrapError,
    FormatError,
    TruncatedRecordingError,
    ObjectMissingError,
)


class SlotMover(Protocol):
    """Takes slots from one key, or one version of it, to another. Any thread; raises what key providers raise.

    `binds_context`: a slot of another file does not pass `check`. Where nothing binds it, the same data key wrapped
    twice gives the same bytes.
    """

    binds_context: bool

    def is_source(self, slot: KeySlot) -> bool:
        """Whether the slot says that it is to be moved. No request."""
        ...

    def is_target(self, slot: KeySlot) -> bool:
        """Whether the slot says that it was moved already. No request; anybody may have written it."""
        ...

    def move(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        """The same data key under the target, made inside the key service."""
        ...

    def check(self, slot: KeySlot, context: KeyContext) -> None:
        """Have the key service show that the target opens the slot. Raises UnwrapError if it does not."""
        ...


class NewestVersion:
    """Moves the slots of one key to the key's newest version. `is_newest` tells it by what a slot says."""

    def __init__(self, provider: KeyProvider, *, is_newest: Callable[[KeySlot], bool]) -> None:
        self.binds_context = _binds_context(provider)
        self._provider = provider
        self._is_newest = is_newest

    def is_source(self, slot: KeySlot) -> bool:
        return is_of(self._provider, slot) and not self._is_newest(slot)

    def is_target(self, slot: KeySlot) -> bool:
        return is_of(self._provider, slot) and self._is_newest(slot)

    def move(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        moved = self._provider.rewrap(slot, context)
        if not self.is_target(moved):
            raise SlotNotMovedError(f"keys.{self._provider.name}: the service rewrapped to an older version")
        return moved

    def check(self, slot: KeySlot, context: KeyContext) -> None:
        self._provider.rewrap(slot, context)


class MovingProvider(KeyProvider, Protocol):
    """A provider whose service takes a data key from one of its keys to another."""

    def move(self, slot: KeySlot, context: KeyContext, *, to: Self) -> KeySlot:
        """The data key of this provider's `slot` under the key of `to`. Raises as `KeyProvider.unwrap`."""
        ...


_Provider = TypeVar("_Provider", bound=MovingProvider)


class BetweenKeys(Generic[_Provider]):
    """Moves slots from one key of a service to another key of it."""

    def __init__(self, source: _Provider, target: _Provider) -> None:
        self.binds_context = _binds_context(source)
        self._source = source
        self._target = target

    def is_source(self, slot: KeySlot) -> bool:
        return is_of(self._source, slot)

    def is_target(self, slot: KeySlot) -> bool:
        return is_of(self._target, slot)

    def move(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        return self._source.move(slot, context, to=self._target)

    def check(self, slot: KeySlot, context: KeyContext) -> None:
        self._target.rewrap(slot, context)


def _binds_context(provider: KeyProvider) -> bool:
    """Of the kinds that slots can be moved between; the others wrap by AES-KW."""
    return provider.slot_provider in (SlotProvider.AWS_KMS, SlotProvider.VAULT_TRANSIT)


def is_of(provider: KeyProvider, slot: KeySlot) -> bool:
    """Whether a slot names this provider's key."""
    return slot.provider == provider.slot_provider and slot.key_id == provider.slot_key_id


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrapTask:
    """One stored recording file."""

    object_key: str
    context: KeyContext


class Outcome(enum.Enum):
    """What became of a file. `done_before`: its slots were under the target, and the key service confirmed it."""

    MOVED = "moved"
    DONE_BEFORE = "done_before"


class _Listings:
    """Sidecars by object, from one listing of each directory: one for each file would grow with the square of them."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._known: dict[str, dict[str, list[int]]] = {}
        self._lock = threading.Lock()

    def generations(self, key: str) -> list[int]:
        """Highest first, as they were when the directory was listed. Who writes finds out what came since."""
        directory = directory_of(key)
        with self._lock:
            if directory not in self._known:
                self._known[directory] = self._sink.slots_below(directory)
            return self._known[directory].get(key, [])


def rewrap_file(
    sink: Sink, mover: SlotMover, task: RewrapTask, *, generations: list[int] | None = None
) -> Outcome:
    """Move one file's slots. Slots of other keys are taken along as they are.

    The newest slots that lead anywhere count, as for a reader. What no key opens is passed over. `generations` of its
    sidecars, highest first; None: the sink is asked.

    Raises:
        SlotNotMovedError: no slot of the file is under either key, or the file is not there.
        RecordingError: what the key service or the sink said; nothing was written.
    """
    notes: list[str] = []
    taken = sink.slot_generations(task.object_key) if generations is None else generations
    claimed: list[KeySlot] = []
    for slots in _slot_sets(sink, task, taken, notes):
        if mover.binds_context and _is_done(mover, slots, task.context, notes):
            return Outcome.DONE_BEFORE
        claimed += filter(mover.is_target, slots)
        moved = _moved(mover, slots, task.context, notes)
        if moved is not None and moved[0] in claimed:
            return Outcome.DONE_BEFORE
        if moved is not None:
            _store(sink, task, moved, taken)
            return Outcome.MOVED
    if _is_done(mover, claimed, task.context, notes):
        return Outcome.DONE_BEFORE  # it never was under the source
    told = "".join(f"; {note}" for note in notes)
    raise SlotNotMovedError(f"{task.context.file_id.hex()}: no slot could be moved{told}")


def rewrap_all(
    sink: Sink, mover: SlotMover, tasks: Iterable[RewrapTask], *, concurrency: int = CONCURRENCY
) -> Iterator[tuple[RewrapTask, Outcome | RecordingError]]:
    """Move many files, `concurrency` at a time; each with what became of it, in no order.

    A file that cannot be moved keeps none from being moved after it. Closing the iterator ends the run when the files
    at work are done. `tasks` is read as far as needed and from the caller's thread.

    Raises:
        RecordingError: of a kind that every other file would meet too: the service or the store is down or denies.
    """
    waiting = iter(tasks)
    pool = concurrent.futures.ThreadPoolExecutor(concurrency, thread_name_prefix="rewrap")
    with contextlib.closing(_Work(pool, sink, mover)) as work:
        work.add(islice(waiting, concurrency * _AHEAD))
        while work.is_busy:
            for task, outcome in work.wait():
                yield task, outcome
                work.add(islice(waiting, 1))


class _Work:
    """Files handed to the workers and not yet told about."""

    def __init__(self, pool: concurrent.futures.ThreadPoolExecutor, sink: Sink, mover: SlotMover) -> None:
        self._pool = pool
        self._sink = sink
        self._mover = mover
        self._listings = _Listings(sink)
        self._shared: RecordingError | None = None
        self._running: dict[concurrent.futures.Future[Outcome], RewrapTask] = {}

    @property
    def is_busy(self) -> bool:
        return bool(self._running)

    def add(self, tasks: Iterable[RewrapTask]) -> None:
        for task in tasks:
            self._running[self._pool.submit(self._rewrap, task)] = task

    def _rewrap(self, task: RewrapTask) -> Outcome:
        """Trouble that every file shares ends the run at once: what waits does not ask any more."""
        if self._shared is not None:
            raise self._shared
        try:
            generations = self._listings.generations(task.object_key)
            return rewrap_file(self._sink, self._mover, task, generations=generations)
        except _OF_ONE_FILE:
            raise
        except RecordingError as error:
            self._shared = error
            raise

    def wait(self) -> list[tuple[RewrapTask, Outcome | RecordingError]]:
        done, _ = concurrent.futures.wait(self._running, return_when=concurrent.futures.FIRST_COMPLETED)
        return [(self._running.pop(future), _result(future)) for future in done]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _result(future: concurrent.futures.Future[Outcome]) -> Outcome | RecordingError:
    """This file's own trouble is an answer; trouble that all files share is raised."""
    try:
        return future.result()
    except _OF_ONE_FILE as error:
        return error


def _slot_sets(
    sink: Sink, task: RewrapTask, taken: list[int], notes: list[str]
) -> Iterator[tuple[KeySlot, ...]]:
    """As a reader tries them: sidecars downwards, then what the file itself holds."""
    file_id = task.context.file_id
    for data in sidecars(sink, task.object_key, generations=taken):
        try:
            yield parse_sidecar(data, file_id=file_id).slots
        except FormatError as error:
            notes.append(f"sidecar passed over: {error}")
    with sink.open(task.object_key) as file:
        head = read_head(file)
    if (head.core.file_id, head.core.tenant_handle) != (file_id, task.context.tenant_handle):
        raise SlotNotMovedError(f"{file_id.hex()}: the object is another file's or another tenant's")
    try:
        yield parse_area(head.slots_area)
    except FormatError as error:
        notes.append(f"slots area passed over: {error}")


def _is_done(mover: SlotMover, slots: Iterable[KeySlot], context: KeyContext, notes: list[str]) -> bool:
    """Asked of the key service: a slot that only says so would have a key taken away that is still needed.

    Where nothing binds a slot to its file, this would take another file's slot for its own.
    """
    for slot in filter(mover.is_target, slots):
        try:
            mover.check(slot, context)
        except UnwrapError as error:
            notes.append(str(error))
        else:
            return True
    return False


def _moved(
    mover: SlotMover, slots: tuple[KeySlot, ...], context: KeyContext, notes: list[str]
) -> tuple[KeySlot, ...] | None:
    """The set with its first slot that moves in the place of all slots of source and target."""
    others = tuple(slot for slot in slots if not mover.is_source(slot) and not mover.is_target(slot))
    for slot in filter(mover.is_source, slots):
        try:
            return (mover.move(slot, context), *others)
        except UnwrapError as error:
            notes.append(str(error))
    return None


def _store(sink: Sink, task: RewrapTask, slots: tuple[KeySlot, ...], taken: list[int]) -> None:
    """As the next generation above those that are sidecars of this file; names that somebody took are left out."""
    file_id = task.context.file_id
    for generation in _free(sink, task, taken):
        sidecar = Sidecar(file_id=file_id, generation=generation, slots=slots)
        try:
            sink.put_slots(task.object_key, generation, sidecar.build())
        except ObjectConflictError:
            continue  # another run was there since; its slots are as good, and ours go above them
        return
    raise SlotNotMovedError(
        f"{file_id.hex()}: no generation of slots is left; remove those that are no slots"
    )


def _free(sink: Sink, task: RewrapTask, taken: list[int]) -> Iterator[int]:
    """Free generations above every real sidecar. Garbage at the top must not use them up, nor be read for ever."""
    real = next((each for each in taken if _is_sidecar(sink, task, each)), 0)
    occupied = set(taken)
    return (each for each in range(real + 1, limits.GENERATION_MAX + 1) if each not in occupied)


def _is_sidecar(sink: Sink, task: RewrapTask, generation: int) -> bool:
    try:
        data = sink.slots(task.object_key, generation)
        return parse_sidecar(data, file_id=task.context.file_id).generation == generation
    except (FormatError, ObjectMissingError, SinkRefusedError):
        return False
