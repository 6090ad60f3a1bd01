"""G.711, both laws, as tables built from the recommendation's segments.

A whole programme is coded with one numpy look-up; the media thread handles coded octets only.

Source: ITU-T G.711 tables 1a, 1b, 2a, 2b; the 14-bit (mu-law) and 13-bit (A-law) values are scaled to 16 bits.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

RATE_HZ: Final = 8000
ULAW_SILENCE: Final = 0xFF
ALAW_SILENCE: Final = 0xD5
_ULAW_BIAS: Final = 33 << 2
_ULAW_CLIP: Final = 8158 << 2
_ALAW_TOGGLE: Final = 0x55

PCM16: TypeAlias = npt.NDArray[np.int16]
_Octets: TypeAlias = npt.NDArray[np.uint8]


def _segment(magnitude: npt.NDArray[np.int32], lowest_bits: int) -> npt.NDArray[np.int32]:
    """How many of the seven segment boundaries, the first at 2**lowest_bits, each magnitude has reached."""
    boundaries = 1 << np.arange(lowest_bits, lowest_bits + 7)
    return np.searchsorted(boundaries, magnitude, side="right").astype(np.int32)


def _encode_ulaw_table() -> _Octets:
    samples = np.arange(-32768, 32768, dtype=np.int32)
    magnitude = np.minimum(np.abs(samples), _ULAW_CLIP) + _ULAW_BIAS
    segment = _segment(magnitude, 8)
    mantissa = (magnitude >> (segment + 3)) & 0x0F
    sign = np.where(samples < 0, 0x80, 0)
    octets: _Octets = (~(sign | segment << 4 | mantissa) & 0xFF).astype(np.uint8)
    return octets


def _decode_ulaw_table() -> PCM16:
    octets = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((octets & 0x0F) << 3) + _ULAW_BIAS) << ((octets >> 4) & 7)
    value = magnitude - _ULAW_BIAS
    return np.where(octets & 0x80, -value, value).astype(np.int16)


def _encode_alaw_table() -> _Octets:
    samples = np.arange(-32768, 32768, dtype=np.int32)
    magnitude = np.where(samples < 0, ~samples, samples) >> 4
    segment = _segment(magnitude, 4)
    mantissa = (magnitude >> np.maximum(segment - 1, 0)) & 0x0F
    sign = np.where(samples < 0, 0, 0x80)
    octets: _Octets = ((sign | segment << 4 | mantissa) ^ _ALAW_TOGGLE).astype(np.uint8)
    return octets


def _decode_alaw_table() -> PCM16:
    octets = np.arange(256, dtype=np.int32) ^ _ALAW_TOGGLE
    segment = (octets >> 4) & 7
    mantissa = ((octets & 0x0F) << 1) + 1
    linear = np.where(segment == 0, mantissa, (mantissa + 32) << np.maximum(segment - 1, 0)) << 3
    return np.where(octets & 0x80, linear, -linear).astype(np.int16)


_ENCODERS: Final = {"PCMU/8000": _encode_ulaw_table(), "PCMA/8000": _encode_alaw_table()}
_DECODERS: Final = {"PCMU/8000": _decode_ulaw_table(), "PCMA/8000": _decode_alaw_table()}
SILENCE_OCTET: Final = {"PCMU/8000": ULAW_SILENCE, "PCMA/8000": ALAW_SILENCE}


def encode(pcm: PCM16, encoding: str = "PCMU/8000") -> bytes:
    """PCM16 samples as one octet each."""
    return _ENCODERS[encoding][pcm.astype(np.int32) + 32768].tobytes()


def decode(octets: bytes | bytearray, encoding: str = "PCMU/8000") -> PCM16:
    """One PCM16 sample for each octet."""
    return _DECODERS[encoding][np.frombuffer(octets, dtype=np.uint8)]
