"""The audio that an export writes: a stretch of a recording's segments, its channels chosen, lost time as silence."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Final, assert_never

from recording.audio import SAMPLE_BYTES, Buffer, channel, mix_channels, silence
from recording.chain import ChainCheck, ChainError, ChainFault, ChainFaultKind, Opener
from recording.errors import CorruptRecordingError, ExportError, TruncatedRecordingError
from recording.format.content import SAMPLE_FORMAT, RecordingKind, RecordingMeta
from recording.moment import Stretch
from recording.reader import RecordingReader
from recording.verify import RecordingState

Progress = Callable[[int, int | None], None]
"""Frames written so far, and of how many (None: not known)."""

_PROGRESS_RECORDS: Final = 64
_RATE_MAX: Final = 384_000  # twice the fastest rate in use; far below what would break a header's byte rate
_SILENCE_MAX_S: Final = 31 * 86_400  # a hole longer than any call is damage, not lost time
_FATAL: Final = frozenset({ChainFaultKind.FOREIGN, ChainFaultKind.OVERLAP})


class ExportChannels(enum.Enum):
    """What becomes of the two parties. `CALLER`, `CALLED` and `BOTH` need a recording with two channels."""

    AS_RECORDED = "as-recorded"
    MIXED = "mixed"
    CALLER = "caller"
    CALLED = "called"
    BOTH = "both"


class AudioSource:
    """One stretch of one recording. Each pass over it opens the segments anew, one at a time."""

    def __init__(
        self,
        segments: Sequence[Opener],
        *,
        selected: ExportChannels,
        stretch: Stretch,
        is_whole: bool,
        is_live: bool,
        allow_partial: bool,
        progress: Progress | None,
    ) -> None:
        if not segments:
            raise ExportError("there is no segment to export")
        self._segments = segments
        self._selected = selected
        self._allow_partial = allow_partial
        self._progress = progress
        self._is_whole = is_whole and stretch.is_everything
        self._is_live = is_live
        with segments[0]() as reader:
            meta = reader.meta
            self.rate_hz, self._recorded_channels = _audio_form(meta, reader)
            origin = reader.first_position
        self.channels = _channels(selected, self._recorded_channels)
        start, self._stop = stretch.frames(rate_hz=self.rate_hz, started_at=meta.started_at)
        self._start = origin if start is None else max(start, origin)
        self._first = 0 if start is None else self._segment_at(self._start)
        self.total = self._known_total()
        self.frames = 0
        self.silence_frames = 0
        self.states: list[RecordingState] = []
        self.faults: list[ChainFault] = []

    def measure(self) -> int:
        """Frames that `pcm` will give, found by reading all of it. Raises as `pcm`."""
        self.total = sum(frames for _, frames in self._walk())
        return self.total

    def pcm(self) -> Iterator[Buffer]:
        """The samples to write; no more than `measure` found, if it was asked.

        Raises:
            TruncatedRecordingError, CorruptRecordingError, ChainError: unless damage is allowed for.
            ExportError: the stretch begins after the end, or a segment holds no such audio.
        """
        limit = self.total
        self.frames = self.silence_frames = 0
        for number, (payload, frames) in enumerate(self._walk()):
            keep = frames if limit is None else min(frames, limit - self.frames)
            if payload is None:
                self.silence_frames += keep
                yield from self._silence(keep)
            elif keep:
                yield self._convert(payload)[: keep * SAMPLE_BYTES * self.channels]
                self.frames += keep
            if number % _PROGRESS_RECORDS == 0:
                self._report()
        self.total = self.frames
        self._report()

    def _walk(self) -> Iterator[tuple[memoryview | None, int]]:
        """Audio as recorded and its frames; None: that much time is missing."""
        self.states, self.faults = [], []
        check = ChainCheck(is_whole=self._is_whole, is_live=self._is_live)
        position = self._start
        for opener in self._segments[self._first :]:
            if self._is_past(position):
                break
            with opener() as reader:
                _audio_form(reader.meta, reader)
                self._judge(check.begin(reader))
                gap = self._gap_before(reader, position)
                if gap:
                    yield None, gap
                    position += gap
                    if self._is_past(position):
                        break
                for payload, frames in self._payloads(reader):
                    yield payload, frames
                    position += frames
                final = reader.final()
                check.end(
                    position if self._is_past(position) or final is None else final[0], final and final[1]
                )
        self._judge(check.finish())
        if position == self._start:
            raise ExportError("no audio lies there: the recording ends before")

    def _payloads(self, reader: RecordingReader) -> Iterator[tuple[memoryview, int]]:
        """Audio of one segment within the stretch; notes how it ended."""
        frame_bytes = SAMPLE_BYTES * self._recorded_channels
        start = self._start if self._start > reader.first_position else None
        try:
            for record in reader.audio(start, self._stop):
                yield record.payload, len(record.payload) // frame_bytes
        except (TruncatedRecordingError, CorruptRecordingError) as error:
            if not self._allow_partial:
                raise
            cut = isinstance(error, TruncatedRecordingError)
            self.states.append(RecordingState.INCOMPLETE if cut else RecordingState.CORRUPT)
        else:
            self.states.append(RecordingState.COMPLETE)

    def _is_past(self, position: int) -> bool:
        return self._stop is not None and position >= self._stop

    def _judge(self, faults: Sequence[ChainFault]) -> None:
        if any(fault.kind in _FATAL or not self._allow_partial for fault in faults):
            raise ChainError(faults)
        self.faults += faults

    def _gap_before(self, reader: RecordingReader, position: int) -> int:
        gap = reader.first_position - position
        if gap > _SILENCE_MAX_S * self.rate_hz:
            raise ExportError(f"segment {reader.file_id.hex()} starts {gap} frames after the last one ends")
        if self._stop is not None:
            gap = min(gap, self._stop - position)
        return max(0, gap)

    def _segment_at(self, frame: int) -> int:
        """The segment that holds a frame, or the one before it: binary search, one record of each that is looked at."""
        low, high = 0, len(self._segments)
        while high - low > 1:
            middle = (low + high) // 2
            with self._segments[middle]() as reader:
                if reader.first_position <= frame:
                    low = middle
                else:
                    high = middle
        return low

    def _known_total(self) -> int | None:
        if self._stop is not None:
            return self._stop - self._start
        with self._segments[-1]() as reader:
            final = reader.final()
        return None if final is None else max(0, final[0] - self._start)

    def _convert(self, payload: memoryview) -> Buffer:
        if self._recorded_channels == 1:
            return payload
        match self._selected:
            case ExportChannels.AS_RECORDED | ExportChannels.BOTH:
                return payload
            case ExportChannels.MIXED:
                return mix_channels(payload)
            case ExportChannels.CALLER:
                return channel(payload, 0, channels=2)
            case ExportChannels.CALLED:
                return channel(payload, 1, channels=2)
            case _:
                assert_never(self._selected)

    def _silence(self, frames: int) -> Iterator[bytes]:
        while frames:
            part = min(frames, self.rate_hz)
            frames -= part
            self.frames += part
            yield silence(part, channels=self.channels)

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self.frames, self.total)


def _channels(selected: ExportChannels, recorded: int) -> int:
    single = {ExportChannels.CALLER, ExportChannels.CALLED}
    if recorded == 1 and selected in single | {ExportChannels.BOTH}:
        party = (
            "two channels" if selected is ExportChannels.BOTH else f"no channel of the {selected.value} party"
        )
        raise ExportError(f"the recording is mixed: it has {'not ' * (party == 'two channels')}{party}")
    return recorded if selected in {ExportChannels.AS_RECORDED, ExportChannels.BOTH} else 1


def _audio_form(meta: RecordingMeta, reader: RecordingReader) -> tuple[int, int]:
    """Rate and channels."""
    if meta.kind not in {None, RecordingKind.AUDIO} or meta.sample_format not in {None, SAMPLE_FORMAT}:
        raise ExportError(f"segment {reader.file_id.hex()} holds no {SAMPLE_FORMAT} audio")
    if not meta.rate_hz or meta.rate_hz > _RATE_MAX or meta.channels not in {1, 2}:
        raise ExportError(
            f"META gives rate {meta.rate_hz} and {meta.channels} channels, which no audio file gets"
        )
    return meta.rate_hz, meta.channels
