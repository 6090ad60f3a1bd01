"""A recording to a WAV file, in bounded memory, header right from the first byte a reader of it can see.

An export is readable audio: whoever calls this has asked for the reason and written the audit line.
Source: RIFF WAVE, PCM format tag 1; docs/recording-format.md, Records.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import secrets
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, assert_never

from recording.audio import SAMPLE_BYTES, Buffer, channel, mix_channels, silence
from recording.errors import CorruptRecordingError, ExportError, TruncatedRecordingError
from recording.format.content import SAMPLE_FORMAT, RecordingKind
from recording.reader import RecordingReader
from recording.verify import RecordingState, verify

Progress = Callable[[int, int | None], None]
"""Frames written so far, and of how many (None: the recording has no end yet)."""

_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
_DATA_MAX: Final = 0xFFFFFFFF - (_HEADER.size - 8)
_PCM: Final = 1
_PROGRESS_RECORDS: Final = 64
_RATE_MAX: Final = 384_000  # twice the fastest rate in use; far below what would break the header's byte rate
_NO_UNNAMED_FILES: Final = {errno.EOPNOTSUPP, errno.EISDIR}


class WAVChannels(enum.Enum):
    """What becomes of the two parties. `CALLER` and `CALLED` need a recording with two channels."""

    AS_RECORDED = "as-recorded"
    MIXED = "mixed"
    CALLER = "caller"
    CALLED = "called"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written. `states`: one per segment; anything but complete means that audio may be missing."""

    frames: int
    rate_hz: int
    channels: int
    silence_frames: int
    states: tuple[RecordingState, ...]

    @property
    def is_complete(self) -> bool:
        return all(state is RecordingState.COMPLETE for state in self.states)


