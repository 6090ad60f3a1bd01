"""What depends on a key, and which of it must be kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recording.index import IndexEntry, IndexState, RecordingIndex
from recording.keys.dependants import find_dependants, key_id_text, sort_dependants
from recording.keys.errors import KeyInUseError
from recording.keys.local import LocalKeyProvider, create_kek
from recording.settings import LocalKeySettings, RetentionSettings

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NO_TIMES = RetentionSettings()
ENTRY = IndexEntry(
    file_id=b"F" * 16,
    recording=b"R" * 16,
    segment=0,
    call_uid="c" * 32,
    tenant_handle=b"T" * 16,
    state=IndexState.COMPLETE,
    provider=0x7F,
    key_id="0123456789abcdef",
    started_hour=NOW,
)


def entry(**changes: object) -> IndexEntry:
    return replace(ENTRY, file_id=os.urandom(16), **changes)  # type: ignore[arg-type]


def test_files_are_sorted_by_what_keeps_them() -> None:
    held = entry(hold="litigation")
    held_and_retained = entry(hold="litigation", retain_until=NOW + timedelta(days=1))
    retained = entry(retain_until=NOW + timedelta(seconds=1))
    free, expired = entry(), entry(retain_until=NOW)
    gone = [entry(state=IndexState.DELETED, hold="x"), entry(state=IndexState.FAILED)]
    found = sort_dependants(
        [held, retained, free, expired, held_and_retained, *gone], now=NOW, retention=NO_TIMES
    )
    assert found.held == (held, held_and_retained)
    assert found.retained == (retained,)
    assert found.others == (free, expired)


@pytest.mark.parametrize(("days", "is_kept"), [(1, True), (0, False)])
def test_what_the_configuration_keeps_now_counts_like_what_was_promised(days: int, is_kept: bool) -> None:
    of_trunk, of_tenant = entry(trunk_a="pbx"), entry(retain_until=NOW - timedelta(days=1))
    retention = RetentionSettings(tenants={b"T" * 16: days}, trunks={"pbx": days})
    found = sort_dependants([of_trunk, of_tenant], now=NOW, retention=retention)
    assert (found.retained if is_kept else found.others) == (of_trunk, of_tenant)


@pytest.mark.parametrize(
    "state", [IndexState.RECORDING, IndexState.INCOMPLETE, IndexState.CORRUPT, IndexState.DELETING]
)
def test_what_may_have_bytes_left_counts_in_every_state(state: IndexState) -> None:
    with pytest.raises(KeyInUseError):
        sort_dependants([entry(state=state)], now=NOW, retention=NO_TIMES).require_none("this")


@pytest.mark.parametrize("changes", [{"hold": "litigation"}, {"retain_until": NOW + timedelta(days=1)}])
def test_what_must_be_kept_is_named(changes: dict[str, object]) -> None:
    kept = entry(**changes)
    found = sort_dependants([entry(), kept], now=NOW, retention=NO_TIMES)
    for refuse in (found.require_unkept, found.require_none):
        with pytest.raises(KeyInUseError, match=kept.file_id.hex()) as caught:
            refuse("destroying it")
        assert caught.value.file_ids == (kept.file_id,)
        assert str(caught.value).startswith("destroying it is refused")


def test_what_need_not_be_kept_stands_in_the_way_of_taking_its_key_alone() -> None:
    free = entry()
    found = sort_dependants([free], now=NOW, retention=NO_TIMES)
    found.require_unkept("destroying it")
    with pytest.raises(KeyInUseError, match=free.file_id.hex()):
        found.require_none("disabling it")
    sort_dependants([], now=NOW, retention=NO_TIMES).require_none("disabling it")


def test_of_very_many_some_are_named_and_all_are_there() -> None:
    many = [entry() for _ in range(30)]
    with pytest.raises(KeyInUseError, match="and 10 more") as caught:
        sort_dependants(many, now=NOW, retention=NO_TIMES).require_none("disabling it")
    assert len(caught.value.file_ids) == 30


@pytest.fixture
def index(tmp_path: Path) -> Iterator[RecordingIndex]:
    made = RecordingIndex(tmp_path / "index.sqlite")
    yield made
    made.close()


def test_the_index_is_asked_by_kind_and_key(index: RecordingIndex, tmp_path: Path) -> None:
    create_kek(tmp_path / "kek")
    provider = LocalKeyProvider("main", LocalKeySettings(kek_path=tmp_path / "kek"))
    text = key_id_text(provider.slot_key_id)
    mine = entry(key_id=text)
    index.put([mine, entry(), entry(key_id=text, provider=1)])
    assert find_dependants(index, provider, now=NOW, retention=NO_TIMES).entries == (mine,)


def test_what_a_call_adds_after_its_recording_was_put_on_hold_is_held_too(
    index: RecordingIndex, tmp_path: Path
) -> None:
    kek_path = tmp_path / "later.kek"
    create_kek(kek_path)
    provider = LocalKeyProvider("later", LocalKeySettings(kek_path=kek_path))
    later = entry(segment=1, key_id=key_id_text(provider.slot_key_id))
    document = replace(later, file_id=os.urandom(16), recording=os.urandom(16), parent=ENTRY.recording)
    other = replace(later, file_id=os.urandom(16), recording=os.urandom(16))
    index.put([entry()])
    assert index.put_hold(ENTRY.recording, "litigation")
    index.put([later, document, other])
    found = find_dependants(index, provider, now=NOW, retention=NO_TIMES)
    assert {held.file_id for held in found.held} == {later.file_id, document.file_id}
    assert found.others == (other,)


def test_a_moved_file_changes_its_key_in_the_index_and_nothing_else(index: RecordingIndex) -> None:
    moved, other = entry(hold="litigation", retain_until=NOW, object_key="x"), entry()
    index.put([moved, other])
    before = index.get(moved.file_id)
    assert before is not None
    index.set_key([moved.file_id], provider=1, key_id="arn")
    assert index.get(moved.file_id) == replace(before, provider=1, key_id="arn")
    assert index.get(other.file_id) == other
    index.set_key([], provider=1, key_id="arn")
    assert index.get(other.file_id) == other
