"""`b2bua keys` retire, shred, rotate and status over recordings that the recorder made, under keys in files."""

from __future__ import annotations

import io
import json
import os
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from b2bua.cli.main import main
from recording.errors import MissingSlotError
from recording.format.slots import KeySlot
from recording.index import IndexEntry, IndexKey, IndexState, RecordingIndex
from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.provider import KeyContext
from recording.settings import LocalKeySettings
from recording.sinks.local import LocalSink
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration
from support.key_pairs import rsa_files
from support.recorded import RecordedCall, record_call

IN_USE, REFUSED, OVERDUE, NOT_CONFIRMED = 113, 114, 85, 86
REASON = ("--reason", "ticket-17")


class Lab:
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

    def drop_section(self, name: str) -> None:
        self.file.replace(
            f"[keys.{name}]                              # a key in a file: development only. "
            f'Otherwise: provider = "aws-kms"\nprovider = "local"\nkek = "keys/{name}.kek"',
            "",
        )


@pytest.fixture
def lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lab:
    return Lab(tmp_path / "lab", capsys)


def held(like: IndexEntry, **changes: object) -> IndexEntry:
    """Another file of the same tenant and key."""
    fields: dict[str, Any] = {
        "file_id": secrets.token_bytes(16),
        "recording": secrets.token_bytes(16),
        **changes,
    }
    return replace(like, **fields)


def verified(lab: Lab, calls: Sequence[RecordedCall]) -> None:
    found = lab.json("recordings", "verify", "--all", "--reason", "test")["recordings"]
    assert {each["file_id"] for each in found} >= {call.file_id for call in calls}
    assert {each["state"] for each in found} == {"complete"}


# --- retire


def test_recordings_are_moved_and_the_old_key_goes(lab: Lab) -> None:
    calls = lab.record(3)
    lab.switch()
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == 0, lab.err
    assert "3 recordings moved to keys.next, 0 were there" in lab.out
    assert not (lab.keys / "dev.kek").exists()
    assert (lab.keys / "dev.kek.disabled").exists()
    lab.drop_section("dev")
    verified(lab, calls)
    (moved,) = lab.audit("key_rewrapped")
    assert (moved["key"], moved["far_key"], moved["count"], moved["reason"]) == (
        "dev",
        "next",
        3,
        "ticket-17",
    )
    (disabled,) = lab.audit("key_disabled")
    assert (disabled["key"], disabled["reason"]) == ("dev", "ticket-17")


def test_a_key_that_a_tenant_records_under_is_not_retired(lab: Lab) -> None:
    lab.record(1)
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == IN_USE
    assert "tenant clinic" in lab.err
    assert lab.run("keys", "retire", "audit", "--to", "next", "--rewrap", *REASON) == IN_USE
    assert "the audit log" in lab.err
    assert (lab.keys / "dev.kek").exists()
    assert [line["key"] for line in lab.audit("key_refused")] == ["dev", "audit"]


def test_without_a_move_a_key_that_recordings_need_is_not_disabled_and_they_are_named(lab: Lab) -> None:
    calls = lab.record(2)
    lab.switch()
    assert lab.run("keys", "retire", "dev", "--to", "next", *REASON) == IN_USE
    for call in calls:
        assert call.file_id in lab.err
    assert (lab.keys / "dev.kek").exists()
    verified(lab, calls)


@pytest.mark.parametrize("kept", ["hold", "retention"])
def test_what_must_be_kept_and_cannot_be_moved_keeps_the_key(lab: Lab, kept: str) -> None:
    """A file that is still in the spool is not moved."""
    lab.record(1)
    lab.switch()
    (entry,) = lab.entries()
    later = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=1)
    changes = {"hold": "litigation"} if kept == "hold" else {"retain_until": later}
    spooled = held(entry, object_key=None, **changes)
    lab.change(spooled)
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == IN_USE
    assert {"hold": "on hold", "retention": "inside retention"}[kept] in lab.err
    assert spooled.file_id.hex() in lab.err
    assert entry.file_id.hex() not in lab.err, "that one was moved"
    assert (lab.keys / "dev.kek").exists()


def test_what_is_kept_is_moved_like_all_else(lab: Lab) -> None:
    calls = lab.record(1)
    lab.switch()
    (entry,) = lab.entries()
    lab.change(replace(entry, retain_until=datetime(2999, 1, 1, tzinfo=UTC)))
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == 0, lab.err
    lab.drop_section("dev")
    verified(lab, calls)
    assert lab.entries()[0].retain_until == datetime(2999, 1, 1, tzinfo=UTC)