def export_wav(
    segments: Sequence[RecordingReader],
    destination: Path | BinaryIO,
    *,
    channels: WAVChannels = WAVChannels.AS_RECORDED,
    allow_partial: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Write the audio of `segments`, which are one recording's, in order, as 16-bit PCM.

    A path is created with mode 0600 and appears only when it is whole; an existing file is never replaced. A stream
    (a pipe will do) gets its header after a first pass over the recording, which finds the length; what a live
    recording grows by in the meantime is left for the next export. Where audio is missing between segments, silence
    of the true length stands for it.

    Args:
        segments: opened readers, by ascending position; they stay open.
        destination: a path, or a binary stream, which stays open.
        channels: which channels to write.
        allow_partial: export the authentic part of a recording that was cut off or altered.
        progress: called from time to time, and at the end.

    Raises:
        TruncatedRecordingError, CorruptRecordingError: without `allow_partial`, the first segment that is not
            complete. Nothing is left at a path; nothing was written to a stream.
        ExportError: the segments do not belong together, the channel is not there, the file exists, or it would pass
            what WAV can hold.
        MalformedContentError: META or the sequence of records is not what the format promises.
        OSError: from the file system.
    """
    source = _Source(segments, channels, allow_partial=allow_partial, progress=progress)
    if isinstance(destination, Path):
        return _to_path(source, destination)
    return _to_stream(source, destination)


def wav_header(*, frames: int, rate_hz: int, channels: int) -> bytes:
    """The 44 bytes before the samples. Raises ExportError where the sizes do not fit into 32 bits."""
    frame_bytes = SAMPLE_BYTES * channels
    data_bytes = frames * frame_bytes
    if data_bytes > _DATA_MAX:
        raise ExportError(
            f"{data_bytes} bytes of audio are more than a WAV file holds; export the segments one by one"
        )
    return _HEADER.pack(
        b"RIFF", _HEADER.size - 8 + data_bytes, b"WAVE", b"fmt ", 16, _PCM, channels, rate_hz,
        rate_hz * frame_bytes, frame_bytes, 8 * SAMPLE_BYTES, b"data", data_bytes,
    )  # fmt: skip


class _Source:
    """The audio of the segments, converted, with the time between them filled."""

    def __init__(
        self,
        segments: Sequence[RecordingReader],
        selected: WAVChannels,
        *,
        allow_partial: bool,
        progress: Progress | None,
    ) -> None:
        if not segments:
            raise ExportError("there is no segment to export")
        self._segments = segments
        self._selected = selected
        self._allow_partial = allow_partial
        self._progress = progress
        self.rate_hz, self._recorded_channels = _audio_form(segments)
        if self._recorded_channels == 1 and selected in {WAVChannels.CALLER, WAVChannels.CALLED}:
            raise ExportError(f"the recording is mixed: it has no channel of the {selected.value} party")
        as_recorded = selected is WAVChannels.AS_RECORDED
        self.channels = self._recorded_channels if as_recorded else 1
        self._start = segments[0].first_position
        self.frames = 0
        self.silence_frames = 0
        self.states: list[RecordingState] = []

    def result(self) -> ExportResult:
        return ExportResult(
            frames=self.frames,
            rate_hz=self.rate_hz,
            channels=self.channels,
            silence_frames=self.silence_frames,
            states=tuple(self.states),
        )

    def header(self, frames: int) -> bytes:
        return wav_header(frames=frames, rate_hz=self.rate_hz, channels=self.channels)

    def measure(self) -> int:
        """Frames that `pcm` will give, found by verifying every record. Raises as `pcm`."""
        position = self._start
        frame_bytes = SAMPLE_BYTES * self._recorded_channels
        for reader in self._segments:
            verdict = verify(reader)
            if not verdict.is_complete and not self._allow_partial:
                raise _incomplete(verdict.state, verdict.records, verdict.detail)
            self._gap_before(reader, position)
            position = reader.first_position + verdict.audio_bytes // frame_bytes
        return position - self._start

    def pcm(self, limit: int | None = None) -> Iterator[Buffer]:
        """The samples to write, at most `limit` frames of them."""
        total = self._total() if limit is None else limit
        for reader in self._segments:
            for part in self._silence(self._gap_before(reader, self._start + self.frames)):
                yield self._counted(part)
            for number, (payload, frames) in enumerate(self._payloads(reader)):
                keep = frames if limit is None else min(frames, limit - self.frames)
                if keep:
                    yield self._counted(payload[: keep * SAMPLE_BYTES * self.channels])
                if number % _PROGRESS_RECORDS == 0:
                    self._report(total)
        self._report(self.frames)

    def _payloads(self, reader: RecordingReader) -> Iterator[tuple[Buffer, int]]:
        """Converted audio of one segment and its frames; notes how the segment ended."""
        frame_bytes = SAMPLE_BYTES * self._recorded_channels
        try:
            for record in reader.audio():
                yield self._convert(record.payload), len(record.payload) // frame_bytes
        except (TruncatedRecordingError, CorruptRecordingError) as error:
            if not self._allow_partial:
                raise
            cut = isinstance(error, TruncatedRecordingError)
            self.states.append(RecordingState.INCOMPLETE if cut else RecordingState.CORRUPT)
        else:
            self.states.append(RecordingState.COMPLETE)

    def _convert(self, payload: memoryview) -> Buffer:
        if self._recorded_channels == 1:
            return payload
        match self._selected:
            case WAVChannels.AS_RECORDED:
                return payload
            case WAVChannels.MIXED:
                return mix_channels(payload)
            case WAVChannels.CALLER:
                return channel(payload, 0, channels=2)
            case WAVChannels.CALLED:
                return channel(payload, 1, channels=2)
            case _:
                assert_never(self._selected)

    def _counted(self, pcm: Buffer) -> Buffer:
        self.frames += len(pcm) // (SAMPLE_BYTES * self.channels)
        return pcm

    def _silence(self, frames: int) -> Iterator[bytes]:
        self.silence_frames += frames
        while frames:
            part = min(frames, self.rate_hz)
            frames -= part
            yield silence(part, channels=self.channels)

    def _gap_before(self, reader: RecordingReader, position: int) -> int:
        gap = reader.first_position - position
        if gap < 0:
            raise ExportError(f"segment {reader.file_id.hex()} starts {-gap} frames before the last one ends")
        if gap * SAMPLE_BYTES * self.channels > _DATA_MAX:
            raise ExportError(f"segment {reader.file_id.hex()} starts {gap} frames after the last one ends")
        return gap

    def _total(self) -> int | None:
        final = self._segments[-1].final()
        return None if final is None else final[0] - self._start

    def _report(self, total: int | None) -> None:
        if self._progress is not None:
            self._progress(self.frames, total)


def _audio_form(segments: Sequence[RecordingReader]) -> tuple[int, int]:
    """Rate and channels, the same in all segments of one recording."""
    first = segments[0].meta
    for reader in segments:
        meta = reader.meta
        if meta.kind not in {None, RecordingKind.AUDIO} or meta.sample_format not in {None, SAMPLE_FORMAT}:
            raise ExportError(f"segment {reader.file_id.hex()} holds no {SAMPLE_FORMAT} audio")
        if meta.recording != first.recording:
            raise ExportError(f"segment {reader.file_id.hex()} belongs to another recording")
        if (meta.rate_hz, meta.channels) != (first.rate_hz, first.channels):
            raise ExportError(f"segment {reader.file_id.hex()} has another rate or number of channels")
    if not first.rate_hz or first.rate_hz > _RATE_MAX or first.channels not in {1, 2}:
        raise ExportError(
            f"META gives rate {first.rate_hz} and {first.channels} channels, which no WAV file gets"
        )
    return first.rate_hz, first.channels


def _incomplete(state: RecordingState, records: int, detail: str) -> Exception:
    if state is RecordingState.CORRUPT:
        return CorruptRecordingError(records, detail)
    return TruncatedRecordingError(records, detail)


def _to_stream(source: _Source, stream: BinaryIO) -> ExportResult:
    frames = source.measure()
    _write_all(stream, source.header(frames))
    for pcm in source.pcm(limit=frames):
        _write_all(stream, pcm)
    stream.flush()
    return source.result()


def _to_path(source: _Source, path: Path) -> ExportResult:
    """Write a file that has no name yet, then give it one; that fails where the name is taken.

    A process that is killed meanwhile leaves no readable audio behind, where the file system knows such files.
    """
    if os.path.lexists(path):
        raise _taken(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _new_file(path, directory) as (file, link_from):
            file.write(source.header(0))
            for pcm in source.pcm():
                file.write(pcm)
            header = source.header(source.frames)
            file.seek(0)
            file.write(header)
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(link_from, path.name, src_dir_fd=directory, dst_dir_fd=directory)
            except FileExistsError as error:
                raise _taken(path) from error
        os.fsync(directory)
    finally:
        os.close(directory)
    return source.result()


@contextlib.contextmanager
def _new_file(path: Path, directory: int) -> Iterator[tuple[BinaryIO, str]]:
    """A file of mode 0600 in `path`'s directory, and what to link its name from; gone at the end if nothing did."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(path.parent, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _NO_UNNAMED_FILES:
            raise
    else:
        with os.fdopen(descriptor, "wb") as file:
            yield file, f"/proc/self/fd/{descriptor}"
        return
    part = f".{path.name}.{secrets.token_hex(8)}.part"
    descriptor = os.open(part, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, part
    finally:
        os.unlink(part, dir_fd=directory)


def _taken(path: Path) -> ExportError:
    return ExportError(f"{path} exists already; name another file")


def _write_all(stream: BinaryIO, data: Buffer) -> None:
    """A raw stream may take less than it was given."""
    view = memoryview(data)
    while view:
        written = stream.write(view)
        if not written:
            raise ExportError("the stream takes no more; it must be one that blocks")
        view = view[written:]
