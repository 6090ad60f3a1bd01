"""The bench runs from end to end and says all that it promises; what it measures here proves nothing about speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.figures import TARGETS

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a quick run; stdout must be that one JSON object and nothing else."""
    directory = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--directory", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert list(directory.iterdir()) == [], "the bench leaves recordings behind"
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_every_promised_figure_is_judged(report: dict[str, Any]) -> None:
    assert [target["name"] for target in report["targets"]] == [target.name for target in TARGETS]
    for target in report["targets"]:
        assert isinstance(target["met"], bool)
        assert isinstance(target["value"], int | float)


def test_the_machine_is_described(report: dict[str, Any]) -> None:
    machine = report["machine"]
    assert machine["openssl"].startswith("OpenSSL 3")
    assert machine["cores"] >= 1
    assert all(machine[name] for name in ("cpu_model", "kernel", "python", "pjproject", "libsrtp"))
    assert "governor" in machine


def test_media_and_recordings_were_whole(report: dict[str, Any]) -> None:
    assert report["faults"] == []
    for policy in ("required", "off"):
        (sample,) = report["results"]["capacity"]["samples"][policy]
        assert sample["media"]["received"] > 0
        assert sample["media"]["packets_per_leg_second"] > 45
        assert sample["cpu_percent"] > 0
    assert "pump" not in report["results"]["capacity"]["samples"]["off"][0]["cpu_percent_by_thread"]


def test_no_call_failed(report: dict[str, Any]) -> None:
    rate = report["results"]["rate"]
    assert rate["failures"] == 0, rate["failures_by_kind"]
    assert rate["recordings_complete"] == rate["calls"]
    set_up = report["results"]["set_up"]
    assert (
        len(set_up["samples"]["through_ms"]) == len(set_up["samples"]["direct_ms"]) == set_up["plan"]["pairs"]
    )


def test_recordings_were_spooled_in_real_time(report: dict[str, Any]) -> None:
    spooling = report["results"]["spooling"]
    assert spooling["complete"] == spooling["plan"]["recordings"] == 50
    assert spooling["stored"]
    assert spooling["user_percent"] > 0
    assert spooling["drain_late_ms"]["median"] < 200


def test_data_keys_were_moved_at_a_key_service(report: dict[str, Any]) -> None:
    rewrapping = report["results"]["rewrapping"]
    assert rewrapping["plan"]["recordings"] == 50
    assert rewrapping["rewrap_s"] > 0
    assert rewrapping["key_service_s"] > 0
    assert rewrapping["remote_service_per_second"] > 0
    assert rewrapping["remote_rewraps_per_second"] > 0


def test_reading_a_stored_file_has_rates(report: dict[str, Any]) -> None:
    reading = report["results"]["reading"]
    assert reading["file_bytes"] > 16 << 20
    assert reading["read_mb_per_s"] > 0
    assert reading["verify_mb_per_s"] > 0


def test_sealing_and_reading_have_rates(report: dict[str, Any]) -> None:
    sealing = report["results"]["sealing"]
    assert sealing["sealed_mib_per_cpu_second"] > 0
    assert sealing["read_mib_per_cpu_second"] > 0
