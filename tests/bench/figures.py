"""The figures that the product promises, each with what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A promise about one number of one section: at most, or below; with `at_least`, no less."""

    name: str
    section: str
    key: str
    limit: float
    unit: str
    or_equal: bool
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        if self.at_least:
            return value >= self.limit
        return value <= self.limit if self.or_equal else value < self.limit

    def judge(self, value: float) -> dict[str, Any]:
        """The line of the report."""
        return {
            "name": self.name,
            "value": value,
            "limit": self.limit,
            "relation": ">=" if self.at_least else "<=" if self.or_equal else "<",
            "unit": self.unit,
            "met": self.is_met(value),
        }


TARGETS = (
    Target(name="CPU for sealing and spooling 1,000 recordings", section="spooling",
           key="cpu_percent_for_1000_calls", limit=30.0, unit="% of one core", or_equal=True),
    Target(name="CPU for a rewrapped data key", section="rewrapping", key="cpu_ms_per_rewrap", limit=1.5,
           unit="ms", or_equal=True),
    Target(name="CPU for a recorded call", section="capacity", key="cpu_percent_per_call", limit=0.30,
           unit="% of one core", or_equal=True),
    Target(name="CPU that recording adds", section="capacity", key="recording_adds_percent", limit=20.0,
           unit="%", or_equal=True),
    Target(name="tap overruns", section="capacity", key="overruns", limit=0, unit="frames", or_equal=True),
    Target(name="packet loss, worst run and direction", section="capacity", key="loss_percent", limit=0.1,
           unit="%", or_equal=False),
    Target(name="memory for a recorded call", section="capacity", key="memory_mib_per_call", limit=0.5,
           unit="MiB", or_equal=True),
    Target(name="reading a recording", section="reading", key="read_mb_per_s", limit=500, unit="MB/s of one core",
           or_equal=True, at_least=True),
    Target(name="verifying a recording", section="reading", key="verify_mb_per_s", limit=500,
           unit="MB/s of one core", or_equal=True, at_least=True),
    Target(name="index search by number among a million rows", section="index", key="search_ms", limit=10.0,
           unit="ms, 99th percentile", or_equal=False),
    Target(name="set-up time added", section="set_up", key="added_ms", limit=20.0, unit="ms", or_equal=False),
    Target(name="failures at the call rate", section="rate", key="failures", limit=0, unit="calls", or_equal=True),
)  # fmt: skip


def judge(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every target whose section was measured."""
    return [
        target.judge(results[target.section][target.key]) for target in TARGETS if target.section in results
    ]


def faults(results: Mapping[str, Any]) -> list[str]:
    """What makes the figures themselves worthless, whatever they say: media that did not flow, recordings not whole."""
    found = []
    for policy, samples in results.get("capacity", {}).get("samples", {}).items():
        for number, sample in enumerate(samples, 1):
            found += [f"capacity, {policy} {number}: {text}" for text in _sample_faults(sample)]
    found += _spooling_faults(results.get("spooling"))
    if results.get("index", {}).get("wrong"):
        found.append(f"index: {results['index']['wrong']} searches found other rows")
    if "rate" in results and results["rate"]["failures"]:
        found.append(f"call rate: {results['rate']['failures_by_kind']}")
    return found


def _spooling_faults(spooling: Mapping[str, Any] | None) -> list[str]:
    if spooling is None:
        return []
    expected, complete = spooling["plan"]["recordings"], spooling["complete"]
    checks = (
        (complete != expected, f"{complete} of {expected} recordings are complete"),
        (not spooling["stored"], "not all recordings reached the store"),
        (
            spooling["drain_late_ms"]["worst"] > 200,
            f"a drain came {spooling['drain_late_ms']['worst']} ms late",
        ),
        (bool(spooling["failures"]), f"failures: {spooling['failures']}"),
    )
    return [f"spooling: {text}" for is_wrong, text in checks if is_wrong]


def _sample_faults(sample: Mapping[str, Any]) -> list[str]:
    media = sample["media"]
    kept = sample.get("recordings", {"complete": 0, "expected": 0, "silent": 0})
    checks = (
        (media["packets_per_leg_second"] < 45, f"{media['packets_per_leg_second']} packets a second and leg"),
        (media["voiced_percent"] < 75, f"only {media['voiced_percent']} % of the packets hold sound"),
        (media["refused"] > 0, f"{media['refused']} packets that did not authenticate"),
        (media["send_errors"] > 0, f"{media['send_errors']} packets that could not be sent"),
        (kept["complete"] != kept["expected"], f"{kept['complete']} of {kept['expected']} recordings are complete"),
        (kept["silent"] > 0, f"{kept['silent']} recordings are silent"),
    )  # fmt: skip
    return [text for is_wrong, text in checks if is_wrong]
