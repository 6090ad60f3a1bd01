"""Export to WAV: right header to a path and to a pipe, true length over gaps, nothing left behind on failure."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
import tracemalloc
import wave
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from recording.chain import ChainError, ChainFaultKind, Opener
from recording.errors import (
    CorruptRecordingError,
    ExportError,
    MalformedContentError,
    RecordingError,
    TruncatedRecordingError,
)
from recording.export import ExportChannels, ExportPlan, ExportResult, Progress, export, wav_header
from recording.format.content import ChannelLayout, RecordingKind, RecordingMeta
from recording.reader import RecordingReader
from recording.verify import RecordingState
from support.crec import BODY, FILE_ID, META, RECORD, interleave, mixed, ramp, reader, recording

PCM = ramp(9000)
DATA = recording(PCM)
LINKED = recording(PCM, next_file_id=FILE_ID)  # as DATA, and says that a segment follows
CUT = DATA[: BODY + 3 * RECORD + 100]  # META and two AUDIO records
STEREO = replace(META, channels=2, layout=ChannelLayout.CALLER_CALLED)
COMPLETE, INCOMPLETE, CORRUPT = RecordingState.COMPLETE, RecordingState.INCOMPLETE, RecordingState.CORRUPT


def stereo_recording() -> tuple[bytes, bytes, bytes]:
    caller, called = ramp(5000), ramp(5000, start=777)
    return recording(interleave(caller, called), meta=STEREO), caller, called


def second(position: int, pcm: bytes = b"\1\1" * 500, **meta: object) -> RecordingReader:
    """A segment to follow one of those above; `recording` gives all the same file id."""
    changed = replace(META, **({"segment": 1, "previous": FILE_ID} | meta))  # type: ignore[arg-type]
    return reader(recording(pcm, first_position=position, meta=changed))


def export_wav(
    segments: list[RecordingReader],
    destination: Path | BinaryIO,
    *,
    progress: Progress | None = None,
    **plan: object,
) -> ExportResult:
    openers: list[Opener] = [partial(nullcontext, each) for each in segments]
    return export(openers, destination, ExportPlan(**plan), progress=progress)  # type: ignore[arg-type]


def wav(data: bytes | Path) -> tuple[tuple[int, int, int, int], bytes]:
    """(channels, sample bytes, rate, frames) and the samples, as Python's own reader sees them."""
    with wave.open(io.BytesIO(data) if isinstance(data, bytes) else str(data), "rb") as file:
        return file.getparams()[:4], file.readframes(file.getnframes())


def through_pipe(segments: list[RecordingReader], **options: object) -> tuple[bytes, ExportResult]:
    """Export into a pipe while another thread reads it."""
    end, start = os.pipe()
    taken: list[bytes] = []

    def drain() -> None:
        with os.fdopen(end, "rb") as file:
            taken.append(file.read())

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        with os.fdopen(start, "wb", buffering=0) as stream:
            result = export_wav(segments, stream, **options)  # type: ignore[arg-type]
    finally:
        thread.join()
    return taken[0], result


@pytest.mark.parametrize("target", ["path", "pipe"])
def test_a_recording_becomes_a_wav_file_of_the_same_samples(tmp_path: Path, target: str) -> None:
    if target == "path":
        result = export_wav([reader(DATA)], tmp_path / "a.wav")
        data = (tmp_path / "a.wav").read_bytes()
    else:
        data, result = through_pipe([reader(DATA)])
    assert wav(data) == ((1, 2, 8000, 9000), PCM)
    assert data[:44] == wav_header(frames=9000, rate_hz=8000, channels=1)
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    assert result == ExportResult(frames=9000, rate_hz=8000, channels=1, silence_frames=0, states=(COMPLETE,))
    assert result.is_complete


def test_a_path_gets_a_private_file_and_nothing_else(tmp_path: Path) -> None:
    export_wav([reader(DATA)], tmp_path / "a.wav")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.wav"]
    mode = (tmp_path / "a.wav").stat()
    assert (stat.S_IMODE(mode.st_mode), mode.st_nlink) == (0o600, 1)


