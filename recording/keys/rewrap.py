"""Rewrapping: recordings get their data keys wrapped by another key, or by its newest version, without being touched.

Slots are read and a sidecar of the next generation is written; no data key is shown to this process and no record is
read. Every step may be done again: whether a file is done is asked of its slots and of the key service, not of a note
that this program kept, so a run that was killed goes on where it was. Source: docs/recording-format.md, Key slots.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import enum
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, Protocol, Self, TypeVar, runtime_checkable

from recording.errors import FormatError, RecordingError, TruncatedRecordingError, UnwrapError
from recording.format import limits
from recording.format.slots import KeySlot, Sidecar, SlotProvider, parse_area, parse_sidecar
from recording.keys.errors import SlotNotMovedError
from recording.keys.provider import KeyContext, KeyProvider
from recording.reader import read_head
from recording.sinks.sink import (
    ObjectMissingError,
    Sink,
    SinkRefusedError,
    SlotFile,
    directory_of,
    sidecars,
)

CONCURRENCY: Final = 8
"""Requests at once: as many connections as a provider keeps (recording.keys.https). More make it slower, not faster."""
_AHEAD: Final = 8
"""Files handed to each worker in advance: the service is asked on while what it answered is made durable.

Bounds what a stop leaves undone, and how many sidecars become durable together.
"""

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


@runtime_checkable
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
    """What became of a file; its slots are durable under the target.

    `done_before`: they were there, and the key service confirmed them.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """What the key service answered about a file: slots that are to be durable before the outcome may be told.

    `files`: as what they may be stored; the first whose generation nobody took counts. None: they are in the head.
    """

    task: RewrapTask
    outcome: Outcome
    files: Iterator[SlotFile] | None


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
    taken = sink.slot_generations(task.object_key) if generations is None else generations
    ((_, outcome),) = _store(sink, [_ask(sink, mover, task, taken)])
    if isinstance(outcome, RecordingError):
        raise outcome
    return outcome


def rewrap_all(
    sink: Sink, mover: SlotMover, tasks: Iterable[RewrapTask], *, concurrency: int = CONCURRENCY
) -> Iterator[tuple[RewrapTask, Outcome | RecordingError]]:
    """Move many files, `concurrency` requests at a time; each with what became of it, in no order.

    Sidecars are stored by the caller's thread, all that the key service has answered meanwhile together; an outcome
    is told when its sidecar is durable. A file that cannot be moved keeps none from being moved after it. Closing
    the iterator ends the run when the files at work are done. `tasks` is read as far as needed and from the caller's
    thread.

    Raises:
        RecordingError: of a kind that every other file would meet too: the service or the store is down or denies.
        What the service had answered before is stored.
    """
    waiting = iter(tasks)
    with contextlib.closing(_Work(concurrency, sink, mover)) as work:
        work.add(islice(waiting, concurrency * _AHEAD))
        while work.is_busy:
            answers = work.wait()
            work.add(islice(waiting, len(answers)))
            yield from _settled(sink, answers)
            work.require_service()


_Answer = tuple[RewrapTask, _Ready | RecordingError]


