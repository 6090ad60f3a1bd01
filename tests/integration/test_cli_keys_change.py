"""`b2bua keys` retire, shred, rotate and status over recordings that the recorder made, under keys in files."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from recording.format.slots import KeySlot
from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.provider import KeyContext
from recording.settings import LocalKeySettings
from recording.sinks.local import LocalSink
from support.key_pairs import rsa_files
from support.keys_lab import KeysLab, held, index_key, verified

IN_USE, REFUSED, OVERDUE, NOT_CONFIRMED = 113, 114, 85, 86
REASON = ("--reason", "ticket-17")


@pytest.fixture
def lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> KeysLab:
    return KeysLab(tmp_path / "lab", capsys)


# --- retire


def test_recordings_are_moved_and_the_old_key_goes(lab: KeysLab) -> None:
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


def test_a_key_that_a_tenant_records_under_is_not_retired(lab: KeysLab) -> None:
    lab.record(1)
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == IN_USE
    assert "tenant clinic" in lab.err
    assert lab.run("keys", "retire", "audit", "--to", "next", "--rewrap", *REASON) == IN_USE
    assert "the audit log" in lab.err
    assert (lab.keys / "dev.kek").exists()
    assert [line["key"] for line in lab.audit("key_refused")] == ["dev", "audit"]


def test_without_a_move_a_key_that_recordings_need_is_not_disabled_and_they_are_named(lab: KeysLab) -> None:
    calls = lab.record(2)
    lab.switch()
    assert lab.run("keys", "retire", "dev", "--to", "next", *REASON) == IN_USE
    for call in calls:
        assert call.file_id in lab.err
    assert (lab.keys / "dev.kek").exists()
    verified(lab, calls)


@pytest.mark.parametrize("kept", ["hold", "retention"])
def test_what_must_be_kept_and_cannot_be_moved_keeps_the_key(lab: KeysLab, kept: str) -> None:
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


def test_what_is_kept_is_moved_like_all_else(lab: KeysLab) -> None:
    calls = lab.record(1)
    lab.switch()
    (entry,) = lab.entries()
    lab.change(replace(entry, retain_until=datetime(2999, 1, 1, tzinfo=UTC)))
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == 0, lab.err
    lab.drop_section("dev")
    verified(lab, calls)
    assert lab.entries()[0].retain_until == datetime(2999, 1, 1, tzinfo=UTC)


def test_a_run_that_missed_the_index_is_finished_by_the_next(lab: KeysLab) -> None:
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


def test_a_recording_that_cannot_be_moved_keeps_the_key_and_the_others_are_moved(lab: KeysLab) -> None:
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


def test_the_audit_logs_own_files_keep_the_key_that_they_are_under(lab: KeysLab) -> None:
    lab.record(1)
    lab.run("recordings", "verify", "--all", "--reason", "test")
    create_kek(lab.keys / "audit2.kek")
    lab.file.replace("[audit]", '[keys.audit2]\nprovider = "local"\nkek = "keys/audit2.kek"\n\n[audit]')
    lab.file.replace('key = "audit" ', 'key = "audit2" ')
    assert lab.run("keys", "retire", "audit", "--to", "audit2", "--rewrap", *REASON) == IN_USE
    assert "files of the audit log" in lab.err
    assert (lab.keys / "audit.kek").exists()


def test_keys_of_the_index_are_moved_too(lab: KeysLab) -> None:
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


def test_a_key_that_only_the_index_needs_is_not_disabled(lab: KeysLab) -> None:
    lab.record(1)
    create_kek(lab.keys / "spare.kek")
    lab.file.append('[keys.spare]\nprovider = "local"\nkek = "keys/spare.kek"')
    index_key(lab, lab.file.load().tenants["clinic"].handle, "spare")
    assert lab.run("keys", "retire", "spare", "--to", "next", *REASON) == IN_USE
    assert "1 keys of the index" in lab.err
    assert (lab.keys / "spare.kek").exists()


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
    lab: KeysLab, words: tuple[str, ...], code: int
) -> None:
    lab.record(1)
    assert lab.run("keys", "retire", *words, *REASON) == code
    assert lab.err.startswith("b2bua: ")
    assert (lab.keys / "dev.kek").exists()


def test_nothing_is_retired_where_no_index_says_what_needs_it(lab: KeysLab) -> None:
    lab.switch()
    assert lab.run("keys", "retire", "dev", "--to", "next", *REASON) == IN_USE
    assert "no index" in lab.err
    assert (lab.keys / "dev.kek").exists()


@pytest.mark.parametrize("reason", ["", "Upper", "has space", "call-4915112345678"])
def test_a_reason_is_a_label_and_no_number(lab: KeysLab, reason: str) -> None:
    with pytest.raises(SystemExit) as caught:
        lab.run("keys", "rotate", "dev", "--reason", reason)
    assert caught.value.code == 2


@pytest.mark.parametrize("where", ["store", "spool"])
def test_a_recording_that_no_index_knows_keeps_the_key(lab: KeysLab, where: str) -> None:
    lost, known = lab.record(2)
    lab.forget(lost)
    if where == "spool":
        stored = lab.stored(lost)
        stored.rename(lab.place.spool_directory / stored.name)
    lab.switch()
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == IN_USE
    assert lost.file_id in lab.err
    assert known.file_id not in lab.err
    assert {"store": "index rebuild", "spool": "recordings recover"}[where] in lab.err
    assert (lab.keys / "dev.kek").exists()
    if where == "store":
        assert lab.run("index", "rebuild", "--reason", "migration") == 0, lab.err
        assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == 0, lab.err
        lab.drop_section("dev")
        verified(lab, [lost, known])


@pytest.mark.parametrize(
    ("use", "user"),
    [
        ('[log]\ndirectory = "log"\nkey = "alias"', "the log"),
        ('[tenants.ward]\nhandle = "0123456789abcdef0123456789abcdef"\nkey = "alias"', "tenant ward"),
    ],
)
def test_a_key_that_is_used_by_another_name_is_not_retired(lab: KeysLab, use: str, user: str) -> None:
    lab.record(1)
    lab.switch()
    lab.file.append('[keys.alias]\nprovider = "local"\nkek = "keys/dev.kek"')
    lab.file.append(use)
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == IN_USE
    assert user in lab.err
    assert (lab.keys / "dev.kek").exists()


def test_who_did_what_is_written_down_before_and_after(lab: KeysLab) -> None:
    lab.record(1)
    lab.switch()
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == 0, lab.err
    lines = lab.audit("key_change_started", "key_rewrapped", "key_disabled")
    assert [line["event"] for line in lines] == [
        "key_change_started",
        "key_rewrapped",
        "key_change_started",
        "key_disabled",
    ]
    assert {(line["action"], line["key"], line["far_key"], line["uid"]) for line in lines} == {
        ("retire", "dev", "next", os.getuid())
    }


# --- rotate


def test_a_local_key_is_not_rotated_and_the_refusal_says_what_to_do(lab: KeysLab) -> None:
    assert lab.run("keys", "rotate", "dev", *REASON) == REFUSED
    assert "keys retire dev --to NAME --rewrap" in lab.err
    (line,) = lab.audit("key_refused")
    assert (line["key"], line["reason"]) == ("dev", "ticket-17")


def test_a_fallback_key_is_in_use_by_its_tenant(lab: KeysLab) -> None:
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


def test_status_tells_ages_limits_dependants_and_what_to_do(lab: KeysLab) -> None:
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
    lab: KeysLab, name: str, row: str, days: int, code: int
) -> None:
    at = time.time() - days * 86400
    os.utime(lab.keys / name, (at, at))
    assert lab.run("keys", "status", "--json") == code
    found = by_name(json.loads(lab.out))[row]
    assert found["state"] == ("overdue" if code else "due-soon")
    assert found["age_days"] == days
    assert (row in lab.err) == bool(code)


def test_a_certificate_is_due_when_it_ends(lab: KeysLab) -> None:
    path = lab.file.load().tls.certificate_path
    ends = min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(path.read_bytes()))
    assert by_name(lab.json("keys", "status"))["tls.certificate"]["due"] == ends.date().isoformat()
