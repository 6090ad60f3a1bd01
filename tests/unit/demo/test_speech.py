"""Programmes of speech from a folder of prompts: length, level, no silence, and what is wrong with a bad folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from b2bua.demo.errors import SpeechError
from b2bua.demo.score import quietest_window, score_heard
from b2bua.demo.speech import Side, programme
from support.endpoint import babble, prompts, write_wav


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prompts(tmp_path)


def test_a_programme_has_its_length_level_and_no_silence(folder: Path) -> None:
    for side in Side:
        speech = programme(folder, side)
        assert len(speech) == 96_000
        assert quietest_window(speech) > 1000
        assert np.sqrt(np.mean(speech.astype(float) ** 2)) == pytest.approx(2600, rel=0.15)


def test_the_two_sides_say_something_different(folder: Path) -> None:
    caller, callee = programme(folder, Side.CALLER), programme(folder, Side.CALLEE)
    assert score_heard(caller, caller).passed
    assert not score_heard(caller, callee).passed


def test_a_folder_without_the_prompts_says_how_to_get_them(folder: Path) -> None:
    (folder / "sounds" / f"{Side.CALLER.value[1]}.wav").unlink()
    with pytest.raises(SpeechError, match=r"fetch\.py"):
        programme(folder, Side.CALLER)


def test_too_little_speech_is_refused(folder: Path) -> None:
    with pytest.raises(SpeechError, match="not 30"):
        programme(folder, Side.CALLER, seconds=30)


@pytest.mark.parametrize("change", [{"rate_hz": 16000}, {"channels": 2}])
def test_another_form_of_wav_is_refused(folder: Path, change: dict[str, int]) -> None:
    write_wav(folder / "sounds" / f"{Side.CALLER.value[0]}.wav", babble(4, seed=1), **change)
    with pytest.raises(SpeechError, match="not 8000, 16, 1"):
        programme(folder, Side.CALLER)


def test_a_silent_prompt_and_a_broken_file_are_refused(folder: Path) -> None:
    first = folder / "sounds" / f"{Side.CALLER.value[0]}.wav"
    write_wav(first, np.zeros(32000, dtype=np.int16))
    with pytest.raises(SpeechError, match="silent"):
        programme(folder, Side.CALLER)
    first.write_bytes(b"RIFFnonsense")
    with pytest.raises(SpeechError, match="cannot be read as WAV"):
        programme(folder, Side.CALLER)