def test_a_run_that_missed_the_index_is_finished_by_the_next(lab: Lab) -> None:
    """As after kill -9 between a sidecar and the index: the key service is asked, nothing is written twice."""
    calls = lab.record(2)
    lab.switch()
    before = lab.entries()
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", "--keep-enabled", *REASON) == 0, (
        lab.err
    )
    assert "still enabled" in lab.out
    lab.change(*before)
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == 0, lab.err
    assert "0 recordings moved to keys.next, 2 were there" in lab.out
    sink = LocalSink(lab.place.directory)
    assert [sink.slot_generations(str(each.object_key)) for each in lab.entries()] == [[1], [1]]
    lab.drop_section("dev")
    verified(lab, calls)


def test_a_recording_that_cannot_be_moved_keeps_the_key_and_the_others_are_moved(lab: Lab) -> None:
    lab.record(2)
    lab.switch()
    first, second = lab.entries()
    path = LocalSink(lab.place.directory).path(str(first.object_key))
    data = bytearray(path.read_bytes())
    data[136:138] = b"\xff\xff"  # the slot count
    path.write_bytes(data)
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == IN_USE
    assert first.file_id.hex() in lab.err
    assert second.file_id.hex() not in lab.err
    assert (lab.keys / "dev.kek").exists()
    provider = LocalKeyProvider("next", LocalKeySettings(kek_path=lab.keys / "next.kek"))
    assert {entry.file_id for entry in lab.entries() if entry.key_id.encode() == provider.slot_key_id} == {
        second.file_id
    }


def test_the_audit_logs_own_files_keep_the_key_that_they_are_under(lab: Lab) -> None:
    lab.record(1)
    lab.run("recordings", "verify", "--all", "--reason", "test")
    create_kek(lab.keys / "audit2.kek")
    lab.file.replace("[audit]", '[keys.audit2]\nprovider = "local"\nkek = "keys/audit2.kek"\n\n[audit]')
    lab.file.replace('key = "audit" ', 'key = "audit2" ')
    assert lab.run("keys", "retire", "audit", "--to", "audit2", "--rewrap", *REASON) == IN_USE
    assert "files of the audit log" in lab.err
    assert (lab.keys / "audit.kek").exists()


def index_key(lab: Lab, tenant_handle: bytes, name: str = "dev") -> tuple[IndexKey, bytes]:
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


def test_keys_of_the_index_are_moved_too(lab: Lab) -> None:
    lab.record(1)
    lab.switch()
    tenant = lab.file.load().tenants["clinic"].handle
    key, dek = index_key(lab, tenant)
    assert lab.run("keys", "retire", "dev", "--to", "next", *REASON) == IN_USE
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == 0, lab.err
    index = lab.index()
    (moved,) = [each for each in index.index_keys() if each.key_id == key.key_id]
    index.close()
    provider = LocalKeyProvider("next", LocalKeySettings(kek_path=lab.keys / "next.kek"))
    slot = KeySlot(provider=moved.provider, key_id=moved.slot_key_id, wrapped=moved.wrapped)
    assert provider.unwrap(slot, KeyContext(file_id=key.key_id, tenant_handle=tenant)) == dek
    assert (moved.tenant_handle, moved.created_hour) == (key.tenant_handle, key.created_hour)


def test_a_key_that_only_the_index_needs_is_not_disabled(lab: Lab) -> None:
    lab.record(1)
    create_kek(lab.keys / "spare.kek")
    lab.file.append('[keys.spare]\nprovider = "local"\nkek = "keys/spare.kek"')
    index_key(lab, lab.file.load().tenants["clinic"].handle, "spare")
    assert lab.run("keys", "retire", "spare", "--to", "next", *REASON) == IN_USE
    assert "1 keys of the index" in lab.err
    assert (lab.keys / "spare.kek").exists()


def test_a_key_that_opens_another_tenants_index_or_the_audit_log_is_not_destroyed(lab: Lab) -> None:
    lab.record(1)
    index_key(lab, b"another tenant's")
    assert lab.run("keys", "shred", "clinic", "--yes", *REASON) == IN_USE
    assert "keys of the index for other tenants" in lab.err
    assert (lab.keys / "dev.kek").exists()


