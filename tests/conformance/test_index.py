"""The contract that the index keeps in every database: what it holds, finds, protects, and how writers get along."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recording.format.content import RecordingKind
from recording.index import (
    IndexEntry,
    IndexKey,
    IndexState,
    IndexUnavailableError,
    RecordingIndex,
    SealedParties,
    utc_hour,
)
from recording.index.database import Place, open_engine
from support.postgres import PostgreSQL

ENTRY = IndexEntry(
    file_id=b"F" * 16,
    recording=b"R" * 16,
    segment=0,
    call_uid="call-1",
    tenant_handle=b"T" * 16,
    state=IndexState.RECORDING,
    provider=0x7F,
    key_id="0123456789abcdef",
    started_hour=datetime(2026, 5, 6, 7, tzinfo=UTC),
    trunk_a="pbx",
    trunk_b="carrier",
    retain_until=datetime(2036, 5, 6, 7, tzinfo=UTC),
    parties=SealedParties(sealed=b"\x01" * 99, blind_from=b"\xaa" * 32, blind_to=b"\xbb" * 32),
)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with PostgreSQL(tmp_path_factory.mktemp("postgresql")) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return tmp_path / "index.sqlite"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture
def index(place: Place) -> Iterator[RecordingIndex]:
    with closing(RecordingIndex(place)) as opened:
        yield opened


def test_an_entry_comes_back_as_it_was_and_is_replaced_as_a_whole(index: RecordingIndex) -> None:
    index.put([ENTRY])
    assert index.get(ENTRY.file_id) == ENTRY
    done = replace(
        ENTRY, state=IndexState.COMPLETE, records=9, size_bytes=5 << 30, object_key="a/b", trunk_b=None
    )
    index.put([done])
    assert index.get(ENTRY.file_id) == done
    assert index.get(b"X" * 16) is None
    index.put([])
    assert index.find() == [done]


def test_a_verdict_changes_the_state_and_nothing_that_others_wrote_meanwhile(index: RecordingIndex) -> None:
    index.put([ENTRY])
    index.put([replace(ENTRY, object_key="k", key_id="fedcba9876543210", size_bytes=7)])
    index.set_state(ENTRY.file_id, IndexState.CORRUPT, records=3)
    changed = replace(
        ENTRY,
        object_key="k",
        key_id="fedcba9876543210",
        size_bytes=7,
        state=IndexState.CORRUPT,
        records=3,
    )
    assert index.get(ENTRY.file_id) == changed
    assert index.begin_deletion(ENTRY.recording)
    index.set_state(ENTRY.file_id, IndexState.COMPLETE, records=9)
    assert index.get(ENTRY.file_id) == replace(changed, state=IndexState.DELETING)


def test_held_files_are_counted(index: RecordingIndex) -> None:
    index.put([replace(ENTRY, state=IndexState.COMPLETE)])
    assert index.count_held() == 0
    index.put_hold(ENTRY.recording, "court")
    assert index.count_held() == 1


def test_it_is_still_there_for_the_next_process(index: RecordingIndex, place: Place) -> None:
    index.put([ENTRY])
    index.close()
    with closing(RecordingIndex(place)) as again:
        assert again.find() == [ENTRY]


def test_the_last_of_several_entries_for_one_file_counts(index: RecordingIndex) -> None:
    index.put([ENTRY, replace(ENTRY, state=IndexState.INCOMPLETE), replace(ENTRY, state=IndexState.COMPLETE)])
    found = index.get(ENTRY.file_id)
    assert found is not None
    assert found.state is IndexState.COMPLETE


def test_entries_are_found_by_what_is_given(index: RecordingIndex) -> None:
    second = replace(ENTRY, file_id=b"G" * 16, segment=1, state=IndexState.COMPLETE, hold="litigation")
    other = replace(
        ENTRY,
        file_id=b"H" * 16,
        recording=b"S" * 16,
        call_uid="call-2",
        tenant_handle=b"U" * 16,
        trunk_a="carrier",
        trunk_b="branch",
        key_id="fedcba9876543210",
        started_hour=datetime(2026, 5, 6, 9, tzinfo=UTC),
        parties=SealedParties(blind_from=b"\xbb" * 32, blind_to=b"\xcc" * 32),
    )
    text = replace(
        ENTRY, file_id=b"I" * 16, recording=b"A" * 16, kind=RecordingKind.ARTEFACT, parent=b"R" * 16
    )
    index.put([second, other, ENTRY, text])
    assert index.find() == [other, text, ENTRY, second]
    assert index.find(call_uid="call-1") == [text, ENTRY, second]
    assert index.find(recording=b"S" * 16) == [other]
    assert index.find(state=IndexState.COMPLETE) == [second]
    assert index.find(call_uid="call-2", state=IndexState.COMPLETE) == []
    assert index.find(since_hour=datetime(2026, 5, 6, 8, tzinfo=UTC)) == [other]
    assert index.find(until_hour=datetime(2026, 5, 6, 9, tzinfo=UTC)) == [text, ENTRY, second]
    assert index.find(limit=1) == [other]
    assert index.find(kind=RecordingKind.ARTEFACT) == [text]
    assert index.find(parent=b"R" * 16) == [text]
    assert index.find(tenant_handle=b"U" * 16) == [other]
    assert index.find(trunk="branch") == [other]
    assert index.find(trunk="pbx") == [text, ENTRY, second]
    assert index.find(trunk="carrier", limit=9) == [other, text, ENTRY, second]
    assert index.find(key_id="fedcba9876543210") == [other]
    assert index.find(is_held=True) == [second]
    assert index.find(is_held=False) == [other, text, ENTRY]
    assert index.find(blind=[b"\xaa" * 32]) == [text, ENTRY, second]
    assert index.find(blind=[b"\xbb" * 32]) == [other, text, ENTRY, second], "either party"
    assert index.find(blind=[b"\xcc" * 32, b"\xdd" * 32]) == [other]
    assert index.find(blind=[]) == []
    assert index.group(b"R" * 16) == [text, ENTRY, second]


def test_every_entry_is_scanned_once(index: RecordingIndex) -> None:
    entries = [replace(ENTRY, file_id=number.to_bytes(16, "big")) for number in range(1203)]
    index.put(entries)
    assert list(index.scan()) == entries


def test_every_state_is_counted(index: RecordingIndex) -> None:
    entries = [
        replace(ENTRY, file_id=bytes([number]) * 16, state=state) for number, state in enumerate(IndexState)
    ]
    index.put([*entries, replace(ENTRY, file_id=b"Z" * 16)])
    assert index.counts() == {state: 2 if state is IndexState.RECORDING else 1 for state in IndexState}


def test_a_writer_takes_no_hold_off_and_brings_nothing_deleted_back(index: RecordingIndex) -> None:
    held = replace(ENTRY, hold="litigation")
    gone = replace(
        ENTRY, file_id=b"G" * 16, state=IndexState.DELETED, deleted_hour=datetime(2037, 1, 1, tzinfo=UTC)
    )
    going = replace(ENTRY, file_id=b"H" * 16, state=IndexState.DELETING)
    index.put([held, gone, going])
    index.put([replace(each, hold=None, state=IndexState.COMPLETE) for each in (held, gone, going)])
    assert index.get(held.file_id) == replace(held, state=IndexState.COMPLETE)
    assert index.get(gone.file_id) == gone
    assert index.get(going.file_id) == going


def test_the_hour_is_all_that_is_kept_of_the_time(index: RecordingIndex) -> None:
    exact = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    assert utc_hour(exact) == ENTRY.started_hour
    index.put([replace(ENTRY, started_hour=exact, retain_until=exact)])
    found = index.get(ENTRY.file_id)
    assert found is not None
    assert (found.started_hour, found.retain_until) == (ENTRY.started_hour, ENTRY.started_hour)


def test_index_keys_are_kept_wrapped_and_can_be_wrapped_anew(index: RecordingIndex) -> None:
    key = IndexKey(
        key_id=b"K" * 16,
        tenant_handle=b"T" * 16,
        provider=1,
        slot_key_id=b"arn",
        wrapped=b"w" * 40,
        created_hour=datetime(2026, 5, 6, 7, tzinfo=UTC),
    )
    other = replace(key, key_id=b"L" * 16, tenant_handle=b"U" * 16)
    index.put_key(key)
    index.put_key(other)
    again = replace(key, wrapped=b"x" * 40, slot_key_id=b"new")
    index.put_key(again)
    assert index.index_keys() == [again, other]
    assert index.index_keys(tenant_handle=b"U" * 16) == [other]


def test_a_newer_schema_version_is_refused_and_left_alone(index: RecordingIndex, place: Place) -> None:
    index.put([ENTRY])
    index.close()
    engine = open_engine(place)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")
    with pytest.raises(IndexUnavailableError, match="version 0099"):
        RecordingIndex(place)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
    engine.dispose()
    with closing(RecordingIndex(place)) as again:
        assert again.find() == [ENTRY]


def test_no_hold_comes_while_a_tenants_entries_are_looked_after(place: Place, index: RecordingIndex) -> None:
    other = replace(ENTRY, file_id=b"O" * 16, tenant_handle=b"O" * 16)
    index.put([ENTRY, other])
    order: list[str] = []

    def hold() -> None:
        with closing(RecordingIndex(place)) as another:
            assert another.put_hold(ENTRY.recording, "order")
        order.append("held")

    thread = threading.Thread(target=hold)
    with index.unchanged(ENTRY.tenant_handle) as entries:
        assert entries == [ENTRY]
        thread.start()
        thread.join(0.5)
        order.append("looked after")
    thread.join(20)
    assert order == ["looked after", "held"]
    with index.unchanged(ENTRY.tenant_handle) as entries:
        assert [entry.hold for entry in entries] == ["order"]


def test_a_hold_and_a_deletion_exclude_one_another_for_all_of_a_recording(index: RecordingIndex) -> None:
    stored = replace(ENTRY, state=IndexState.COMPLETE)
    text = replace(
        stored, file_id=b"G" * 16, recording=b"A" * 16, kind=RecordingKind.ARTEFACT, parent=ENTRY.recording
    )
    other = replace(stored, file_id=b"H" * 16, recording=b"S" * 16)
    index.put([stored, text, other])
    assert not index.put_hold(b"?" * 16, "order")
    assert index.put_hold(ENTRY.recording, "order")
    assert {entry.hold for entry in index.group(ENTRY.recording)} == {"order"}
    assert not index.begin_deletion(ENTRY.recording)
    index.lift_hold(ENTRY.recording)
    assert index.begin_deletion(ENTRY.recording)
    assert not index.put_hold(ENTRY.recording, "late")
    assert {entry.state for entry in index.group(ENTRY.recording)} == {IndexState.DELETING}
    index.abort_deletion(text.file_id, IndexState.COMPLETE)
    assert index.get(text.file_id) == text
    hour = datetime(2036, 6, 1, 3, tzinfo=UTC)
    index.end_deletion(stored.file_id, hour)
    assert index.get(stored.file_id) == replace(
        stored, state=IndexState.DELETED, deleted_hour=hour, parties=SealedParties()
    )
    index.end_deletion(other.file_id, hour)
    index.abort_deletion(other.file_id, IndexState.CORRUPT)
    assert index.get(other.file_id) == other, "only what is being deleted ends as deleted"


def test_what_is_still_recorded_is_not_deleted(index: RecordingIndex) -> None:
    index.put([replace(ENTRY, state=IndexState.COMPLETE), replace(ENTRY, file_id=b"G" * 16, segment=1)])
    assert not index.begin_deletion(ENTRY.recording)
    assert IndexState.DELETING not in {entry.state for entry in index.group(ENTRY.recording)}


def test_entries_are_added_only_where_there_are_none(index: RecordingIndex) -> None:
    index.put([ENTRY])
    gone = replace(
        ENTRY, file_id=b"G" * 16, state=IndexState.DELETED, hold="order", deleted_hour=ENTRY.started_hour
    )
    index.add([replace(ENTRY, records=99), gone])
    index.add([])
    assert index.get(ENTRY.file_id) == ENTRY
    assert index.get(gone.file_id) == gone


RIVAL = """
import pickle, sys
from recording.index import RecordingIndex
place, what, groups = pickle.loads(sys.stdin.buffer.read())
index = RecordingIndex(place)
won = [group for group in groups
       if (index.put_hold(group, "order") if what == "hold" else index.begin_deletion(group))]
