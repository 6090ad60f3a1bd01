"""`b2bua audit expire`: what is old goes as whole files, a signed statement stays, and a front cut by hand is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.cli.audit_reading import SealedAudit
from b2bua.cli.main import main
from b2bua.journal.chain import ChainHead
from b2bua.journal.expiry import NAME, Expiry, Statement
from b2bua.journal.head import read_head_file
from recording.errors import MalformedContentError
from recording.index import RecordingIndex
from recording.signing import SigningKey, create_signing_key
from support.configuration import ConfigurationFile, make_configuration
from support.recorded import record_call

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=2200)
YESTERDAY = NOW - timedelta(days=1)


@dataclass
class Log:
    """A configuration's audit log and its commands."""

    file: ConfigurationFile
    capsys: pytest.CaptureFixture[str]

    @property
    def directory(self) -> Path:
        directory = self.file.load().audit.directory
        assert directory is not None
        return directory

    def write(self, *times: datetime) -> None:
        """Lines of one process, in a file of its own."""
        log = AuditLog(self.file.load().audit)
        for at in times:
            log.write(AuditLine(event=AuditEvent.FAULT, at=at))
        log.close()

    def run(self, *words: str) -> tuple[int, Any, str]:
        code = main(["audit", words[0], "-c", str(self.file.path), *words[1:], "--json"])
        out, err = self.capsys.readouterr()
        return code, json.loads(out) if out else None, err

    def expire(self, *words: str) -> tuple[int, Any, str]:
        return self.run("expire", "--reason", "six-years-over", *words)

    def findings(self) -> set[str]:
        return {each["kind"] for each in self.run("verify")[1]["findings"]}

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = self.run("show", "--reason", "test", "--event", event)[1]["lines"]
        return lines

    def numbers(self) -> list[int]:
        return sorted(int(path.name[:8]) for path in self.directory.glob("*.crec*"))

    def path(self, number: int) -> Path:
        (path,) = self.directory.glob(f"{number:08d}-*.crec")
        return path


@pytest.fixture
def log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Log:
    """Two files of long ago, of two lines each, one of yesterday, and one more of long ago."""
    made = Log(make_configuration(tmp_path / "lab"), capsys)
    for times in ((LONG_AGO, LONG_AGO), (LONG_AGO, LONG_AGO), (YESTERDAY,), (LONG_AGO,)):
        made.write(*times)
    return made


def test_the_front_goes_and_the_rest_is_whole(log: Log) -> None:
    code, found, err = log.expire()
    assert (code, err) == (0, "")
    assert found == {"expired": {"files": 2, "lines": 4}, "removed": 2}
    assert log.numbers()[:2] == [2, 3], "what is young keeps what lies behind it"
    code, found, err = log.run("verify")
    assert (code, err, found["whole"]) == (0, "", True)
    assert found["expired"] == {"files": 2, "lines": 4}
    (line,) = log.lines("audit_expired")
    assert (line["reason"], line["count"]) == ("six-years-over", 4)
    log.write(NOW)
    assert log.findings() == set()


def test_a_second_expiry_goes_on_where_the_first_ended(log: Log) -> None:
    log.expire()
    log.file.replace('key = "audit"', 'key = "audit"\nretain_days = 1')
    log.write(NOW)
    code, found, _ = log.expire()
    assert (code, found["expired"]) == (0, {"files": 4, "lines": 6})
    assert log.findings() == set()
    assert log.numbers()[0] == 4


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_what_is_not_old_enough_stays(log: Log, words: tuple[str, ...]) -> None:
    log.file.replace('key = "audit"', 'key = "audit"\nretain_days = 3653')
    assert log.expire(*words)[:2] == (0, {"expired": None, "removed": 0})
    assert log.numbers() == [0, 1, 2, 3]


def test_a_dry_run_removes_nothing_and_says_what_would_go(log: Log) -> None:
    code, found, _ = log.expire("--dry-run")
    assert (code, found["expired"]["files"], found["removed"]) == (0, 2, 0)
    assert log.numbers() == [0, 1, 2, 3]
    assert not (log.directory / NAME).exists()


def test_lines_of_two_processes_that_lie_across_each_other_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A front that ends between them would take a line away whose number lies behind one that stays."""
    log = Log(make_configuration(tmp_path / "lab"), capsys)
    server = AuditLog(log.file.load().audit)
    server.start()
    server.write(AuditLine(event=AuditEvent.FAULT, at=LONG_AGO))
    server.flush()
    log.write(YESTERDAY)
    server.write(AuditLine(event=AuditEvent.FAULT, at=LONG_AGO))
    server.flush()
    server.close()
    assert log.expire()[1] == {"expired": None, "removed": 0}
    log.file.replace('key = "audit"', 'key = "audit"\nretain_days = 1')
    log.write(NOW)
    assert log.expire()[1]["expired"] == {"files": 2, "lines": 3}
    assert log.findings() == set()


# ---- attacks


@pytest.mark.parametrize("count", [1, 2])
def test_a_front_cut_by_hand_is_found(log: Log, count: int) -> None:
    for number in range(count):
        log.path(number).unlink()
    assert {"missing_file", "missing_lines"} <= log.findings()


def test_more_cut_than_expired_is_found(log: Log) -> None:
    log.expire()
    log.path(2).unlink()
    assert {"missing_file", "missing_lines"} <= log.findings()


def test_a_statement_taken_away_or_put_back_is_found(log: Log) -> None:
    log.expire()
    first = (log.directory / NAME).read_bytes()
    log.file.replace('key = "audit"', 'key = "audit"\nretain_days = 1')
    log.write(NOW)
    log.expire()
    (log.directory / NAME).write_bytes(first)
    assert "missing_file" in log.findings()
    (log.directory / NAME).unlink()
    assert "missing_file" in log.findings()


def forge(log: Log, key: SigningKey) -> None:
    """Cut the first file, with a statement by `key` that says it expired."""
    head = read_head_file(log.directory)
    assert head is not None
    with_line = log.run("show", "--reason", "test")[1]["lines"]
    assert [line["seq"] for line in with_line[:2]] == [1, 2]
    expiry = Expiry(
        log_id=head.log_id,
        files=1,
        last_file_id=bytes.fromhex(log.path(0).stem.partition("-")[2]),
        chain=ChainHead(sequence=2, hash=_hash_after(log, 2)),
        until=LONG_AGO,
        at=NOW,
    )
    Statement.sign(expiry, key).put_in_force(log.directory)


def _hash_after(log: Log, sequence: int) -> bytes:
    """As whoever may read the log finds it: the front's own end, of a statement that was made and not used."""
    found: list[bytes] = []

    def take(line: Any) -> None:
        if line.sequence == sequence:
            found.append(line.hash)

    settings = log.file.load()
    SealedAudit(settings=settings, directory=log.directory, is_copy=True, checkpoints=None).read(
        take, doing="reading"
    )
    return found[0]


