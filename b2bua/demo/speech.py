"""Programmes of recorded human speech, a different one for each side, from a folder of 8 kHz telephone prompts.

The folder is that of Debian's asterisk-core-sounds-en-wav. A programme is prompts joined with their long pauses cut, at
one level, with no 2 s of silence: every window of it can be judged.
"""

from __future__ import annotations

import wave
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from b2bua.demo.errors import SpeechError
from b2bua.demo.g711 import PCM16, RATE_HZ
from b2bua.demo.score import quietest_window

PROGRAMME_S: Final = 12.0
_LEVEL_RMS: Final = 2600.0
"""About -22 dBFS: a normal telephone level, and the sum of two stays below full scale nearly always."""
_FRAME_SAMPLES: Final = RATE_HZ // 50
_PAUSE_FRAMES: Final = 12
"""Pauses are cut to 240 ms."""
_SPEECH_RMS: Final = 150.0
_QUIETEST_RMS: Final = 300.0


class Side(Enum):
    """Whose programme it is; the value lists its prompts in order."""

    CALLER = ("demo-congrats", "demo-abouttotry", "vm-options", "dir-intro")
    CALLEE = ("demo-instruct", "priv-callee-options", "vm-msginstruct", "conf-adminmenu")


def programme(folder: Path, side: Side, *, seconds: float = PROGRAMME_S) -> PCM16:
    """One side's programme of exactly `seconds` (rounded to whole packets).

    Raises:
        SpeechError: the folder lacks the prompts, they are no 8 kHz 16 bit mono WAV, or hold too little speech.
    """
    wanted = round(seconds * 50) * _FRAME_SAMPLES
    parts: list[PCM16] = []
    for name in side.value:
        parts.append(_level(_without_pauses(_level(_read(_find(folder, name))))))
        if sum(map(len, parts)) >= wanted:
            break
    speech = np.concatenate(parts)[:wanted]
    if len(speech) < wanted:
        raise SpeechError(
            f"{folder} holds {len(speech) / RATE_HZ:.1f} s of speech for {side.name}, not {seconds}"
        )
    quietest = quietest_window(speech)
    if quietest < _QUIETEST_RMS:
        raise SpeechError(f"the programme of {side.name} is silent for 2 s (RMS {quietest:.0f})")
    return speech


def _find(folder: Path, name: str) -> Path:
    path = next(iter(sorted(folder.rglob(f"{name}.wav"))), None)
    if path is None:
        raise SpeechError(
            f"{folder} has no {name}.wav; run packaging/speech/fetch.py and give the folder it prints"
        )
    return path


def _read(path: Path) -> PCM16:
    try:
        with wave.open(str(path), "rb") as source:
            form = (source.getframerate(), source.getsampwidth(), source.getnchannels())
            data = source.readframes(source.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        raise SpeechError(f"{path} cannot be read as WAV: {error}") from error
    if form != (RATE_HZ, 2, 1):
        raise SpeechError(f"{path} is {form[0]} Hz, {form[1] * 8} bit, {form[2]} channels; not 8000, 16, 1")
    return np.frombuffer(data, dtype="<i2").astype(np.int16)


def _without_pauses(pcm: PCM16) -> PCM16:
    frames = pcm[: len(pcm) // _FRAME_SAMPLES * _FRAME_SAMPLES].reshape(-1, _FRAME_SAMPLES)
    quiet = np.sqrt(np.mean(frames.astype(np.float64) ** 2, axis=1)) < _SPEECH_RMS
    kept: list[int] = []
    pause = 0
    for index, is_quiet in enumerate(quiet):
        pause = pause + 1 if is_quiet else 0
        if pause <= _PAUSE_FRAMES:
            kept.append(index)
    return frames[kept].reshape(-1)


def _level(pcm: npt.NDArray[np.int16]) -> PCM16:
    rms = float(np.sqrt(np.mean(pcm.astype(np.float64) ** 2))) if len(pcm) else 0.0
    if rms < 1.0:
        raise SpeechError("a prompt is silent")
    return np.clip(np.round(pcm * (_LEVEL_RMS / rms)), -32767, 32767).astype(np.int16)
