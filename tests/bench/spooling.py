"""What recording itself costs, sealing and spooling: many calls at once in real time, through the product's recorder.

Keys from the pool, real files, the usual group commit, the store on the same disk; no SIP and no media. Run in a
process of its own (`python -m tests.bench.spooling`), so that its CPU time is the recorder's and nothing else's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recording.call_recording import CallRecording
from recording.errors import RecordingError
from recording.format.content import RecordingMeta
from recording.index import IndexState, RecordingIndex
from recording.keys.local import LocalKeyProvider, create_kek
from recording.observer import SilentObserver
from recording.recorder import Recorder, TenantKey
from recording.settings import Layout, LocalKeySettings, PoolSettings, RecordingSettings
from tests.bench.capacity import Say
from tests.bench.process import machine_time, on_last_core

RATE_HZ = 8000
DRAIN_MS = 200
"""The pump's interval: how much audio a recording gets at a time."""
SETTLE_S = 3.0
"""After the last file was made; its making and first sync are no steady state."""
STOP_S = 60.0
TENANT, PROVIDER = "bench", "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolingPlan:
    """`recordings` at once, measured for `seconds` of steady state."""

    recordings: int = 1000
    seconds: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """What was measured between two moments."""

    wall_s: float
    user_s: float
    system_s: float
    others_s: float
    late_ms: Sequence[float]

    @property
    def cpu_s(self) -> float:
        """Of all threads of the process."""
        return self.user_s + self.system_s


def measure_spooling(plan: SpoolingPlan, directory: Path, say: Say) -> dict[str, Any]:
    """Run the load in a process of its own, kept to one core."""
    say(f"spooling: {plan.recordings} recordings at once, {plan.seconds:g} s each, in real time")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as made:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.spooling", made, str(plan.recordings), str(plan.seconds)],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            timeout=300 + 2 * plan.seconds,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    say(
        f"  {found['cpu_percent_for_1000_calls']:.1f} % of a core for 1000, others {found['others_percent']} %"
    )
    return found


def run(plan: SpoolingPlan, directory: Path) -> dict[str, Any]:
    """The measurement itself, in this process."""
    observer = _Failures()
    settings = _settings(directory, plan)
    keys = {PROVIDER: LocalKeyProvider(PROVIDER, LocalKeySettings(kek_path=directory / "kek"))}
    recorder = Recorder(
        settings, {TENANT: TenantKey(handle=os.urandom(16), provider=PROVIDER)}, keys, observer
    )
    recorder.start()
    if not recorder.wait_ready(60):
        raise SystemExit(f"the recorder is not ready: {recorder.readiness()}")
    recordings = [_open(recorder, observer) for _ in range(plan.recordings)]
    load = _Load(recordings)
    load.feed(SETTLE_S)
    window = _measure(load, plan.seconds)
    for recording in recordings:
        recording.finish(ended_by="caller", reason="completed")
    is_stored = recorder.stop(STOP_S)
    index = RecordingIndex(settings.index_path)
    counts = index.counts()
    index.close()
    return {
        "plan": {"recordings": plan.recordings, "seconds": plan.seconds},
        "cpu_percent_of_a_core": round(100 * window.cpu_s / window.wall_s, 2),
        "cpu_percent_for_1000_calls": round(100_000 * window.cpu_s / window.wall_s / plan.recordings, 2),
        "user_percent": round(100 * window.user_s / window.wall_s, 2),
        "system_percent": round(100 * window.system_s / window.wall_s, 2),
        "others_percent": round(100 * window.others_s / window.wall_s, 1),
        "drain_late_ms": {
            "median": round(statistics.median(window.late_ms), 1),
            "worst": round(max(window.late_ms), 1),
        },
        "complete": counts[IndexState.COMPLETE],
        "stored": is_stored,
        "failures": dict(observer.reasons),
    }


class _Failures(SilentObserver):
    """Counts what went wrong."""

    def __init__(self) -> None:
        self.reasons = Counter[str]()

    def recording_failed(self, *, file_id: bytes, call_uid: str, reason: str) -> None:
        del file_id, call_uid
        self.reasons[reason] += 1

    def failed(self, error: RecordingError) -> None:
        self.reasons[type(error).__name__] += 1


class _Load:
    """Gives each recording what a drain of its tap would give it, at the time it would.

    One turn after the other like the pump: all recordings get their audio, then all are ticked.
    """

    def __init__(self, recordings: Sequence[CallRecording]) -> None:
        self._recordings = recordings
        self._pieces = [memoryview(piece) for piece in _speech(seconds=12)]
        self._turns = 0
        self._began_ns = time.monotonic_ns()
        self.late_ms: list[float] = []

    def feed(self, seconds: float) -> None:
        for _ in range(math.ceil(seconds * 1000 / DRAIN_MS)):
            self._turn()

    def _turn(self) -> None:
        due_ns = self._began_ns + self._turns * DRAIN_MS * 1_000_000
        time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
        self.late_ms.append((time.monotonic_ns() - due_ns) / 1e6)
        frames = RATE_HZ * DRAIN_MS // 1000
        for number, recording in enumerate(self._recordings):
            recording.append(self._pieces[(self._turns + number) % len(self._pieces)], frames, 0)
        now = time.monotonic_ns()
        for recording in self._recordings:
            recording.tick(now)
        self._turns += 1


def _measure(load: _Load, seconds: float) -> _Window:
    load.late_ms.clear()
    before, machine = resource.getrusage(resource.RUSAGE_SELF), machine_time()
    began = time.monotonic()
    load.feed(seconds)
    wall = time.monotonic() - began
    after, busy = resource.getrusage(resource.RUSAGE_SELF), machine_time().busy_s - machine.busy_s
    user_s, system_s = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return _Window(
        wall_s=wall,
        user_s=user_s,
        system_s=system_s,
        others_s=max(0.0, busy - user_s - system_s),
        late_ms=tuple(load.late_ms),
    )


def _open(recorder: Recorder, observer: _Failures) -> CallRecording:
    meta = RecordingMeta(rate_hz=RATE_HZ, call_uid=os.urandom(16).hex(), from_="1001", to="2001")
    return recorder.open(recorder.reserve(TENANT), meta=meta, layout=Layout.MIXED, on_failure=observer.failed)


def _settings(directory: Path, plan: SpoolingPlan) -> RecordingSettings:
    """The defaults, but for the pool: all calls begin at once here."""
    create_kek(directory / "kek")
    return RecordingSettings(
        directory=directory / "recordings",
        spool_directory=directory / "spool",
        index_path=directory / "index.sqlite",
        keys={PROVIDER: LocalKeySettings(kek_path=directory / "kek")},
        pool=PoolSettings(size=plan.recordings),
    )


def _speech(*, seconds: int) -> list[bytes]:
    """Tones and pauses in pieces of one drain. What it is does not matter: sealing costs the same for all of it."""
    chance = random.Random(1)
    frames = RATE_HZ * DRAIN_MS // 1000
    pieces = []
    for _ in range(seconds * 1000 // DRAIN_MS):
        pitch, loud = chance.uniform(90, 400), chance.choice((0, 3000, 9000))
        pieces.append(
            struct.pack(
                f"<{frames}h",
                *(int(loud * math.sin(2 * math.pi * pitch * at / RATE_HZ)) for at in range(frames)),
            )
        )
    return pieces


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.spooling", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("recordings", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 256 + 2 * options.recordings
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))
    with on_last_core():
        found = run(SpoolingPlan(recordings=options.recordings, seconds=options.seconds), options.directory)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
