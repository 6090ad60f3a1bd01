"""Judging audio: is this what was said, at one steady delay, in the right ear?

Pure functions over 8 kHz PCM16 that return frozen scores. Nothing here knows codecs: speech that went through G.711
once or twice still correlates above 0.99 with its source, so the limits leave room for nothing but the real signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from b2bua.demo.g711 import PCM16, RATE_HZ

WINDOW_S: Final = 2.0
_HOP_S: Final = 0.5
_SEARCH_S: Final = 0.25
"""How far from the whole programme's offset a window's own may be looked for; enough to see a shift fail."""
_SILENT_PEAK: Final = 64
"""About -54 dBFS: comfort noise and the codec's smallest steps stay below it."""
_Signal: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What passes. The defaults are the product's promise."""

    correlation: float = 0.90
    drift_ms: float = 40.0
    crosstalk: float = 0.10
    covered_s: float = 10.0
    """Seconds of the programme that the judged audio must contain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How one signal matches what it should hold. `offset_ms` is its delay; `worst` the lowest window's correlation."""

    worst: float
    mean: float
    offset_ms: float
    drift_ms: float
    covered_s: float
    windows: int
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.faults


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitScore:
    """A two-channel recording: each channel against its own side, and how much of the other side is in it."""

    caller: Score
    called: Score
    crosstalk: float
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.caller.passed and self.called.passed and not self.faults


def score_heard(heard: PCM16, said: PCM16, limits: Limits = Limits()) -> Score:
    """Every 2 s window of what one side heard against what the other side said."""
    return _score(_floats(heard), _floats(said), limits)


def score_mixed(
    recorded: PCM16, heard_by_caller: PCM16, heard_by_called: PCM16, limits: Limits = Limits()
) -> Score:
    """A mixed recording against the saturating sum of what both sides heard, each put where the recording has it."""
    mixed = _floats(recorded)
    total = np.zeros(len(mixed), dtype=np.float64)
    for heard in (heard_by_caller, heard_by_called):
        signal = _floats(heard)
        _add_at(total, signal, _best_offset(mixed, signal))
    return _score(mixed, np.clip(total, -32768, 32767), limits)


def score_split(recorded: npt.NDArray[np.int16], said_by_caller: PCM16, said_by_called: PCM16,
                limits: Limits = Limits()) -> SplitScore:  # fmt: skip
    """A split recording, shape (samples, 2), caller first, against what each side said."""
    channels = (_floats(recorded[:, 0]), _floats(recorded[:, 1]))
    said = (_floats(said_by_caller), _floats(said_by_called))
    own = tuple(_score(channel, speech, limits) for channel, speech in zip(channels, said, strict=True))
    offsets = tuple(_best_offset(channel, speech) for channel, speech in zip(channels, said, strict=True))
    crosstalk = max(_leak(channels[0], said[1], offsets[1]), _leak(channels[1], said[0], offsets[0]))
    faults = (
        ()
        if crosstalk < limits.crosstalk
        else (f"crosstalk {crosstalk:.3f} is not below {limits.crosstalk}",)
    )
    return SplitScore(caller=own[0], called=own[1], crosstalk=crosstalk, faults=faults)


def saturating_sum(first: PCM16, second: PCM16) -> PCM16:
    """Two signals of one length mixed as the recorder mixes them."""
    return np.clip(first.astype(np.int32) + second.astype(np.int32), -32768, 32767).astype(np.int16)


def quietest_window(pcm: PCM16) -> float:
    """The lowest RMS of any 2 s window, in sample units; 0 for a signal shorter than that."""
    signal = _floats(pcm)
    width, hop = round(WINDOW_S * RATE_HZ), round(0.1 * RATE_HZ)
    levels = [
        float(np.sqrt(np.mean(signal[start : start + width] ** 2)))
        for start in range(0, len(signal) - width + 1, hop)
    ]
    return min(levels, default=0.0)


