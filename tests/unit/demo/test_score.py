"""The scorer passes what it should and fails each way audio can be wrong."""

from __future__ import annotations

import numpy as np
import pytest

from b2bua.demo import g711
from b2bua.demo.g711 import PCM16
from b2bua.demo.score import (
    Limits,
    quietest_window,
    saturating_sum,
    score_heard,
    score_mixed,
    score_split,
)
from support.endpoint import babble

ONE, TWO = babble(12, seed=11), babble(12, seed=12)


def silence(seconds: float) -> PCM16:
    return np.zeros(round(seconds * 8000), dtype=np.int16)


def through_the_line(pcm: PCM16, *, before_s: float = 0.1, after_s: float = 0.2) -> PCM16:
    """What a far ear gets: twice through G.711, later, with silence around."""
    coded = g711.decode(g711.encode(g711.decode(g711.encode(pcm))))
    return np.concatenate((silence(before_s), coded, silence(after_s)))


def test_speech_through_two_codecs_passes_with_its_delay() -> None:
    score = score_heard(through_the_line(ONE, before_s=0.123), ONE)
    assert score.faults == ()
    assert score.offset_ms == pytest.approx(123, abs=0.2)
    assert score.worst > 0.99
    assert score.windows == 21


@pytest.mark.parametrize("gain", [0.2, 1.4])
def test_level_does_not_matter(gain: float) -> None:
    louder = (through_the_line(ONE) * gain).clip(-32768, 32767).astype(np.int16)
    assert score_heard(louder, ONE).passed


def test_a_little_noise_passes_and_much_fails() -> None:
    heard = through_the_line(ONE).astype(np.int32)
    noise = np.random.default_rng(5).standard_normal(len(heard))
    level = float(np.sqrt(np.mean(heard.astype(float) ** 2)))
    assert score_heard((heard + noise * level * 0.1).clip(-32768, 32767).astype(np.int16), ONE).passed
    assert not score_heard((heard + noise * level).clip(-32768, 32767).astype(np.int16), ONE).passed


def test_a_lost_beginning_is_a_negative_offset_and_counts_as_not_covered() -> None:
    score = score_heard(through_the_line(ONE)[round(8000 * 1.1) :], ONE)
    assert score.passed
    assert score.offset_ms == pytest.approx(-1000, abs=0.2)
    assert score.covered_s == pytest.approx(11, abs=0.01)
    cut = score_heard(through_the_line(ONE)[round(8000 * 3.1) :], ONE)
    assert cut.faults == ("only 9.0 s are covered, not 10.0",)


@pytest.mark.parametrize(
    "heard", [through_the_line(TWO), silence(13), silence(0), through_the_line(ONE)[::-1]]
)
def test_somebody_else_silence_nothing_and_reversed_speech_fail(heard: PCM16) -> None:
    assert not score_heard(heard, ONE).passed


def test_silence_around_the_programme_is_not_judged() -> None:
    said = np.concatenate((silence(3), ONE, silence(4)))
    score = score_heard(through_the_line(said), said)
    assert score.faults == ()
    assert score.covered_s == pytest.approx(12, abs=0.05)
    mixed = saturating_sum(through_the_line(said), np.concatenate((silence(4), TWO, silence(3.3))))
    assert score_mixed(mixed, TWO, ONE).faults == ()


def test_two_silent_seconds_in_the_middle_fail() -> None:
    heard = through_the_line(ONE).copy()
    heard[40000:56000] = 0
    assert not score_heard(heard, ONE).passed


def test_audio_that_moves_midway_fails_by_its_wandering_delay() -> None:
    heard = through_the_line(ONE)
    shifted = np.concatenate((heard[:48000], silence(0.1), heard[48000:]))
    score = score_heard(shifted, ONE)
    assert score.drift_ms >= 99
    assert any("wanders" in fault for fault in score.faults)
    skipped = np.concatenate((heard[:48000], heard[48000 + 800 :]))
    assert score_heard(skipped, ONE).drift_ms >= 99
    assert not score_heard(skipped, ONE).passed


def test_a_mix_of_both_passes_wherever_each_begins() -> None:
    early, late = through_the_line(ONE, before_s=0.3), through_the_line(TWO, before_s=0.5, after_s=0)
    mixed = saturating_sum(early, late)
    score = score_mixed(mixed, through_the_line(TWO), through_the_line(ONE, before_s=0.0))
    assert score.faults == ()
    assert score.worst > 0.99


def test_a_mix_that_lacks_one_side_or_is_silent_fails() -> None:
    heard = (through_the_line(TWO), through_the_line(ONE))
    assert not score_mixed(through_the_line(ONE), *heard).passed
    assert not score_mixed(through_the_line(TWO), *heard).passed
    assert not score_mixed(silence(12), *heard).passed


def test_a_mix_where_one_side_moves_midway_fails() -> None:
    one = through_the_line(ONE)
    moved = np.concatenate((one[:48000], silence(0.2), one[48000:-1600]))
    mixed = saturating_sum(moved, through_the_line(TWO))
    assert not score_mixed(mixed, through_the_line(TWO), one).passed


def test_a_sum_saturates() -> None:
    full = np.array([30000, -30000, 5], dtype=np.int16)
    assert saturating_sum(full, full).tolist() == [32767, -32768, 10]


def split(left: PCM16, right: PCM16) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    return np.stack((left, right), axis=1)


def test_a_split_recording_passes_the_right_way_round_only() -> None:
    left, right = through_the_line(ONE), through_the_line(TWO)
    good = score_split(split(left, right), ONE, TWO)
    assert good.passed
    assert good.crosstalk < 0.05
    swapped = score_split(split(right, left), ONE, TWO)
    assert not swapped.passed
    assert not swapped.caller.passed
    assert not swapped.called.passed


def test_a_channel_that_leaks_the_other_side_fails_by_crosstalk_alone() -> None:
    left, right = through_the_line(ONE), through_the_line(TWO)
    leaking = saturating_sum(left, (right * 0.2).astype(np.int16))
    score = score_split(split(leaking, right), ONE, TWO)
    assert score.caller.passed
    assert score.called.passed
    assert not score.passed
    assert "crosstalk" in score.faults[0]
    assert not score_split(split(left, leaking), ONE, ONE).passed


def test_a_silent_channel_fails() -> None:
    left = through_the_line(ONE)
    assert not score_split(split(left, np.zeros_like(left)), ONE, TWO).passed


def test_limits_can_be_narrowed_for_short_tests() -> None:
    short = through_the_line(ONE[:24000])
    assert not score_heard(short, ONE[:24000]).passed
    assert score_heard(short, ONE[:24000], Limits(covered_s=3)).passed


def test_the_quietest_window_finds_a_pause() -> None:
    paused = ONE.copy()
    paused[32000:48000] = 0
    assert quietest_window(paused) == 0
    assert quietest_window(ONE) > 300
    assert quietest_window(ONE[:100]) == 0
