"""Numbers and names in the index: sealed by a recorder that cannot open them, found by equality alone."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recording.errors import MissingSlotError
from recording.format.content import RecordingMeta
from recording.format.slots import KeySlot
from recording.index import NO_PARTIES, IndexEntry, IndexState, RecordingIndex, SealedParties
from recording.index.parties import Parties, PartyReader, PartySealer, SealedPartiesError
from recording.index.search_key import SearchKey, create_search_key, normalise
from recording.keys.build import slot_keys
from recording.keys.errors import KeyConfigurationError, KeyUnavailableError, NotPermittedError
from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.pool import TenantKey
from recording.keys.provider import DataKey, KeyContext
from recording.observer import SilentObserver
from recording.recorder import Recorder
from recording.settings import IndexSettings, Layout, LocalKeySettings, PoolSettings, RecordingSettings

CLINIC, LAB = b"C" * 16, b"L" * 16
TENANTS = {
    "clinic": TenantKey(handle=CLINIC, provider="main"),
    "lab": TenantKey(handle=LAB, provider="main"),
}
NUMBER = "+4971155501234"


class RecorderProvider(LocalKeyProvider):
    """A key provider as the recorder's role sees it: it may ask for keys and is refused everything else."""

    outages = 0

    def new_key(self, context: KeyContext) -> DataKey:
        if self.outages:
            self.outages -= 1
            raise KeyUnavailableError("down")
        return super().new_key(context)

    def unwrap(self, slot: KeySlot, context: KeyContext) -> bytearray:
        raise NotPermittedError("the recorder may not")

    def rewrap(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        raise NotPermittedError("the recorder may not")


class Rig:
    def __init__(self, directory: Path) -> None:
        create_kek(directory / "kek")
        create_search_key(directory / "search")
        self.settings = LocalKeySettings(kek_path=directory / "kek")
        self.search = SearchKey(directory / "search")
        self.index = RecordingIndex(directory / "index.sqlite")
        self.provider = RecorderProvider("main", self.settings)

    def sealer(self, *, key: str | None = None) -> PartySealer:
        return PartySealer(
            index=self.index,
            tenants=TENANTS,
            providers={"main": self.provider},
            search_key=self.search,
            key=key,
        )

    def reader(self) -> PartyReader:
        return PartyReader(self.index, slot_keys([LocalKeyProvider("main", self.settings)]))

    def entry(self, sealer: PartySealer, *, file_id: bytes = b"F" * 16, tenant: bytes = CLINIC) -> IndexEntry:
        return IndexEntry(
            file_id=file_id,
            recording=b"R" * 16,
            segment=0,
            call_uid="call-1",
            tenant_handle=tenant,
            state=IndexState.COMPLETE,
            provider=0x7F,
            key_id="",
            started_hour=datetime(2026, 5, 6, 7, tzinfo=UTC),
            parties=sealer.seal(tenant_handle=tenant, file_id=file_id, from_=NUMBER, to="Zoë"),
        )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    with closing(made.index):
        yield made


@pytest.fixture
def sealer(rig: Rig) -> Iterator[PartySealer]:
    made = rig.sealer()
    made.start()
    try:
        assert made.wait_ready(10)
        yield made
    finally:
        made.stop(5)


def test_what_one_process_seals_the_player_opens(rig: Rig, sealer: PartySealer) -> None:
    entry = rig.entry(sealer)
    rig.index.put([entry])
    (found,) = rig.index.find(blind=[rig.search.blind(CLINIC, NUMBER) or b""])
    assert rig.reader().open(found) == Parties(from_=NUMBER, to="Zoë")
    assert rig.reader().open(replace(entry, parties=NO_PARTIES)) is None


def test_the_recorder_cannot_open_what_it_sealed(rig: Rig, sealer: PartySealer) -> None:
    entry = rig.entry(sealer)
    reader = PartyReader(rig.index, slot_keys([rig.provider]))
    with pytest.raises(NotPermittedError):
        reader.open(entry)


def test_nothing_of_a_number_or_name_is_readable_in_the_file(rig: Rig, sealer: PartySealer) -> None:
    rig.index.put([rig.entry(sealer)])
    rig.index.close()
    content = rig.index.place.read_bytes()  # type: ignore[union-attr]
    for text in (NUMBER, NUMBER[1:], "71155501234", "Zoë", "zoë", "from"):
        for needle in (text.encode(), text.encode("utf-16-le"), text.encode().hex().encode()):
            if text != "from":
                assert needle not in content, text
    assert rig.entry(sealer).parties.sealed != rig.entry(sealer).parties.sealed, "no two are alike"


def test_the_length_tells_little(rig: Rig, sealer: PartySealer) -> None:
    lengths = {
        len(sealer.seal(tenant_handle=CLINIC, file_id=b"F" * 16, from_="1" * size, to=None).sealed or b"")
        for size in range(1, 30)
    }
    assert len(lengths) == 1


@pytest.mark.parametrize("change", ["file_id", "tenant_handle", "bit", "cut", "version", "short", "swapped"])
def test_a_sealed_value_opens_in_its_own_row_only(rig: Rig, sealer: PartySealer, change: str) -> None:
    entry = rig.entry(sealer)
    sealed = entry.parties.sealed
    assert sealed is not None
    other = rig.entry(sealer, file_id=b"G" * 16).parties.sealed
    altered = {
        "file_id": replace(entry, file_id=b"G" * 16),
        "tenant_handle": replace(entry, tenant_handle=LAB),
        "bit": replace(entry, parties=SealedParties(sealed=sealed[:-1] + bytes([sealed[-1] ^ 1]))),
        "cut": replace(entry, parties=SealedParties(sealed=sealed[:-1])),
        "version": replace(entry, parties=SealedParties(sealed=b"\x02" + sealed[1:])),
        "short": replace(entry, parties=SealedParties(sealed=sealed[:29])),
        "swapped": replace(entry, parties=SealedParties(sealed=other)),
    }[change]
    with pytest.raises(SealedPartiesError):
        rig.reader().open(altered)
    assert rig.reader().open(entry) is not None


def test_a_lost_or_foreign_index_key_is_named(rig: Rig, sealer: PartySealer, tmp_path: Path) -> None:
    entry = rig.entry(sealer)
    create_kek(tmp_path / "other")
    stranger = LocalKeyProvider("other", LocalKeySettings(kek_path=tmp_path / "other"))
    with pytest.raises(MissingSlotError, match="no configured key"):
        PartyReader(rig.index, slot_keys([stranger])).open(entry)
    with closing(RecordingIndex(tmp_path / "empty.sqlite")) as empty, pytest.raises(MissingSlotError):
        PartyReader(empty, slot_keys([LocalKeyProvider("main", rig.settings)])).open(entry)


def test_each_tenant_and_each_process_has_an_index_key_of_its_own(rig: Rig, sealer: PartySealer) -> None:
    again = rig.sealer(key="main")
    again.start()
    assert again.wait_ready(10)
    again.stop(5)
    keys = rig.index.index_keys()
    assert len({key.key_id for key in keys}) == 4
    assert len({key.wrapped for key in keys}) == 4
    assert [len(rig.index.index_keys(tenant_handle=handle)) for handle in (CLINIC, LAB)] == [2, 2]


def test_without_a_key_there_are_blind_indexes_alone_until_there_is_one(rig: Rig) -> None:
    rig.provider.outages = 3
    sealer = rig.sealer()
    early = rig.entry(sealer).parties
    assert early.sealed is None
    assert early.blind_from == rig.search.blind(CLINIC, NUMBER)
    sealer.start()
    try:
        assert sealer.wait_ready(20)
        assert sealer.problem is None
        assert rig.entry(sealer).parties.sealed is not None
    finally:
        sealer.stop(5)
    assert rig.entry(sealer).parties.sealed is None, "a stopped one has forgotten its keys"


def test_what_keeps_a_key_from_coming_is_told(rig: Rig) -> None:
    rig.provider.outages = 1 << 30
    sealer = rig.sealer()
    sealer.start()
    try:
        assert not sealer.wait_ready(0.2)
        assert sealer.problem == "KeyUnavailableError: down"
    finally:
        sealer.stop(5)
    assert "index-keys" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(KeyConfigurationError, match="none"):
        rig.sealer(key="none")


def test_no_party_no_columns(rig: Rig, sealer: PartySealer) -> None:
    assert sealer.seal(tenant_handle=CLINIC, file_id=b"F" * 16, from_=None, to=None) == NO_PARTIES
    one = sealer.seal(tenant_handle=CLINIC, file_id=b"F" * 16, from_=None, to=NUMBER)
    assert (one.blind_from, one.blind_to) == (None, rig.search.blind(CLINIC, NUMBER))


# --- the blind index


@pytest.mark.parametrize(
    "same",
    [
        "+4971155501234",
        "004971155501234",
        " +49 711 555-01234 ",
        "+49(711)555.01234",
        "tel:+49-711-555-01234",
        "sip:+4971155501234@pbx.example.test:5061;user=phone",
        "sips:%2B4971155501234@pbx.example.test",
        "SIP:+4971155501234;phone-context=x@host",
    ],
)
def test_spellings_of_a_number_are_one(same: str) -> None:
    assert normalise(same) == "+4971155501234"


@pytest.mark.parametrize(
    ("other", "is_read_as"),
    [
        ("071155501234", "071155501234"),
        ("4971155501234", "4971155501234"),
        ("+4971155501235", "+4971155501235"),
        ("Alice.Smith@host", "alice.smith"),
        ("alice", "alice"),
        ("00", "00"),
        ("", ""),
        ("anonymous-1", "anonymous-1"),
        ("*21#", "*21#"),
    ],
)
def test_what_is_another_party_stays_another(other: str, is_read_as: str) -> None:
    assert normalise(other) == is_read_as


def test_blind_indexes_tell_tenants_and_keys_apart(rig: Rig, tmp_path: Path) -> None:
    create_search_key(tmp_path / "second")
    second = SearchKey(tmp_path / "second")
    blinds = {rig.search.blind(CLINIC, NUMBER), rig.search.blind(LAB, NUMBER), second.blind(CLINIC, NUMBER)}
    assert len(blinds) == 3
    assert {len(blind or b"") for blind in blinds} == {32}
    assert rig.search.blind(CLINIC, "0049 711 555 01234") == rig.search.blind(CLINIC, NUMBER)
    assert rig.search.blind(CLINIC, None) is None
    assert rig.search.blind(CLINIC, "  ") is None


def test_a_search_key_is_private_whole_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    create_search_key(path)
    content = path.read_bytes()
    assert (len(content), stat.S_IMODE(path.stat().st_mode)) == (32, 0o600)
    with pytest.raises(KeyConfigurationError, match="exists"):
        create_search_key(path)
    assert path.read_bytes() == content
    SearchKey(path)
    path.chmod(0o640)
    with pytest.raises(KeyConfigurationError, match="0640"):
        SearchKey(path)
    path.chmod(0o600)
    for bad in (content[:-1], content + b"\n", b""):
        path.write_bytes(bad)
        with pytest.raises(KeyConfigurationError, match="exactly 32 bytes"):
            SearchKey(path)
    with pytest.raises(KeyConfigurationError, match="No such file"):
        SearchKey(tmp_path / "none")
    with pytest.raises(KeyConfigurationError):
        create_search_key(tmp_path / "none" / "key")
    assert os.listdir(tmp_path) == ["key"]  # noqa: PTH208


def test_a_recorder_records_without_an_index_key_and_says_that_names_are_missing(
    rig: Rig, tmp_path: Path
) -> None:
    settings = RecordingSettings(
        directory=tmp_path / "store",
        spool_directory=tmp_path / "spool",
        index_path=tmp_path / "other.sqlite",
        keys={},
        fsync_interval_ms=50,
        min_free_bytes=0,
        pool=PoolSettings(size=1),
        index=IndexSettings(search_key_path=tmp_path / "search", key="index"),
    )
    away = RecorderProvider("index", rig.settings)
    away.outages = 1 << 30
    recorder = Recorder(
        settings,
        {"clinic": TENANTS["clinic"]},
        {"main": rig.provider, "index": away},
        SilentObserver(),
    )
    recorder.start()
    try:
        assert recorder.wait_ready(2.0)
        (warning,) = recorder.readiness().warnings
        assert warning == "names are not sealed into the index: KeyUnavailableError: down"
        recording = recorder.open(
            recorder.reserve("clinic"),
            meta=RecordingMeta(rate_hz=8000, call_uid="ab" * 16, from_=NUMBER, to="Zoë", trunk_a="pbx"),
            layout=Layout.MIXED,
            on_failure=pytest.fail,
        )
        recording.append(memoryview(bytes(1600)), 800, 0)
        recording.finish(ended_by="caller", reason="ended")
    finally:
        assert recorder.stop()
    with closing(RecordingIndex(settings.index_path)) as index:
        (entry,) = index.find(blind=[rig.search.blind(CLINIC, NUMBER) or b""])
        assert (entry.state, entry.trunk_a, entry.parties.sealed) == (IndexState.COMPLETE, "pbx", None)
