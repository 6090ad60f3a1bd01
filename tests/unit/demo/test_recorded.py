"""Reading exports back: the two shapes, and what is no export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from b2bua.demo.errors import DemoProcessError
from b2bua.demo.recorded import read_wav
from support.endpoint import write_wav

PCM = np.arange(-400, 400, dtype=np.int16)


def test_one_and_two_channels_have_their_shapes(tmp_path: Path) -> None:
    write_wav(tmp_path / "mixed.wav", PCM)
    write_wav(tmp_path / "split.wav", PCM, channels=2)
    assert read_wav(tmp_path / "mixed.wav").tolist() == [[sample] for sample in PCM.tolist()]
    split = read_wav(tmp_path / "split.wav")
    assert split.shape == (400, 2)
    assert split[1].tolist() == [-398, -397]


def test_another_rate_nothing_and_no_wav_are_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "wide.wav", PCM, rate_hz=16000)
    with pytest.raises(DemoProcessError, match="16000 Hz"):
        read_wav(tmp_path / "wide.wav")
    with pytest.raises(DemoProcessError, match="cannot be read"):
        read_wav(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_bytes(b"RIFF or not")
    with pytest.raises(DemoProcessError, match="cannot be read"):
        read_wav(tmp_path / "text.wav")
