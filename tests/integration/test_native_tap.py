"""Taps on a real bridge: null sound device, tone generators, a pump; nothing of pjsip is replaced."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from support.pj_process import ChildError, PjProcess

RATE_HZ = 8000
TICK = 160
RING_BYTES = 86016
"""256 slots of 16 bytes and 160 samples: the pages of a ring of 5 s."""
Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Drained:
    """What one or more drains gave of one tap."""

    at_ns: int
    frames: int
    gap_frames: int
    overruns: int
    audio: Samples

    @property
    def seconds(self) -> float:
        return self.frames / RATE_HZ


@pytest.fixture
def pj(tmp_path: Path) -> Iterator[PjProcess]:
    with PjProcess(tmp_path) as process:
        yield process


def drain(pj: PjProcess, after_s: float = 0.0) -> dict[int, Drained]:
    """Drain after this long, by tap."""
    time.sleep(after_s)
    answer = pj.call("drain")
    result: dict[int, Drained] = {}
    for tap, frames, gap_frames, overruns, audio in answer["spans"]:
        samples = np.frombuffer(base64.b64decode(audio), dtype="<i2")
        old = result.get(tap, Drained(answer["at_ns"], 0, 0, 0, np.empty(0, dtype=np.int16)))
        result[tap] = Drained(
            answer["at_ns"],
            old.frames + frames,
            old.gap_frames + gap_frames,
            old.overruns + overruns,
            np.concatenate([old.audio, samples]),
        )
    return result


def attach(pj: PjProcess, tap: int, a: int, b: int) -> None:
    pj.call("native_call", name="tap_attach", arguments=[tap, a, b])


def stats(pj: PjProcess, tap: int) -> dict[str, int]:
    found: dict[str, int] = pj.call("native_call", name="tap_stats", arguments=[tap])
    return found


def strength(samples: Samples, hertz: float) -> float:
    """Amplitude of one frequency; give it whole periods."""
    turns = np.exp(-2j * np.pi * hertz * np.arange(len(samples)) / RATE_HZ)
    return float(2 * abs(np.mean(samples * turns)))


def test_split_keeps_each_leg_on_its_own_channel_and_mixed_holds_both(pj: PjProcess) -> None:
    a, b = pj.call("tone", hertz=500), pj.call("tone", hertz=1250)
    split, mixed = pj.call("tap", layout="split")[0], pj.call("tap")[0]
    for tap in (split, mixed):
        attach(pj, tap, a, b)
    drain(pj, 0.3)
    heard = drain(pj, 1.0)

    both, two = heard[mixed].audio[:6400], heard[split].audio[:12800]
    left, right = two[::2], two[1::2]
    assert strength(left, 500) > 3000
    assert strength(left, 1250) < 50
    assert strength(right, 1250) > 3000
    assert strength(right, 500) < 50
    assert strength(both, 500) > 3000
    assert strength(both, 1250) > 3000


def test_mixing_saturates_instead_of_wrapping(pj: PjProcess) -> None:
    a, b = (pj.call("tone", hertz=500, volume=32000) for _ in range(2))
    mixed, split = pj.call("tap")[0], pj.call("tap", layout="split")[0]
    for tap in (mixed, split):
        attach(pj, tap, a, b)
    drain(pj, 0.2)
    heard = drain(pj, 0.6)
    two = heard[split].audio.astype(int)
    expected = np.clip(two[::2] + two[1::2], -32768, 32767)
    assert int(expected.max()) == 32767
    assert int(expected.min()) == -32768
    assert np.array_equal(heard[mixed].audio.astype(int), expected)


@pytest.mark.alone
def test_a_tap_without_a_source_is_silence_that_keeps_time(pj: PjProcess) -> None:
    tone = pj.call("tone", hertz=500)
    tap, start = pj.call("tap")
    silent = drain(pj, 1.0)[tap]
    assert abs(silent.seconds - (silent.at_ns - start) / 1e9) < 0.1
    assert silent.gap_frames == 0
    assert not np.any(silent.audio)
    assert stats(pj, tap)["silence_frames"] > 0

    attach(pj, tap, -1, tone)
    drain(pj, 0.2)
    assert strength(drain(pj, 0.5)[tap].audio[:3200], 500) > 3000

    attach(pj, tap, -1, -1)
    drain(pj, 0.2)
    assert not np.any(drain(pj, 0.5)[tap].audio)


def test_attaching_follows_a_slot_that_changed(pj: PjProcess) -> None:
    first, second = pj.call("tone", hertz=500), pj.call("tone", hertz=1250)
    tap, _ = pj.call("tap")
    for slot, hertz, other in ((first, 500, 1250), (second, 1250, 500), (second, 1250, 500)):
        attach(pj, tap, slot, -1)
        drain(pj, 0.2)
        heard = drain(pj, 0.5)[tap].audio[:3200]
        assert strength(heard, hertz) > 3000
        assert strength(heard, other) < 50


def test_a_slot_that_does_not_exist_is_an_error(pj: PjProcess) -> None:
    tap, _ = pj.call("tap")
    with pytest.raises(ChildError, match="no such conference slot") as raised:
        attach(pj, tap, 4000, -1)
    assert raised.value.kind == "NativeError"


@pytest.mark.alone
def test_a_full_ring_loses_the_newest_and_the_time_line_keeps_its_length(pj: PjProcess) -> None:
    tone = pj.call("tone", hertz=500)
    tap, start = pj.call("tap")
    attach(pj, tap, tone, tone)
    first = drain(pj, 6.5)[tap]
    second = drain(pj, 0.3)[tap]

    lost = first.overruns + second.overruns
    assert 40 <= lost <= 100
    assert abs(first.gap_frames + second.gap_frames - lost * TICK) <= 3 * TICK
    assert abs(first.seconds + second.seconds - (second.at_ns - start) / 1e9) < 0.1
    assert stats(pj, tap)["overruns"] == 2 * lost
    assert strength(first.audio[5 * RATE_HZ - 1600 : 5 * RATE_HZ], 500) > 3000, (
        "what came first was overwritten"
    )
    assert strength(second.audio[-1600:], 500) > 3000


@pytest.mark.alone
def test_a_stopped_process_leaves_a_gap_and_no_shift(pj: PjProcess, tmp_path: Path) -> None:
    a, b = pj.call("tone", hertz=500), pj.call("tone", hertz=1250)
    tap, start = pj.call("tap")
    attach(pj, tap, a, b)
    pj.call("pump_start", every_ms=100, path=str(tmp_path / "audio"))
    time.sleep(1.0)
    pj.stop_for(3.0)
    time.sleep(1.5)
    result = pj.call("pump_stop")

    assert abs(result["frames"] / RATE_HZ - (result["drained_at_ns"] - start) / 1e9) < 0.1
    assert result["overruns"] == 0
    assert len(result["gaps"]) == 1
    at, length = result["gaps"][0]
    assert abs(length / RATE_HZ - 3.0) < 0.15
    assert abs(at / RATE_HZ - 1.0) < 0.25
    audio = np.fromfile(tmp_path / "audio", dtype="<i2")
    assert len(audio) == result["frames"]
    assert not np.any(audio[at : at + length])
    assert strength(audio[at - 1600 : at], 500) > 3000
    assert strength(audio[at + length + 320 : at + length + 1920], 1250) > 3000


@pytest.mark.alone
def test_a_short_stop_is_caught_up_without_a_gap(pj: PjProcess, tmp_path: Path) -> None:
    tone = pj.call("tone", hertz=500)
    tap, start = pj.call("tap")
    attach(pj, tap, tone, -1)
    pj.call("pump_start", every_ms=100, path=str(tmp_path / "audio"))
    for _ in range(3):
        time.sleep(0.7)
        pj.stop_for(0.3)
    time.sleep(0.7)
    result = pj.call("pump_stop")
    assert abs(result["frames"] / RATE_HZ - (result["drained_at_ns"] - start) / 1e9) < 0.1
    assert result["gaps"] == []


@pytest.mark.alone
def test_freeing_reports_what_was_not_drained_and_ends_the_tap(pj: PjProcess) -> None:
    tap, _ = pj.call("tap")
    drain(pj, 0.2)
    time.sleep(0.5)
    left = pj.call("native_call", name="tap_free", arguments=[tap])
    assert 0.3 * RATE_HZ < left < 1.0 * RATE_HZ
    assert drain(pj, 0.1) == {}
    for name in ("tap_stats", "tap_free"):
        with pytest.raises(ChildError, match=f"no tap {tap}"):
            pj.call("native_call", name=name, arguments=[tap])
    assert pj.call("tap")[0] > tap


def test_a_tap_may_outlive_the_library(pj: PjProcess) -> None:
    tone = pj.call("tone", hertz=500)
    taps = [pj.call("tap")[0] for _ in range(3)]
    for tap in taps:
        attach(pj, tap, tone, tone)
    drain(pj, 0.2)
    pj.call("quit", free_late=taps[1:])
    assert pj.process.wait(30) == 0, pj.log


def excluded_from_dumps(pj: PjProcess) -> tuple[int, int]:
    """Bytes of the process that no core dump holds, and how many of them are locked."""
    excluded = locked = size = 0
    for line in Path(f"/proc/{pj.process.pid}/smaps").read_text().splitlines():
        if line.startswith("Size:"):
            size = int(line.split()[1]) * 1024
        elif line.startswith("VmFlags:") and " dd" in line:
            excluded += size
            locked += size if " lo" in line else 0
    return excluded, locked


def test_a_ring_is_outside_core_dumps_and_swap_and_is_given_back(pj: PjProcess) -> None:
    before = excluded_from_dumps(pj)
    tap, _ = pj.call("tap")
    during = excluded_from_dumps(pj)
    assert during[0] - before[0] == 2 * RING_BYTES
    assert (during[1] - before[1] == 2 * RING_BYTES) == bool(stats(pj, tap)["memory_locked"])
    pj.call("native_call", name="tap_free", arguments=[tap])
    deadline = time.monotonic() + 10
    while excluded_from_dumps(pj) != before:
        assert time.monotonic() < deadline, "the rings were not given back"


def test_a_ring_is_zero_when_it_is_given_back(tmp_path: Path) -> None:
    witness = tmp_path / "witness.so"
    source = Path(__file__).with_name("native_munmap_witness.c")
    subprocess.run(["gcc", "-O1", "-fPIC", "-shared", str(source), "-o", str(witness), "-ldl"], check=True)
    with PjProcess(tmp_path, preload=witness) as pj:
        tone = pj.call("tone", hertz=500)
        tap, _ = pj.call("tap")
        attach(pj, tap, tone, tone)
        heard = drain(pj, 0.5)[tap].audio
        assert np.any(heard)
        pj.call("native_call", name="tap_free", arguments=[tap])
    assert pj.log.count("MUNMAP 0 left") == 2, pj.log
    assert pj.log.count("MUNMAP") == 2, pj.log


def test_taps_come_and_go_under_a_running_clock(pj: PjProcess) -> None:
    tone = pj.call("tone", hertz=500)
    for _ in range(20):
        taps = [pj.call("tap")[0] for _ in range(5)]
        for tap in taps:
            attach(pj, tap, tone, tone)
        drain(pj)
        for tap in taps:
            pj.call("native_call", name="tap_free", arguments=[tap])
    tap, _ = pj.call("tap")
    attach(pj, tap, tone, -1)
    drain(pj, 0.2)
    assert strength(drain(pj, 0.5)[tap].audio[:3200], 500) > 3000


@pytest.mark.alone
def test_what_does_not_fit_the_buffer_comes_with_the_next_drain(pj: PjProcess) -> None:
    taps = [pj.call("tap")[0] for _ in range(2)]
    for tap, hertz in zip(taps, (500, 1250), strict=True):
        attach(pj, tap, pj.call("tone", hertz=hertz), -1)
    time.sleep(0.6)
    totals = dict.fromkeys(taps, 0)
    for _ in range(12):
        for span in pj.call("drain", size=4000)["spans"]:
            totals[span[0]] += span[1]
    assert all(total >= 0.55 * RATE_HZ for total in totals.values()), totals
    with pytest.raises(ChildError, match="holds not one frame"):
        pj.call("drain", size=100)


def test_a_tap_must_tick_with_the_bridge(pj: PjProcess) -> None:
    with pytest.raises(ChildError, match="the bridge ticks every 20 ms"):
        pj.call("tap", ptime_ms=40)
    with pytest.raises(ChildError, match="5000 to 60000"):
        pj.call("tap", ring_ms=100)
    assert pj.call("tap")[0] > 0
