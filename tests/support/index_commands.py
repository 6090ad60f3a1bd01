"""`b2bua index` and `recordings` as tests run them, and what they look at in index and audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from b2bua.cli.main import main
from recording.index import IndexEntry, RecordingIndex
from recording.keys.local import create_kek
from recording.sinks.local import LocalSink
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration


def configured(directory: Path) -> ConfigurationFile:
    """A configuration with a key for backups of the index."""
    made = make_configuration(directory)
    made.replace("[keys.dev]", "fsync_interval_ms = 50\n[keys.dev]")
    create_kek(made.made.directory / "keys/backup.kek")
    made.append('[keys.backup]\nprovider = "local"\nkek = "keys/backup.kek"')
    made.replace("search_key =", 'backup_key = "backup"\nsearch_key =')
    return made


class Command:
    def __init__(self, file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self.capsys = capsys
        self.code = 0
        self.err = ""

    def __call__(self, group: str, name: str, *words: str) -> str:
        self.code = main([group, name, "-c", str(self.file.path), *words])
        captured = self.capsys.readouterr()
        self.err = captured.err
        return captured.out

    def json(self, group: str, name: str, *words: str) -> Any:
        return json.loads(self(group, name, *words, "--json"))

    def find(self, *words: str) -> list[str]:
        """File ids found."""
        return [entry["file_id"] for entry in self.json("recordings", "find", *words)["recordings"]]


@contextmanager
def opened(file: ConfigurationFile) -> Iterator[RecordingIndex]:
    with closing(RecordingIndex(file.load().recording.index_place)) as index:
        yield index


def age(file: ConfigurationFile, days: int) -> None:
    """Make every entry so much older."""
    with opened(file) as index:
        index.put(
            [replace(each, started_hour=each.started_hour - timedelta(days=days)) for each in index.find()]
        )


def events(file: ConfigurationFile, *names: str) -> list[dict[str, Any]]:
    return [line for line in sealed_lines(file.path) if line["event"] in names]


def path_of(sink: LocalSink, entry: IndexEntry) -> Path:
    assert entry.object_key is not None
    return sink.path(entry.object_key)
