"""The endpoint shares nothing with what it tests: neither pjsip nor the engine's SIP, SDP or native code."""

from __future__ import annotations

import subprocess
import sys

MODULES = "b2bua.demo.process, b2bua.demo.run, b2bua.demo.report, b2bua.demo.score"
FOREIGN = {
    "pjsua2", "OpenSSL", "b2bua.sip", "b2bua.native", "b2bua.call", "b2bua.engine", "b2bua.media", "recording", "tls",
}  # fmt: skip


def test_importing_it_loads_none_of_the_product_but_its_errors() -> None:
    program = f"import sys, {MODULES}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "b2bua.demo.endpoint" in loaded
    assert "pylibsrtp" in loaded
    assert loaded.isdisjoint(FOREIGN)
    assert {name for name in loaded if name.startswith("b2bua.") and ".demo" not in name} == {"b2bua.errors"}
