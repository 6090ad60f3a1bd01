"""Audit lines: nothing but the allowed fields in their form, and none lost to a slow or full disk."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b2bua import audit as subject
from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.errors import AuditError
from b2bua.settings import AuditSettings

UID = "0123456789abcdef0123456789abcdef"

GOOD: dict[str, list[Any]] = {
    "key": ["dev", "clinic-2026"],
    "far_key": ["dev", "clinic-2026"],
    "call_uid": [UID, "0" * 32],
    "leg": ["A", "B"],
    "trunk": ["pbx", "carrier-2"],
    "far_trunk": ["carrier"],
    "tenant_handle": ["f" * 32],
    "status": [100, 699],
    "reason": ["no_route", "wrong-identity", "recorder_failed"],
    "file_id": ["0" * 32],
    "key_id": [
        "0123456789abcdef",
        "alias/recordings",
        "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "mrk-1234abcd12ab34cd56ef1234567890ab",
    ],
    "fingerprint": ["a" * 64],
    "source": ["192.0.2.1", "2001:db8::1"],
    "count": [0, 12],
    "action": ["export", "show"],
    "ticket": ["QA-1234", "INC-123456", "ABCD-1"],
    "by": ["command", "dtmf", "limit"],
    "policy": ["required", "best-effort"],
    "uid": [0, 65534],
}
BAD: dict[str, list[Any]] = {
    "key": ["Dev", "key one", "+49151"],
    "far_key": ["Dev", "key one", "+49151"],
    "call_uid": ["4915112345678", "abc@pbx.example.test", UID.upper(), "", 1],
    "leg": ["C", "a", "AB", "alice"],
    "trunk": ["sip:pbx", "+49151", "Alice Smith", "t12345", ""],
    "far_trunk": ["a@b", "4915112345678"],
    "tenant_handle": ["clinic", "f" * 31, "f" * 33],
    "status": [99, 700, True, "200", 4915112345678],
    "reason": ["Called +4915112345678", "no route", "n12345", "x" * 65, "sip:a"],
    "file_id": ["0" * 31, "x" * 32, UID + "\n"],
    "key_id": ["4915112345678", "sip:alice@example.test", "alias/a b", "arn:aws:kms:x@y"],
    "fingerprint": ["a" * 63, "sha256"],
    "source": ["pbx.example.test", "192.0.2.1:5061", "fe80::1%eth0", "4915112345678"],
    "count": [-1, 1.5, "3", True],
    "action": ["Export", "n12345"],
    "ticket": ["SMITH-1", "QA-1234567", "qa-1", "Q-1", "QA-", "+49-151", "QA-1\n"],
    "by": ["uid 0", "Nurse", "+49151"],
    "policy": ["Required", ""],
    "uid": [-1, 4915112345678, "root", True],
}


def cases(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in table.items() for value in values]


@pytest.mark.parametrize(("name", "value"), cases(GOOD))
def test_an_allowed_value_is_written(name: str, value: object) -> None:
    line = AuditLine(event=AuditEvent.CALL_ENDED, **{name: value})  # type: ignore[arg-type]
    assert json.loads(line.build())[name] == value


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_any_other_value_is_refused_and_not_quoted(name: str, value: object) -> None:
    with pytest.raises(AuditError, match=f"audit field {name} of call_ended") as caught:
        AuditLine(event=AuditEvent.CALL_ENDED, **{name: value})  # type: ignore[arg-type]
    assert len(str(value)) < 6 or str(value) not in str(caught.value)


def test_every_field_has_a_form() -> None:
    fields = set(AuditLine.__dataclass_fields__) - {"event", "at"}
    assert fields == set(subject._FORMS) == set(GOOD) == set(BAD)


@pytest.mark.parametrize("name", ["caller", "from", "uri", "sip_call_id", "number"])
def test_there_is_no_field_for_anything_else(name: str) -> None:
    with pytest.raises(TypeError):
        AuditLine(event=AuditEvent.CALL_ENDED, **{name: "x"})  # type: ignore[arg-type]


@given(st.text("0123456789", min_size=5, max_size=15), st.sampled_from(sorted(GOOD)))
def test_no_phone_number_fits_into_any_field(number: str, name: str) -> None:
    for value in (number, f"+{number}", f"sip:{number}@example.test", f"tel:{number}"):
        with pytest.raises(AuditError):
            AuditLine(event=AuditEvent.REQUEST_REFUSED, **{name: value})  # type: ignore[arg-type]


def test_a_line_is_one_json_object_with_its_time_in_utc() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))
    line = AuditLine(event=AuditEvent.CALL_STARTED, call_uid=UID, trunk="pbx", far_trunk="carrier", at=at)
    assert line.build() == (
        b'{"at":"2026-01-02T01:04:05.678+00:00","event":"call_started",'
        b'"call_uid":"' + UID.encode() + b'","trunk":"pbx","far_trunk":"carrier"}\n'
    )


def test_the_time_is_now() -> None:
    before = datetime.now(UTC)
    assert before <= AuditLine(event=AuditEvent.FAULT).at <= datetime.now(UTC)


# --- the log


def line(status: int) -> AuditLine:
    return AuditLine(event=AuditEvent.REQUEST_REFUSED, status=status)


def statuses(path: Path) -> list[int]:
    return [json.loads(text)["status"] for text in path.read_text().splitlines()]


def test_lines_are_appended_in_order_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for first in (200, 300):
        log = AuditLog(AuditSettings(path=path))
        log.start()
        for status in range(first, first + 50):
            log.write(line(status))
        log.close()
    assert statuses(path) == [*range(200, 250), *range(300, 350)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_lines_of_many_threads_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(AuditSettings(path=path))
    log.start()

    def write(thread: int) -> None:
        for _ in range(200):
            log.write(line(100 + thread))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    found = statuses(path)
    assert {status: found.count(status) for status in set(found)} == dict.fromkeys(range(100, 108), 200)


def test_without_a_path_lines_go_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    log = AuditLog(AuditSettings())
    log.start()
    log.write(line(200))
    log.close()
    assert json.loads(capfd.readouterr().err)["status"] == 200
    os.fstat(2)  # still open


def test_what_was_written_before_the_start_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(AuditSettings(path=path))
    log.write(line(200))
    log.close()
    assert statuses(path) == [200]


@pytest.mark.parametrize("mode", [0o644, 0o620])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    path.chmod(mode)
    with pytest.raises(AuditError, match=f"chmod 600 {path}"):
        AuditLog(AuditSettings(path=path))
    path.chmod(0o600)
    AuditLog(AuditSettings(path=path)).close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError, match="name a file"):
        AuditLog(AuditSettings(path=tmp_path / "audit.jsonl"))
    assert not (tmp_path / "elsewhere").exists()


class Disk:
    """Lets `os.write` fail as a full disk does, after some bytes of a line, until it is mended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, room: int) -> None:
        self.room = room
        self.refused = threading.Semaphore(0)
        self.write = os.write
        monkeypatch.setattr(os, "write", self.try_write)
        monkeypatch.setattr(subject, "RETRY_S", 0.01)

    def wait_for_second_refusal(self) -> None:
        """By then the first was noted."""
        assert self.refused.acquire(timeout=10)
        assert self.refused.acquire(timeout=10)

    def try_write(self, descriptor: int, data: Any) -> int:
        if self.room <= 0:
            self.refused.release()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = bytes(data)[: self.room]
        self.room -= len(part)
        return self.write(descriptor, part)