def test_a_statement_by_another_key_is_none(log: Log, tmp_path: Path) -> None:
    create_signing_key(tmp_path / "other.pem")
    forge(log, SigningKey.load(tmp_path / "other.pem"))
    assert {"bad_expiry", "missing_file", "missing_lines"} <= log.findings()


def test_a_signed_statement_that_no_line_tells_of_is_found(log: Log) -> None:
    path = log.file.load().audit.signing_key_path
    assert path is not None
    forge(log, SigningKey.load(path))
    assert log.findings() == {"bad_expiry"}


def test_another_logs_statement_says_nothing_of_this_one(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Log(make_configuration(tmp_path / "other"), capsys)
    other.write(LONG_AGO, LONG_AGO)
    other.write(NOW)
    other.expire()
    key, mine = other.file.made.directory / "keys" / "signing.pem", log.file.made.directory / "keys"
    shutil.copy(key, mine / "signing.pem")
    shutil.copy(other.directory / NAME, log.directory / NAME)
    assert "bad_expiry" in log.findings()


# ---- refusals


def test_nothing_goes_while_a_recording_is_on_hold(log: Log) -> None:
    record_call(log.file.load())
    index = RecordingIndex(log.file.load().recording.index_path)
    (entry,) = index.find()
    index.put_hold(entry.recording, "court-order")
    code, _, err = log.expire()
    assert code == 79
    assert entry.file_id.hex() in err
    assert log.numbers()[:4] == [0, 1, 2, 3]
    assert [line["reason"] for line in log.lines("audit_expiry_refused")] == ["on_hold"]
    index.lift_hold(entry.recording)
    assert log.expire()[0] == 0
    assert log.numbers()[0] == 2


def test_nothing_goes_from_a_log_that_is_not_whole(log: Log) -> None:
    log.path(2).unlink()
    code, _, err = log.expire()
    assert code == 94
    assert "missing_file" in err
    assert log.numbers()[:3] == [0, 1, 3]


def test_without_a_signing_key_nothing_goes(log: Log) -> None:
    log.file.replace('signing_key = "keys/signing.pem"', "")
    code, _, err = log.expire()
    assert code == 77
    assert "signing_key" in err
    assert log.numbers()[:4] == [0, 1, 2, 3]


# ---- interruptions


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "removed"), [("b2bua.journal.expiry._replace", 2), ("b2bua.journal.expiry.remove_expired", 2)]
)
def test_an_interrupted_expiry_leaves_a_whole_log_and_is_done_by_the_next(
    log: Log, monkeypatch: pytest.MonkeyPatch, name: str, removed: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(name, interrupt)
        assert log.expire()[0] == 130
    assert log.findings() == set()
    assert log.numbers()[:4] == [0, 1, 2, 3]
    code, found, _ = log.expire()
    assert (code, found["removed"]) == (0, removed)
    assert log.findings() == set()
    assert log.numbers()[0] == 2


def test_the_line_comes_before_the_statement(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    note = SealedAudit.note

    def noting(audit: SealedAudit, event: AuditEvent, **fields: Any) -> None:
        note(audit, event, **fields)
        done.append(event.value)
        assert not (log.directory / NAME).exists()

    monkeypatch.setattr(SealedAudit, "note", noting)
    assert log.expire()[0] == 0
    assert done == ["audit_expired"]
    assert (log.directory / NAME).stat().st_mode & 0o777 == 0o600


# ---- form

GOOD = Expiry(
    log_id=b"L" * 16,
    files=3,
    last_file_id=b"F" * 16,
    chain=ChainHead(sequence=9, hash=b"H" * 32),
    until=LONG_AGO.replace(microsecond=0),
    at=NOW.replace(microsecond=0),
)


def test_a_statement_reads_back() -> None:
    assert Expiry.parse(GOOD.build()) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update(v=2),
        lambda found: found.update(files=0),
        lambda found: found.update(files="3"),
        lambda found: found.update(log="00"),
        lambda found: found.update(last=7),
        lambda found: found.update(hash="00" * 31),
        lambda found: found.update(sequence=True),
        lambda found: found.update(until="yesterday"),
        lambda found: found.pop("at"),
    ],
)
def test_a_statement_of_another_form_is_none(change: Callable[[dict[str, Any]], object]) -> None:
    found = json.loads(GOOD.build())
    change(found)
    with pytest.raises(MalformedContentError):
        Expiry.parse(json.dumps(found).encode())
