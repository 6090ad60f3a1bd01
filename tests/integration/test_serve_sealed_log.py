"""A serving process with a sealed log file, and what its audit log says of the configuration it serves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from b2bua.cli.main import main
from support.edge import edge

LOG = '\n[keys.log]\nprovider = "local"\nkek = "keys/audit.kek"\n\n[log]\ndirectory = "log"\nkey = "log"\n'


def test_a_serving_process_seals_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with edge(tmp_path, edit=lambda text: text + LOG) as served:
        (served.directory / "tls" / "edge.pem").write_text("no certificate")
        served.wait_audit(lambda line: line["event"] == "certificate_refused", timeout_s=20)
        assert served.stop() == 0
    assert "certificate_reload_refused" in served.stderr.read_text()
    stored = b"".join(path.read_bytes() for path in (served.directory / "log").iterdir())
    assert stored
    assert b"certificate_reload_refused" not in stored
    text = served.made.configuration.read_text()
    for kind in ("pem", "key"):  # the command reads the whole configuration, which must be good again
        text = text.replace(f'"tls/edge.{kind}"', f'"tls/caller.{kind}"')
    served.made.configuration.write_text(text)
    words = ["log", "show", "-c", str(served.made.configuration), "--reason", "review", "--json"]
    capsys.readouterr()
    assert main(words) == 0
    events = [line["event"] for line in json.loads(capsys.readouterr().out)["lines"]]
    assert "certificate_reload_refused" in events


def test_the_audit_log_names_the_configuration_that_is_served(tmp_path: Path) -> None:
    with edge(tmp_path) as served:
        digest = hashlib.sha256(served.made.configuration.read_bytes()).hexdigest()
        line = served.wait_audit(lambda line: line["event"] == "service_started")
        assert line["fingerprint"] == digest