def test_a_key_that_was_the_audit_logs_is_not_destroyed(lab: Lab) -> None:
    """The log has a new key since, and a tenant got the old one."""
    create_kek(lab.keys / "audit2.kek")
    lab.run("keys", "rotate", "dev", *REASON)
    lab.file.replace("[audit]", '[keys.audit2]\nprovider = "local"\nkek = "keys/audit2.kek"\n\n[audit]')
    lab.file.replace('key = "audit" ', 'key = "audit2" ')
    lab.file.replace('key = "dev"', 'key = "audit"')
    lab.record(1)
    assert lab.run("keys", "shred", "clinic", "--yes", *REASON) == IN_USE
    assert "files of the audit log" in lab.err
    assert (lab.keys / "audit.kek").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("dev", "--to", "none", "--rewrap"), 77),
        (("none", "--to", "dev", "--rewrap"), 77),
        (("dev", "--to", "next", "--keep-enabled"), 77),
        (("dev", "--to", "dev", "--rewrap"), REFUSED),
    ],
)
def test_retiring_what_cannot_be_is_refused_with_a_reason(
    lab: Lab, words: tuple[str, ...], code: int
) -> None:
    lab.record(1)
    assert lab.run("keys", "retire", *words, *REASON) == code
    assert lab.err.startswith("b2bua: ")
    assert (lab.keys / "dev.kek").exists()


def test_nothing_is_retired_where_no_index_says_what_needs_it(lab: Lab) -> None:
    lab.switch()
    assert lab.run("keys", "retire", "dev", "--to", "next", *REASON) == IN_USE
    assert "no index" in lab.err
    assert (lab.keys / "dev.kek").exists()


@pytest.mark.parametrize("reason", ["", "Upper", "has space", "call-4915112345678"])
def test_a_reason_is_a_label_and_no_number(lab: Lab, reason: str) -> None:
    with pytest.raises(SystemExit) as caught:
        lab.run("keys", "rotate", "dev", "--reason", reason)
    assert caught.value.code == 2


# --- rotate


def test_a_local_key_is_not_rotated_and_the_refusal_says_what_to_do(lab: Lab) -> None:
    assert lab.run("keys", "rotate", "dev", *REASON) == REFUSED
    assert "keys retire dev --to NAME --rewrap" in lab.err
    (line,) = lab.audit("key_refused")
    assert (line["key"], line["reason"]) == ("dev", "ticket-17")


# --- shred


def test_a_shredded_tenants_recordings_open_for_nobody(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = lab.record(2)
    verified(lab, calls)
    monkeypatch.setattr(sys, "stdin", io.StringIO("clinic\n"))
    assert lab.run("keys", "shred", "clinic", *REASON) == 0, lab.err
    assert "2 files of tenant clinic can be opened by nobody" in lab.out
    assert not (lab.keys / "dev.kek").exists()
    lab.switch()
    lab.drop_section("dev")
    assert lab.run("recordings", "verify", "--all", "--reason", "test") == MissingSlotError.exit_code
    assert all(call.file_id in lab.err for call in calls)
    started, destroyed = lab.audit("key_destruction_started", "key_destroyed")
    assert (started["event"], destroyed["event"]) == ("key_destruction_started", "key_destroyed")
    assert {line["key"] for line in (started, destroyed)} == {"dev"}
    assert destroyed["count"] == 2
    assert destroyed["tenant_handle"] == lab.file.load().tenants["clinic"].handle.hex()


def test_a_tenants_earlier_keys_are_destroyed_too(lab: Lab) -> None:
    lab.record(1)
    lab.switch()
    lab.record(1)
    assert lab.run("keys", "shred", "clinic", "--yes", *REASON) == 0, lab.err
    assert not (lab.keys / "dev.kek").exists()
    assert not (lab.keys / "next.kek").exists()
    assert (lab.keys / "audit.kek").exists()


@pytest.mark.parametrize("typed", ["", "\n", "yes\n", "Clinic\n"])
def test_without_the_tenants_name_nothing_is_destroyed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    calls = lab.record(1)
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert lab.run("keys", "shred", "clinic", *REASON) == NOT_CONFIRMED
    verified(lab, calls)
    assert lab.audit("key_destruction_started") == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hold": "litigation"}, "on hold"),
        ({"retain_until": datetime(2999, 1, 1, tzinfo=UTC)}, "inside retention"),
        ({"state": IndexState.RECORDING}, "calls are being recorded"),
        ({"key_id": "0" * 16}, "keys that no section names"),
    ],
)
def test_a_tenant_with_what_must_stay_is_not_shredded_and_it_is_named(
    lab: Lab, changes: dict[str, object], words: str
) -> None:
    calls = lab.record(1)
    kept = held(lab.entries()[0], **changes)
    lab.change(kept)
    assert lab.run("keys", "shred", "clinic", "--yes", *REASON) == IN_USE
    assert words in lab.err
    assert kept.file_id.hex() in lab.err
    assert (lab.keys / "dev.kek").exists()
    assert len(lab.audit("key_refused")) == 1
    assert calls[0].file_id not in lab.err


