"""The sealed log file: redacted lines in, the same out through `b2bua log show`, and nobody waits for it."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from b2bua import log
from b2bua import log_file as subject
from b2bua.cli.main import main
from b2bua.log_file import LogFile
from b2bua.settings import LogLevel, LogSettings
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration

NUMBER = "+4915112345678"


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "lab")
    made.append(
        '[keys.log]\nprovider = "local"\nkek = "keys/audit.kek"\n[log]\ndirectory = "log"\nkey = "log"'
    )
    return made


def say(file: ConfigurationFile, *events: tuple[str, dict[str, Any]], level: str = "info") -> None:
    """Log through a sealed file as a serving process does."""
    settings = file.load().log
    sealed = LogFile(settings)
    sealed.start()
    log.set_up(settings, write_sealed=sealed.write)
    try:
        for event, values in events:
            getattr(structlog.get_logger("b2bua.test"), level)(event, **values)
    finally:
        log.set_up(LogSettings(level=LogLevel.WARNING))
        sealed.close()


def show(file: ConfigurationFile, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["log", "show", "-c", str(file.path), "--reason", "review", "--json", *words]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["lines"]
    return found


def test_what_is_logged_is_sealed_redacted_and_shown(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    say(
        file,
        ("call_placed", {"call_uid": "ab" * 16, "peer": f"sip:{NUMBER}@pbx.example.test"}),
        ("second", {}),
    )
    assert "call_placed" in capsys.readouterr().err, "standard error has it too"
    first, second = show(file, capsys)
    assert (first["event"], first["call_uid"], first["level"]) == ("call_placed", "ab" * 16, "info")
    assert first["peer"] == "<uri>"
    assert second["event"] == "second"
    stored = b"".join(path.read_bytes() for path in (file.made.directory / "log").iterdir())
    assert b"call_placed" not in stored
    line = sealed_lines(file.path)[-1]
    assert (line["event"], line["reason"]) == ("log_read", "review")


def test_filters(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
    say(file, ("one", {}), ("two", {}))
    say(file, ("three", {}), level="error")
    assert [line["event"] for line in show(file, capsys)] == ["one", "two", "three"]
    assert [line["event"] for line in show(file, capsys, "--level", "error")] == ["three"]
    assert [line["event"] for line in show(file, capsys, "--event", "two")] == ["two"]
    assert show(file, capsys, "--until", "2020-01-01") == []
    assert len(show(file, capsys, "--since", "2020-01-01")) == 3
    assert main(["log", "show", "-c", str(file.path), "--reason", "review"]) == 0
    assert "three" in capsys.readouterr().out


def test_other_libraries_lines_are_sealed_too(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = file.load().log
    sealed = LogFile(settings)
    sealed.start()
    log.set_up(settings, write_sealed=sealed.write)
    logging.getLogger("other").warning("calling %s\nin two lines", NUMBER)
    log.set_up(LogSettings(level=LogLevel.WARNING))
    sealed.close()
    (line,) = show(file, capsys)
    assert line["event"] == "calling <number>\nin two lines"


def test_damage_is_told(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
    say(file, ("one", {}))
    (path,) = (file.made.directory / "log").glob("*.crec")
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1
    path.write_bytes(data)
    assert main(["log", "show", "-c", str(file.path), "--reason", "review", "--json"]) == 26
    captured = capsys.readouterr()
    assert json.loads(captured.out)["damaged"] == [path.name]
    assert path.name in captured.err


def test_where_there_is_no_log(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "show", "-c", str(file.path), "--reason", "review"]) == 77
    assert "no log yet" in capsys.readouterr().err
    file.replace('[log]\ndirectory = "log"\nkey = "log"', "")
    assert main(["log", "show", "-c", str(file.path), "--reason", "review"]) == 77
    assert "no sealed log file" in capsys.readouterr().err


def test_what_does_not_fit_is_dropped_at_once_counted_and_told(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "QUEUE_LINES", 10)
    monkeypatch.setattr(subject, "COMMIT_S", 0.01)
    sealed = LogFile(file.load().log)
    began = time.monotonic()
    for number in range(25):
        sealed.write(json.dumps({"event": f"line {number}"}))
    assert time.monotonic() - began < 1
    assert sealed.dropped == 15
    sealed.start()
    sealed.close()
    lines = show(file, capsys)
    assert (lines[0]["event"], lines[0]["count"]) == ("log_lines_dropped", 15)
    assert [line["event"] for line in lines[1:]] == [f"line {number}" for number in range(10)]


def test_a_line_longer_than_a_record_is_cut(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed = LogFile(file.load().log)
    sealed.write("ü" * 10_000)
    sealed.start()
    sealed.close()
    (line,) = show(file, capsys)
    assert set(line["event"]) <= {"ü", "\ufffd"}
    assert 1900 < len(line["event"]) < 2100
