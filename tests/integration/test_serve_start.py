"""What `b2bua serve` says and returns when it cannot serve, and what it shows when it does."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from b2bua.demo.incoming import Answering
from b2bua.demo.sip_message import Header
from b2bua.initialise import InitOptions, initialise
from support.edge import Edge, edge, ports_kept, scrape, serving
from support.endpoint import LOCALHOST, run


def serve(configuration: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "b2bua", "serve", str(configuration)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    made = initialise(tmp_path / "lab", InitOptions(free_ports=True))
    with ports_kept(made), socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((LOCALHOST, made.sip_port))
        taken.listen()
        done = serve(made.configuration)
    assert done.returncode == 72
    assert f"the SIP listener did not start at {LOCALHOST}:{made.sip_port}" in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr
    with serving(made) as served:
        assert served.stop() == 0


def test_a_configuration_with_faults_names_each_with_its_line(tmp_path: Path) -> None:
    made = initialise(tmp_path / "lab", InitOptions(free_ports=True))
    text = made.configuration.read_text()
    made.configuration.write_text(
        text.replace('to = "callee"', 'to = "nobody"').replace("layout =", "layuot =")
    )
    made.edge.private_key_path.chmod(0o644)
    done = serve(made.configuration)
    assert done.returncode == 71
    for fault in ("nobody", "layuot", "edge.key"):
        assert fault in done.stderr
    assert "Traceback" not in done.stderr


def test_health_and_metrics_of_a_serving_process(tmp_path: Path) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call, other = await p.established()
            await call.stream.wait_heard(1.2, timeout_s=8)
            await call.hang_up()
            await other.wait_ended()
            refused = await p.invite(max_forwards=0)
            await refused.wait_final()

    with edge(tmp_path) as served:
        assert scrape(served, "/livez")[0] == 200
        assert scrape(served, "/readyz")[0] == 200
        run(scenario(served))
        served.wait_audit(lambda line: line["event"] == "recording_finished")
        status, text = scrape(served, "/metrics")
        assert status == 200
        lines = {
            line.split(" ")[0]: line.split(" ")[1] for line in text.splitlines() if line and line[0] != "#"
        }
        assert any(
            "calls" in name and 'direction="in"' in name and 'trunk="caller"' in name for name in lines
        )
        assert any(
            "refus" in name and "max_forwards" in name and float(value) == 1 for name, value in lines.items()
        )
        assert any("AEAD_AES_256_GCM" in name and float(value) == 2 for name, value in lines.items())
        assert any("caller_hung_up" in name and float(value) == 1 for name, value in lines.items())
        for secret in ("1001", "2001", "sips:"):
            assert secret not in text
        assert served.stop() == 0


def test_a_header_crosses_only_where_its_trunk_lets_it(tmp_path: Path) -> None:
    async def crossed(served: Edge) -> bool:
        async with served.parties(Answering()) as p:
            call, other = await p.established(headers=(Header("X-Ward", "seven"),))
            found = any(h.name.lower() == "x-ward" and h.value == "seven" for h in other.invite.headers)
            await call.hang_up()
            return found

    def allow(text: str) -> str:
        return text.replace("[trunks.caller]\n", '[trunks.caller]\npass_headers = ["X-Ward"]\n')

    with edge(tmp_path / "allowed", edit=allow) as served:
        assert run(crossed(served))
    with edge(tmp_path / "not") as served:
        assert not run(crossed(served))
