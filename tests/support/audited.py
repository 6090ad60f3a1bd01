"""The sealed audit log of a configuration, read as `b2bua audit` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from b2bua.config import load
from b2bua.journal.chain import ChainedLine
from b2bua.journal.head import read_head_file
from b2bua.journal.read import read_files
from b2bua.journal.verify import LogReport, verify_log
from b2bua.settings import AuditSettings
from recording.format.content import RecordingKind
from recording.keys.build import build_provider, slot_keys


def read_audit(settings: AuditSettings) -> tuple[LogReport, list[ChainedLine]]:
    """The report over the log and its lines in order."""
    assert settings.directory is not None
    assert settings.key is not None
    directory = settings.directory
    lines: list[ChainedLine] = []
    report = verify_log(
        read_files(
            directory, keys=slot_keys([build_provider("audit", settings.key)]), kind=RecordingKind.AUDIT
        ),
        head=read_head_file(directory),
        head_after=lambda: read_head_file(directory),
        on_line=lines.append,
    )
    return report, lines


def sealed_lines(configuration: Path) -> list[dict[str, Any]]:
    """The lines in order, of a log that must be whole; none where nothing was ever written."""
    settings = load(configuration).audit
    assert settings.directory is not None
    if not settings.directory.exists():
        return []
    report, lines = read_audit(settings)
    assert report.is_whole, report.findings
    return [line.values for line in lines]