def _score(heard: _Signal, said: _Signal, limits: Limits) -> Score:
    offset = _best_offset(heard, said)
    first, last = _spoken_span(said)
    start, end = max(offset + first, 0), min(len(heard), offset + last)
    width, hop, search = (round(seconds * RATE_HZ) for seconds in (WINDOW_S, _HOP_S, _SEARCH_S))
    correlations, delays = [], []
    for begin in range(start, end - width + 1, hop):
        window = heard[begin : begin + width]
        correlation, shift = _match(window, said, begin - offset, search)
        correlations.append(correlation)
        delays.append(shift)
    drift_ms = (max(delays) - min(delays)) * 1000 / RATE_HZ if delays else 0.0
    return _judged(correlations, drift_ms, offset, max(end - start, 0) / RATE_HZ, limits)


def _judged(
    correlations: list[float], drift_ms: float, offset: int, covered_s: float, limits: Limits
) -> Score:
    worst = min(correlations, default=0.0)
    checks = (
        (bool(correlations), "there is no whole window to judge"),
        (worst >= limits.correlation, f"a window correlates {worst:.3f}, below {limits.correlation}"),
        (drift_ms <= limits.drift_ms, f"the delay wanders by {drift_ms:.1f} ms, over {limits.drift_ms}"),
        (covered_s >= limits.covered_s, f"only {covered_s:.1f} s are covered, not {limits.covered_s}"),
    )
    return Score(
        worst=worst,
        mean=float(np.mean(correlations)) if correlations else 0.0,
        offset_ms=offset * 1000 / RATE_HZ,
        drift_ms=drift_ms,
        covered_s=covered_s,
        windows=len(correlations),
        faults=tuple(text for holds, text in checks if not holds),
    )


def _match(window: _Signal, said: _Signal, at: int, search: int) -> tuple[float, int]:
    """The best normalised correlation of a window with `said` around index `at`, and its shift from there."""
    low, high = max(at - search, 0), min(at + search + len(window), len(said))
    part = said[low:high]
    if len(part) < len(window):
        return 0.0, 0
    products = _correlate(part, window)
    squares = np.concatenate(([0.0], np.cumsum(part**2)))
    energies = squares[len(window) :] - squares[: -len(window)]
    norms = np.sqrt(np.maximum(energies, 0.0) * float(window @ window))
    scores = np.divide(products, norms, out=np.zeros_like(products), where=norms > 1.0)
    best = int(np.argmax(scores))
    return float(scores[best]), low + best - at


def _spoken_span(said: _Signal) -> tuple[int, int]:
    """Where speech begins and ends; the silence around it has nothing to correlate."""
    loud = np.flatnonzero(np.abs(said) > _SILENT_PEAK)
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, 0)


def _best_offset(heard: _Signal, said: _Signal) -> int:
    """The delay in samples at which `said` is most strongly found in `heard`; negative if its beginning is missing."""
    if not len(heard) or not len(said):
        return 0
    padded = np.concatenate((np.zeros(len(said) - 1), heard, np.zeros(len(said) - 1)))
    return int(np.argmax(_correlate(padded, said))) - (len(said) - 1)


def _leak(channel: _Signal, other: _Signal, offset: int) -> float:
    """The correlation of a channel with the other side's speech near the place where it would leak in."""
    start, end = max(offset, 0), min(len(channel), offset + len(other))
    if end <= start:
        return 0.0
    search = round(0.02 * RATE_HZ)
    part = channel[start:end]
    best = 0.0
    for shift in range(-search, search + 1):
        low = start - offset + shift
        if low < 0 or low + len(part) > len(other):
            continue
        piece = other[low : low + len(part)]
        norm = float(np.sqrt((part @ part) * (piece @ piece)))
        best = max(best, abs(float(part @ piece)) / norm if norm > 1.0 else 0.0)
    return best


def _correlate(long: _Signal, short: _Signal) -> _Signal:
    """The inner product of `short` with `long` at every place where it fits, by FFT."""
    size = 1 << (len(long) + len(short)).bit_length()
    spectrum = np.fft.rfft(long, size) * np.conj(np.fft.rfft(short, size))
    products: _Signal = np.fft.irfft(spectrum, size)[: len(long) - len(short) + 1]
    return products


def _add_at(total: _Signal, signal: _Signal, offset: int) -> None:
    start, end = max(offset, 0), min(len(total), offset + len(signal))
    if end > start:
        total[start:end] += signal[start - offset : end - offset]


def _floats(pcm: npt.NDArray[np.int16]) -> _Signal:
    return pcm.astype(np.float64)
