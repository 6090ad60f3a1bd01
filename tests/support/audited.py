"""The sealed audit log of a configuration, read as `b2bua audit` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from b2bua.journal.chain import ChainedLine
from b2bua.journal.head import read_head_file
from b2bua.journal.read import read_files
from b2bua.journal.verify import LogReport, verify_log
from b2bua.settings import AuditSettings
from recording.format.content import RecordingKind
from recording.keys.build import build_provider, slot_keys
from recording.settings import LocalKeySettings


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
    """The lines in order, of a log that must be whole and where `b2bua init` puts it; none if none was ever written.

    The configuration itself is not read: a test may have spoiled it.
    """
    directory = configuration.parent / "audit"
    if not directory.exists():
        return []
    kek = configuration.parent / "keys" / "audit.kek"
    settings = AuditSettings(directory=directory, key=LocalKeySettings(kek_path=kek))
    report, lines = read_audit(settings)
    assert report.is_whole, report.findings
    return [line.values for line in lines]
