"""When a recording may go, that a hold keeps it from every deletion, and that deletion is proven and can be resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recording.format.content import RecordingKind
from recording.index import IndexEntry, IndexState, RecordingIndex, SealedParties
from recording.retention import HoldRefusedError, Keep, Retention
from recording.settings import RetentionSettings
from recording.sinks.local import LocalSink
from recording.sinks.sink import ObjectName, Sink, SinkUnavailableError
from recording.spool_state import make_spool_directory
from support.memory_sink import MemorySink

BEGAN = datetime(2026, 5, 6, 7, tzinfo=UTC)
DAY = timedelta(days=1)
CLINIC = b"C" * 16
SETTINGS = RetentionSettings(tenants={CLINIC: 30}, trunks={"short": 7, "long": 90})
LATE = BEGAN + 31 * DAY
PARTIES = SealedParties(sealed=b"s" * 90, blind_from=b"f" * 32, blind_to=b"t" * 32)


class Rig:
    def __init__(self, directory: Path, sink: Sink) -> None:
        self.directory = directory
        self.sink = sink
        make_spool_directory(directory / "spool")
        self.index = RecordingIndex(directory / "index.sqlite")
        self.retention = Retention(
            index=self.index, sink=sink, settings=SETTINGS, spool_directory=directory / "spool"
        )

    def store(self, number: int, **changes: object) -> IndexEntry:
        """A stored segment of recording R, and its entry."""
        file_id = bytes([number]) * 16
        name = ObjectName(tenant_handle=CLINIC, file_id=file_id, started_hour=BEGAN)
        source = self.directory / "source"
        source.write_bytes(os.urandom(100))
        self.sink.put(source, name)
        self.sink.put_slots(name.key, 1, b"slots")
        self.sink.put_manifest(name.key, b"manifest")
        entry = IndexEntry(
            file_id=file_id,
            recording=b"R" * 16,
            segment=number,
            call_uid="ab" * 16,
            tenant_handle=CLINIC,
            state=IndexState.COMPLETE,
            provider=0x7F,
            key_id="k",
            started_hour=BEGAN,
            records=3,
            size_bytes=100,
            object_key=name.key,
            trunk_a="pbx",
            parties=PARTIES,
        )
        entry = replace(entry, **changes)  # type: ignore[arg-type]
        self.index.put([entry])
        return entry

    def attach(self, number: int) -> IndexEntry:
        return self.store(
            number, recording=bytes([number]) * 16, segment=0, kind=RecordingKind.ARTEFACT, parent=b"R" * 16
        )

    def keep(self, now: datetime) -> Keep | None:
        return self.retention.kept_by(self.index.group(b"R" * 16), now)

    def states(self) -> set[IndexState]:
        return {entry.state for entry in self.index.group(b"R" * 16)}


@pytest.fixture(params=["local", "memory"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, LocalSink(tmp_path / "store") if request.param == "local" else MemorySink())
    with closing(made.index):
        yield made


@pytest.mark.parametrize(
    ("changes", "days"),
    [
        ({}, 30),
        ({"trunk_a": "short"}, 7),
        ({"trunk_b": "long"}, 90),
        ({"trunk_a": "short", "trunk_b": "long"}, 90),
        ({"retain_until": BEGAN + 40 * DAY}, 40),
        ({"retain_until": BEGAN + 5 * DAY}, 30),
        ({"trunk_a": "short", "retain_until": BEGAN + 20 * DAY}, 20),
    ],
)
def test_a_recording_may_go_when_the_later_of_promise_and_policy_is_over(
    rig: Rig, changes: dict[str, object], days: int
) -> None:
    rig.store(1, **changes)
    assert rig.keep(BEGAN + days * DAY - timedelta(seconds=1)) is Keep.RETENTION
    assert rig.keep(BEGAN + days * DAY) is None


def test_without_a_time_it_is_kept(rig: Rig) -> None:
    rig.store(1, tenant_handle=b"?" * 16)
    assert rig.keep(BEGAN + 36500 * DAY) is Keep.NO_TIME
    rig.store(2)
    assert rig.keep(BEGAN + 36500 * DAY) is Keep.NO_TIME, "one segment without keeps all"


@pytest.mark.parametrize(
    ("changes", "keep"),
    [
        ({"state": IndexState.RECORDING}, Keep.RUNNING),
        ({"object_key": None}, Keep.NOT_STORED),
        ({"hold": "court-order"}, Keep.HOLD),
    ],
)
def test_one_segment_keeps_them_all(rig: Rig, changes: dict[str, object], keep: Keep) -> None:
    rig.store(1)
    rig.store(2, **changes)
    assert rig.keep(LATE) is keep
    assert {each.keep for each in rig.retention.delete(b"R" * 16, LATE)} == {keep}
    assert len(list(rig.sink.keys())) == 2


def test_deletion_takes_segments_slots_and_attachments_and_is_told(rig: Rig) -> None:
    first, second, text = rig.store(1), rig.store(2), rig.attach(3)
    other = rig.store(4, recording=b"S" * 16)
    failed = replace(
        first, file_id=b"\x05" * 16, segment=5, state=IndexState.FAILED, object_key=None, size_bytes=0
    )
    rig.index.put([failed])
    gone = rig.retention.delete(b"R" * 16, LATE)
    assert all(each.is_gone for each in gone)
    assert gone[0].entry.file_id == text.file_id, "attachments go first"
    assert {each.entry.file_id for each in gone} == {entry.file_id for entry in (first, second, text, failed)}
    for entry in (first, second, text):
        assert entry.object_key is not None
        assert rig.sink.size(entry.object_key) is None
        assert rig.sink.slot_generations(entry.object_key) == []
        assert rig.sink.manifest(entry.object_key) is None
    assert list(rig.sink.keys()) == [other.object_key]
    for entry in rig.index.group(b"R" * 16):
        assert (entry.state, entry.deleted_hour) == (IndexState.DELETED, LATE)
        assert entry.parties == SealedParties(), "names go with it"
        assert entry.size_bytes in (0, 100), "that it was there stays"
    assert rig.retention.delete(b"R" * 16, LATE) == []


def test_nothing_goes_before_its_time(rig: Rig) -> None:
    rig.store(1)
    (kept,) = rig.retention.delete(b"R" * 16, BEGAN + 29 * DAY)
    assert kept.keep is Keep.RETENTION
    assert rig.states() == {IndexState.COMPLETE}
    assert len(list(rig.sink.keys())) == 1
    assert [each.is_gone for each in rig.retention.delete(b"R" * 16, LATE)] == [True]


def test_a_hold_keeps_all_of_a_recording_until_it_is_released(rig: Rig) -> None:
    rig.store(1)
    rig.attach(2)
    held = rig.retention.hold(b"R" * 16, "court-order")
    assert {entry.hold for entry in held} == {"court-order"}
    later = rig.store(3)
    assert later.hold is None
    assert {each.keep for each in rig.retention.delete(b"R" * 16, LATE)} == {Keep.HOLD}
    assert not rig.index.begin_deletion(b"R" * 16)
    assert len(list(rig.sink.keys())) == 3
    assert {entry.hold for entry in rig.retention.release(b"R" * 16)} == {None}
    assert all(each.is_gone for each in rig.retention.delete(b"R" * 16, LATE))
    assert list(rig.sink.keys()) == []


def test_a_hold_cannot_be_put_on_what_is_going_or_gone(rig: Rig) -> None:
    rig.store(1)
    with pytest.raises(HoldRefusedError):
        rig.retention.hold(b"?" * 16, "court-order")
    with pytest.raises(HoldRefusedError):
        rig.retention.release(b"?" * 16)
    assert rig.index.begin_deletion(b"R" * 16)
    with pytest.raises(HoldRefusedError):
        rig.retention.hold(b"R" * 16, "court-order")
    assert all(each.is_gone for each in rig.retention.delete(b"R" * 16, LATE))
    with pytest.raises(HoldRefusedError):
        rig.retention.hold(b"R" * 16, "court-order")


def test_a_store_that_locks_is_told_of_holds_and_keeps_by_itself(tmp_path: Path) -> None:
    sink = MemorySink()
    rig = Rig(tmp_path, sink)
    with closing(rig.index):
        entry = rig.store(1)
        assert entry.object_key is not None
        rig.retention.hold(b"R" * 16, "court-order")
        assert sink.retention(entry.object_key).is_held
        rig.index.lift_hold(b"R" * 16)  # as if the index had been lost
        assert rig.keep(LATE) is Keep.STORE
        rig.retention.release(b"R" * 16)
        assert not sink.retention(entry.object_key).is_held
        sink.extend_retention(entry.object_key, datetime.now(UTC) + DAY)
        assert rig.keep(LATE) is Keep.STORE
        later = datetime.now(UTC) + 2 * DAY
        assert rig.keep(later) is None, "at that time the store's own retention is over"
        (kept,) = rig.retention.delete(b"R" * 16, later)
        assert kept.keep is Keep.STORE, "but its clock decides"
        assert rig.states() == {IndexState.COMPLETE}, "so it can be put on hold again"
        rig.retention.hold(b"R" * 16, "again")


def test_a_hold_put_while_a_file_was_in_the_spool_reaches_the_store_later(tmp_path: Path) -> None:
    sink = MemorySink()
    rig = Rig(tmp_path, sink)
    with closing(rig.index):
        entry = rig.store(1)
        assert entry.object_key is not None
        rig.index.put([replace(entry, object_key=None)])
        rig.retention.hold(b"R" * 16, "court-order")
        assert not sink.retention(entry.object_key).is_held
        rig.index.put([entry])
        later = rig.store(2)
        assert later.object_key is not None
        assert later.hold is None, "a segment of a recording on hold"
        rig.retention.repeat_holds()
        assert sink.retention(entry.object_key).is_held
        assert sink.retention(later.object_key).is_held


def test_locks_are_repeated_for_what_was_stored_without_them_and_never_shortened(tmp_path: Path) -> None:
    sink = MemorySink()
    rig = Rig(tmp_path, sink)
    with closing(rig.index):
        entry, attached = rig.store(1), rig.attach(2)
        other = rig.store(3, recording=b"Q" * 16)
        keys = [each.object_key for each in (entry, attached, other)]
        assert all(sink.retention(str(key)).until is None for key in keys)
        longer = BEGAN + 90 * DAY
        sink.extend_retention(str(other.object_key), longer)
        assert rig.retention.repeat_locks(BEGAN) == 2
        assert [sink.retention(str(key)).until for key in keys] == [BEGAN + 30 * DAY] * 2 + [longer]
        assert rig.retention.repeat_locks(LATE) == 0, "their time is over"


def test_locks_are_not_asked_of_a_store_that_has_none(tmp_path: Path) -> None:
    rig = Rig(tmp_path, LocalSink(tmp_path / "store"))
    with closing(rig.index):
        rig.store(1)
        assert rig.retention.repeat_locks(BEGAN) == 0


def test_a_store_that_says_gone_and_is_not_believed(tmp_path: Path) -> None:
    class Liar(LocalSink):
        def delete(self, key: str) -> None:
            """Says nothing, does nothing."""

    rig = Rig(tmp_path, Liar(tmp_path / "store"))
    with closing(rig.index):
        entry = rig.store(1)
        (left,) = rig.retention.delete(b"R" * 16, LATE)
        assert left.problem is not None
        assert "still has the object and its slots and its manifest and its name" in left.problem
        assert rig.states() == {IndexState.DELETING}
        honest = Retention(
            index=rig.index,
            sink=LocalSink(tmp_path / "store"),
            settings=SETTINGS,
            spool_directory=tmp_path / "spool",
        )
        assert [each.is_gone for each in honest.delete(b"R" * 16, LATE)] == [True]
        assert entry.object_key is not None
        assert rig.states() == {IndexState.DELETED}


def test_an_outage_leaves_it_deleting_and_the_next_run_goes_on_whatever_the_policy_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, MemorySink())
    with closing(rig.index):
        rig.store(1)

        def down(key: str) -> None:
            raise SinkUnavailableError("down")

        with monkeypatch.context() as patch:
            patch.setattr(rig.sink, "delete", down)
            (left,) = rig.retention.delete(b"R" * 16, LATE)
        assert left.problem == "down"
        assert rig.states() == {IndexState.DELETING}
        assert [each.is_gone for each in rig.retention.delete(b"R" * 16, BEGAN)] == [True]


def test_candidates_are_all_that_is_left_each_with_its_reason(rig: Rig) -> None:
    rig.store(1)
    rig.attach(2)
    rig.store(3, recording=b"S" * 16, hold="court-order")
    rig.store(4, recording=b"T" * 16, tenant_handle=b"?" * 16)
    rig.store(5, recording=b"U" * 16, state=IndexState.DELETED)
    rig.store(6, recording=b"V" * 16, kind=RecordingKind.AUDIT)
    assert dict(rig.retention.candidates(LATE)) == {
        b"R" * 16: None, b"S" * 16: Keep.HOLD, b"T" * 16: Keep.NO_TIME,
    }  # fmt: skip


KILLED = """
import os, sys
from datetime import datetime
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from recording.retention import Retention
from recording.index import RecordingIndex
from recording.sinks.local import LocalSink
from test_retention import SETTINGS, LATE
directory, call, hit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
seen = 0
def trace(frame, event, argument):
    global seen
    if event == "call" and frame.f_code.co_qualname == call:
        seen += 1
        if seen == hit:
            os.kill(os.getpid(), 9)