@pytest.fixture(params=["unnamed", "named"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that knows unnamed files, one that does not."""
    if request.param == "named":
        real_open = os.open

        def refuse_unnamed(path: object, flags: int, *rest: object, **more: object) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "not supported")
            return real_open(path, flags, *rest, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", refuse_unnamed)
    return str(request.param)


def test_nothing_can_be_read_under_a_name_before_the_export_is_whole(
    tmp_path: Path, file_system: str
) -> None:
    seen: list[list[tuple[str, int]]] = []

    def look(_done: int, _total: int | None) -> None:
        seen.append([(entry.name, stat.S_IMODE(entry.stat().st_mode)) for entry in tmp_path.iterdir()])

    export_wav([reader(DATA)], tmp_path / "a.wav", progress=look)

    (entries,) = {tuple(entries) for entries in seen}
    if file_system == "unnamed":
        assert entries == ()
    else:
        ((name, mode),) = entries
        assert (name.startswith(".a.wav."), name.endswith(".part"), mode) == (True, True, 0o600)
    assert [(entry.name, stat.S_IMODE(entry.stat().st_mode)) for entry in tmp_path.iterdir()] == [
        ("a.wav", 0o600)
    ]
    assert wav(tmp_path / "a.wav")[1] == PCM


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, file_system: str) -> None:
    with pytest.raises(TruncatedRecordingError):
        export_wav([reader(CUT)], tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


def test_another_error_of_the_file_system_is_not_taken_for_a_missing_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def full(path: object, flags: int, *rest: object, **more: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.ENOSPC, "no space left on device")
        return real_open(path, flags, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="no space left"):
        export_wav([reader(DATA)], tmp_path / "a.wav")


def test_the_file_and_its_name_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real_sync = os.fsync

    def sync(descriptor: int) -> None:
        real_sync(descriptor)
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append("name" if is_directory and (tmp_path / "a.wav").exists() else "file")

    monkeypatch.setattr(os, "fsync", sync)
    export_wav([reader(DATA)], tmp_path / "a.wav")
    assert synced == ["file", "name"]


def test_a_file_that_exists_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"mine")
    with pytest.raises(ExportError, match="exists already"):
        export_wav([reader(DATA)], path)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.wav", b"mine")]


def test_a_file_that_appears_while_the_export_runs_is_not_replaced_either(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"

    def appear(_done: int, _total: int | None) -> None:
        path.write_bytes(b"theirs")

    with pytest.raises(ExportError, match="exists already"):
        export_wav([reader(DATA)], path, progress=appear)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.wav", b"theirs")]


@pytest.mark.parametrize(
    ("selected", "pick"),
    [
        (ExportChannels.AS_RECORDED, interleave),
        (ExportChannels.MIXED, mixed),
        (ExportChannels.CALLER, lambda *channels: channels[0]),
        (ExportChannels.CALLED, lambda *channels: channels[1]),
    ],
)
@pytest.mark.parametrize("target", ["path", "pipe"])
def test_each_choice_of_channels(tmp_path: Path, selected: ExportChannels, pick: object, target: str) -> None:
    data, caller, called = stereo_recording()
    if target == "path":
        export_wav([reader(data)], tmp_path / "a.wav", channels=selected)
        written = (tmp_path / "a.wav").read_bytes()
    else:
        written, _ = through_pipe([reader(data)], channels=selected)
    form, samples = wav(written)
    assert form == (2 if selected is ExportChannels.AS_RECORDED else 1, 2, 8000, 5000)
    assert samples == pick(caller, called)  # type: ignore[operator]


def test_a_mixed_recording_is_its_own_mix(tmp_path: Path) -> None:
    export_wav([reader(DATA)], tmp_path / "a.wav", channels=ExportChannels.MIXED)
    assert wav(tmp_path / "a.wav")[1] == PCM


@pytest.mark.parametrize("selected", [ExportChannels.CALLER, ExportChannels.CALLED])
def test_a_mixed_recording_has_no_single_party(tmp_path: Path, selected: ExportChannels) -> None:
    with pytest.raises(ExportError, match=selected.value):
        export_wav([reader(DATA)], tmp_path / "a.wav", channels=selected)
    assert list(tmp_path.iterdir()) == []


DAMAGED = [
    pytest.param(CUT, TruncatedRecordingError, INCOMPLETE, id="cut"),
    pytest.param(DATA[: BODY + 3 * RECORD] + b"\x55" * RECORD, CorruptRecordingError, CORRUPT, id="altered"),
]


@pytest.mark.parametrize(("data", "error", "state"), DAMAGED)
def test_a_damaged_recording_is_not_exported_unless_asked(
    tmp_path: Path, data: bytes, error: type[RecordingError], state: RecordingState
) -> None:
    with pytest.raises(error) as caught:
        export_wav([reader(data)], tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []
    stream = io.BytesIO()
    with pytest.raises(error) as told:
        export_wav([reader(data)], stream)
    assert stream.getvalue() == b""
    assert str(told.value) == str(caught.value)

    result = export_wav([reader(data)], tmp_path / "a.wav", allow_partial=True)
    assert wav(tmp_path / "a.wav") == ((1, 2, 8000, 4080), PCM[: 2 * 4080])
    assert (result.states, result.is_complete) == ((state,), False)
    piped, result = through_pipe([reader(data)], allow_partial=True)
    assert (wav(piped)[1], result.states) == (PCM[: 2 * 4080], (state,))


def test_segments_follow_each_other_and_lost_time_is_silence(tmp_path: Path) -> None:
    for name, position in (("joined.wav", 9000), ("lost.wav", 9000 + 20_000)):
        missing = position - 9000
        segments = [reader(LINKED), second(position)]
        result = export_wav(segments, tmp_path / name, allow_partial=missing > 0)
        assert wav(tmp_path / name) == (
            (1, 2, 8000, position + 500),
            PCM + bytes(2 * missing) + b"\1\1" * 500,
        )
        assert (result.silence_frames, result.states) == (missing, (COMPLETE, COMPLETE))
        assert [fault.kind for fault in result.faults] == [ChainFaultKind.HOLE] * (missing > 0)
        piped, _ = through_pipe(segments, allow_partial=missing > 0)
        assert piped == (tmp_path / name).read_bytes()


def test_the_end_that_a_crash_took_is_silence_before_the_next_segment(tmp_path: Path) -> None:
    result = export_wav([reader(CUT), second(9000)], tmp_path / "a.wav", allow_partial=True)
    assert wav(tmp_path / "a.wav")[1] == PCM[: 2 * 4080] + bytes(2 * (9000 - 4080)) + b"\1\1" * 500
    assert result.states == (INCOMPLETE, COMPLETE)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (list, ExportError, "no segment"),
        (lambda: [reader(LINKED), second(8999)], ChainError, "1 frames before"),
        (lambda: [reader(LINKED), second(2**40)], ChainError, "after the last one ends"),
        (lambda: [reader(LINKED), second(9000, rate_hz=16000)], ChainError, "another rate"),
        (lambda: [reader(LINKED), second(9000, recording=b"X" * 16)], ChainError, "another recording"),
        (lambda: [reader(LINKED), second(9000, kind=RecordingKind.LOG)], ExportError, "no s16le audio"),
        (lambda: [reader(LINKED), second(9000, sample_format="opus")], ExportError, "no s16le audio"),
        (lambda: [reader(LINKED), second(9000, segment=3)], ChainError, "segments 1 to 2 are not there"),
        (lambda: [reader(LINKED)], ChainError, "segment 1 is not there"),
        (lambda: [second(9000)], ChainError, "segment 0 is not there"),
    ],
)
def test_segments_that_do_not_belong_together_are_refused(
    tmp_path: Path, make: object, error: type[RecordingError], message: str
) -> None:
    for target in (tmp_path / "a.wav", io.BytesIO()):
        with pytest.raises(error, match=message):
            export_wav(make(), target)  # type: ignore[operator]
        assert isinstance(target, Path) or target.getvalue() == b""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("position", [8999, 2**40])
def test_what_cannot_be_put_in_order_is_refused_even_in_part(tmp_path: Path, position: int) -> None:
    with pytest.raises((ChainError, ExportError), match="frames"):
        export_wav([reader(LINKED), second(position)], tmp_path / "a.wav", allow_partial=True)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_a_recording_has_no_missing_ends(tmp_path: Path) -> None:
    result = export_wav([second(9000)], tmp_path / "a.wav", is_whole=False)
    assert (result.frames, result.is_complete) == (500, True)
    result = export_wav([reader(LINKED)], tmp_path / "b.wav", is_live=True)
    assert (result.frames, result.is_complete) == (9000, True)


@pytest.mark.parametrize(
    "meta", [replace(META, rate_hz=None), replace(META, rate_hz=384_001), replace(META, channels=3)]
)
def test_meta_that_no_wav_file_can_follow_is_refused(meta: RecordingMeta) -> None:
    opened = reader(DATA)
    opened._meta = meta
    with pytest.raises(ExportError, match="META gives rate"):
        export_wav([opened], io.BytesIO())


def test_more_audio_than_wav_can_hold_is_refused() -> None:
    most = (0xFFFFFFFF - 36) // 2
    assert wav_header(frames=most, rate_hz=8000, channels=1)
    with pytest.raises(ExportError, match="a stretch of it"):
        wav_header(frames=most + 1, rate_hz=8000, channels=1)


def test_progress_tells_frames_and_the_total(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    data = recording(ramp(2040 * 130))
    export_wav([reader(data)], tmp_path / "a.wav", progress=lambda done, total: told.append((done, total)))
    total = 2040 * 130
    assert told == [(2040, total), (2040 * 65, total), (2040 * 129, total), (total, total)]
    told.clear()
    cut = [reader(data[: -2 * RECORD])]
    export_wav(
        cut, tmp_path / "b.wav", allow_partial=True, progress=lambda done, total: told.append((done, total))
    )
    assert told[0] == (2040, None)
    assert told[-1] == (2040 * 129, 2040 * 129)


def test_a_recording_that_grows_while_it_is_exported_keeps_its_header(tmp_path: Path) -> None:
    live = io.BytesIO(CUT[: BODY + 3 * RECORD])
    opened = reader(live.getvalue())
    opened._file = live

    class Growing(io.BytesIO):
        def write(self, data: object, /) -> int:
            live.seek(0, os.SEEK_END)
            if live.tell() == BODY + 3 * RECORD:  # after the first pass
                live.write(DATA[BODY + 3 * RECORD :])
            return super().write(data)  # type: ignore[arg-type]

    stream = Growing()
    export_wav([opened], stream, allow_partial=True)
    assert wav(stream.getvalue()) == ((1, 2, 8000, 4080), PCM[: 2 * 4080])


def test_a_stream_that_takes_little_at_a_time_gets_everything() -> None:
    class Slow(io.BytesIO):
        def write(self, data: object, /) -> int:
            return super().write(bytes(data)[:100])  # type: ignore[call-overload]

    stream = Slow()
    export_wav([reader(DATA)], stream)
    assert wav(stream.getvalue())[1] == PCM


def test_a_stream_that_takes_nothing_is_refused() -> None:
    class Full(io.BytesIO):
        def write(self, _data: object, /) -> int:
            return 0

    with pytest.raises(ExportError, match="takes no more"):
        export_wav([reader(DATA)], Full())


def test_part_of_a_frame_in_a_record_leaves_no_file(tmp_path: Path) -> None:
    opened = reader(recording(ramp(41)))
    opened._meta = replace(META, channels=2, layout=None)  # 41 samples are 20 frames and a half
    with pytest.raises(MalformedContentError, match="part of a frame"):
        export_wav([opened], tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    data = recording(bytes(2 * 2040 * 2000))  # 8 MB
    path = tmp_path / "a.crec"
    path.write_bytes(data)
    opened = reader(data[: BODY + RECORD])
    with path.open("rb") as file:
        opened._file = file
        tracemalloc.start()
        try:
            export_wav([opened], tmp_path / "a.wav")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2_000_000
