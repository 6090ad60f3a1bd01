"""The posture report beside a running service: its own listeners are probed, and the kernel is asked about it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from b2bua.posture.process import find_listening_process
from recording.settings import PoolSettings
from support.edge import Edge
from support.endpoint import LOCALHOST


def posture(served: Edge, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "b2bua", "posture", str(served.made.configuration), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def rows(served: Edge) -> dict[str, dict[str, Any]]:
    done = posture(served, "--json")
    assert done.returncode == 99, done.stderr
    found = json.loads(done.stdout)
    return {row["key"]: row for each in found["safeguards"] for row in each["findings"]}


def test_the_running_listeners_are_what_was_probed(served: Edge, rows: dict[str, dict[str, Any]]) -> None:
    for key, port in (("tls.sip", served.made.sip_port), ("tls.metrics", served.made.metrics_port)):
        row = rows[key]
        assert row["level"] == "ok", row
        assert row["evidence"].startswith(f"handshakes with {LOCALHOST}:{port},")
        assert row["finding"].startswith("accepts TLSv1.3 with TLS_")
        assert "client certificate required" in row["finding"]
        assert "TLSv1.2" not in row["finding"]
        certificate = rows[f"{key}.certificate"]
        assert certificate["level"] == "ok"
        assert certificate["evidence"].endswith(f"compared with what {LOCALHOST}:{port} shows")


def test_the_kernel_was_asked_about_the_process(served: Edge, rows: dict[str, dict[str, Any]]) -> None:
    assert find_listening_process(LOCALHOST, served.made.sip_port) == served.pid
    assert rows["process.running"]["finding"].startswith(f"process {served.pid} listens")
    assert rows["process.core_dumps"]["level"] == "ok"
    assert rows["process.core_dumps"]["evidence"] == f"/proc/{served.pid}/limits"
    assert "KiB of the service are locked" in rows["machine.swap"]["finding"]


def test_an_address_that_nobody_listens_at_has_no_process(served: Edge) -> None:
    assert find_listening_process("127.0.0.3", served.made.sip_port) is None
    assert find_listening_process("::1", served.made.sip_port) is None


def test_a_certificate_that_the_service_does_not_show_is_noticed(
    served: Edge, rows: dict[str, dict[str, Any]]
) -> None:
    """The metrics endpoint is given a file of its own that the service does not know of."""
    text = served.made.configuration.read_text()
    other = text.replace(
        "[metrics]",
        '[metrics]\ncertificate = "tls/callee.pem"\nprivate_key = "tls/callee.key"',
    )
    beside = served.made.configuration.with_name("other.toml")
    beside.write_text(other)
    done = subprocess.run(
        [sys.executable, "-m", "b2bua", "posture", str(beside), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = {row["key"]: row for each in json.loads(done.stdout)["safeguards"] for row in each["findings"]}
    row = found["tls.metrics.certificate"]
    assert row["level"] == "attention"
    assert "another certificate" in row["finding"]
    assert rows["tls.metrics.certificate"]["level"] == "ok"


def monitor(served: Edge, name: str = "monitor") -> list[str]:
    material = served.made.monitor if name == "monitor" else served.made.caller
    return [
        "--monitor-certificate",
        str(material.certificate_path),
        "--monitor-key",
        str(material.private_key_path),
    ]


def test_a_monitor_s_certificate_shows_pools_and_losses(served: Edge) -> None:
    found = json.loads(posture(served, "--json", *monitor(served)).stdout)
    shown = {row["key"]: row for each in found["safeguards"] for row in each["findings"]}
    assert shown["pool.clinic"]["level"] == "ok"
    size = PoolSettings().size
    assert shown["pool.clinic"]["finding"] == f"{size} of {size}"
    assert shown["process.losses"]["finding"] == "none"


def test_another_certificate_shows_neither(served: Edge, rows: dict[str, dict[str, Any]]) -> None:
    found = json.loads(posture(served, "--json", *monitor(served, "caller")).stdout)
    shown = {row["key"]: row for each in found["safeguards"] for row in each["findings"]}
    assert shown["process.losses"]["level"] == "unknown"
    assert "pool.clinic" not in shown
    assert "pool.clinic" not in rows


def test_a_certificate_without_its_key_is_refused(served: Edge) -> None:
    done = posture(served, *monitor(served)[:2])
    assert done.returncode == 77
    assert "go together" in done.stderr
