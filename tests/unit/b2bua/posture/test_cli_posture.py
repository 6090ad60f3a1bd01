"""`b2bua posture` as a user types it, with no service running."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from b2bua.cli.main import main
from support.configuration import ConfigurationFile, make_configuration
from support.recorded import record_call

FORBIDDEN = re.compile(r"validated|compliant", re.IGNORECASE)


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    return make_configuration(tmp_path / "lab")


def all_ok(found: dict[str, object]) -> dict[str, str]:
    safeguards = found["safeguards"]
    assert isinstance(safeguards, list)
    return {row["key"]: row["level"] for each in safeguards for row in each["findings"]}


def test_a_development_configuration_is_an_alarm(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["posture", str(file.path)]) == 99
    captured = capsys.readouterr()
    assert "verdict: alarm" in captured.out
    assert "b2bua: alarm: keys.dev.place:" in captured.err
    assert "throw-away listener" in captured.out
    assert "not evaluated by AWS" in captured.out


def test_json_and_page_say_the_same(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
    page = file.made.directory / "posture.html"
    record_call(file.load())
    assert main(["posture", str(file.path), "--json", "--html", str(page)]) == 99
    found = json.loads(capsys.readouterr().out)
    levels = all_ok(found)
    assert levels["keys.dev.place"] == "alarm"
    assert levels["recordings.states"] == "ok"
    assert levels["tls.metrics"] == "ok"
    assert levels["tls.sip"] == "unknown", "what was probed is not the SIP library's listener"
    text = page.read_text()
    for key in levels:
        assert key in text
    assert page.stat().st_mode & 0o777 == 0o600
    assert list(page.parent.glob(".posture.html.*")) == []


def test_no_output_says_what_only_an_assessor_may_say(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    page = file.made.directory / "posture.html"
    file.append('[posture]\nfips_required = true\nclaimed_certificates = { sip = "4282", "keys.dev" = "1" }')
    assert main(["posture", str(file.path), "--html", str(page)]) == 99
    assert main(["posture", str(file.path), "--json"]) == 99
    with pytest.raises(SystemExit):
        main(["posture", "--help"])
    captured = capsys.readouterr()
    for text in (captured.out, captured.err, page.read_text()):
        assert FORBIDDEN.search(text) is None
    assert captured.out.count("CMVP certificate 4282, as claimed by operator") == 2
    assert "fips.sip" in captured.err


def test_a_claim_is_a_number_and_nothing_else(file: ConfigurationFile) -> None:
    file.append('[posture]\nclaimed_certificates = { sip = "FIPS 140-3 validated" }')
    problem = file.problem()
    assert problem.key == "posture.claimed_certificates"
    assert "one to five digits" in problem.cure


@pytest.mark.parametrize("line", ["accepted = ['a b']", "accepted = ['']", "fips_required = 'yes'"])
def test_a_wrong_value_is_a_fault_of_the_configuration(file: ConfigurationFile, line: str) -> None:
    file.append(f"[posture]\n{line}")
    assert file.problem().key.startswith("posture.")


def test_what_was_accepted_does_not_count(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["posture", str(file.path), "--json"]) == 99
    levels = all_ok(json.loads(capsys.readouterr().out))
    counting = [key for key, level in levels.items() if level in {"attention", "unknown"}]
    file.append(f"[posture]\naccepted = {json.dumps(counting)}")
    assert main(["posture", str(file.path)]) == 99
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1:3] for line in lines] == [
        ["alarm", "keys.dev.place"],
        ["alarm", "keys.audit.place"],
    ]


def test_a_page_that_cannot_be_written_is_an_error(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["posture", str(file.path), "--html", "/nonexistent/posture.html"]) == 77
    assert "/nonexistent/posture.html" in capsys.readouterr().err


def test_a_configuration_with_faults_has_no_posture(file: ConfigurationFile) -> None:
    file.replace('to = "callee"', 'to = "nobody"')
    assert main(["posture", str(file.path)]) == 71