def test_a_full_disk_costs_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(AuditSettings(path=path))
    disk = Disk(monkeypatch, room=len(line(200).build()) * 2 + 20)
    for status in range(200, 210):
        log.write(line(status))
    log.start()
    disk.wait_for_second_refusal()
    assert log.is_failing
    disk.room = 1 << 20
    log.close()
    whole = [text for text in path.read_text().splitlines() if text.endswith("}")]
    assert [json.loads(text)["status"] for text in whole] == list(range(200, 210))
    assert not log.is_failing


def test_closing_says_how_many_lines_a_full_disk_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(AuditSettings(path=tmp_path / "audit.jsonl"))
    disk = Disk(monkeypatch, room=0)
    log.start()
    log.write(line(200))
    log.write(line(201))
    disk.wait_for_second_refusal()
    with pytest.raises(AuditError, match="2 audit lines"):
        log.close()
    log.close()


def test_what_does_not_fit_the_queue_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "QUEUE_LINES", 10)
    path = tmp_path / "audit.jsonl"
    log = AuditLog(AuditSettings(path=path))
    for status in range(200, 215):
        log.write(line(status))
    log.start()
    log.close()
    first, *rest = [json.loads(text) for text in path.read_text().splitlines()]
    assert (first["event"], first["count"]) == ("lines_lost", 5)
    assert [each["status"] for each in rest] == list(range(205, 215))


def test_writing_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(AuditSettings(path=tmp_path / "audit.jsonl"))
    held, reached = threading.Event(), threading.Event()

    def slow_sync(_: int) -> None:
        reached.set()
        assert held.wait(10)

    monkeypatch.setattr(os, "fdatasync", slow_sync)
    log.start()
    log.write(line(200))
    assert reached.wait(10)
    for _ in range(1000):
        log.write(line(201))  # returns although the thread is stuck
    held.set()
    log.close()
    assert len(statuses(tmp_path / "audit.jsonl")) == 1001
