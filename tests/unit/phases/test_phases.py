"""`python -m tests`: each test is run once, in its phase, and the closing line and the exit code speak for both."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.__main__ import ROOT, closing_line, exit_code

SUITE = """
import os
import pytest

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "none")

def test_in_a_worker():
    assert WORKER != "none"

@pytest.mark.alone
def test_alone():
    assert WORKER == "none"
"""
FAILING = "\ndef test_that_fails():\n    assert False\n"
FAILING_ALONE = "\n@pytest.mark.alone\ndef test_that_fails_alone():\n    assert False\n"


def run(directory: Path, suite: str, *arguments: str) -> tuple[int, str]:
    """Exit code and closing line for a suite of one file."""
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = alone: by itself\n")
    (directory / "test_suite.py").write_text(suite)
    options = ["-p", "no:cacheprovider", "-c", str(directory / "pytest.ini")]
    done = subprocess.run(
        [sys.executable, "-m", "tests", *options, *arguments, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    )
    return done.returncode, done.stdout.rstrip().rpartition("\n")[2]


@pytest.mark.parametrize(
    ("suite", "arguments", "code", "told"),
    [
        (SUITE, (), 0, "2 passed"),
        (SUITE + FAILING, (), 1, "1 failed, 2 passed"),
        (SUITE + FAILING_ALONE, (), 1, "1 failed, 2 passed"),
        (SUITE, ("-k", "test_alone"), 0, "1 passed"),
        (SUITE, ("-k", "nothing_like_it"), 5, "no tests ran"),
        (SUITE, ("--no-such-option",), 4, "no tests ran"),
        ("import no_such_module", (), 2, "2 error"),
    ],
    ids=["good", "bad together", "bad alone", "a part", "no part", "usage", "import"],
)
def test_both_phases_count(
    tmp_path: Path, suite: str, arguments: tuple[str, ...], code: int, told: str
) -> None:
    found, line = run(tmp_path, suite, *arguments)
    assert found == code, line
    assert re.fullmatch(rf"=+ {told} in \d+\.\d\ds \(0:\d\d:\d\d\) =+", line), line


def test_the_line_names_failures_first() -> None:
    counts = Counter({"passed": 7, "error": 1, "skipped": 2, "failed": 3})
    assert (
        closing_line(counts, 754) == "===== 1 error, 3 failed, 7 passed, 2 skipped in 754.00s (0:12:34) ====="
    )


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([0, 5], 0), ([5, 0], 0), ([5, 5], 5), ([1, 0], 1), ([0, 1], 1), ([5, 1], 1)],
)
def test_a_phase_without_tests_says_nothing(codes: list[int], code: int) -> None:
    assert exit_code(codes) == code
