"""Rewrapping, file by file and many at once, with keys in files."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from recording.errors import MissingSlotError, RecordingError
from recording.format import limits
from recording.format.slots import KeySlot, Sidecar, SlotProvider, parse_sidecar
from recording.keys.errors import KeyUnavailableError, SlotNotMovedError
from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.provider import KeyContext
from recording.keys.rewrap import BetweenKeys, NewestVersion, Outcome, RewrapTask, rewrap_all, rewrap_file
from recording.settings import LocalKeySettings
from recording.sinks.local import LocalSink
from recording.sinks.sink import Sink, SinkUnavailableError, SlotFile
from support.memory_sink import MemorySink
from support.stored import PCM, Stored, read_with, store

OFFLINE = KeySlot(provider=SlotProvider.RSA_OAEP_SHA256, key_id=b"offline", wrapped=b"w" * 384)


class Place:
    """A sink, the old key and the new one."""

    def __init__(self, sink: Sink, directory: Path) -> None:
        self.sink = sink
        self.directory = directory
        self.old, self.new, self.third = (self._provider(name) for name in ("old", "new", "third"))
        self.mover = BetweenKeys(self.old, self.new)

    def _provider(self, name: str) -> LocalKeyProvider:
        create_kek(self.directory / name)
        return LocalKeyProvider(name, LocalKeySettings(kek_path=self.directory / name))

    def store(self, *others: KeySlot) -> Stored:
        return store(self.sink, self.old, self.directory, others=others)

    def sidecar(self, stored: Stored) -> Sidecar:
        """The newest one, which must be the only one."""
        (generation,) = self.sink.slot_generations(stored.key)
        return parse_sidecar(self.sink.slots(stored.key, generation), file_id=stored.context.file_id)


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    sink: Sink = MemorySink() if request.param == "memory" else LocalSink(tmp_path / "store")
    return Place(sink, tmp_path)


def test_a_rewrapped_recording_opens_with_the_new_key_alone_and_is_otherwise_as_it_was(place: Place) -> None:
    stored = place.store()
    with pytest.raises(MissingSlotError):
        read_with(place.sink, stored, place.new)
    assert rewrap_file(place.sink, place.mover, stored.task) is Outcome.MOVED
    assert read_with(place.sink, stored, place.new) == PCM
    assert read_with(place.sink, stored, place.old) == PCM, (
        "the embedded slot opens as long as its key is there"
    )
    with place.sink.open(stored.key) as file:
        assert file.read() == stored.content
    sidecar = place.sidecar(stored)
    assert sidecar.generation == 1
    assert [slot.key_id for slot in sidecar.slots] == [place.new.slot_key_id]


def test_a_second_run_writes_nothing(place: Place) -> None:
    stored = place.store()
    rewrap_file(place.sink, place.mover, stored.task)
    assert rewrap_file(place.sink, place.mover, stored.task) is Outcome.DONE_BEFORE
    assert place.sidecar(stored).generation == 1


def test_slots_of_other_keys_come_along(place: Place) -> None:
    stored = place.store(OFFLINE)
    rewrap_file(place.sink, place.mover, stored.task)
    moved, kept = place.sidecar(stored).slots
    assert (moved.key_id, kept) == (place.new.slot_key_id, OFFLINE)


def test_a_third_key_gets_its_slots_from_the_newest_sidecar(place: Place) -> None:
    stored = place.store()
    rewrap_file(place.sink, place.mover, stored.task)
    onward = BetweenKeys(place.new, place.third)
    assert rewrap_file(place.sink, onward, stored.task) is Outcome.MOVED
    assert place.sink.slot_generations(stored.key) == [2, 1]
    assert read_with(place.sink, stored, place.third) == PCM


def test_a_slot_that_only_claims_to_be_moved_does_not_count(place: Place) -> None:
    """Taking it for done would have the old key taken away while the file still needs it."""
    stored = place.store()
    claim = KeySlot(provider=place.new.slot_provider, key_id=place.new.slot_key_id, wrapped=b"x" * 40)
    forged = Sidecar(file_id=stored.context.file_id, generation=5, slots=(claim,))
    place.sink.put_slots(stored.key, 5, forged.build())
    assert rewrap_file(place.sink, place.mover, stored.task) is Outcome.MOVED
    assert place.sink.slot_generations(stored.key) == [6, 5]
    assert read_with(place.sink, stored, place.new) == PCM


def test_another_files_slot_under_the_new_key_does_not_count(place: Place) -> None:
    """AES key wrap binds nothing: the new key opens it, to a data key that is not this file's."""
    stored, other = place.store(), place.store()
    rewrap_file(place.sink, place.mover, other.task)
    transplanted = Sidecar(file_id=stored.context.file_id, generation=5, slots=place.sidecar(other).slots)
    place.sink.put_slots(stored.key, 5, transplanted.build())
    assert rewrap_file(place.sink, place.mover, stored.task) is Outcome.MOVED
    assert read_with(place.sink, stored, place.new) == PCM
    assert rewrap_file(place.sink, place.mover, stored.task) is Outcome.DONE_BEFORE
    assert place.sink.slot_generations(stored.key) == [6, 5]


