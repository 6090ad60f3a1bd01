"""The audit log in containers: sealed, chained, durable when it says so, and honest when it can't be."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from b2bua import audit as subject
from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.errors import AuditError, JournalError
from b2bua.journal.head import HeadFile
from b2bua.metrics import Metrics
from b2bua.settings import AuditSettings
from recording.keys.local import create_kek
from recording.settings import LocalKeySettings
from support.audited import read_audit


@pytest.fixture
def settings(tmp_path: Path) -> AuditSettings:
    create_kek(tmp_path / "audit.kek")
    return AuditSettings(
        directory=tmp_path / "audit",
        key_name="audit",
        key=LocalKeySettings(kek_path=tmp_path / "audit.kek"),
        commit_ms=20,
    )


def line(status: int) -> AuditLine:
    return AuditLine(event=AuditEvent.REQUEST_REFUSED, status=status)


def values(settings: AuditSettings) -> list[dict[str, Any]]:
    report, lines = read_audit(settings)
    assert report.is_whole, report.findings
    return [each.values for each in lines]


def sample(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(f"sealtrunk_{name}") or 0


def test_lines_are_sealed_chained_and_back_in_order(settings: AuditSettings) -> None:
    for first in (200, 300):
        log = AuditLog(settings)
        log.start()
        for status in range(first, first + 50):
            log.write(line(status))
        log.close()
        log.close()
    found = values(settings)
    assert [each["status"] for each in found] == [*range(200, 250), *range(300, 350)]
    assert set(found[0]) == {"at", "event", "status"}


def test_a_log_that_is_not_written_to_asks_for_no_key_and_leaves_no_file(settings: AuditSettings) -> None:
    log = AuditLog(settings)
    log.start()
    log.close()
    assert settings.directory is not None
    assert [path.name for path in settings.directory.iterdir()] == ["head"]


def test_the_writer_of_a_serving_process_keeps_keys_ready(settings: AuditSettings) -> None:
    metrics = Metrics()
    log = AuditLog(settings, observer=metrics, pool_observer=metrics)
    assert log.problem() is not None, "there is no key before the start"
    log.start()
    assert log.wait_ready(10)
    assert log.problem() is None
    log.write(line(200))
    log.flush()
    assert sample(metrics, "audit_lines_total") == 1
    log.close()
    assert [each["status"] for each in values(settings)] == [200]


def test_what_was_flushed_is_on_disk(settings: AuditSettings) -> None:
    log = AuditLog(settings)
    log.start()
    for status in (200, 201):
        log.write(line(status))
        log.flush()
        assert values(settings)[-1]["status"] == status, "the log is still open"
    log.close()


def test_lines_wait_for_each_other_but_not_for_long(settings: AuditSettings) -> None:
    metrics = Metrics()
    log = AuditLog(settings, observer=metrics)
    log.start()
    for status in range(200, 240):
        log.write(line(status))
    log.close()
    assert settings.directory is not None
    (file,) = settings.directory.glob("*.crec")
    assert file.stat().st_size <= 4096 + 4 * 4112, "forty lines are no forty commits"


def test_without_the_key_nothing_is_taken_and_flush_says_so(settings: AuditSettings, tmp_path: Path) -> None:
    log = AuditLog(settings)
    (tmp_path / "audit.kek").unlink()
    with pytest.raises(Exception, match=r"audit\.kek"):
        AuditLog(settings)
    log.close()


def test_a_log_that_can_not_be_written_fails_closed_and_loses_nothing(
    settings: AuditSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process sits on the head."""
    monkeypatch.setattr("b2bua.journal.head.LOCK_WAIT_S", 0.05)
    monkeypatch.setattr(subject, "RETRY_S", 0.05)
    metrics = Metrics()
    assert settings.directory is not None
    log = AuditLog(settings, observer=metrics)
    log.start()
    head = HeadFile.open(settings.directory)
    with head.locked():
        log.write(line(200))
        with pytest.raises(AuditError, match=r"nothing was done.*locked by another process"):
            log.flush()
        assert log.is_failing
        assert "locked by another process" in (log.problem() or "")
        assert sample(metrics, "audit_failures_total") >= 1
        log.write(line(201))
    head.close()
    log.write(line(202))
    log.close()
    assert log.problem() is None
    assert [each["status"] for each in values(settings)] == [200, 201, 202]


def test_a_queue_that_fills_is_a_problem_before_lines_are_lost(
    settings: AuditSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "QUEUE_LINES", 10)
    log = AuditLog(settings)
    for status in range(200, 205):
        log.write(line(status))
    assert log.problem() is None
    log.write(line(205))
    assert "6 lines wait" in (log.problem() or "")
    for status in range(206, 215):
        log.write(line(status))
    log.start()
    log.flush()
    assert log.problem() is None
    log.close()
    first, *rest = values(settings)
    assert (first["event"], first["count"]) == ("lines_lost", 5)
    assert [each["status"] for each in rest] == list(range(205, 215))


def test_lines_of_many_threads(settings: AuditSettings) -> None:
    log = AuditLog(settings)
    log.start()

    def write(thread: int) -> None:
        for _ in range(100):
            log.write(line(100 + thread))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    found = [each["status"] for each in values(settings)]
    assert {status: found.count(status) for status in set(found)} == dict.fromkeys(range(100, 104), 100)


def test_a_damaged_head_is_refused_at_the_start(settings: AuditSettings) -> None:
    AuditLog(settings).close()
    assert settings.directory is not None
    (settings.directory / "head").write_bytes(b"x" * 100)
    with pytest.raises(JournalError, match="restore it"):
        AuditLog(settings)
