"""One sample clock for a recording.

What is lost becomes silence of the true length, so that time never shrinks.

Pure: the caller brings audio and says how much time went by. Source: docs/recording-format.md, Records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from recording.audio import SAMPLE_BYTES, Buffer, silence
from recording.errors import TimelineError
from recording.format.content import EventKind, RecordingEvent
from recording.format.limits import MAX_SEGMENT_SECONDS

_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """Whole frames that start at `position`.

    A view of the caller's buffer: use it before the buffer is filled again.
    """

    position: int
    pcm: Buffer = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """`frames` frames from `position` on are silence because nothing was there to record."""

    position: int
    frames: int

    def event(self, at: datetime | None = None) -> RecordingEvent:
        """The EVENT that goes into the recording."""
        return RecordingEvent(event=EventKind.GAP, frames=self.frames, at=at)


Piece = Audio | Gap


class Timeline:
    """Lays a call's audio on its sample clock, as pieces for `SegmentWriter.append` and `SegmentWriter.event`.

    It outlives segments: positions go on when a recording rolls. A gap is told when it begins, so that a crash in it
    leaves a trace, and once more when it ends, with the frames that came after the first telling: the frames of all
    gap events add up to the silence that was put in, however many drains a gap lasts. One thread; use up each
    iterator before the next call.
    """

    def __init__(self, *, rate_hz: int, channels: int, position: int = 0) -> None:
        self._rate_hz = rate_hz
        self._channels = channels
        self._frame_bytes = SAMPLE_BYTES * channels
        self._max_gap = MAX_SEGMENT_SECONDS * rate_hz
        self._position = position
        self._in_gap = False  # the last frame laid was a gap's
        self._untold_from = position
        self._untold = 0
        self.gap_frames = 0
        self.late_frames = 0

    @property
    def position(self) -> int:
        """Where the next frame goes."""
        return self._position

    def frames_at(self, elapsed_ns: int) -> int:
        """Frames that a clock of this rate has counted after `elapsed_ns` of monotonic time."""
        return elapsed_ns * self._rate_hz // _NS_PER_S

    def take(self, pcm: Buffer, *, gap_frames: int = 0) -> Iterator[Piece]:
        """Audio that goes on where the last ended.

        Its first `gap_frames` frames are silence that the source put in.

        Raises:
            TimelineError: part of a frame, or more gap than audio. Nothing was laid.
        """
        frames = self._frames(pcm)
        if not 0 <= gap_frames <= frames:
            raise TimelineError(f"{gap_frames} gap frames in {frames} frames")
        return self._lay(pcm, frames, gap_frames)

    def place(self, start: int, pcm: Buffer) -> Iterator[Piece]:
        """Audio that belongs at frame `start`.

        Frames before it that never came become silence; frames whose time has been laid already are dropped
        and counted in `late_frames`.

        Raises:
            TimelineError: part of a frame, or `start` lies further ahead than a segment is long. Nothing was
                laid.
        """
        frames = self._frames(pcm)
        self._check_ahead(start)
        late = min(frames, max(0, self._position - start))
        return self._place(start, memoryview(pcm)[late * self._frame_bytes :], frames - late, late)

    def fill_to(self, position: int) -> Iterator[Piece]:
        """Silence up to `position`, for time that went by without audio.

        Nothing if the audio is there already.

        Raises:
            TimelineError: further ahead than a segment is long.
        """
        self._check_ahead(position)
        return self._fill(position)

    def settle(self) -> Iterator[Gap]:
        """Tell what is still untold of a gap: at the end of a segment or recording."""
        if self._untold:
            yield Gap(position=self._untold_from, frames=self._untold)
        self._untold = 0

    def _frames(self, pcm: Buffer) -> int:
        if len(pcm) % self._frame_bytes:
            raise TimelineError(f"{len(pcm)} bytes are not whole frames of {self._frame_bytes} bytes")
        return len(pcm) // self._frame_bytes

    def _check_ahead(self, position: int) -> None:
        if position - self._position > self._max_gap:
            raise TimelineError(f"frame {position} is {position - self._position} frames ahead")

    def _lay(self, pcm: Buffer, frames: int, gap_frames: int) -> Iterator[Piece]:
        if gap_frames:
            yield from self._tell(gap_frames)
        if frames > gap_frames:
            yield from self._end_gap()
        if frames:
            yield self._advance(pcm, frames)

    def _place(self, start: int, pcm: memoryview, frames: int, late: int) -> Iterator[Piece]:
        self.late_frames += late
        yield from self._fill(start)
        yield from self._lay(pcm, frames, 0)

    def _fill(self, position: int) -> Iterator[Piece]:
        missing = position - self._position
        if missing <= 0:
            return
        yield from self._tell(missing)
        while missing:
            part = min(missing, self._rate_hz)  # a second at a time: a long gap costs no memory
            missing -= part
            yield self._advance(silence(part, channels=self._channels), part)

    def _tell(self, frames: int) -> Iterator[Gap]:
        """Count a gap that starts here.

        The first part of it is told at once, what follows is kept for its end.
        """
        self.gap_frames += frames
        if self._in_gap:
            if not self._untold:
                self._untold_from = self._position
            self._untold += frames
            return
        self._in_gap = True
        yield Gap(position=self._position, frames=frames)

    def _end_gap(self) -> Iterator[Gap]:
        self._in_gap = False
        return self.settle()

    def _advance(self, pcm: Buffer, frames: int) -> Audio:
        piece = Audio(position=self._position, pcm=pcm)
        self._position += frames
        return piece
