"""A configuration of keys in files, with recordings that the recorder made, for tests of `b2bua keys`."""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from b2bua.cli.main import main
from recording.index import IndexEntry, IndexKey, RecordingIndex
from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.provider import KeyContext
from recording.settings import LocalKeySettings
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration
from support.recorded import RecordedCall, record_call


class KeysLab:
    """A configuration with recordings under [keys.dev], and an unused [keys.next]."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file: ConfigurationFile = make_configuration(directory)
        self.keys = directory / "keys"
        create_kek(self.keys / "next.kek")
        self.file.append('[keys.next]\nprovider = "local"\nkek = "keys/next.kek"')
        self.file.replace("[keys.dev]", "fsync_interval_ms = 50\n[keys.dev]")
        self.place = self.file.load().recording
        self._capsys = capsys
        self.out = self.err = ""

    def record(self, calls: int = 2) -> list[RecordedCall]:
        return [record_call(self.file.load(), seconds=0.2) for _ in range(calls)]

    def switch(self) -> None:
        """The tenant records under the next key from now on."""
        self.file.replace('key = "dev"', 'key = "next"')

    def take_off(self) -> None:
        """The trunks' calls are another tenant's from now on, as before a tenant is shredded."""
        create_kek(self.keys / "heir.kek")
        self.file.path.write_text(self.file.text.replace('tenant = "clinic"', 'tenant = "heir"'))
        self.file.append('[keys.heir]\nprovider = "local"\nkek = "keys/heir.kek"')
        self.file.append(f'[tenants.heir]\nhandle = "{secrets.token_hex(16)}"\nkey = "heir"')

    def run(self, *words: str) -> int:
        code = main([*words, "-c", str(self.file.path)])
        captured = self._capsys.readouterr()
        self.out, self.err = captured.out, captured.err
        return code

    def json(self, *words: str) -> dict[str, Any]:
        self.run(*words, "--json")
        found: dict[str, Any] = json.loads(self.out)
        return found

    def change(self, *entries: IndexEntry) -> None:
        index = self.index()
        index.put(entries)
        index.close()

    def entries(self) -> list[IndexEntry]:
        index = self.index()
        found = index.find()
        index.close()
        return found

    def index(self) -> RecordingIndex:
        return RecordingIndex(self.place.index_place)

    def audit(self, *events: str) -> list[dict[str, Any]]:
        return [line for line in sealed_lines(self.file.path) if line["event"] in events]

    def stored(self, call: RecordedCall) -> Path:
        """Its file in the store."""
        (path,) = self.place.directory.glob(f"**/{call.file_id}.crec")
        return path

    def forget(self, call: RecordedCall) -> None:
        """As in a lost index, or in that of another node."""
        with contextlib.closing(sqlite3.connect(self.place.index_path)) as connection, connection:
            gone = connection.execute("DELETE FROM recordings WHERE file_id = ?", (call.file_id,))
            assert gone.rowcount == 1

    def drop_section(self, name: str) -> None:
        self.file.replace(
            f"[keys.{name}]                              # a key in a file: development only. "
            f'Otherwise: provider = "aws-kms"\nprovider = "local"\nkek = "keys/{name}.kek"',
            "",
        )


def held(like: IndexEntry, **changes: object) -> IndexEntry:
    """Another file of the same tenant and key."""
    fields: dict[str, Any] = {
        "file_id": secrets.token_bytes(16),
        "recording": secrets.token_bytes(16),
        **changes,
    }
    return replace(like, **fields)


def verified(lab: KeysLab, calls: Sequence[RecordedCall]) -> None:
    found = lab.json("recordings", "verify", "--all", "--reason", "test")["recordings"]
    assert {each["file_id"] for each in found} >= {call.file_id for call in calls}
    assert {each["state"] for each in found} == {"complete"}


def index_key(lab: KeysLab, tenant_handle: bytes, name: str = "dev") -> tuple[IndexKey, bytes]:
    """A key of the index under the key of a section, put there as a recorder does; and what it is in clear."""
    provider = LocalKeyProvider(name, LocalKeySettings(kek_path=lab.keys / f"{name}.kek"))
    key_id = secrets.token_bytes(16)
    made = provider.new_key(KeyContext(file_id=key_id, tenant_handle=tenant_handle))
    key = IndexKey(
        key_id=key_id,
        tenant_handle=tenant_handle,
        provider=made.slot.provider,
        slot_key_id=made.slot.key_id,
        wrapped=made.slot.wrapped,
        created_hour=datetime(2026, 1, 1, tzinfo=UTC),
    )
    index = lab.index()
    index.put_key(key)
    index.close()
    return key, bytes(made.dek)
