"""The contract that every sink passes: whole or not at all, never replaced, repeatable."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from recording.format import limits
from recording.format.manifest import MANIFEST_MAX
from recording.sinks.local import LocalSink
from recording.sinks.retry import RetryingSink
from recording.sinks.s3 import S3Sink
from recording.sinks.sink import (
    NO_RETENTION,
    ObjectConflictError,
    ObjectLockedError,
    ObjectMissingError,
    ObjectName,
    Sink,
    SinkRefusedError,
    SlotFile,
    directory_of,
    sidecars,
)
from support.memory_sink import MemorySink
from support.s3 import moto_settings, rgw_settings

NAME = ObjectName(
    tenant_handle=b"T" * 16, file_id=b"F" * 16, started_hour=datetime(2026, 3, 31, 23, tzinfo=UTC)
)
KEY = f"{'54' * 16}/2026/03/{'46' * 16}.crec"


S3_SINKS = ["s3-locked", "s3-plain", "s3-moto"]


def s3_sink(request: pytest.FixtureRequest, directory: Path) -> S3Sink:
    if request.param == "s3-moto":
        return S3Sink(moto_settings(request.getfixturevalue("moto_s3"), directory))
    locked = request.param == "s3-locked"
    return S3Sink(rgw_settings(request.getfixturevalue("rgw"), directory, locked=locked))


@pytest.fixture(params=["local", "local-across-file-systems", "memory", "retrying", *S3_SINKS])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sink]:
    if request.param == "memory":
        yield MemorySink()
    elif request.param in S3_SINKS:
        yield s3_sink(request, tmp_path)
    elif request.param == "local-across-file-systems":
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            assert Path(directory).stat().st_dev != tmp_path.stat().st_dev
            yield LocalSink(Path(directory) / "store")
    else:
        local = LocalSink(tmp_path / "store")
        yield local if request.param == "local" else RetryingSink(local)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / f"{NAME.file_id.hex()}.crec"
    path.write_bytes(os.urandom(3 << 20))
    path.chmod(0o600)
    return path


def read(sink: Sink, key: str = KEY) -> bytes:
    with sink.open(key) as file:
        return file.read()


def test_what_is_put_is_there_and_can_be_read_from_the_middle(sink: Sink, source: Path) -> None:
    content = source.read_bytes()
    sink.health()
    assert sink.size(KEY) is None
    assert sink.put(source, NAME) == len(content)
    assert sink.size(KEY) == len(content)
    with sink.open(KEY) as file:
        file.seek(1 << 20)
        assert file.read(100) == content[1 << 20 : (1 << 20) + 100]
    assert read(sink) == content


def test_putting_the_same_again_succeeds(sink: Sink, source: Path) -> None:
    content = source.read_bytes()
    sink.put(source, NAME)
    source.write_bytes(content)
    assert sink.put(source, NAME) == len(content)
    assert read(sink) == content


def test_a_move_that_was_interrupted_after_the_move_succeeds(sink: Sink, source: Path) -> None:
    content = source.read_bytes()
    sink.put(source, NAME)
    source.unlink(missing_ok=True)
    assert sink.put(source, NAME) == len(content)


@pytest.mark.parametrize("change", ["other content", "shorter", "longer", "empty"])
def test_an_object_is_never_replaced(sink: Sink, source: Path, change: str) -> None:
    content = source.read_bytes()
    sink.put(source, NAME)
    other = {
        "other content": content[:-1] + bytes([content[-1] ^ 1]),
        "shorter": content[:-1],
        "longer": content + b"\0",
        "empty": b"",
    }[change]
    source.write_bytes(other)
    with pytest.raises(ObjectConflictError):
        sink.put(source, NAME)
    assert read(sink) == content
    assert source.read_bytes() == other, "what was refused stays where it was"


def test_what_is_nowhere_is_missing(sink: Sink, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissingError):
        sink.put(tmp_path / "none.crec", NAME)
    with pytest.raises(ObjectMissingError):
        sink.open(KEY)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "../" + KEY,
        "/" + KEY,
        KEY + "/..",
        KEY.upper(),
        KEY.replace("/03/", "/13/"),
        KEY + "\n",
        f"{KEY}\0",
    ],
)
def test_no_key_leads_out_of_the_store(sink: Sink, source: Path, key: str) -> None:
    sink.put(source, NAME)
    with pytest.raises(ObjectMissingError):
        sink.open(key)
    with pytest.raises(ObjectMissingError):
        sink.size(key)
    assert sink.size(KEY)


def test_what_is_deleted_is_gone_and_may_be_deleted_again(sink: Sink, source: Path) -> None:
    content = source.read_bytes()
    sink.put(source, NAME)
    sink.put_slots(KEY, 1, b"one")
    sink.delete(KEY)
    assert sink.size(KEY) is None
    assert sink.slot_generations(KEY) == []
    with pytest.raises(ObjectMissingError):
        sink.open(KEY)
    sink.delete(KEY)
    source.write_bytes(content[:1000])
    assert sink.put(source, NAME) == 1000, "the name is free again"


@pytest.mark.parametrize("key", ["../" + KEY, KEY.upper(), f"{KEY}\0"])
def test_only_object_keys_are_deleted(sink: Sink, source: Path, key: str) -> None:
    sink.put(source, NAME)
    with pytest.raises(ObjectMissingError):
        sink.delete(key)
    assert sink.size(KEY)


def test_retention_and_holds_keep_an_object_where_the_store_can_lock(sink: Sink, source: Path) -> None:
    with pytest.raises(ObjectMissingError):
        sink.retention(KEY)
    with pytest.raises(ObjectMissingError):
        sink.set_hold(KEY, is_held=True)
    sink.put(source, NAME)
    assert sink.retention(KEY) == NO_RETENTION
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    if not sink.locks:
        with pytest.raises(SinkRefusedError):
            sink.extend_retention(KEY, until)
        with pytest.raises(SinkRefusedError):
            sink.set_hold(KEY, is_held=True)
        return
    assert sink.set_hold(KEY, is_held=True).is_held
    with pytest.raises(ObjectLockedError):
        sink.delete(KEY)
    assert not sink.set_hold(KEY, is_held=False).is_held
    sink.delete(KEY)
    source.write_bytes(b"again")
    sink.put(source, NAME)
    kept = sink.extend_retention(KEY, until)
    assert (kept.until, kept.is_held) == (until, False)
    assert sink.extend_retention(KEY, until - timedelta(seconds=1)).until == until, "never shortened"
    with pytest.raises(ObjectLockedError):
        sink.delete(KEY)
    assert sink.size(KEY)


def test_a_manifest_lies_beside_an_object_and_the_first_stays(sink: Sink, source: Path) -> None:
    content = source.read_bytes()
    assert sink.manifest(KEY) is None
    sink.put(source, NAME)
    assert sink.manifest(KEY) is None
    for data in (b"first", b"first", b"second"):
        sink.put_manifest(KEY, data)
        assert sink.manifest(KEY) == b"first"
    assert read(sink) == content
    assert sink.slot_generations(KEY) == []
    assert list(sink.keys()) == [KEY]
    assert sink.manifest(KEY.replace("46" * 16, "47" * 16)) is None


def test_a_manifest_goes_with_its_object(sink: Sink, source: Path) -> None:
    sink.put(source, NAME)
    sink.put_manifest(KEY, b"first")
    sink.delete(KEY)
    assert sink.manifest(KEY) is None


def test_an_endless_manifest_is_not_read_to_its_end(sink: Sink) -> None:
    sink.put_manifest(KEY, bytes(MANIFEST_MAX + 1000))
    found = sink.manifest(KEY)
    assert found is not None
    assert len(found) == MANIFEST_MAX + 1


@pytest.mark.parametrize("key", ["", "../" + KEY, KEY.upper(), f"{KEY}\0", KEY.replace(".crec", ".manifest")])
def test_no_key_of_a_manifest_leads_out_of_the_store(sink: Sink, key: str) -> None:
    with pytest.raises(ObjectMissingError):
        sink.put_manifest(key, b"x")
    with pytest.raises(ObjectMissingError):
        sink.manifest(key)


def test_slots_lie_beside_an_object_by_generation(sink: Sink, source: Path) -> None:
    content = source.read_bytes()
    sink.put(source, NAME)
    assert sink.slot_generations(KEY) == []
    for generation in (2, 10, 0, limits.GENERATION_MAX):
        sink.put_slots(KEY, generation, b"slots %d" % generation)
    assert sink.slot_generations(KEY) == [limits.GENERATION_MAX, 10, 2, 0]
    assert sink.slots(KEY, 10) == b"slots 10"
    assert list(sidecars(sink, KEY)) == [b"slots 4294967295", b"slots 10", b"slots 2", b"slots 0"]
    assert read(sink) == content


def test_slots_are_stored_whether_or_not_the_object_is_here(sink: Sink) -> None:
    sink.put_slots(KEY, 1, b"one")
    assert sink.slots(KEY, 1) == b"one"
    assert sink.size(KEY) is None


def test_slots_are_never_replaced_and_the_same_again_succeeds(sink: Sink) -> None:
    sink.put_slots(KEY, 1, b"one")
    sink.put_slots(KEY, 1, b"one")
    for other in (b"onf", b"on", b"one\0", b""):
        with pytest.raises(ObjectConflictError):
            sink.put_slots(KEY, 1, other)
    assert sink.slots(KEY, 1) == b"one"


def test_many_slots_are_stored_together_and_a_conflict_keeps_none_of_the_others_out(sink: Sink) -> None:
    keys = [KEY.replace("46" * 16, f"{n:02x}" * 16) for n in range(4)]
    sink.put_slots(keys[1], 1, b"theirs")
    sink.put_slots(keys[2], 1, b"ours")
    files = [SlotFile(object_key=key, generation=1, data=b"ours") for key in keys]
    assert sink.put_all_slots(files) == [files[1]]
    assert [sink.slots(key, 1) for key in keys] == [b"ours", b"theirs", b"ours", b"ours"]
    assert sink.put_all_slots([]) == []


def test_slots_of_another_object_are_not_its_own(sink: Sink) -> None:
    other = KEY.replace("46" * 16, "47" * 16)
    sink.put_slots(other, 1, b"theirs")
    assert sink.slot_generations(KEY) == []
    assert list(sidecars(sink, KEY)) == []
    with pytest.raises(ObjectMissingError):
        sink.slots(KEY, 1)
    assert sink.slot_generations(other) == [1]


def test_one_listing_tells_the_slots_of_all_objects_of_a_directory(sink: Sink) -> None:
    other, elsewhere = KEY.replace("46" * 16, "47" * 16), KEY.replace("/03/", "/04/")
    directory = directory_of(KEY)
    assert sink.slots_below(directory) == {}
    for key, generation in ((KEY, 2), (KEY, 10), (other, 1), (elsewhere, 7)):
        sink.put_slots(key, generation, b"slots")
    assert sink.slots_below(directory) == {KEY: [10, 2], other: [1]}
    assert sink.slots_below(directory_of(elsewhere)) == {elsewhere: [7]}


@pytest.mark.parametrize("directory", ["", "/", "../", KEY, "x/", KEY.rpartition("/")[0]])
def test_only_directories_of_objects_are_listed_for_slots(sink: Sink, directory: str) -> None:
    with pytest.raises(ObjectMissingError):
        sink.slots_below(directory)


@pytest.mark.parametrize("generation", [-1, limits.GENERATION_MAX + 1])
def test_a_generation_that_no_sidecar_can_have_is_refused(sink: Sink, generation: int) -> None:
    with pytest.raises(ObjectMissingError):
        sink.put_slots(KEY, generation, b"x")
    with pytest.raises(ObjectMissingError):
        sink.slots(KEY, generation)
    assert sink.slot_generations(KEY) == []


@pytest.mark.parametrize("key", ["", "../" + KEY, KEY.upper(), f"{KEY}\0", KEY.replace(".crec", ".1.slots")])
def test_no_key_of_slots_leads_out_of_the_store(sink: Sink, key: str) -> None:
    for attempt in (
        lambda: sink.put_slots(key, 1, b"x"),
        lambda: sink.slot_generations(key),
        lambda: sink.slots(key, 1),
    ):
        with pytest.raises(ObjectMissingError):
            attempt()


def test_an_endless_sidecar_is_not_read_to_its_end(sink: Sink) -> None:
    sink.put_slots(KEY, 1, bytes(limits.SIDECAR_LEN_MAX + 1000))
    assert len(sink.slots(KEY, 1)) == limits.SIDECAR_LEN_MAX + 1


def test_what_is_no_file_among_the_local_sidecars_is_passed_over(tmp_path: Path) -> None:
    sink = LocalSink(tmp_path)
    sink.put_slots(KEY, 1, b"one")
    (sink.path(KEY).parent / f"{NAME.file_id.hex()}.9.slots").mkdir()
    assert list(sidecars(sink, KEY)) == [b"", b"one"]


def test_a_local_sidecar_is_private_and_leaves_no_other_file(tmp_path: Path) -> None:
    sink = LocalSink(tmp_path / "store")
    before = os.umask(0)
    try:
        sink.put_slots(KEY, 3, b"three")
    finally:
        os.umask(before)
    (path,) = sink.path(KEY).parent.iterdir()
    assert path.name == f"{NAME.file_id.hex()}.3.slots"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_objects_are_listed_by_key_in_order_and_nothing_else_is(sink: Sink, tmp_path: Path) -> None:
    assert list(sink.keys()) == []
    names = [
        ObjectName(
            tenant_handle=bytes([tenant]) * 16,
            file_id=os.urandom(16),
            started_hour=datetime(2026, month, 1, tzinfo=UTC),
        )
        for tenant in (1, 2)
        for month in (1, 2, 12)
        for _ in range(2)
    ]
    for name in names:
        path = tmp_path / "source.crec"
        path.write_bytes(os.urandom(10))
        sink.put(path, name)
    keys = sorted(name.key for name in names)
    assert list(sink.keys()) == keys
    tenant = "02" * 16
    for prefix in (
        f"{tenant}/",
        f"{tenant}/2026/1",
        f"{tenant}/2026/02/",
        keys[3],
        keys[3][:-9],
        "0",
        "3",
        "/",
    ):
        assert list(sink.keys(prefix)) == [key for key in keys if key.startswith(prefix)], prefix


def test_a_local_listing_passes_over_what_is_no_object(tmp_path: Path, source: Path) -> None:
    sink = LocalSink(tmp_path / "store")
    sink.put(source, NAME)
    beside = sink.path(KEY).parent
    (beside / f"{'46' * 16}.1.slots").write_bytes(b"x")
    (beside / ".probe-1").write_bytes(b"x")
    (tmp_path / "store" / "stray.crec").write_bytes(b"x")
    (beside / f"{'47' * 16}").mkdir()
    assert list(sink.keys()) == [KEY]


def test_the_name_tells_the_utc_month_and_nothing_finer() -> None:
    assert NAME.key == KEY
    local = datetime(2026, 4, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert ObjectName(tenant_handle=b"T" * 16, file_id=b"F" * 16, started_hour=local).key == KEY


@pytest.mark.parametrize("across", [False, True])
def test_the_local_sink_takes_the_file_and_keeps_it_private(
    tmp_path: Path, source: Path, across: bool
) -> None:
    before = os.umask(0)
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if across else tmp_path) as directory:
            sink = LocalSink(Path(directory) / "store")
            sink.put(source, NAME)
            assert not source.exists()
            path = sink.path(KEY)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            for parent in list(path.parents)[:4]:
                assert stat.S_IMODE(parent.stat().st_mode) == 0o700
            assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no temporary file is left"
    finally:
        os.umask(before)