index = RecordingIndex(directory / "index.sqlite")
retention = Retention(index=index, sink=LocalSink(directory / "store"), settings=SETTINGS,
                      spool_directory=directory / "spool")
sys.setprofile(trace)
retention.delete(b"R" * 16, LATE)
print("whole")
"""
STEPS = [
    ("RecordingIndex.begin_deletion", 1),
    ("LocalSink.delete", 1),
    ("Retention._prove_gone", 1),
    ("RecordingIndex.end_deletion", 1),
    ("LocalSink.delete", 2),
    ("Retention._prove_gone", 2),
    ("RecordingIndex.end_deletion", 2),
    ("RecordingIndex.end_deletion", 3),
]


@pytest.mark.parametrize(("call", "hit"), STEPS)
def test_a_deletion_that_is_killed_at_any_step_is_finished_by_the_next(
    tmp_path: Path, call: str, hit: int
) -> None:
    rig = Rig(tmp_path, LocalSink(tmp_path / "store"))
    with closing(rig.index):
        rig.store(1), rig.store(2), rig.attach(3)
        command = [
            sys.executable,
            "-c",
            KILLED,
            tmp_path,
            call,
            str(hit),
            str(Path(__file__).parent),
            *sys.path,
        ]
        killed = subprocess.run(command, capture_output=True, check=False)
        assert killed.returncode == -9, killed.stderr.decode()
        entries = rig.index.group(b"R" * 16)
        assert len(entries) == 3, "no entry vanishes"
        for entry in entries:
            assert entry.object_key is not None
            if entry.state is IndexState.DELETED:
                assert rig.sink.size(entry.object_key) is None
            elif call == "RecordingIndex.begin_deletion":
                assert entry.state is IndexState.COMPLETE
            else:
                assert entry.state is IndexState.DELETING
        assert all(each.is_gone for each in rig.retention.delete(b"R" * 16, LATE))
        assert list(rig.sink.keys()) == []
        assert rig.states() == {IndexState.DELETED}
