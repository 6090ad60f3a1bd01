"""`python -m tests.bench`: measure, print one JSON object on stdout; progress goes to stderr.

Exit code 0: every figure is met. 1: some are not. 2: the measurement itself failed. With --quick the load is small and
nothing is promised of it: 0 means that calls and recordings were whole.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from b2bua.demo.stream import MediaSource
from support.endpoint import babble
from tests.bench.capacity import CapacityPlan, measure_capacity
from tests.bench.figures import faults, judge
from tests.bench.generator import GeneratorError
from tests.bench.index_search import SearchPlan, measure_search
from tests.bench.process import describe_machine
from tests.bench.reading import ReadingPlan, measure_reading
from tests.bench.relay import RelayError, measure_relay
from tests.bench.rewrapping import RewrappingPlan, measure_rewrapping
from tests.bench.sealing import SealingPlan, measure_sealing
from tests.bench.signalling import RatePlan, SetUpPlan, measure_rate, measure_set_up
from tests.bench.spooling import SpoolingPlan, measure_spooling

SECTIONS = ("sealing", "reading", "spooling", "rewrapping", "index", "set_up", "rate", "capacity")
ON_REQUEST = ("relay",)
"""Measured when named only: it needs a program that this project does not."""
PROGRAMME_S = 12


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        report = _measure(_parser().parse_args(arguments))
    except (GeneratorError, RelayError) as error:
        _say(f"not measured: {error}")
        return 2
    print(json.dumps(report, indent=2))
    return 0 if report["met"] else 1


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        capacity = CapacityPlan(calls=4, window_s=3, repeats=1, per_second=10, settle_s=1)
        set_up, rate = SetUpPlan(pairs=5), RatePlan(per_second=5, seconds=2, held_s=1)
        sealing, spooling = SealingPlan(recordings=50, seconds=1), SpoolingPlan(recordings=50, seconds=2)
        rewrapping, reading = RewrappingPlan(recordings=50, repeats=1), ReadingPlan(mebibytes=16)
        search = SearchPlan(rows=10_000, numbers=2_000, searches=50)
    else:
        capacity = CapacityPlan(calls=options.calls, window_s=options.window, repeats=options.repeats)
        set_up, rate, sealing, spooling = SetUpPlan(), RatePlan(), SealingPlan(), SpoolingPlan()
        rewrapping, reading = RewrappingPlan(), ReadingPlan()
        search = SearchPlan()
    packets = MediaSource.of_pcm(babble(PROGRAMME_S, seed=1)).payloads
    with tempfile.TemporaryDirectory(prefix="sealtrunk-bench-", dir=options.directory) as made:
        directory = Path(made)
        runs: dict[str, Callable[[], dict[str, Any]]] = {
            "sealing": lambda: measure_sealing(sealing, _say),
            "reading": lambda: measure_reading(reading, directory, _say),
            "spooling": lambda: measure_spooling(spooling, directory / "spooling", _say),
            "rewrapping": lambda: measure_rewrapping(rewrapping, directory / "rewrapping", _say),
            "index": lambda: measure_search(search, directory / "index", _say),
            "set_up": lambda: measure_set_up(set_up, packets, directory / "set-up", _say),
            "rate": lambda: measure_rate(rate, packets, directory / "rate", _say),
            "capacity": lambda: measure_capacity(capacity, packets, directory, _say),
            "relay": lambda: measure_relay(capacity, packets, directory, _say),
        }
        return _report(runs, options)


def _report(runs: dict[str, Callable[[], dict[str, Any]]], options: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    report: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": describe_machine(),
        "parameters": {
            "codec": "PCMU, 20 ms", "srtp": "AEAD_AES_256_GCM", "signalling": "TLS 1.3, client certificates",
            "recording": "required, mixed, 8 kHz, local key, spool and sink on a local disk",
            "spool": str(options.directory or tempfile.gettempdir()),
        },
    }  # fmt: skip
    results = {name: runs[name]() for name in (*SECTIONS, *ON_REQUEST) if name in options.only}
    targets, wrong = judge(results), faults(results)
    are_met = all(target["met"] for target in targets)
    for target in targets:
        word = "met" if target["met"] else "MISSED"
        _say(
            f"{word:6} {target['name']}: {target['value']} {target['relation']} {target['limit']} {target['unit']}"
        )
    for fault in wrong:
        _say(f"FAULT  {fault}")
    report |= {
        "seconds": round(time.monotonic() - began),
        "targets": targets,
        "faults": wrong,
        "met": not wrong and (are_met or options.quick),
        "results": results,
    }
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: small load, no promise")
    parser.add_argument(
        "--only", type=_sections, default=SECTIONS, help=f"some of {','.join((*SECTIONS, *ON_REQUEST))}"
    )
    parser.add_argument("--calls", type=int, default=100, help="calls up in the capacity runs (100)")
    parser.add_argument("--window", type=float, default=30.0, help="seconds of steady state measured (30)")
    parser.add_argument("--repeats", type=int, default=3, help="runs with recording, and as many without (3)")
    parser.add_argument(
        "--directory", type=Path, help="where spool and recordings go (the temporary directory)"
    )
    return parser


def _sections(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    unknown = set(chosen) - {*SECTIONS, *ON_REQUEST}
    if unknown:
        raise argparse.ArgumentTypeError(f"no section {', '.join(sorted(unknown))}")
    return chosen


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
