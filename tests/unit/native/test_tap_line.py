"""The time line of a tap against clocks that a test makes up: stalls, bursts, skips, lost and lonely frames."""

from __future__ import annotations

import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b2bua.native import _native

NATIVE = Path(_native.__file__).parent
MS = 1_000_000
START_NS = 1000 * MS
TICK_MS = 20
SAMPLES = 160
EVERYTHING = 1 << 24


def loaded_prefix() -> Path:
    """Where the libraries lie that the extension under test has loaded."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert _native.MIXED
    return next(Path(line.split()[-1]).parents[1] for line in maps if "/libpjsua.so" in line)


@pytest.fixture(scope="module", autouse=True)
def driver(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compile the driver with the extension's own sources."""
    program = tmp_path_factory.mktemp("tap-line") / "driver"
    prefix = loaded_prefix()
    command = ["gcc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined",
               f"-I{NATIVE}", "-isystem", sysconfig.get_paths()["include"], "-isystem", str(prefix / "include"),
               str(Path(__file__).with_name("tap_line_driver.c")), str(NATIVE / "tap_line.c"),
               str(NATIVE / "tap_ring.c"), "-o", str(program), f"-L{prefix / 'lib'}",
               f"-Wl,-rpath,{prefix / 'lib'},--disable-new-dtags", "-lpjsua", "-lpjmedia", "-lpj"]  # fmt: skip
    subprocess.run(command, check=True, timeout=120)
    Line.program = program