sys.stdout.buffer.write(pickle.dumps(won))
"""


def test_of_a_hold_and_a_deletion_at_once_exactly_one_wins(index: RecordingIndex, place: Place) -> None:
    groups = [bytes([number]) * 16 for number in range(60)]
    index.put(
        [
            replace(ENTRY, file_id=group[:-1] + bytes([at]), recording=group, state=IndexState.COMPLETE)
            for group in groups
            for at in range(3)
        ]
    )
    rivals = [start(RIVAL, (place, what, groups)) for what in ("hold", "delete", "hold", "delete")]
    won = []
    for rival in rivals:
        assert rival.stdout is not None
        won.append(set(pickle.loads(rival.stdout.read())))
        rival.stdout.close()
        assert rival.wait(60) == 0
    held, deleted = won[0] | won[2], won[1] | won[3]
    assert held | deleted == set(groups)
    assert held & deleted == set()
    for group in groups:
        entries = index.group(group)
        assert {entry.hold is not None for entry in entries} == {group in held}
        assert {entry.state is IndexState.DELETING for entry in entries} == {group in deleted}


def start(program: str, given: object) -> subprocess.Popen[bytes]:
    """A process of its own that is given something on standard input."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(given))
    process.stdin.close()
    return process


WRITER = """
import pickle, sys
from dataclasses import replace
from recording.index import RecordingIndex
place, entry, first = pickle.loads(sys.stdin.buffer.read())
index = RecordingIndex(place)
print("open", flush=True)
for number in range(100):
    # Each writer also rewrites what the others do, in an order of its own.
    shared = [replace(entry, file_id=(1 << 64 | (first + at) % 7).to_bytes(16, "big")) for at in range(7)]
    index.put([replace(entry, file_id=(first + number).to_bytes(16, "big")), *shared])
index.close()
"""


def test_several_processes_make_it_and_write_at_once_and_lose_nothing(place: Place) -> None:
    writers = [start(WRITER, (place, ENTRY, 1000 * number)) for number in range(4)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.read() == b"open\n"
        writer.stdout.close()
        assert writer.wait(60) == 0
    with closing(RecordingIndex(place)) as index:
        assert len(index.find(limit=10_000)) == 4 * 100 + 7
        assert {entry.call_uid for entry in index.find()} == {"call-1"}
