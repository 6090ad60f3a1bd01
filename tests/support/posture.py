"""For the tests of the posture report."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.posture.report import Row
from b2bua.settings import Settings

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def find(rows: object, key: str) -> Row:
    assert isinstance(rows, list | tuple)
    (found,) = [row for row in rows if row.key == key]
    assert isinstance(found, Row)
    return found


def with_trunk(settings: Settings, **changes: object) -> Settings:
    trunk = dataclasses.replace(settings.trunks["caller"], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(settings, trunks={**settings.trunks, "caller": trunk})


def write_audit(settings: Settings, *, files: int = 1) -> Path:
    """A sealed log of so many files with a line in each; its directory."""
    for _ in range(files):
        log = AuditLog(settings.audit)
        log.start()
        log.write(AuditLine(event=AuditEvent.SERVICE_STARTED))
        log.close()
    assert settings.audit.directory is not None
    return settings.audit.directory
