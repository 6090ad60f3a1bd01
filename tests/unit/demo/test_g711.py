"""Both G.711 laws against the values printed in the recommendation's tables."""

from __future__ import annotations

import numpy as np
import pytest

from b2bua.demo import g711

# ITU-T G.711 table 2a: character signal (positive), decoder output y and lower decision value x, 14-bit scale.
ULAW = [
    (0x80, 8031, 7903),
    (0x8F, 4191, 4063),
    (0x9F, 2079, 2015),
    (0xAF, 1023, 991),
    (0xBF, 495, 479),
    (0xCF, 231, 223),
    (0xDF, 99, 95),
    (0xEF, 33, 31),
    (0xFE, 2, 1),
]
# ITU-T G.711 table 1a, even bits inverted as transmitted: the same, 13-bit scale of twelve magnitude bits.
ALAW = [
    (0xAA, 4032, 3968),
    (0xA5, 2112, 2048),
    (0xB5, 1056, 1024),
    (0x85, 528, 512),
    (0x95, 264, 256),
    (0xE5, 132, 128),
    (0xF5, 66, 64),
    (0xD4, 3, 2),
]


@pytest.mark.parametrize(("code", "level", "threshold"), ULAW)
def test_ulaw_is_table_2(code: int, level: int, threshold: int) -> None:
    positive, negative = g711.decode(bytes((code, code ^ 0x80)))
    assert (positive, negative) == (level * 4, -level * 4)
    samples = np.array([threshold * 4, threshold * 4 - 1, -threshold * 4, -threshold * 4 + 1], dtype=np.int16)
    below = code + 1
    assert g711.encode(samples) == bytes((code, below, code ^ 0x80, below ^ 0x80))


@pytest.mark.parametrize(("code", "level", "threshold"), ALAW)
def test_alaw_is_table_1(code: int, level: int, threshold: int) -> None:
    positive, negative = g711.decode(bytes((code, code ^ 0x80)), "PCMA/8000")
    assert (positive, negative) == (level * 8, -level * 8)
    below = ((code ^ 0x55) - 1) ^ 0x55
    samples = np.array([threshold * 8, threshold * 8 - 1], dtype=np.int16)
    assert g711.encode(samples, "PCMA/8000") == bytes((code, below))


@pytest.mark.parametrize("encoding", ["PCMU/8000", "PCMA/8000"])
def test_every_octet_survives_decoding_and_encoding(encoding: str) -> None:
    octets = bytes(code for code in range(256) if (encoding, code) != ("PCMU/8000", 0x7F))  # negative zero
    assert g711.encode(g711.decode(octets, encoding), encoding) == octets


@pytest.mark.parametrize("encoding", ["PCMU/8000", "PCMA/8000"])
def test_coding_errs_by_at_most_half_a_step(encoding: str) -> None:
    pcm = np.arange(-32000, 32001, dtype=np.int16)
    error = np.abs(g711.decode(g711.encode(pcm, encoding), encoding).astype(int) - pcm)
    assert int(error.max()) <= 512
    assert int(error[np.abs(pcm) < 256].max()) <= 8


def test_full_scale_clips_and_silence_is_the_silence_octet() -> None:
    assert g711.encode(np.array([32767, -32768, 0], dtype=np.int16)) == bytes((0x80, 0x00, g711.ULAW_SILENCE))
    assert g711.encode(np.array([0], dtype=np.int16), "PCMA/8000") == bytes((g711.ALAW_SILENCE,))