def test_retention_that_is_over_keeps_nothing(lab: Lab) -> None:
    lab.record(1)
    past = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    lab.change(held(lab.entries()[0], retain_until=past))
    assert lab.run("keys", "shred", "clinic", "--yes", *REASON) == 0, lab.err


def test_a_key_that_others_need_is_not_destroyed(lab: Lab) -> None:
    lab.record(1)
    handle = secrets.token_hex(16)
    foreign = held(lab.entries()[0], tenant_handle=bytes.fromhex(handle))
    lab.change(foreign)
    assert lab.run("keys", "shred", "clinic", "--yes", *REASON) == IN_USE
    assert foreign.file_id.hex() in lab.err
    lab.file.append(f'[tenants.ward]\nhandle = "{handle}"\nkey = "dev"')
    assert lab.run("keys", "shred", "clinic", "--yes", *REASON) == IN_USE
    assert "ward" in lab.err
    assert (lab.keys / "dev.kek").exists()
    assert lab.run("keys", "shred", "none", "--yes", *REASON) == 77


def test_a_key_that_cannot_be_destroyed_here_keeps_the_others_too(lab: Lab) -> None:
    """Else a tenant would be half shredded: what a public key wrapped would still open where the private part is."""
    rsa_files(lab.keys, "escrow")
    lab.file.append('[keys.escrow]\nprovider = "rsa-oaep-sha256"\npublic_key = "keys/escrow.pub"')
    lab.record(1)
    lab.file.replace('key = "dev"', 'key = "escrow"')
    lab.record(1)
    lab.file.replace('key = "escrow"', 'key = "dev"')
    assert lab.run("keys", "shred", "clinic", "--yes", *REASON) == REFUSED
    assert "private part" in lab.err
    assert (lab.keys / "dev.kek").exists()
    assert lab.audit("key_destruction_started") == []


def test_a_fallback_key_is_in_use_by_its_tenant(lab: Lab) -> None:
    rsa_files(lab.keys, "escrow")
    lab.file.append('[keys.escrow]\nprovider = "rsa-oaep-sha256"\npublic_key = "keys/escrow.pub"')
    lab.file.replace('key = "dev"', 'key = "dev"\nfallback_key = "escrow"')
    lab.record(1)
    assert lab.run("keys", "retire", "escrow", "--to", "next", *REASON) == IN_USE
    assert "tenant clinic" in lab.err
    lab.run("keys", "status", "--json")
    told = {each["name"]: each["tenants"] for each in json.loads(lab.out)["keys"]}
    assert told["escrow"] == told["dev"] == "clinic"


# --- status


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in report["ages"]}


def test_status_tells_ages_limits_dependants_and_what_to_do(lab: Lab) -> None:
    lab.record(2)
    report = lab.json("keys", "status")
    ages = by_name(report)
    assert ages["keys.dev"]["age_days"] == 0
    assert (ages["keys.dev"]["limit_days"], ages["keys.dev"]["state"]) == (365, "ok")
    assert ages["keys.dev"]["next_action"].startswith("none before ")
    assert (ages["index.search_key"]["limit_days"], ages["index.search_key"]["state"]) == (90, "ok")
    assert ages["tls.certificate"]["kind"] == "certificate"
    dev = next(each for each in report["keys"] if each["name"] == "dev")
    assert (dev["recordings"], dev["on_hold"], dev["retained"]) == (2, 0, 0)
    assert lab.run("keys", "status") == 0
    assert "next" in lab.out


@pytest.mark.parametrize(
    ("name", "row", "days", "code"),
    [
        ("dev.kek", "keys.dev", 366, OVERDUE),
        ("dev.kek", "keys.dev", 360, 0),
        ("signing.pem", "signing_key", 91, OVERDUE),
        ("signing.pem", "signing_key", 80, 0),
        ("index-search.key", "index.search_key", 91, OVERDUE),
        ("index-search.key", "index.search_key", 85, 0),
    ],
)
def test_a_key_that_is_too_old_is_named_and_the_exit_code_says_so(
    lab: Lab, name: str, row: str, days: int, code: int
) -> None:
    at = time.time() - days * 86400
    os.utime(lab.keys / name, (at, at))
    assert lab.run("keys", "status", "--json") == code
    found = by_name(json.loads(lab.out))[row]
    assert found["state"] == ("overdue" if code else "due-soon")
    assert found["age_days"] == days
    assert (row in lab.err) == bool(code)


def test_a_certificate_is_due_when_it_ends(lab: Lab) -> None:
    path = lab.file.load().tls.certificate_path
    ends = min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(path.read_bytes()))
    assert by_name(lab.json("keys", "status"))["tls.certificate"]["due"] == ends.date().isoformat()
