"""PCM to what an export file holds: WAV by ourselves, FLAC, Ogg Opus and MP3 by libsndfile.

Source: RIFF WAVE, PCM format tag 1.
"""

from __future__ import annotations

import contextlib
import enum
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

from recording.audio import SAMPLE_BYTES, Buffer, samples
from recording.errors import ExportError

_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
_DATA_MAX: Final = 0xFFFFFFFF - (_HEADER.size - 8)
_PCM: Final = 1


class ExportForm(enum.Enum):
    """The form of the exported file; its value is the usual extension."""

    WAV = "wav"
    FLAC = "flac"
    OPUS = "opus"
    MP3 = "mp3"


_SNDFILE: Final = {
    ExportForm.FLAC: ("FLAC", "PCM_16"),
    ExportForm.OPUS: ("OGG", "OPUS"),
    ExportForm.MP3: ("MP3", "MPEG_LAYER_III"),
}
_OPUS_RATES: Final = (8000, 12000, 16000, 24000, 48000)
_MP3_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def form_of(path: Path) -> ExportForm:
    """The form that a file name asks for; a seal's extension (.p7m, .cms) behind it does not count. WAV by default."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in {".p7m", ".cms", ".der"}:
        suffixes.pop()
    found = {f".{form.value}": form for form in ExportForm} | {".ogg": ExportForm.OPUS}
    return found.get(suffixes[-1] if suffixes else "", ExportForm.WAV)


def wav_header(*, frames: int, rate_hz: int, channels: int) -> bytes:
    """The 44 bytes before the samples. Raises ExportError where the sizes do not fit into 32 bits."""
    frame_bytes = SAMPLE_BYTES * channels
    data_bytes = frames * frame_bytes
    if data_bytes > _DATA_MAX:
        raise ExportError(
            f"{data_bytes} bytes of audio are more than a WAV file holds; export a stretch of it, or as FLAC"
        )
    return _HEADER.pack(
        b"RIFF", _HEADER.size - 8 + data_bytes, b"WAVE", b"fmt ", 16, _PCM, channels, rate_hz,
        rate_hz * frame_bytes, frame_bytes, 8 * SAMPLE_BYTES, b"data", data_bytes,
    )  # fmt: skip


class SeekableTarget(Protocol):
    """What libsndfile writes to."""

    def write(self, data: bytes, /) -> int | None: ...
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int: ...
    def tell(self) -> int: ...


class Encoder:
    """Takes PCM, writes an encoded file. Made by `encoding`."""

    def __init__(self, file: Any, target: _Guarded) -> None:
        self._file = file
        self._target = target

    def write(self, pcm: Buffer) -> None:
        """Whole frames of s16le, interleaved. Raises OSError and ExportError of the target."""
        self._file.buffer_write(samples(pcm), dtype="int16")
        self._target.require_well()


@contextlib.contextmanager
def encoding(target: SeekableTarget, *, form: ExportForm, rate_hz: int, channels: int) -> Iterator[Encoder]:
    """An encoder into `target`, which holds the whole file when this is left without an error.

    Raises:
        ExportError: there is no libsndfile, or it does not know the form at this rate.
        OSError: the target's.
    """
    _check_rate(form, rate_hz)
    soundfile = _soundfile()
    guarded = _Guarded(target)
    kind, subtype = _SNDFILE[form]
    try:
        with soundfile.SoundFile(
            guarded, "w", samplerate=rate_hz, channels=channels, format=kind, subtype=subtype
        ) as file:
            yield Encoder(file, guarded)
    except soundfile.SoundFileError as error:
        guarded.require_well()
        raise ExportError(f"libsndfile cannot write {form.value}: {error}") from error
    guarded.require_well()


class _Guarded:
    """A target whose errors wait until libsndfile has returned: they cannot pass through its C code."""

    def __init__(self, target: SeekableTarget) -> None:
        self._target = target
        self._error: OSError | ExportError | None = None

    def require_well(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data: bytes) -> int:
        def write_all() -> int:
            view = memoryview(data)
            while view:
                view = view[self._target.write(bytes(view)) or 0 :]
            return len(data)

        return self._kept(write_all)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._kept(lambda: self._target.seek(offset, whence))

    def tell(self) -> int:
        return self._kept(self._target.tell)

    def _kept(self, operation: Callable[[], int]) -> int:
        """What the operation returns; after an error nothing is done any more."""
        if self._error is None:
            try:
                return operation()
            except (OSError, ExportError) as error:
                self._error = error
        return 0

    def read(self, _size: int) -> bytes:
        """Never asked for when writing; soundfile wants it to be there."""
        return b""


def _check_rate(form: ExportForm, rate_hz: int) -> None:
    rates = {ExportForm.OPUS: _OPUS_RATES, ExportForm.MP3: _MP3_RATES}.get(form)
    if rates is not None and rate_hz not in rates:
        raise ExportError(f"{form.value} has no rate of {rate_hz} Hz; export as WAV or FLAC")


def _soundfile() -> ModuleType:
    try:
        import soundfile  # noqa: PLC0415  # loads libsndfile, which only these forms need
    except (ImportError, OSError) as error:
        raise ExportError(
            f"libsndfile cannot be loaded ({error}); export as WAV, or install soundfile"
        ) from error
    module: ModuleType = soundfile
    return module
