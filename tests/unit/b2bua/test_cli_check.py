"""`b2bua check` and `b2bua init` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from b2bua.cli.main import main
from b2bua.config import PATH_VARIABLE
from support.configuration import ConfigurationFile, make_configuration


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    return make_configuration(tmp_path / "lab")


def test_check_says_what_the_configuration_would_do(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    file.replace(
        "[keys.dev]", "record_ms = 300\ndrain_interval_ms = 100\nfsync_interval_ms = 600\n[keys.dev]"
    )
    assert main(["check", str(file.path)]) == 0
    out = capsys.readouterr().out
    for words in (
        "127.0.0.1:5061, TLS 1.3 only",
        "edge.example.test",
        "sips:callee.example.test:5072",
        "AEAD_AES_256_GCM",
        "required",
        "20000-20399",
        str(file.made.kek),
        "400 ms of audio",
        "1000 ms of audio",
    ):
        assert words in out


def test_check_json_is_one_object(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(file.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["sip"]["listen"] == "127.0.0.1:5061"
    assert found["trunks"]["callee"]["recording"] == "required"
    assert found["recording"]["kill_loss_bound_ms"] == 700
    assert found["recording"]["power_loss_bound_ms"] == 1700
    assert found["routes"][0] == {"from": "caller", "prefix": "", "to": "callee"}
    assert found["warnings"] == []


def test_check_prints_every_fault_with_its_line(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    file.replace('to = "callee"', 'to = "pbx"')
    file.replace("max_calls = 100", "max_call = 100")
    assert main(["check", str(file.path)]) == 71
    captured = capsys.readouterr()
    assert captured.out == ""
    route, limit, ports = file.line('to = "pbx"'), file.line("max_call ="), file.line("rtp_ports")
    assert [line.split(": ")[1] for line in captured.err.splitlines()] == [
        f"{file.path}:{ports}",
        f"{file.path}:{route}",
        f"{file.path}:{limit}",
    ]


def test_check_json_carries_the_faults_and_the_exit_code(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    file.replace('to = "callee"', 'to = "pbx"')
    assert main(["check", str(file.path), "--json"]) == 71
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["ok"] is False
    (problem,) = found["problems"]
    assert (problem["key"], problem["line"]) == ("routes[0].to", file.line('to = "pbx"'))
    assert captured.err == ""


def test_the_environment_may_name_the_file(
    file: ConfigurationFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(file.path))
    assert main(["check"]) == 0
    monkeypatch.delenv(PATH_VARIABLE)
    assert main(["check"]) == 77
    assert PATH_VARIABLE in capsys.readouterr().err


def test_init_makes_what_check_accepts_and_names_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "lab"), "--split", "--sip-port", "6061"]) == 0
    out = capsys.readouterr().out
    path = tmp_path / "lab" / "b2bua.toml"
    assert f"b2bua serve {path}" in out
    assert main(["check", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recording"]["layout"] == "split"
    assert found["sip"]["listen"] == "127.0.0.1:6061"


def test_init_json_names_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "lab"), "--free-ports", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Path(found["configuration"]).is_file()
    assert Path(found["authority"]).is_file()
    assert found["certificates"]["caller"]["identity"] == "caller.example.test"
    assert Path(found["certificates"]["caller"]["private_key"]).is_file()
    assert len(set(found["ports"].values())) == 4


def test_init_refuses_to_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "lab")]) == 0
    before = (tmp_path / "lab" / "b2bua.toml").read_bytes()
    assert main(["init", str(tmp_path / "lab")]) == 74
    assert "never overwritten" in capsys.readouterr().err
    assert (tmp_path / "lab" / "b2bua.toml").read_bytes() == before
