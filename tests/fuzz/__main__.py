"""`python -m tests.fuzz SECONDS`: share the time among the targets; what breaks one becomes a test.

Exit code 0: nothing broke. 1: something did; the input lies in tests/data/fuzz, which the tests replay. 2: a target
did not run at all.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import DATA, TARGETS, Target

CRASHES = DATA / "fuzz"
UNIT_TIMEOUT_S = 10
"""For one input. A parser that takes so long is a defect as well."""
MEMORY_MIB = 2048
START_S = 60
_CRASH = 77
"""Exit code of libFuzzer when a target raised; 70: it took too long, 71: too much memory."""
_FOUND = frozenset({_CRASH, 70, 71})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one target."""

    name: str
    executions: int
    coverage: int
    code: int
    crashes: tuple[Path, ...]
    log: str


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("seconds", type=int, nargs="?", default=60, help="for all targets together (60)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0 draws one (0)")
    options = parser.parse_args(arguments)
    names = options.target or list(TARGETS)
    share = max(1, options.seconds // len(names))
    outcomes = [_run(name, share, options.seed) for name in names]
    for each in outcomes:
        _say(f"{each.name:14} {each.executions:>9} inputs, {each.coverage:>5} edges, code {each.code}")
    broken = [each for each in outcomes if each.code in _FOUND]
    failed = [each for each in outcomes if each.code and each.code not in _FOUND]
    for each in broken + failed:
        _say(f"--- {each.name}\n{each.log[-3000:]}")
        for path in each.crashes:
            _say(f"kept: {path}; mend what it breaks, and commit it: the tests replay it")
    return 1 if broken else 2 if failed else 0


def _run(name: str, seconds: int, seed: int) -> Outcome:
    """One target, with its seeds and what has ever broken it as corpus."""
    _say(f"{name}: {seconds} s")
    with tempfile.TemporaryDirectory(prefix="sealtrunk-fuzz-") as made:
        directory = Path(made)
        corpus, found = directory / "corpus", directory / "found"
        corpus.mkdir()
        found.mkdir()
        target = TARGETS[name]
        for number, data in enumerate((*target.seeds(), *_kept(name))):
            (corpus / f"seed-{number:04}").write_bytes(data)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.fuzz.engine",
                name,
                *_options(target, found, seconds, seed),
                str(corpus),
            ],
            cwd=DATA.parents[1],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + START_S + UNIT_TIMEOUT_S,
        )
        log = done.stdout + done.stderr
        return Outcome(
            name=name,
            executions=_number(r"stat::number_of_executed_units:\s*(\d+)", log),
            coverage=_number(r".*cov: (\d+)", log),
            code=done.returncode,
            crashes=tuple(_keep(name, path) for path in sorted(found.iterdir())),
            log=log,
        )


def _options(target: Target, found: Path, seconds: int, seed: int) -> list[str]:
    return [
        f"-max_total_time={seconds}",
        f"-max_len={target.max_len}",
        f"-timeout={UNIT_TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={found}/",
        f"-seed={seed}",
        "-print_final_stats=1",
    ]


def _kept(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CRASHES / name).glob("*"))]


def _keep(name: str, path: Path) -> Path:
    """Into the tree, under a name that follows from the content."""
    data = path.read_bytes()
    kept = CRASHES / name / hashlib.sha256(data).hexdigest()[:16]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(data)
    return kept


def _number(pattern: str, log: str) -> int:
    found = re.findall(pattern, log)
    return int(found[-1]) if found else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
