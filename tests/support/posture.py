"""For the tests of the posture report."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

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
