"""Chained logs for tests, written and read by the product's own code under a local key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from b2bua.audit_store import new_key
from b2bua.journal.chain import ChainedLine
from b2bua.journal.chained import ChainedJournal
from b2bua.journal.head import read_head_file
from b2bua.journal.read import read_files
from b2bua.journal.segment import Recovered
from b2bua.journal.verify import RECOVERED_EVENT, Anchor, LogReport, verify_log
from recording.format.content import RecordingKind
from recording.keys.build import slot_keys
from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.pool import PooledKey
from recording.settings import LocalKeySettings
from recording.spool_file import Disk


def text(number: int) -> bytes:
    """A line as the audit log hands it over."""
    return json.dumps({"event": "fault", "count": number}).encode() + b"\n"


def append_all(journal: ChainedJournal, lines: list[bytes]) -> None:
    """Lines that are handed in until all are taken; what was taken is removed from the list, also where it fails."""
    while lines:
        del lines[: journal.append(lines)]


def mark(file: Recovered) -> bytes:
    """What tells of a file without an end."""
    told = {"event": RECOVERED_EVENT, "file_id": file.file_id.hex(), "count": file.lost_lines}
    return json.dumps(told).encode() + b"\n"


@dataclass
class Clock:
    """A clock that a test moves."""

    now_ns: int = 0

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class Log:
    """A directory with a chained log."""

    root: Path
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        kek = self.root / "log.kek"
        if not kek.exists():
            create_kek(kek)
        self.provider = LocalKeyProvider("log", LocalKeySettings(kek_path=kek))

    @property
    def directory(self) -> Path:
        return self.root / "log"

    def journal(
        self,
        *,
        disk: Disk | None = None,
        take_key: Callable[[bytes], PooledKey] | None = None,
        segment_seconds: int = 60,
    ) -> ChainedJournal:
        return ChainedJournal(
            self.directory,
            take_key=take_key or (lambda log_id: new_key(self.provider, log_id)),
            mark=mark,
            segment_seconds=segment_seconds,
            disk=disk,
            clock_ns=self.clock,
        )

    def write(self, *batches: list[bytes], seconds_between: int = 0) -> None:
        """Lines of one process from first to last, with time going by between batches."""
        journal = self.journal()
        for batch in batches:
            journal.append(batch)
            self.clock.now_ns += seconds_between * 1_000_000_000
        journal.close()

    def files(self) -> list[Path]:
        return sorted(self.directory.glob("*.crec*"))

    def verify(self, *anchors: Anchor) -> LogReport:
        return self.read(*anchors)[0]

    def read(self, *anchors: Anchor) -> tuple[LogReport, list[dict[str, Any]]]:
        """The report, and the lines in order."""
        lines: list[ChainedLine] = []
        report = verify_log(
            read_files(self.directory, keys=slot_keys([self.provider]), kind=RecordingKind.AUDIT),
            head=read_head_file(self.directory),
            head_after=lambda: read_head_file(self.directory),
            anchors=anchors,
            on_line=lines.append,
        )
        return report, [line.values for line in lines]

    def counts(self) -> list[int]:
        """The numbers that `text` was given, of a log that must be whole."""
        report, lines = self.read()
        assert report.is_whole, report.findings
        return [line["count"] for line in lines if line["event"] == "fault"]