@dataclass
class Line:
    """A script for the driver, and its answer."""

    program: ClassVar[Path]
    capacity: int = 256
    layout: str = "mixed"
    script: list[str] = field(default_factory=list)

    def put(self, tick: int, at_ms: float, value: int = 1, *, channels: tuple[int, ...] = (0, 1)) -> None:
        for channel in channels:
            self.script.append(f"p {channel} {tick * SAMPLES} {START_NS + round(at_ms * MS)} {value}")

    def drain(self, at_ms: float, size: int = EVERYTHING) -> None:
        self.script.append(f"d {START_NS + round(at_ms * MS)} {size}")

    def run(self) -> list[Result]:
        run = subprocess.run(
            [self.program, str(self.capacity), self.layout],
            input="\n".join(self.script) + "\n",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0, run.stderr
        assert "!" not in run.stdout
        results, current = [], Result()
        for line in run.stdout.splitlines():
            kind, *numbers = line.split()
            values = [int(number) for number in numbers]
            if kind == ".":
                current.dropped = values[0]
                results.append(current)
                current = Result()
            elif kind == "s":
                current.spans.append((values[0], values[1], values[2]))
            else:
                (current.first if kind == "a" else current.second).extend([values[0]] * values[1])
        return results


@dataclass
class Result:
    """One drain: spans of (frames, gap frames, overruns), samples by channel, frames dropped so far."""

    spans: list[tuple[int, int, int]] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    second: list[int] = field(default_factory=list)
    dropped: int = 0

    @property
    def ticks(self) -> list[int]:
        """One sample of each frame."""
        return self.first[::SAMPLES]

    @property
    def gap_ms(self) -> float:
        return sum(gap for _, gap, _ in self.spans) / SAMPLES * TICK_MS


def steady(line: Line, first: int, last: int, *, late_ms: float = 0.0, value: int = 1) -> None:
    for tick in range(first, last):
        line.put(tick, tick * TICK_MS + late_ms, value)


def test_frames_on_time_pass_one_to_one() -> None:
    line = Line()
    steady(line, 0, 50)
    line.drain(1000)
    (result,) = line.run()
    assert result.spans == [(50 * SAMPLES, 0, 0)]
    assert result.ticks == [2] * 50


def test_split_keeps_the_channels_apart() -> None:
    line = Line(layout="split")
    for tick in range(5):
        line.put(tick, tick * TICK_MS, 100 + tick, channels=(0,))
        line.put(tick, tick * TICK_MS, -tick, channels=(1,))
    line.drain(100)
    (result,) = line.run()
    assert result.first[::SAMPLES] == [100, 101, 102, 103, 104]
    assert result.second[::SAMPLES] == [0, -1, -2, -3, -4]


@pytest.mark.parametrize("values", [(30000, 30000, 32767), (-30000, -30000, -32768), (30000, -29000, 1000)])
def test_the_sum_saturates(values: tuple[int, int, int]) -> None:
    line = Line()
    line.put(0, 0, values[0], channels=(0,))
    line.put(0, 0, values[1], channels=(1,))
    line.drain(20)
    assert line.run()[0].ticks == [values[2]]


def test_a_tick_half_written_waits_for_its_other_channel() -> None:
    line = Line()
    steady(line, 0, 3)
    line.put(3, 60, 5, channels=(0,))
    line.drain(61)
    line.put(3, 61, 7, channels=(1,))
    line.drain(80)
    before, after = line.run()
    assert before.ticks == [2, 2, 2]
    assert after.ticks == [12]


def test_a_channel_that_starts_late_is_silent_until_then_and_aligned_from_then() -> None:
    line = Line(layout="split")
    for tick in range(6):
        line.put(tick, tick * TICK_MS, 10 + tick, channels=(0,))
        if tick >= 2:
            line.put(tick, tick * TICK_MS, 20 + tick, channels=(1,))
    line.drain(120)
    (result,) = line.run()
    assert result.first[::SAMPLES] == [10, 11, 12, 13, 14, 15]
    assert result.second[::SAMPLES] == [0, 0, 22, 23, 24, 25]


def test_a_channel_that_stopped_does_not_hold_up_the_other() -> None:
    line = Line(layout="split")
    steady(line, 0, 2)
    for tick in range(2, 30):
        line.put(tick, tick * TICK_MS, 9, channels=(0,))
    line.drain(600)
    (result,) = line.run()
    assert result.first[::SAMPLES] == [1, 1] + [9] * 18
    assert result.second[::SAMPLES] == [1, 1] + [0] * 18


def test_lost_frames_come_back_as_counted_silence_in_their_place() -> None:
    line = Line(capacity=64)
    for tick in range(80):
        line.put(tick, tick * TICK_MS)
    line.drain(1600)
    for tick in range(80, 90):
        line.put(tick, tick * TICK_MS, 3)
    line.drain(1800)
    first, second = line.run()
    total = first.ticks + second.ticks
    assert total == [2] * 64 + [0] * 16 + [6] * 10
    assert first.gap_ms + second.gap_ms == 16 * TICK_MS
    assert sum(span[2] for span in first.spans + second.spans) == 16
    gap_spans = [span for span in first.spans + second.spans if span[1]]
    assert gap_spans, "the gap stands at the front of a span of its own"


def test_a_long_loss_is_not_counted_twice_when_silence_already_covered_it() -> None:
    line = Line(capacity=64)
    for tick in range(150):
        line.put(tick, tick * TICK_MS)
    line.drain(3000)
    for tick in range(150, 200):
        line.put(tick, tick * TICK_MS, 3)
    line.drain(4000)
    first, second = line.run()
    assert first.gap_ms == pytest.approx(86 * TICK_MS)
    assert second.gap_ms == 0
    assert second.dropped == 0
    assert (first.ticks + second.ticks)[150:] == [6] * 50


def test_a_gap_long_past_does_not_cover_a_new_loss() -> None:
    line = Line(capacity=64)
    for number in range(50):  # the clock skips a second at once, then runs well
        line.put(number, 1000 + number * TICK_MS)
    line.drain(2000)
    for tick in range(50, 130):
        line.put(tick, 1000 + tick * TICK_MS)
    line.drain(3600)
    steady(line, 130, 140, late_ms=1000)
    line.drain(3800)
    results = line.run()
    assert sum(result.gap_ms for result in results) == 1000 + 16 * TICK_MS
    assert results[-1].ticks == [0] * 16 + [2] * 10


def test_a_skipping_clock_leaves_a_gap_of_its_length() -> None:
    line = Line()
    steady(line, 0, 50)
    for number in range(50):  # three seconds later, and the timestamps do not know
        line.put(50 + number, 4000 + number * TICK_MS, 3)
    line.drain(5000)
    (result,) = line.run()
    assert result.spans == [(50 * SAMPLES, 0, 0), (200 * SAMPLES, 150 * SAMPLES, 0)]
    assert result.ticks == [2] * 50 + [0] * 150 + [6] * 50


def test_a_burst_that_catches_up_makes_no_gap() -> None:
    line = Line()
    steady(line, 0, 50)
    for tick in range(50, 70):  # 400 ms late, then all at once
        line.put(tick, 1400 + (tick - 50) * 0.5)
    steady(line, 71 - 1, 100)
    line.drain(2000)
    (result,) = line.run()
    assert result.gap_ms == 0
    assert result.ticks == [2] * 100


def test_lateness_that_lasts_becomes_silence() -> None:
    line = Line()
    steady(line, 0, 50)
    steady(line, 50, 100, late_ms=300)
    line.drain(2300)
    (result,) = line.run()
    assert result.gap_ms == 300
    assert len(result.ticks) == 115


def test_frames_for_a_time_that_silence_covers_are_dropped() -> None:
    line = Line()
    steady(line, 0, 50)
    steady(line, 50, 100, late_ms=300)  # long enough late to be filled
    for tick in range(100, 115):  # then the clock catches up after all
        line.put(tick, 2300 + (tick - 100) * 0.5)
    steady(line, 115, 150)
    line.drain(3000)
    (result,) = line.run()
    assert result.gap_ms == 300
    assert 12 <= result.dropped <= 15
    assert abs(len(result.ticks) - 150) <= 3


def test_a_clock_that_stands_still_is_noticed_without_a_frame() -> None:
    line = Line()
    steady(line, 0, 50)
    line.drain(1000)
    line.drain(1400)
    line.drain(1600)
    line.drain(4000)
    first, waits, silence, more = line.run()
    assert len(first.ticks) == 50
    assert waits.spans == []
    assert silence.spans == [(30 * SAMPLES, 30 * SAMPLES, 0)]
    assert more.spans == [(120 * SAMPLES, 120 * SAMPLES, 0)]


def test_a_restarted_clock_goes_on_without_a_gap() -> None:
    line = Line()
    for number in range(50):
        line.put(5000 + number, number * TICK_MS)
    for number in range(50):
        line.put(number, 1000 + number * TICK_MS, 3)
    line.drain(2000)
    (result,) = line.run()
    assert result.ticks == [2] * 50 + [6] * 50


def test_a_small_buffer_gets_the_same_audio_in_parts() -> None:
    whole, parts = Line(), Line()
    for line in (whole, parts):
        steady(line, 0, 30)
        for number in range(30):
            line.put(30 + number, 2600 + number * TICK_MS, 3)
    whole.drain(3200)
    for _ in range(60):
        parts.drain(3200, size=1600)
    pieces = parts.run()
    assert all(len(piece.first) <= 800 for piece in pieces)
    assert [sample for piece in pieces for sample in piece.first] == whole.run()[0].first
    assert sum(piece.gap_ms for piece in pieces) == 2000


@dataclass
class Clock:
    """pjmedia's clock thread in a process that is stopped now and then; times in ms."""

    stalls: list[tuple[float, float]]

    def awake(self, at_ms: float) -> float:
        """When something due at this time happens."""
        for begin, length in self.stalls:
            if begin <= at_ms < begin + length:
                at_ms = begin + length
        return at_ms

    def ticks(self, until_ms: float) -> list[float]:
        """When each tick comes: late ones in a burst, and none for more than half a second of lateness."""
        times = []
        due, now = float(TICK_MS), 0.0
        while True:
            now = self.awake(now)
            at = self.awake(max(now, due))
            if at > until_ms:
                return times
            times.append(at)
            if due + 500 < now:
                due = now
            due += TICK_MS
            now = at + 0.05


@given(
    stalls=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 2500)), max_size=5),
    drain_every=st.integers(20, 900),
)
@settings(max_examples=40, deadline=None)
def test_whatever_the_clock_does_the_line_is_as_long_as_the_wall_clock_says(
    stalls: list[tuple[int, int]], drain_every: int
) -> None:
    placed, at = [], 0.0
    for pause, length in stalls:
        at += pause
        placed.append((at, float(length)))
        at += length
    clock = Clock(placed)
    end = at + 1500
    events = [(time, 0, tick) for tick, time in enumerate(clock.ticks(end))]
    events += [(clock.awake(float(due)), 1, 0) for due in range(drain_every, int(end), drain_every)]
    line = Line()
    for time, kind, tick in sorted(events):
        if kind == 0:
            line.put(tick, time, 1 + tick % 1000)
        else:
            line.drain(time)
    line.drain(end)
    results = line.run()
    audio = [value for result in results for value in result.ticks]
    assert abs(len(audio) * TICK_MS - end) <= 100
    heard = [value for value in audio if value]
    assert heard == sorted(heard), "frames changed their order"
    longest = max((length for _, length in placed), default=0)
    if longest < 400 and len(placed) <= 1:
        assert all(result.gap_ms == 0 for result in results)
