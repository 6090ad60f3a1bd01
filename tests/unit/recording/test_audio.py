"""PCM arithmetic: saturation at both rails, channel order, lengths."""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import audio

SAMPLES = st.integers(-32768, 32767)


def s16(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


@pytest.mark.parametrize(
    ("first", "second", "total"),
    [
        (0, 0, 0),
        (1000, -250, 750),
        (32767, 1, 32767),
        (32767, 32767, 32767),
        (32766, 1, 32767),
        (-32768, -1, -32768),
        (-32768, -32768, -32768),
        (-32767, -1, -32768),
        (-32768, 32767, -1),
    ],
)
def test_mixing_saturates_at_both_rails(first: int, second: int, total: int) -> None:
    assert audio.mix_channels(s16(first, second)) == s16(total)


@given(st.lists(st.tuples(SAMPLES, SAMPLES)))
def test_mixing_is_the_clamped_sum_of_every_sample(pairs: list[tuple[int, int]]) -> None:
    expected = s16(*(max(-32768, min(32767, sum(pair))) for pair in pairs))
    assert audio.mix_channels(s16(*(value for pair in pairs for value in pair))) == expected


@given(st.lists(st.tuples(SAMPLES, SAMPLES)))
def test_channels_come_apart_in_their_order(pairs: list[tuple[int, int]]) -> None:
    first, second = s16(*(pair[0] for pair in pairs)), s16(*(pair[1] for pair in pairs))
    woven = s16(*(value for pair in pairs for value in pair))
    assert (audio.channel(woven, 0, channels=2), audio.channel(woven, 1, channels=2)) == (first, second)


def test_samples_are_little_endian() -> None:
    assert list(audio.samples(b"\x01\x00\xff\xff\x00\x80")) == [1, -1, -32768]
    assert audio.pcm_bytes(audio.samples(b"\x01\x02\x03\x04")) == b"\x01\x02\x03\x04"


def test_views_are_taken_as_well_as_bytes() -> None:
    view = memoryview(s16(0, 5, 6, 0))[2:6]
    assert audio.mix_channels(view) == s16(11)


def test_silence_has_the_length_of_its_frames() -> None:
    assert audio.silence(3, channels=2) == bytes(12)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: audio.mix_channels(bytes(6)),
        lambda: audio.channel(bytes(6), 0, channels=2),
        lambda: audio.channel(bytes(8), 2, channels=2),
        lambda: audio.samples(bytes(1)),
    ],
)
def test_lengths_that_do_not_fit_are_refused(refused: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each case has its own text
        refused()  # type: ignore[operator]


def test_samples_stay_little_endian_on_a_machine_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    native = list(audio.samples(b"\x01\x00"))
    monkeypatch.setattr("sys.byteorder", "big" if sys.byteorder == "little" else "little")
    swapped = audio.samples(b"\x01\x00")
    assert sorted([*native, *swapped]) == [1, 256]
    assert audio.pcm_bytes(swapped) == b"\x01\x00"
