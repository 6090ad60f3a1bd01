"""A recorder with real threads, a real spool and real keys: what a call leaves behind."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recording.errors import MalformedContentError, RecordingError
from recording.format.content import EventKind, RecordingEvent, RecordingMeta
from recording.index import IndexEntry, IndexState, RecordingIndex
from recording.keys.build import slot_keys
from recording.keys.errors import NoKeyError
from recording.keys.local import LocalKeyProvider, create_kek
from recording.reader import RecordingReader, open_recording
from recording.recorder import (
    CallRecording,
    Recorder,
    RecorderUnavailable,
    TenantKey,
    UnavailableReason,
    recover,
)
from recording.settings import Layout, LocalKeySettings, PoolSettings, RecordingSettings
from recording.sinks.local import LocalSink
from recording.sinks.sink import ObjectName, SinkUnavailableError
from recording.verify import RecordingState, verify
from support.observers import ListeningObserver
from support.spooled import leave_behind, make_segment

TENANT = "clinic"
HANDLE = bytes(range(16))
RATE_HZ = 8000
META = RecordingMeta(rate_hz=RATE_HZ, call_uid="call-1", from_="+15551234567", to="+15557654321")


class Bench:
    """A recorder in a directory of its own, and the way back to what it wrote."""

    def __init__(self, directory: Path, **changes: object) -> None:
        directory.mkdir(exist_ok=True)
        kek_path = directory / "kek"
        if not kek_path.exists():
            create_kek(kek_path)
        keys = {"main": LocalKeySettings(kek_path=kek_path)}
        self.settings = replace(
            RecordingSettings(
                directory=directory / "store",
                spool_directory=directory / "spool",
                index_path=directory / "index.sqlite",
                keys=keys,
                fsync_interval_ms=20,
                min_free_bytes=0,
            ),
            **changes,  # type: ignore[arg-type]
        )
        self.provider = LocalKeyProvider("main", keys["main"])
        self.observer = ListeningObserver()
        self.failures: list[RecordingError] = []
        self.failed = threading.Event()
        self.recorder = Recorder(
            self.settings,
            {TENANT: TenantKey(handle=HANDLE, provider="main")},
            {"main": self.provider},
            self.observer,
        )

    def start(self) -> None:
        self.recorder.start()
        assert self.recorder.wait_ready(10)

    def open(self, meta: RecordingMeta = META, layout: Layout = Layout.MIXED) -> CallRecording:
        return self.recorder.open(
            self.recorder.reserve(TENANT), meta=meta, layout=layout, on_failure=self.on_failure
        )

    def on_failure(self, error: RecordingError) -> None:
        self.failures.append(error)
        self.failed.set()

    def entries(self) -> list[IndexEntry]:
        index = RecordingIndex(self.settings.index_path)
        try:
            return index.find()
        finally:
            index.close()

    def reader(self, entry: IndexEntry) -> RecordingReader:
        assert entry.object_key is not None
        return open_recording(self.settings.directory / entry.object_key, keys=slot_keys([self.provider]))


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**changes: object) -> Bench:
        made.append(Bench(tmp_path, **changes))
        return made[-1]

    yield make
    for bench in made:
        bench.recorder.stop(5)


def tone(frames: int, channels: int = 1) -> bytes:
    return os.urandom(2 * frames * channels)


def feed(recording: CallRecording, pcm: bytes, *, gap_frames: int = 0) -> None:
    with memoryview(pcm) as view:
        recording.append(view, len(pcm) // recording.frame_bytes, gap_frames)


def test_a_call_becomes_a_complete_recording_in_the_sink(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start()
    recording = bench.open()
    pcm = tone(RATE_HZ * 3)
    for start in range(0, len(pcm), 3200):
        feed(recording, pcm[start : start + 3200])
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)

    (entry,) = bench.entries()
    assert (entry.state, entry.file_id, entry.call_uid) == (
        IndexState.COMPLETE,
        recording.file_ids[0],
        "call-1",
    )
    assert entry.object_key == f"{HANDLE.hex()}/{entry.started_hour:%Y/%m}/{entry.file_id.hex()}.crec"
    with bench.reader(entry) as reader:
        verdict = verify(reader)
        assert (verdict.state, verdict.records) == (RecordingState.COMPLETE, entry.records)
        assert b"".join(bytes(record.payload) for record in reader.audio()) == pcm
        final = reader.final()
        assert final is not None
        assert (final[1].ended_by, final[1].reason, final[1].next) == ("caller", "bye", None)
        assert (reader.meta.recording, reader.meta.from_) == (recording.recording_id, META.from_)
    assert bench.failures == []
    assert list(bench.settings.spool_directory.iterdir()) == []
    assert bench.observer.finished == [(entry.file_id, "call-1", "complete", entry.size_bytes)]
    assert bench.observer.started == [(entry.file_id, "call-1")]
    assert bench.observer.sealed_records == entry.records


def test_nothing_readable_and_nothing_public_is_on_disk(
    make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = make_bench()
    bench.start()
    recording = bench.open()
    pcm = tone(RATE_HZ)
    feed(recording, pcm)
    bench.recorder.stop(1)  # unfinished: the spooled file stays behind to be looked at too
    content = b""
    for path in tmp_path.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_file() and path.name != "kek":
            content += path.read_bytes()
        assert mode & 0o077 == 0, f"{path} has mode {mode:o}"
    assert len(content) > len(pcm)
    for start in range(0, len(pcm) - 64, 64):
        assert pcm[start : start + 64] not in content
    for number in (b"15551234567", b"15557654321"):
        assert number not in content


def test_a_call_without_audio_leaves_no_file_and_wipes_its_key(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start()
    reservation = bench.recorder.reserve(TENANT)
    key = reservation._key
    assert key is not None
    assert any(key.key.dek)
    recording = bench.recorder.open(reservation, meta=META, layout=Layout.MIXED, on_failure=bench.on_failure)
    recording.event(RecordingEvent(event=EventKind.ANSWERED))
    recording.tick(1 << 62)
    recording.finish(ended_by="caller", reason="cancel")
    assert not any(key.key.dek)
    assert bench.recorder.stop(10)
    assert bench.entries() == []
    assert recording.file_ids == ()


def test_a_released_reservation_is_wiped_and_cannot_be_opened(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start()
    reservation = bench.recorder.reserve(TENANT)
    key = reservation._key
    assert key is not None
    bench.recorder.release(reservation)
    bench.recorder.release(reservation)
    assert not any(key.key.dek)
    with pytest.raises(RecorderUnavailable):
        bench.recorder.open(reservation, meta=META, layout=Layout.MIXED, on_failure=bench.on_failure)


def test_events_before_the_audio_come_first_and_gaps_are_told(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start()
    recording = bench.open()
    recording.event(RecordingEvent(event=EventKind.ANSWERED))
    feed(recording, tone(800))
    feed(recording, bytes(1600) + tone(800), gap_frames=800)
    recording.event(RecordingEvent(event=EventKind.HOLD, channel=0))
    recording.finish(ended_by="called", reason="bye")
    assert bench.recorder.stop(10)
    with bench.reader(bench.entries()[0]) as reader:
        events = [(position, event.event, event.frames) for position, event in reader.events()]
        final = reader.final()
    assert events == [(0, EventKind.ANSWERED, None), (800, EventKind.GAP, 800), (2400, EventKind.HOLD, None)]
    assert final is not None
    assert final[1].frames == 2400


def test_a_gap_over_several_drains_is_told_in_full(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start()
    recording = bench.open()
    feed(recording, tone(800))
    for _ in range(3):
        feed(recording, bytes(3200), gap_frames=1600)
    recording.finish(ended_by="called", reason="bye")
    assert bench.recorder.stop(10)
    with bench.reader(bench.entries()[0]) as reader:
        gaps = [event.frames or 0 for _, event in reader.events() if event.event is EventKind.GAP]
    assert sum(gaps) == 4800


def test_split_keeps_two_channels_in_step(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start()
    recording = bench.open(layout=Layout.SPLIT)
    assert recording.frame_bytes == 4
    pcm = tone(1600, channels=2)
    feed(recording, pcm)
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)
    with bench.reader(bench.entries()[0]) as reader:
        assert reader.meta.channels == 2
        assert b"".join(bytes(record.payload) for record in reader.audio()) == pcm


def test_a_long_call_rolls_into_linked_segments_with_keys_of_their_own(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(segment_seconds=1)
    bench.start()
    recording = bench.open()
    pcm = tone(int(RATE_HZ * 2.5))
    for start in range(0, len(pcm), 3200):
        feed(recording, pcm[start : start + 3200])
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)

    entries = sorted(bench.entries(), key=lambda entry: entry.segment)
    assert [entry.segment for entry in entries] == [0, 1, 2]
    assert [entry.file_id for entry in entries] == list(recording.file_ids)
    assert {entry.recording for entry in entries} == {recording.recording_id}
    audio = b""
    position = 0
    for number, entry in enumerate(entries):
        with bench.reader(entry) as reader:
            meta, final = reader.meta, reader.final()
            assert verify(reader).is_complete
            assert final is not None
            assert meta.previous == (entries[number - 1].file_id if number else None)
            assert final[1].next == (entries[number + 1].file_id if number < 2 else None)
            assert reader.first_position == position
            audio += b"".join(bytes(record.payload) for record in reader.audio())
            position += final[1].frames or 0
    assert audio == pcm


def test_a_roll_without_a_ready_key_goes_on_in_the_old_segment(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(segment_seconds=1, pool=PoolSettings(size=1))
    bench.start()
    recording = bench.open()
    pool = bench.recorder._pool
    assert pool.wait_ready(10)
    pool.stop()  # no key will ever be ready again
    with pytest.raises(NoKeyError):
        pool.take(TENANT)
    pcm = tone(RATE_HZ * 3)
    for start in range(0, len(pcm), 3200):
        feed(recording, pcm[start : start + 3200])
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)
    (entry,) = bench.entries()
    with bench.reader(entry) as reader:
        assert b"".join(bytes(record.payload) for record in reader.audio()) == pcm
    assert bench.failures == []


def test_tick_closes_a_record_that_waits_too_long(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start()
    recording = bench.open()
    feed(recording, tone(160))
    assert bench.observer.sealed_records == 1  # META
    assert recording._open_since_ns is not None
    recording.tick(recording._open_since_ns + 499_000_000)
    assert bench.observer.sealed_records == 1
    recording.tick(recording._open_since_ns + 500_000_000)
    assert bench.observer.sealed_records == 2
    recording.tick(1 << 62)
    assert bench.observer.sealed_records == 2


def test_a_full_queue_fails_the_recording_once_and_keeps_what_was_sealed(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(queue_bytes=1 << 20)
    bench.start()
    recording = bench.open()
    feed(recording, tone(RATE_HZ))
    flood = tone(RATE_HZ * 120)
    feed(recording, flood)  # over a mebibyte at once: more than the queue holds
    assert bench.failed.wait(10)
    feed(recording, tone(RATE_HZ))
    recording.tick(1 << 62)
    recording.finish(ended_by="caller", reason="bye")
    assert bench.recorder.stop(10)
    assert [type(error).__name__ for error in bench.failures] == ["SpoolFullError"]
    (entry,) = bench.entries()
    assert entry.state is IndexState.INCOMPLETE
    with bench.reader(entry) as reader:
        verdict = verify(reader)
    assert (verdict.state, verdict.records) == (RecordingState.INCOMPLETE, entry.records)
    assert verdict.records == 3  # META and both whole records of the first second


def test_a_meta_that_fits_no_record_is_refused_at_once(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start()
    reservation = bench.recorder.reserve(TENANT)
    key = reservation._key
    assert key is not None
    with pytest.raises(MalformedContentError):
        bench.recorder.open(
            reservation,
            meta=replace(META, from_="x" * 8192),
            layout=Layout.MIXED,
            on_failure=bench.on_failure,
        )
    assert not any(key.key.dek)
    assert bench.open(replace(META, from_="x" * 4096))


@pytest.mark.parametrize(
    ("changes", "tenant", "reason"),
    [
        ({"min_free_bytes": 1 << 60}, TENANT, UnavailableReason.NO_SPACE),
        ({}, "nobody", UnavailableReason.UNKNOWN_TENANT),
        ({"pool": PoolSettings(size=0)}, TENANT, UnavailableReason.NO_KEY),
    ],
)
def test_reserve_says_why_it_refuses(
    make_bench: Callable[..., Bench], changes: dict[str, object], tenant: str, reason: UnavailableReason
) -> None:
    bench = make_bench(**changes)
    bench.recorder.start()
    with pytest.raises(RecorderUnavailable) as caught:
        bench.recorder.reserve(tenant)
    assert caught.value.reason is reason
    assert caught.value.reason_label == reason.value
    if tenant == TENANT:
        assert not bench.recorder.readiness().is_ready


def test_a_recorder_that_does_not_run_refuses(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    with pytest.raises(RecorderUnavailable) as caught:
        bench.recorder.reserve(TENANT)
    assert caught.value.reason is UnavailableReason.NOT_RUNNING
    bench.start()
    assert bench.recorder.readiness().is_ready
    assert bench.recorder.stop(10)
    with pytest.raises(RecorderUnavailable):
        bench.recorder.reserve(TENANT)


def test_stop_keeps_an_unfinished_recording_as_incomplete(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.start()
    recording = bench.open()
    feed(recording, tone(RATE_HZ))
    assert not bench.recorder.stop(1)
    assert len(bench.failures) == 1
    again = make_bench()
    report = again.recorder.start()
    (recovered,) = report.files
    assert recovered.is_stored
    (entry,) = again.entries()
    assert (entry.file_id, entry.state, entry.records) == (recording.file_ids[0], IndexState.INCOMPLETE, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_size": 5000},
        {"record_ms": 0},
        {"record_ms": 501},
        {"segment_seconds": 14401},
        {"queue_bytes": 1},
    ],
)
def test_settings_outside_the_format_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        Bench(tmp_path, **changes)


def test_what_the_sink_would_not_take_at_the_start_is_taken_over_and_stored_later(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    segment = make_segment()
    leave_behind(bench.settings.spool_directory, segment, state=segment.state(ended=len(segment.records)))
    put, gate, calls = LocalSink.put, threading.Event(), []

    def fail_first(sink: LocalSink, source: Path, name: ObjectName) -> int:
        calls.append(name)
        if len(calls) == 1:
            raise SinkUnavailableError("full")
        gate.wait(10)
        return put(sink, source, name)

    monkeypatch.setattr(LocalSink, "put", fail_first)
    report = bench.recorder.start()
    assert [file.problem for file in report.files] == ["full"]
    assert recover(bench.settings).files == (), "the file has a living owner"
    gate.set()
    assert bench.recorder.stop(10)
    (entry,) = bench.entries()
    assert (entry.state, entry.object_key) == (IndexState.COMPLETE, segment.state().object_name.key)
    assert (bench.settings.directory / str(entry.object_key)).read_bytes() == segment.content
    assert list(bench.settings.spool_directory.iterdir()) == []
