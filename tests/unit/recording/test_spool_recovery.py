"""What is left by processes that died, in every order in which they can die."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from recording.index import IndexEntry, IndexState, IndexUnavailableError, RecordingIndex
from recording.sinks.sink import SinkUnavailableError
from recording.sinks.upload_state import upload_path
from recording.spool_recovery import RecoveredFile, RecoveryReport, recover_spool
from recording.spool_state import OwnerLock, SpoolError, read_state, segment_path, state_path, write_state
from recording.verify import RecordingState, verify
from support.memory_sink import MemorySink
from support.spooled import OWNER, RECORD_LEN, Segment, leave_behind, make_segment


class Rig:
    def __init__(self, directory: Path) -> None:
        self.directory = directory / "spool"
        self.directory.mkdir(mode=0o700)
        self.index = RecordingIndex(directory / "index.sqlite")
        self.sink = MemorySink()

    def recover(self, new_owner: str | None = None) -> RecoveryReport:
        return recover_spool(self.directory, index=self.index, sink=self.sink, new_owner=new_owner)

    def entry(self, segment: Segment) -> IndexEntry:
        entry = self.index.get(segment.file_id)
        assert entry is not None
        return entry


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    with closing(made.index):
        yield made


def test_a_finished_file_is_complete_and_goes_to_the_sink(rig: Rig) -> None:
    segment = make_segment()
    leave_behind(rig.directory, segment, state=segment.state(ended=len(segment.records)))
    report = rig.recover()
    entry = rig.entry(segment)
    assert (entry.state, entry.records, entry.size_bytes) == (
        IndexState.COMPLETE, len(segment.records), len(segment.content),
    )  # fmt: skip
    assert entry.object_key == segment.state().object_name.key
    assert rig.sink.objects[entry.object_key] == segment.content
    assert report.files == (RecoveredFile(entry=entry),)
    assert list(rig.directory.iterdir()) == []


def test_without_the_mark_it_is_incomplete_whatever_it_holds(rig: Rig, tmp_path: Path) -> None:
    """FINAL is there, but only a reader with the key can know: it may raise the state later."""
    segment = make_segment()
    leave_behind(rig.directory, segment)
    rig.recover()
    entry = rig.entry(segment)
    assert (entry.state, entry.records) == (IndexState.INCOMPLETE, len(segment.records))
    assert entry.object_key is not None
    (tmp_path / "copy.crec").write_bytes(rig.sink.objects[entry.object_key])
    with segment.open(tmp_path / "copy.crec") as reader:
        assert verify(reader).is_complete


@pytest.mark.parametrize(
    "tail", [b"", b"\1", b"x" * (RECORD_LEN - 1), bytes(RECORD_LEN), bytes(3 * RECORD_LEN + 7)]
)
@pytest.mark.parametrize("kept", [1, 3, 5])
def test_a_torn_tail_is_cut_off(rig: Rig, tmp_path: Path, kept: int, tail: bytes) -> None:
    segment = make_segment(finished=False)
    whole = segment.head + b"".join(segment.records[:kept])
    leave_behind(rig.directory, segment, content=whole + tail)
    rig.recover()
    entry = rig.entry(segment)
    assert (entry.state, entry.records, entry.size_bytes) == (IndexState.INCOMPLETE, kept, len(whole))
    assert entry.object_key is not None
    assert rig.sink.objects[entry.object_key] == whole
    (tmp_path / "copy.crec").write_bytes(whole)
    with segment.open(tmp_path / "copy.crec") as reader:
        verdict = verify(reader)
    assert (verdict.state, verdict.records) == (RecordingState.INCOMPLETE, kept)


def test_a_marked_file_that_lost_its_end_is_incomplete(rig: Rig) -> None:
    segment = make_segment()
    content = segment.content[: -RECORD_LEN + 5]
    leave_behind(rig.directory, segment, content=content, state=segment.state(ended=len(segment.records)))
    rig.recover()
    assert (rig.entry(segment).state, rig.entry(segment).records) == (
        IndexState.INCOMPLETE, len(segment.records) - 1,
    )  # fmt: skip


@pytest.mark.parametrize("length", [0, 1, 95, 4096])
def test_a_file_without_a_record_is_failed_and_removed(rig: Rig, length: int) -> None:
    segment = make_segment()
    leave_behind(rig.directory, segment, content=segment.content[:length])
    (found,) = rig.recover().files
    assert rig.entry(segment).state is IndexState.FAILED
    assert found.problem is not None
    assert list(rig.directory.iterdir()) == []
    assert rig.sink.objects == {}


@pytest.mark.parametrize("length", [8, 4096, 3 << 20])
def test_a_file_of_zeros_holds_nothing(rig: Rig, length: int) -> None:
    """A power cut can leave a file with its length and none of its bytes."""
    segment = make_segment()
    leave_behind(rig.directory, segment, content=bytes(length))
    rig.recover()
    assert rig.entry(segment).state is IndexState.FAILED
    assert list(rig.directory.iterdir()) == []
    other = make_segment()
    path = leave_behind(rig.directory, other, content=bytes(length) + b"x")
    rig.recover()
    assert rig.entry(other).state is IndexState.CORRUPT
    assert path.exists()


def test_a_state_alone_means_that_nothing_was_written(rig: Rig) -> None:
    segment = make_segment()
    write_state(rig.directory, segment.state())
    rig.recover()
    assert rig.entry(segment).state is IndexState.FAILED
    assert list(rig.directory.iterdir()) == []


@pytest.mark.parametrize("ended", [None, 6])
def test_a_file_that_is_in_the_sink_already_is_only_entered(rig: Rig, ended: int | None) -> None:
    segment = make_segment()
    state = segment.state(ended=ended)
    rig.sink.objects[state.object_name.key] = segment.content
    write_state(rig.directory, state)
    rig.recover()
    entry = rig.entry(segment)
    assert (entry.records, entry.size_bytes, entry.object_key) == (
        6,
        len(segment.content),
        state.object_name.key,
    )
    assert entry.state is (IndexState.INCOMPLETE if ended is None else IndexState.COMPLETE)
    assert list(rig.directory.iterdir()) == []


def test_a_living_process_is_left_alone(rig: Rig) -> None:
    lock = OwnerLock.create(rig.directory)
    alive, dead = make_segment(), make_segment()
    path = leave_behind(
        rig.directory, alive, content=alive.content + b"half", state=alive.state(owner=lock.owner)
    )
    leave_behind(rig.directory, dead)
    before = path.read_bytes()
    (found,) = rig.recover().files
    assert found.entry.file_id == dead.file_id
    assert path.read_bytes() == before
    assert rig.index.get(alive.file_id) is None
    lock.release()
    (found,) = rig.recover().files
    assert found.entry.file_id == alive.file_id


def test_doing_it_again_finds_nothing(rig: Rig) -> None:
    segment = make_segment()
    leave_behind(rig.directory, segment)
    assert len(rig.recover().files) == 1
    entry = rig.entry(segment)
    assert rig.recover().files == ()
    assert rig.entry(segment) == entry


def test_a_sink_that_is_down_leaves_the_file_whole_for_the_living(rig: Rig) -> None:
    segment = make_segment()
    leave_behind(rig.directory, segment, state=segment.state(ended=len(segment.records)))
    rig.sink.failures = [SinkUnavailableError("full")]
    lock = OwnerLock.create(rig.directory)
    report = rig.recover(lock.owner)
    ((state, entry),) = report.waiting
    assert report.files[0].problem == "full"
    assert (entry.state, entry.object_key) == (IndexState.COMPLETE, None)
    assert rig.entry(segment) == entry
    assert segment_path(rig.directory, segment.file_id).read_bytes() == segment.content
    assert read_state(state_path(rig.directory, segment.file_id)) == state
    assert state.owner == lock.owner
    assert rig.recover().files == (), "it has a living owner now"
    lock.release()
    assert rig.recover().files[0].is_stored


def test_a_sink_that_cannot_tell_leaves_the_state(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = make_segment()
    write_state(rig.directory, segment.state())

    def fail(_: str) -> None:
        raise SinkUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(rig.sink, "size", fail)
        assert rig.recover().files[0].problem == "away"
    assert state_path(rig.directory, segment.file_id).exists()
    assert rig.recover().files[0].entry.state is IndexState.FAILED


def test_a_segment_that_lost_its_state_is_recovered_from_its_head(rig: Rig) -> None:
    segment = make_segment()
    path = leave_behind(rig.directory, segment)
    state_path(rig.directory, segment.file_id).write_bytes(b"{")
    rig.recover()
    entry = rig.entry(segment)
    assert (entry.state, entry.records) == (IndexState.INCOMPLETE, len(segment.records))
    assert (entry.tenant_handle, entry.key_id, entry.call_uid) == (b"T" * 16, "0123456789abcdef", "")
    assert not path.exists()


def test_what_is_no_recording_is_left_alone(rig: Rig) -> None:
    segment = make_segment()
    path = leave_behind(rig.directory, segment, content=b"%PDF-1.7" * 1000)
    (found,) = rig.recover().files
    assert found.entry.state is IndexState.CORRUPT
    assert found.problem is not None
    assert "left alone" in found.problem
    assert path.read_bytes() == b"%PDF-1.7" * 1000
    stranger = rig.directory / f"{'ab' * 16}.crec"
    stranger.write_bytes(b"not ours")
    other = rig.directory / f"{'cd' * 16}.crec"
    other.write_bytes(segment.content)  # a recording under a name that is not its own
    rig.recover()
    assert stranger.exists()
    assert other.exists()


def test_progress_is_told_file_by_file(rig: Rig) -> None:
    for _ in range(3):
        leave_behind(rig.directory, make_segment(1))
    told: list[tuple[int, int]] = []
    recover_spool(
        rig.directory,
        index=rig.index,
        sink=rig.sink,
        on_progress=lambda done, total, file: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_nobody_else_recovers_the_same_files_meanwhile(rig: Rig) -> None:
    leave_behind(rig.directory, make_segment(1))
    locks: list[OwnerLock | None] = []
    recover_spool(
        rig.directory,
        index=rig.index,
        sink=rig.sink,
        on_progress=lambda *_: locks.append(OwnerLock.try_acquire(rig.directory, OWNER)),
    )
    assert locks == [None]


def test_locks_of_the_dead_are_removed(rig: Rig) -> None:
    (rig.directory / f"{OWNER}.lock").write_bytes(b"")
    (rig.directory / "notes.lock").write_bytes(b"")
    rig.recover()
    assert [path.name for path in rig.directory.iterdir()] == ["notes.lock"]


class Crash(Exception):
    """The process dies here."""


@pytest.mark.parametrize("step", range(6))
def test_a_crash_at_any_step_is_made_good_by_the_next_recovery(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Die before or after each of: first entry, upload, second entry."""
    segment = make_segment()
    content = segment.content + b"torn"
    leave_behind(rig.directory, segment, content=content)
    calls = 0

    def dying(name: str, real: object) -> object:
        def call(*arguments: object) -> object:
            nonlocal calls
            if calls == step:
                raise Crash
            calls += 1
            result = real(*arguments)  # type: ignore[operator]
            if calls == step:
                raise Crash
            calls += 1
            return result

        return call

    with monkeypatch.context() as patch:
        patch.setattr(rig.index, "put", dying("put", rig.index.put))
        patch.setattr(rig.sink, "put", dying("put", rig.sink.put))
        with pytest.raises(Crash):
            rig.recover()
    rig.recover()
    entry = rig.entry(segment)
    assert (entry.state, entry.records) == (IndexState.INCOMPLETE, len(segment.records))
    assert entry.object_key is not None
    assert rig.sink.objects == {entry.object_key: segment.content}
    assert list(rig.directory.iterdir()) == []


