"""PCM as the recorder has it: signed 16-bit little-endian samples, interleaved by channel.

The live path mixes in C, while it drains; these serve export. Standard library only, and no `audioop`,
which Python 3.13 dropped.
"""

from __future__ import annotations

import array
import operator
import sys
from typing import Final

SAMPLE_BYTES: Final = 2
SAMPLE_MIN: Final = -32768
SAMPLE_MAX: Final = 32767

Buffer = bytes | bytearray | memoryview


def _saturation_table() -> array.array[int]:
    """`table[a + b]` is the saturated sum.

    Negative sums, down to -65,536, use Python's indexing from the end.
    """
    sums = [*range(2 * SAMPLE_MAX + 1), SAMPLE_MAX, *range(2 * SAMPLE_MIN, 0)]
    return array.array("h", (min(SAMPLE_MAX, max(SAMPLE_MIN, value)) for value in sums))


_SATURATED: Final = _saturation_table()


def samples(pcm: Buffer) -> array.array[int]:
    """The samples of `pcm`, in native byte order.

    Raises:
        ValueError: an odd number of bytes.
    """
    values = array.array("h")
    values.frombytes(pcm)
    return _little_endian(values)


def pcm_bytes(values: array.array[int]) -> bytes:
    """The samples as s16le."""
    return _little_endian(values[:]).tobytes() if sys.byteorder == "big" else values.tobytes()


def mix_channels(pcm: Buffer) -> bytes:
    """Two interleaved channels to one: their saturating sum."""
    values = samples(pcm)
    if len(values) % 2:
        raise ValueError("two channels have an even number of samples")
    sums = map(operator.add, values[0::2], values[1::2])
    return pcm_bytes(array.array("h", map(_SATURATED.__getitem__, sums)))


def channel(pcm: Buffer, number: int, *, channels: int) -> bytes:
    """One channel of interleaved audio."""
    values = _native(pcm)
    if len(values) % channels or not 0 <= number < channels:
        raise ValueError(f"no channel {number} of {channels} in {len(values)} samples")
    return values[number::channels].tobytes()


def silence(frames: int, *, channels: int) -> bytes:
    """`frames` frames of zeros."""
    return bytes(frames * channels * SAMPLE_BYTES)


def _native(pcm: Buffer) -> array.array[int]:
    """Samples as they lie in memory, for moving them about without looking at their values."""
    values = array.array("h")
    values.frombytes(pcm)
    return values


def _little_endian(values: array.array[int]) -> array.array[int]:
    if sys.byteorder == "big":
        values.byteswap()
    return values
