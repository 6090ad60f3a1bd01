"""Stretches of a recording of several segments: the right frames, and nothing decrypted that lies outside."""

from __future__ import annotations

import io
import wave
from datetime import timedelta
from pathlib import Path

import pytest

import recording.reader
from recording.chain import ChainError
from recording.errors import CorruptRecordingError, ExportError
from recording.export import ExportPlan, export
from recording.format.record import Record
from recording.moment import Moment, Stretch, parse_moment
from support.crec import BODY, META, RECORD, openers, ramp, segmented

RATE = 8000
SECONDS = 120
PCM = ramp(SECONDS * RATE)
SEGMENTS = segmented(PCM, [30 * RATE] * 4)


def cut_out(plan: ExportPlan, segments: list[bytes] = SEGMENTS) -> bytes:
    stream = io.BytesIO()
    export(openers(segments), stream, plan)
    stream.seek(0)
    with wave.open(stream) as file:
        return file.readframes(file.getnframes())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Indices of the records that are decrypted from here on."""
    indices: list[int] = []
    real = recording.reader.open_record

    def counting(body: object, *, index: int, sealed: bytes) -> Record:
        indices.append(index)
        return real(body, index=index, sealed=sealed)  # type: ignore[arg-type]

    monkeypatch.setattr(recording.reader, "open_record", counting)
    return indices


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("00:00:00", "00:00:01"), ("00:00:29.5", "00:01:00.5"), ("30", "60"), ("59.999875", "60"),
        ("1:30", "1:30.000125"), ("45", None), (None, "0.5"), ("119.5", "00:05:00"),
        ("2026-03-01T12:00:30.250Z", "2026-03-01T13:00:31.250+01:00"),
    ],
)  # fmt: skip
def test_a_stretch_is_cut_out_to_the_frame(start: str | None, end: str | None) -> None:
    def seconds(text: str | None, default: float) -> float:
        moment = timedelta(seconds=default) if text is None else parse_moment(text)
        if not isinstance(moment, timedelta):
            assert META.started_at is not None
            moment -= META.started_at
        return min(moment.total_seconds(), SECONDS)

    first, last = round(seconds(start, 0) * RATE), round(seconds(end, SECONDS) * RATE)
    stretch = Stretch(start=start and parse_moment(start), end=end and parse_moment(end))  # type: ignore[arg-type]
    assert cut_out(ExportPlan(stretch=stretch)) == PCM[2 * first : 2 * last]


def test_the_rest_is_not_decrypted(tmp_path: Path, opened: list[int]) -> None:
    stretch = Stretch(start=parse_moment("00:01:10"), end=parse_moment("00:01:11"))
    result = export(openers(SEGMENTS), tmp_path / "a.wav", ExportPlan(stretch=stretch))
    assert result.frames == RATE
    # A second has five records; 60 others lie in that segment and 480 in all. Finding it takes a search among the
    # segments and one among the records, each of a few steps.
    assert 5 <= len(opened) <= 30
    opened.clear()
    export(openers(SEGMENTS), tmp_path / "all.wav", ExportPlan())
    assert len(opened) > 480


def test_damage_outside_the_stretch_does_no_harm(tmp_path: Path) -> None:
    damaged = bytearray(SEGMENTS[2])
    damaged[BODY + 90 * RECORD + 7] ^= 1  # 22.9 s into the segment
    segments = [*SEGMENTS[:2], bytes(damaged), SEGMENTS[3]]
    before = Stretch(start=parse_moment("60"), end=parse_moment("80"))
    assert cut_out(ExportPlan(stretch=before), segments) == PCM[2 * 60 * RATE : 2 * 80 * RATE]
    across = Stretch(start=parse_moment("75"), end=parse_moment("85"))
    with pytest.raises(CorruptRecordingError):
        cut_out(ExportPlan(stretch=across), segments)


def test_a_segment_that_is_missing_matters_where_it_is_needed() -> None:
    segments = [SEGMENTS[0], *SEGMENTS[2:]]
    within = Stretch(start=parse_moment("70"), end=parse_moment("100"))
    assert cut_out(ExportPlan(stretch=within), segments) == PCM[2 * 70 * RATE : 2 * 100 * RATE]
    across = Stretch(start=parse_moment("29"), end=parse_moment("61"))
    with pytest.raises(ChainError, match="segment 1 is not there"):
        cut_out(ExportPlan(stretch=across), segments)
    patched = cut_out(ExportPlan(stretch=across, allow_partial=True), segments)
    assert patched == PCM[58 * RATE : 60 * RATE] + bytes(60 * RATE) + PCM[120 * RATE : 122 * RATE]


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [("10", "10", "empty"), ("10", "5", "empty"), ("00:02:00", None, "ends before"), ("500", "600", "ends before"),
     ("2026-03-01T11:00:00Z", "2026-03-01T12:00:00Z", "empty")],
)  # fmt: skip
def test_a_stretch_without_audio_is_an_error(start: str, end: str | None, words: str) -> None:
    stretch = Stretch(start=parse_moment(start), end=None if end is None else parse_moment(end))
    with pytest.raises(ExportError, match=words):
        cut_out(ExportPlan(stretch=stretch))


def test_the_clock_needs_a_recording_that_knows_it() -> None:
    stretch = Stretch(start=parse_moment("2026-03-01T12:00:30Z"))
    with pytest.raises(ExportError, match="does not say when it started"):
        stretch.frames(rate_hz=RATE, started_at=None)


@pytest.mark.parametrize(
    "text", ["", "soon", "1:60", "1:60:00", "2026-03-01T12:00:30", "-5", "1:2:3:4", "12:3x"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time|more than 59|zone"):
        parse_moment(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [("90", timedelta(seconds=90)), ("1:30", timedelta(seconds=90)), ("9:00:00.5", timedelta(hours=9, seconds=0.5))],
)  # fmt: skip
def test_moments(text: str, moment: Moment) -> None:
    assert parse_moment(text) == moment