def test_an_index_that_cannot_be_written_stops_the_recovery_and_loses_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = make_segment()
    path = leave_behind(rig.directory, segment)

    def fail(_: Sequence[IndexEntry]) -> None:
        raise IndexUnavailableError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(rig.index, "put", fail)
        with pytest.raises(IndexUnavailableError):
            rig.recover()
    assert path.read_bytes() == segment.content
    assert rig.recover().files[0].is_stored


def test_a_spool_that_others_may_enter_is_refused(rig: Rig) -> None:
    rig.directory.chmod(0o755)
    with pytest.raises(SpoolError, match="chmod 700"):
        rig.recover()


def test_half_written_states_of_the_dead_are_removed_and_those_of_the_living_are_not(rig: Rig) -> None:
    lock = OwnerLock.create(rig.directory)
    dead, living = "d" * 32, lock.owner
    for owner in (dead, living):
        (rig.directory / f"{'0' * 32}.{owner}.tmp").write_bytes(b"{")
    (rig.directory / "foreign.tmp").write_bytes(b"?")
    rig.recover()
    assert {path.name for path in rig.directory.iterdir()} == {
        f"{living}.lock",
        f"{'0' * 32}.{living}.tmp",
        "foreign.tmp",
    }
    lock.release()


def test_an_upload_note_goes_with_its_file(rig: Rig) -> None:
    segment = make_segment()
    path = leave_behind(rig.directory, segment)
    upload_path(path).write_bytes(b"{}")
    rig.recover()
    assert list(rig.directory.iterdir()) == []


def test_a_state_that_outlived_its_file_is_settled_by_the_index_alone(rig: Rig) -> None:
    """The role that uploads may not be allowed to read what is stored."""
    segment = make_segment()
    state = segment.state(ended=len(segment.records))
    leave_behind(rig.directory, segment, state=state)
    rig.recover()
    entry = rig.entry(segment)
    write_state(rig.directory, state)
    rig.sink.objects.clear()
    (found,) = rig.recover().files
    assert (found.entry.object_key, found.problem) == (entry.object_key, None)
    assert list(rig.directory.iterdir()) == []


def test_all_is_left_to_a_new_owner_where_the_store_may_be_slow(rig: Rig) -> None:
    segment = make_segment()
    leave_behind(rig.directory, segment, state=segment.state(ended=len(segment.records)))
    lock = OwnerLock.create(rig.directory)
    report = recover_spool(
        rig.directory, index=rig.index, sink=rig.sink, new_owner=lock.owner, is_deferred=True
    )
    assert [state.owner for state, _ in report.waiting] == [lock.owner]
    assert rig.entry(segment).state is IndexState.COMPLETE
    assert (rig.sink.attempts, report.files[0].is_stored) == (0, False)
    lock.release()