class _Work:
    """Files that the workers ask the key service about. `add` and `wait` are the caller's thread's."""

    def __init__(self, concurrency: int, sink: Sink, mover: SlotMover) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(concurrency, thread_name_prefix="rewrap")
        self._sink = sink
        self._mover = mover
        self._listings = _Listings(sink)
        self._shared: RecordingError | None = None
        self._answers: queue.SimpleQueue[concurrent.futures.Future[_Answer]] = queue.SimpleQueue()
        self._running = 0

    @property
    def is_busy(self) -> bool:
        return self._running > 0

    def add(self, tasks: Iterable[RewrapTask]) -> None:
        if self._shared is not None:
            return
        for task in tasks:
            self._running += 1
            self._pool.submit(self._ask, task).add_done_callback(self._answers.put)

    def _ask(self, task: RewrapTask) -> _Answer:
        """Trouble that every file shares ends the run at once: what waits does not ask any more."""
        if self._shared is not None:
            return task, self._shared
        try:
            generations = self._listings.generations(task.object_key)
            return task, _ask(self._sink, self._mover, task, generations)
        except _OF_ONE_FILE as error:
            return task, error
        except RecordingError as error:
            self._shared = error
            return task, error

    def wait(self) -> list[_Answer]:
        """One answer at least, and all others that are there. Raises what no answer accounts for."""
        futures = [self._answers.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                futures.append(self._answers.get_nowait())
        self._running -= len(futures)
        return [future.result() for future in futures]

    def require_service(self) -> None:
        """Raise the trouble that all files share, when no answer from before it is on its way any more."""
        if self._shared is not None and not self.is_busy:
            raise self._shared

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _settled(sink: Sink, answers: Sequence[_Answer]) -> Iterator[tuple[RewrapTask, Outcome | RecordingError]]:
    """Store what is to be stored, and tell what became of each file; trouble that all files share is not told."""
    yield from _store(sink, [answer for _, answer in answers if isinstance(answer, _Ready)])
    for task, answer in answers:
        if isinstance(answer, _OF_ONE_FILE):
            yield task, answer


def _store(sink: Sink, ready: Iterable[_Ready]) -> Iterator[tuple[RewrapTask, Outcome | RecordingError]]:
    """Make the slots durable, together; whose generation somebody took goes on to its next.

    Raises:
        SinkError: from the sink; then none of what was not told counts as moved.
    """
    waiting = list(ready)
    while waiting:
        files: dict[str, tuple[_Ready, SlotFile]] = {}
        for each in waiting:
            if each.files is None:
                yield each.task, each.outcome
            elif (file := next(each.files, None)) is not None:
                files[file.object_key] = each, file
            else:
                yield each.task, _no_generation(each.task)
        conflicts = {file.object_key for file in sink.put_all_slots([file for _, file in files.values()])}
        for key, (each, _) in files.items():
            if key not in conflicts:
                yield each.task, each.outcome
        waiting = [each for key, (each, _) in files.items() if key in conflicts]


def _no_generation(task: RewrapTask) -> SlotNotMovedError:
    return SlotNotMovedError(
        f"{task.context.file_id.hex()}: no generation of slots is left; remove those that are no slots"
    )


def _ask(sink: Sink, mover: SlotMover, task: RewrapTask, taken: list[int]) -> _Ready:
    """Have the key service move the file's slots, or confirm that they were moved. Nothing is written.

    Raises what `rewrap_file` does.
    """
    notes: list[str] = []
    claimed: dict[KeySlot, SlotFile | None] = {}
    for file, slots in _slot_sets(sink, task, taken, notes):
        claims = {slot: file for slot in slots if mover.is_target(slot)}
        claimed = {**claims, **claimed}  # the highest generation is what a reader tries first
        if mover.binds_context and (done := _done(mover, claims, task.context, notes)) is not None:
            return _kept(task, claims[done])
        moved = _moved(mover, slots, task.context, notes)
        if moved is not None and moved[0] in claimed:
            return _kept(task, claimed[moved[0]])
        if moved is not None:
            _sidecar(task, 0, moved)  # too many slots are this file's own trouble, and found here
            files = (_sidecar(task, generation, moved) for generation in _free(sink, task, taken))
            return _Ready(task=task, outcome=Outcome.MOVED, files=files)
    if (done := _done(mover, claimed, task.context, notes)) is not None:
        return _kept(task, claimed[done])  # it never was under the source
    told = "".join(f"; {note}" for note in notes)
    raise SlotNotMovedError(f"{task.context.file_id.hex()}: no slot could be moved{told}")


def _kept(task: RewrapTask, file: SlotFile | None) -> _Ready:
    """Slots that are there. Whoever wrote them may have been killed before they were durable, so they are put again."""
    return _Ready(task=task, outcome=Outcome.DONE_BEFORE, files=None if file is None else iter((file,)))


def _sidecar(task: RewrapTask, generation: int, slots: tuple[KeySlot, ...]) -> SlotFile:
    sidecar = Sidecar(file_id=task.context.file_id, generation=generation, slots=slots)
    return SlotFile(object_key=task.object_key, generation=generation, data=sidecar.build())


def _slot_sets(
    sink: Sink, task: RewrapTask, taken: list[int], notes: list[str]
) -> Iterator[tuple[SlotFile | None, tuple[KeySlot, ...]]]:
    """As a reader tries them: sidecars downwards, then what the file itself holds."""
    file_id = task.context.file_id
    found = sidecars(sink, task.object_key, generations=taken)
    for generation, data in zip(taken, found, strict=True):
        file = SlotFile(object_key=task.object_key, generation=generation, data=data)
        try:
            yield file, parse_sidecar(data, file_id=file_id).slots
        except FormatError as error:
            notes.append(f"sidecar passed over: {error}")
    with sink.open(task.object_key) as stored:
        head = read_head(stored)
    if (head.core.file_id, head.core.tenant_handle) != (file_id, task.context.tenant_handle):
        raise SlotNotMovedError(f"{file_id.hex()}: the object is another file's or another tenant's")
    try:
        yield None, parse_area(head.slots_area)
    except FormatError as error:
        notes.append(f"slots area passed over: {error}")


def _done(
    mover: SlotMover, claims: Iterable[KeySlot], context: KeyContext, notes: list[str]
) -> KeySlot | None:
    """The first that the key service opens: one that only says so would have a key taken away that is still needed.

    Where nothing binds a slot to its file, this would take another file's slot for its own.
    """
    for slot in claims:
        try:
            mover.check(slot, context)
        except UnwrapError as error:
            notes.append(str(error))
        else:
            return slot
    return None


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
