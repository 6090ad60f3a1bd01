"""`b2bua audit` as a user types it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.cli.main import main
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration
from support.recorded import record_call

UID, OTHER_UID = "ab" * 16, "cd" * 16
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    """A configuration with five lines in its audit log, an hour apart."""
    made = make_configuration(tmp_path / "lab")
    log = AuditLog(made.load().audit)
    for hour, (event, uid) in enumerate(
        [
            (AuditEvent.SERVICE_STARTED, None),
            (AuditEvent.CALL_STARTED, UID),
            (AuditEvent.CALL_ENDED, UID),
            (AuditEvent.CALL_STARTED, OTHER_UID),
            (AuditEvent.SERVICE_STOPPED, None),
        ]
    ):
        log.write(AuditLine(event=event, call_uid=uid, at=NOON + timedelta(hours=hour)))
    log.close()
    return made


class Command:
    """Runs `b2bua audit` with a configuration."""

    def __init__(self, file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self.capsys = capsys
        self.code = 0
        self.err = ""

    def __call__(self, *words: str) -> str:
        self.code = main(["audit", words[0], "-c", str(self.file.path), *words[1:]])
        captured = self.capsys.readouterr()
        self.err = captured.err
        return captured.out

    def json(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self(*words, "--json"))
        return found


@pytest.fixture
def run(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(file, capsys)


def files(file: ConfigurationFile) -> list[Path]:
    return sorted((file.made.directory / "audit").glob("*.crec"))


# --- verify


def test_a_whole_log(run: Command) -> None:
    assert "whole; 6 lines in 2 files" in run("verify")
    assert (run.code, run.err) == (0, "")
    found = run.json("verify")
    assert (found["whole"], found["lines"], found["findings"]) == (True, 7, [])
    assert found["head"]["sequence"] == 7


@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        (lambda path: path.unlink(), "missing_file"),
        (lambda path: path.write_bytes(path.read_bytes()[: -4112 * 2]), "cut"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5000] + b"x" * 5000), "altered"),
    ],
)
def test_what_was_done_to_it_is_named(run: Command, file: ConfigurationFile, attack: Any, kind: str) -> None:
    attack(files(file)[0])
    out = run("verify")
    assert run.code == 94
    assert "findings" in out
    assert kind in run.err
    assert kind in {finding["kind"] for finding in run.json("verify")["findings"]}


def test_verifying_is_a_line_too(run: Command, file: ConfigurationFile) -> None:
    run("verify")
    assert sealed_lines(file.path)[-1]["event"] == "audit_verified"


def test_a_copy_is_verified_without_writing_to_it(
    run: Command, file: ConfigurationFile, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(file.made.directory / "audit", copy)
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert "whole; 5 lines in 1 files" in run("verify", "--directory", str(copy))
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert len(sealed_lines(file.path)) == 5


def test_where_there_is_no_log(run: Command, tmp_path: Path) -> None:
    run("verify", "--directory", str(tmp_path / "none"))
    assert run.code == 77
    assert "no audit log" in run.err


def test_a_log_in_clear_proves_nothing(run: Command, file: ConfigurationFile) -> None:
    file.replace('directory = "audit"', 'plain = "audit.jsonl"')
    file.replace('key = "audit"  ', "")
    run("verify")
    assert run.code == 77
    assert "proves nothing" in run.err


# --- show


def events(found: dict[str, Any]) -> list[str]:
    return [line["event"] for line in found["lines"]]


def test_showing_asks_for_a_reason(run: Command, file: ConfigurationFile) -> None:
    with pytest.raises(SystemExit):
        run("show")
    run("show", "--reason", "Because of +49 151")
    assert run.code == 75
    assert len(sealed_lines(file.path)) == 5


def test_lines_are_shown_and_the_showing_is_a_line(run: Command, file: ConfigurationFile) -> None:
    found = run.json("show", "--reason", "incident-review")
    assert run.code == 0
    assert events(found) == [
        "service_started",
        "call_started",
        "call_ended",
        "call_started",
        "service_stopped",
        "audit_read",
    ]
    assert [line["seq"] for line in found["lines"]] == [1, 2, 3, 4, 5, 6]
    assert sealed_lines(file.path)[-1]["reason"] == "incident-review"
    out = run("show", "--reason", "incident-review", "--event", "call_ended")
    assert f"call_uid={UID}" in out
    assert "service_started" not in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--event", "call_ended"], ["call_ended"]),
        (
            ["--event", "call_ended", "--event", "call_started"],
            ["call_started", "call_ended", "call_started"],
        ),
        (["--call-uid", UID], ["call_started", "call_ended"]),
        (["--call-uid", "ef" * 16], []),
        (["--until", "2026-03-01T14:00:00Z"], ["service_started", "call_started"]),
        (["--since", "2026-03-01T15:00", "--until", "2026-03-02"], ["call_started", "service_stopped"]),
        (["--since", "2026-03-01T15:00:00+02:00", "--call-uid", UID], ["call_started", "call_ended"]),
    ],
)
def test_filters(run: Command, words: list[str], expected: list[str]) -> None:
    assert events(run.json("show", "--reason", "review", *words)) == expected


@pytest.mark.parametrize("words", [["--since", "noon"], ["--event", "lunch"]])
def test_filters_that_make_no_sense(run: Command, words: list[str]) -> None:
    with pytest.raises(SystemExit):
        run("show", "--reason", "review", *words)


def test_a_call_is_named_by_its_uid_alone(run: Command) -> None:
    run("show", "--reason", "review", "--call-uid", "+4915112345678")
    assert run.code == 77


def test_what_is_wrong_is_told_while_showing(run: Command, file: ConfigurationFile) -> None:
    run("show", "--reason", "review")
    files(file)[0].unlink()
    assert events(run.json("show", "--reason", "review")) == ["audit_read", "audit_read"]
    assert run.code == 94
    assert "missing_lines" in run.err


# --- what may not happen unaudited


def test_nothing_is_read_while_the_log_can_not_be_written(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The disk of the log is full."""
    call = record_call(file.load())
    export = ["recordings", "export", "-c", str(file.path), call.file_id, "-o", str(tmp_path / "call.wav")]
    export += ["--plaintext", "--reason", "test"]

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert main(export) == 75
    err = capsys.readouterr().err
    assert "No space left" in err
    assert not (tmp_path / "call.wav").exists()
    assert main(export) == 0
    assert (tmp_path / "call.wav").exists()
