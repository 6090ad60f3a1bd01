"""The sealed audit log of a configuration, read as `b2bua audit` reads it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from b2bua.journal.chain import ChainedLine, read_line
from b2bua.journal.head import read_head_file
from b2bua.journal.read import read_files
from b2bua.journal.segment import segment_names
from b2bua.journal.verify import LogReport, verify_log
from b2bua.settings import AuditSettings
from recording.errors import CorruptRecordingError, FormatError, TruncatedRecordingError
from recording.format.content import RecordingKind
from recording.format.record import RecordType
from recording.keys.build import build_provider, slot_keys
from recording.reader import open_recording
from recording.settings import LocalKeySettings
from recording.unlock import SlotKey


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


class AuditTail:
    """The lines of a log that grows, each record read once: for tests that look at it again and again.

    What it gives is a prefix of the chain without a gap. Whether the log is whole is `read_audit`'s to say.
    """

    def __init__(self, configuration: Path) -> None:
        self._directory = configuration.parent / "audit"
        self._kek = configuration.parent / "keys" / "audit.kek"
        self._read: dict[bytes, tuple[int, int]] = {}
        self._lines: dict[int, dict[str, Any]] = {}

    def lines(self) -> list[dict[str, Any]]:
        """All there are now, in order."""
        if self._directory.exists():
            keys = slot_keys([build_provider("audit", LocalKeySettings(kek_path=self._kek))])
            for name in segment_names(self._directory):
                with contextlib.suppress(
                    FileNotFoundError
                ):  # it has ended meanwhile; the next look has its name
                    self._take(name.path, name.file_id, keys)
        found: list[dict[str, Any]] = []
        while (values := self._lines.get(len(found) + 1)) is not None:
            found.append(values)
        return found

    def _take(self, path: Path, file_id: bytes, keys: list[SlotKey]) -> None:
        size, index = path.stat().st_size, 0
        if file_id in self._read:
            seen, index = self._read[file_id]
            if seen == size:
                return
        # A file that is being begun has no head yet; one that is being written has no end.
        errors = (FormatError, TruncatedRecordingError, CorruptRecordingError)
        with contextlib.suppress(*errors), open_recording(path, keys=keys) as reader:
            try:
                for record in reader.records(index):
                    index += 1
                    if record.type == RecordType.DATA:
                        for stored in bytes(record.payload).splitlines():
                            line = read_line(stored)
                            self._lines[line.sequence] = line.values
            finally:
                self._read[file_id] = (size, index)


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
