"""`python -m tests`: the whole suite in two phases, as `make test` runs it; arguments go to pytest.

First the tests that may share the machine, several at a time: a few worker processes take one file after another, each
with servers of its own. Then, one by one, the tests marked `alone`: their verdict hangs on time, or on what else
the machine does. The closing line counts both phases, and the exit code is 0 only if nothing failed in either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

PYTEST = (sys.executable, "-m", "pytest", "-p", "tests.phases")
ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2 * (os.cpu_count() or 1)
"""Most tests wait more than they compute."""

PHASES = {
    # In the order of names, or a file with few but long tests would be begun last and be waited for.
    "together": (f"--numprocesses={WORKERS}", "--dist=loadfile", "--no-loadscope-reorder"),
    "alone": (),
}


def main(arguments: list[str]) -> int:
    """Run both phases; the exit code is pytest's."""
    started = time.monotonic()
    counts: Counter[str] = Counter()
    codes = []
    for phase, options in PHASES.items():
        code, counted = _run(phase, [*options, *arguments])
        codes.append(code)
        counts += counted  # and without what did not occur
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            break
    print("both phases:")
    print(closing_line(counts, round(time.monotonic() - started)))
    return exit_code(codes)


def exit_code(codes: list[int]) -> int:
    """One phase may have no tests, when a part of the suite is asked for; not both."""
    ran = [code for code in codes if code != pytest.ExitCode.NO_TESTS_COLLECTED]
    return max(ran, default=int(pytest.ExitCode.NO_TESTS_COLLECTED))


def closing_line(counts: Counter[str], seconds: int) -> str:
    """As pytest's own, failures first, so that whoever reads that line can read this one."""
    order = sorted(counts, key=lambda outcome: (outcome not in ("failed", "error"), outcome))
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in order)
    return f"===== {told or 'no tests ran'} in {seconds:.2f}s ({timedelta(seconds=seconds)}) ====="


def _run(phase: str, arguments: list[str]) -> tuple[int, Counter[str]]:
    with tempfile.TemporaryDirectory(prefix="sealtrunk-tests-") as directory:
        tally = Path(directory) / "tally.json"
        done = subprocess.run(
            [*PYTEST, f"--phase={phase}", f"--tally={tally}", *arguments],
            cwd=ROOT,
            check=False,
        )
        return done.returncode, Counter(json.loads(tally.read_text()) if tally.exists() else {})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
