"""One sample clock for a recording.

What is lost becomes silence of the true length, so that time never shrinks.

Pure: the caller brings the audio, silence put in where some was lost, and says how much of it is that.
Source: docs/recording-format.md, Records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from recording.audio import SAMPLE_BYTES, Buffer
from recording.errors import TimelineError
from recording.format.content import EventKind, RecordingEvent


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

    def __init__(self, *, channels: int, position: int = 0) -> None:
        self._frame_bytes = SAMPLE_BYTES * channels
        self._position = position
        self._in_gap = False  # the last frame laid was a gap's
        self._untold_from = position
        self._untold = 0
        self.gap_frames = 0

    @property
    def position(self) -> int:
        """Where the next frame goes."""
        return self._position

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

    def settle(self) -> Iterator[Gap]:
        """Tell what is still untold of a gap: at the end of a segment or recording."""
        if self._untold:
            yield Gap(position=self._untold_from, frames=self._untold)
        self._untold = 0

    def _frames(self, pcm: Buffer) -> int:
        if len(pcm) % self._frame_bytes:
            raise TimelineError(f"{len(pcm)} bytes are not whole frames of {self._frame_bytes} bytes")
        return len(pcm) // self._frame_bytes

    def _lay(self, pcm: Buffer, frames: int, gap_frames: int) -> Iterator[Piece]:
        if gap_frames:
            yield from self._tell(gap_frames)
        if frames > gap_frames:
            yield from self._end_gap()
        if frames:
            yield self._advance(pcm, frames)

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