def test_a_recording_that_was_made_under_the_new_key_is_done(place: Place) -> None:
    stored = store(place.sink, place.new, place.directory)
    assert rewrap_file(place.sink, place.mover, stored.task) is Outcome.DONE_BEFORE
    assert place.sink.slot_generations(stored.key) == []


@pytest.mark.parametrize("generation", [7, limits.GENERATION_MAX])
@pytest.mark.parametrize("garbage", [b"", b"garbage", bytes(limits.SIDECAR_LEN_MAX + 1)])
def test_garbage_of_a_high_generation_neither_stops_the_move_nor_uses_up_the_numbers(
    place: Place, generation: int, garbage: bytes
) -> None:
    stored = place.store()
    place.sink.put_slots(stored.key, generation, garbage)
    place.sink.put_slots(stored.key, 1, garbage)
    assert rewrap_file(place.sink, place.mover, stored.task) is Outcome.MOVED
    assert place.sink.slot_generations(stored.key) == [generation, 2, 1]
    assert read_with(place.sink, stored, place.new) == PCM


def test_a_real_sidecar_under_another_number_does_not_use_up_the_numbers(place: Place) -> None:
    stored = place.store()
    renamed = Sidecar(file_id=stored.context.file_id, generation=1, slots=(stored.slot,)).build()
    place.sink.put_slots(stored.key, limits.GENERATION_MAX, renamed)
    assert rewrap_file(place.sink, place.mover, stored.task) is Outcome.MOVED
    assert place.sink.slot_generations(stored.key) == [limits.GENERATION_MAX, 1]
    assert read_with(place.sink, stored, place.new) == PCM


def test_when_no_generation_is_left_the_move_says_so(place: Place) -> None:
    stored = place.store()
    last = Sidecar(file_id=stored.context.file_id, generation=limits.GENERATION_MAX, slots=(OFFLINE,))
    place.sink.put_slots(stored.key, limits.GENERATION_MAX, last.build())
    with pytest.raises(SlotNotMovedError, match="no generation"):
        rewrap_file(place.sink, place.mover, stored.task)


def test_a_recording_under_neither_key_is_not_moved(place: Place) -> None:
    stored = store(place.sink, place.third, place.directory)
    with pytest.raises(SlotNotMovedError, match=stored.context.file_id.hex()):
        rewrap_file(place.sink, place.mover, stored.task)
    assert place.sink.slot_generations(stored.key) == []


@pytest.mark.parametrize("field", ["file_id", "tenant_handle"])
def test_an_object_that_is_another_files_is_not_moved(place: Place, field: str) -> None:
    stored = place.store()
    context = replace(stored.context, **{field: bytes(16)})
    with pytest.raises(SlotNotMovedError, match="another"):
        rewrap_file(place.sink, place.mover, RewrapTask(object_key=stored.key, context=context))
    assert place.sink.slot_generations(stored.key) == []


def test_many_are_moved_and_one_that_cannot_be_does_not_stop_the_others(place: Place) -> None:
    stored = [place.store() for _ in range(20)]
    stranger = store(place.sink, place.third, place.directory)
    missing = RewrapTask(
        object_key=stored[0].key.replace(stored[0].context.file_id.hex(), "0" * 32), context=stored[0].context
    )
    tasks = [
        *(each.task for each in stored[:10]),
        stranger.task,
        missing,
        *(each.task for each in stored[10:]),
    ]
    outcomes = dict(rewrap_all(place.sink, place.mover, tasks, concurrency=3))
    assert len(outcomes) == 22
    assert {outcomes[each.task] for each in stored} == {Outcome.MOVED}
    assert isinstance(outcomes[stranger.task], SlotNotMovedError)
    assert isinstance(outcomes[missing], RecordingError)
    assert all(read_with(place.sink, each, place.new) == PCM for each in stored)


def test_slots_that_came_after_the_listing_are_left_as_they_are(place: Place) -> None:
    stored = place.store()
    rewrap_file(place.sink, place.mover, stored.task)
    (content,) = (place.sink.slots(stored.key, 1),)
    onward = BetweenKeys(place.old, place.third)
    assert rewrap_file(place.sink, onward, stored.task, generations=[]) is Outcome.MOVED
    assert place.sink.slot_generations(stored.key) == [2, 1]
    assert place.sink.slots(stored.key, 1) == content


