"""When a figure counts as met, and what makes a measurement worthless."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.bench.figures import faults, judge

GOOD: dict[str, Any] = {
    "capacity": {
        "cpu_percent_per_call": 0.30,
        "recording_adds_percent": 20.0,
        "overruns": 0,
        "loss_percent": 0.0999,
        "memory_mib_per_call": 0.5,
        "samples": {
            "required": [
                {
                    "media": {
                        "packets_per_leg_second": 50.0,
                        "voiced_percent": 97.0,
                        "refused": 0,
                        "send_errors": 0,
                    },
                    "recordings": {"complete": 103, "expected": 103, "silent": 0},
                }
            ]
        },
    },
    "spooling": {
        "plan": {"recordings": 1000, "seconds": 20},
        "cpu_percent_for_1000_calls": 30.0,
        "drain_late_ms": {"median": 0.1, "worst": 200.0},
        "complete": 1000,
        "stored": True,
        "failures": {},
    },
    "rewrapping": {"cpu_ms_per_rewrap": 1.5},
    "reading": {"read_mb_per_s": 500, "verify_mb_per_s": 500},
    "index": {"search_ms": 9.99, "wrong": 0},
    "set_up": {"added_ms": 19.99},
    "rate": {"failures": 0, "failures_by_kind": {}},
}


def test_figures_at_their_limits_are_met() -> None:
    assert {target["met"] for target in judge(GOOD)} == {True}
    assert len(judge(GOOD)) == 12
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("capacity", "cpu_percent_per_call", 0.3001),
        ("capacity", "recording_adds_percent", 20.1),
        ("capacity", "overruns", 1),
        ("capacity", "loss_percent", 0.1),
        ("capacity", "memory_mib_per_call", 0.51),
        ("spooling", "cpu_percent_for_1000_calls", 30.01),
        ("rewrapping", "cpu_ms_per_rewrap", 1.51),
        ("reading", "read_mb_per_s", 499.9),
        ("reading", "verify_mb_per_s", 499.9),
        ("index", "search_ms", 10.0),
        ("set_up", "added_ms", 20.0),
        ("rate", "failures", 1),
    ],
)
def test_a_figure_beyond_its_limit_is_missed(section: str, key: str, value: float) -> None:
    results = copy.deepcopy(GOOD)
    results[section][key] = value
    (missed,) = [target for target in judge(results) if not target["met"]]
    assert missed["value"] == value


def test_only_measured_sections_are_judged() -> None:
    assert [target["name"] for target in judge({"set_up": {"added_ms": 1.0}})] == ["set-up time added"]


@pytest.mark.parametrize(
    ("place", "key", "value", "word"),
    [
        ("media", "packets_per_leg_second", 44.9, "packets a second"),
        ("media", "voiced_percent", 60.0, "hold sound"),
        ("media", "refused", 1, "authenticate"),
        ("media", "send_errors", 1, "could not be sent"),
        ("recordings", "complete", 102, "complete"),
        ("recordings", "silent", 1, "silent"),
    ],
)
def test_a_worthless_measurement_is_told(place: str, key: str, value: float, word: str) -> None:
    results = copy.deepcopy(GOOD)
    results["capacity"]["samples"]["required"][0][place][key] = value
    (fault,) = faults(results)
    assert word in fault


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("complete", 999, "999 of 1000"),
        ("stored", False, "store"),
        ("drain_late_ms", {"median": 0.1, "worst": 200.1}, "late"),
        ("failures", {"SpoolFullError": 1}, "SpoolFullError"),
    ],
)
def test_recordings_that_were_not_spooled_in_time_are_a_fault(key: str, value: object, word: str) -> None:
    results = copy.deepcopy(GOOD)
    results["spooling"][key] = value
    (fault,) = faults(results)
    assert word in fault


def test_calls_that_failed_are_a_fault() -> None:
    results = copy.deepcopy(GOOD)
    results["rate"] = {"failures": 2, "failures_by_kind": {"CallRefusedError: 503": 2}}
    assert "CallRefusedError" in faults(results)[0]


def test_a_search_that_finds_other_rows_is_a_fault() -> None:
    results = copy.deepcopy(GOOD)
    results["index"]["wrong"] = 1
    assert faults(results) == ["index: 1 searches found other rows"]
