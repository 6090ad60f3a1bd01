"""A recording to an audio file, in bounded memory: readable, or sealed to who may read it.

Whoever calls this has asked for the reason and written the audit line.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recording.audio import Buffer
from recording.chain import ChainFault, Opener
from recording.cms import Recipient, seal
from recording.errors import ExportError
from recording.export_encoder import ExportForm, encoding, form_of, wav_header
from recording.export_source import AudioSource, ExportChannels, Progress
from recording.moment import WHOLE, Stretch
from recording.private_file import private_file
from recording.scratch import Scratch
from recording.verify import RecordingState

__all__ = [
    "ExportChannels",
    "ExportForm",
    "ExportPlan",
    "ExportResult",
    "Progress",
    "export",
    "form_of",
    "wav_header",
    "write_out",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """What to write of a recording, and how.

    `recipients`: certificates it is sealed to; none: what is written can be read by whoever gets it.
    `is_whole`: the segments are all that the recording has, so that a missing first or last one is a fault.
    `is_live`: but for one that is still being recorded.
    `allow_partial`: write what is authentic of a recording that is cut off, altered or has lost a segment.
    """

    form: ExportForm = ExportForm.WAV
    channels: ExportChannels = ExportChannels.AS_RECORDED
    stretch: Stretch = WHOLE
    recipients: tuple[Recipient, ...] = ()
    is_whole: bool = True
    is_live: bool = False
    allow_partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written. `states`: one per segment; `faults`: between them. Of either: audio may be missing."""

    frames: int
    rate_hz: int
    channels: int
    silence_frames: int
    states: tuple[RecordingState, ...]
    faults: tuple[ChainFault, ...] = ()

    @property
    def is_complete(self) -> bool:
        return not self.faults and all(state is RecordingState.COMPLETE for state in self.states)


def export(
    segments: Sequence[Opener],
    destination: Path | BinaryIO,
    plan: ExportPlan,
    *,
    progress: Progress | None = None,
) -> ExportResult:
    """Write the audio of `segments`, which are one recording's, in order.

    A path is created with mode 0600 and appears only when it is whole; an existing file is never replaced. A stream
    may be a pipe; what must state its length first is read twice for it. Where audio is missing between segments,
    silence of the true length stands for it.

    Args:
        segments: each opened when it is needed, one at a time, more than once.
        destination: a path, or a binary stream, which stays open.
        plan: what to write, and how.
        progress: called from time to time, and at the end.

    Raises:
        TruncatedRecordingError, CorruptRecordingError: without `allow_partial`, the first segment that is not
            complete. Nothing is left at a path; nothing was written to a stream.
        ChainError: a segment is missing, or they do not belong together.
        ExportError: the channel is not there, the file exists, or it would pass what the form can hold.
        MalformedContentError: META or the sequence of records is not what the format promises.
        OSError: from the file system.
    """
    source = AudioSource(
        segments,
        selected=plan.channels,
        stretch=plan.stretch,
        is_whole=plan.is_whole,
        is_live=plan.is_live,
        allow_partial=plan.allow_partial,
        progress=progress,
    )
    if isinstance(destination, Path):
        with private_file(destination) as file:
            _write(source, file, plan, scratch_in=destination.parent, is_seekable=True)
    else:
        _write(source, destination, plan, scratch_in=Path(tempfile.gettempdir()), is_seekable=False)
        destination.flush()
    return ExportResult(
        frames=source.frames,
        rate_hz=source.rate_hz,
        channels=source.channels,
        silence_frames=source.silence_frames,
        states=tuple(source.states),
        faults=tuple(source.faults),
    )


def write_out(content: Iterable[Buffer], target: BinaryIO, recipients: Sequence[Recipient]) -> None:
    """All of `content`, sealed if there are recipients. A raw stream may take less than it is given at a time."""
    for part in seal(content, recipients) if recipients else content:
        view = memoryview(part)
        while view:
            written = target.write(view)
            if not written:
                raise ExportError("the stream takes no more; it must be one that blocks")
            view = view[written:]


def _write(
    source: AudioSource, target: BinaryIO, plan: ExportPlan, *, scratch_in: Path, is_seekable: bool
) -> None:
    can_go_back = is_seekable and not plan.recipients
    if plan.form is ExportForm.WAV:
        if can_go_back:
            _write_wav(source, target)
        else:
            source.measure()  # before a byte goes out: it finds the length, and any damage
            write_out(_wav(source), target, plan.recipients)
    elif can_go_back:
        with encoding(target, form=plan.form, rate_hz=source.rate_hz, channels=source.channels) as encoder:
            for pcm in source.pcm():
                encoder.write(pcm)
    else:
        with contextlib.closing(Scratch(scratch_in)) as scratch:
            with encoding(
                scratch, form=plan.form, rate_hz=source.rate_hz, channels=source.channels
            ) as encoder:
                for pcm in source.pcm():
                    encoder.write(pcm)
            write_out(scratch.blocks(), target, plan.recipients)


def _wav(source: AudioSource) -> Iterator[Buffer]:
    """The whole file of a source that was measured; what a recording grows by meanwhile is left out."""
    assert source.total is not None, "it was measured"
    yield wav_header(frames=source.total, rate_hz=source.rate_hz, channels=source.channels)
    yield from source.pcm()


def _write_wav(source: AudioSource, file: BinaryIO) -> None:
    """The length is put in when it is known."""
    file.write(wav_header(frames=0, rate_hz=source.rate_hz, channels=source.channels))
    file.writelines(source.pcm())
    header = wav_header(frames=source.frames, rate_hz=source.rate_hz, channels=source.channels)
    file.seek(0)
    file.write(header)