class FailingMover(BetweenKeys[LocalKeyProvider]):
    """Does `allowed` moves, then the service is down."""

    def __init__(self, place: Place, allowed: int) -> None:
        super().__init__(place.old, place.new)
        self._allowed = threading.Semaphore(allowed)
        self.asked = 0

    def move(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        self.asked += 1
        if not self._allowed.acquire(blocking=False):
            raise KeyUnavailableError("down")
        return super().move(slot, context)


def test_a_service_that_goes_down_ends_the_run_and_the_next_run_does_the_rest(place: Place) -> None:
    stored = [place.store() for _ in range(30)]
    mover = FailingMover(place, 12)
    with pytest.raises(KeyUnavailableError):
        list(rewrap_all(place.sink, mover, [each.task for each in stored], concurrency=2))
    assert mover.asked <= 12 + 2, "each worker meets it once; what was handed out ahead is given up"
    moved = [each for each in stored if place.sink.slot_generations(each.key)]
    assert len(moved) == 12
    outcomes = dict(rewrap_all(place.sink, place.mover, [each.task for each in stored]))
    assert (
        sorted(outcome.name for outcome in outcomes.values() if isinstance(outcome, Outcome))
        == ["DONE_BEFORE"] * 12 + ["MOVED"] * 18
    )
    assert [place.sink.slot_generations(each.key) for each in stored] == [[1]] * 30


def test_a_directory_is_listed_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = [place.store() for _ in range(10)]
    listed, list_it = [], place.sink.slots_below

    def counting(directory: str) -> dict[str, list[int]]:
        listed.append(directory)
        return list_it(directory)

    monkeypatch.setattr(place.sink, "slots_below", counting)
    outcomes = [outcome for _, outcome in rewrap_all(place.sink, place.mover, [each.task for each in stored])]
    assert outcomes == [Outcome.MOVED] * 10
    assert len(listed) == 1


def test_slots_that_are_there_are_stored_again_before_the_old_key_may_go(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed may have written them without making them durable."""
    stored = [place.store() for _ in range(3)]
    list(rewrap_all(place.sink, place.mover, [each.task for each in stored]))
    before = {each.key: place.sink.slots(each.key, 1) for each in stored}
    put: dict[str, bytes] = {}
    put_all = place.sink.put_all_slots

    def noting(files: Sequence[SlotFile]) -> list[SlotFile]:
        put.update({file.object_key: file.data for file in files})
        return put_all(files)

    monkeypatch.setattr(place.sink, "put_all_slots", noting)
    outcomes = [outcome for _, outcome in rewrap_all(place.sink, place.mover, [each.task for each in stored])]
    assert outcomes == [Outcome.DONE_BEFORE] * 3
    assert put == before


def test_nothing_is_told_of_files_that_the_store_did_not_take(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = [place.store() for _ in range(6)]

    def full(files: Sequence[SlotFile]) -> list[SlotFile]:
        raise SinkUnavailableError("full")

    with monkeypatch.context() as patch:
        patch.setattr(place.sink, "put_all_slots", full)
        told = rewrap_all(place.sink, place.mover, [each.task for each in stored])
        with pytest.raises(SinkUnavailableError):
            next(told)
    assert [place.sink.slot_generations(each.key) for each in stored] == [[]] * 6
    outcomes = [outcome for _, outcome in rewrap_all(place.sink, place.mover, [each.task for each in stored])]
    assert outcomes == [Outcome.MOVED] * 6


def test_tasks_are_taken_as_they_are_needed(place: Place) -> None:
    stored = [place.store() for _ in range(40)]
    taken = []

    def tasks() -> Iterator[RewrapTask]:
        for each in stored:
            taken.append(each)
            yield each.task

    run = rewrap_all(place.sink, place.mover, tasks(), concurrency=2)
    next(run)
    assert len(taken) < 20
    run.close()
    assert sum(bool(place.sink.slot_generations(each.key)) for each in stored) < 20


def test_the_newest_version_is_where_slots_of_older_ones_go(place: Place) -> None:
    """A local key's slots are the same each time; what counts as newest is the caller's word here."""
    stored = place.store()
    mover = NewestVersion(place.old, is_newest=lambda slot: True)
    assert rewrap_file(place.sink, mover, stored.task) is Outcome.DONE_BEFORE
    stale = NewestVersion(place.old, is_newest=lambda slot: False)
    with pytest.raises(SlotNotMovedError, match="older version"):
        rewrap_file(place.sink, stale, stored.task)
