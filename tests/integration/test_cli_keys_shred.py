"""`b2bua keys shred`: which tenants' keys are destroyed, and what stands in the way, however it is hidden."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from b2bua.cli.main import main
from b2bua.errors import AuditError
from recording.errors import MissingSlotError
from recording.index import IndexState
from recording.keys.local import create_kek
from support.key_pairs import rsa_files
from support.keys_lab import KeysLab, held, index_key, verified

IN_USE, REFUSED, NOT_CONFIRMED = 113, 114, 86
REASON = ("--reason", "ticket-17")
SHRED = ("keys", "shred", "clinic", "--yes", *REASON)


@pytest.fixture
def lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> KeysLab:
    """Its trunks are another tenant's already."""
    made = KeysLab(tmp_path / "lab", capsys)
    made.take_off()
    return made


def test_a_shredded_tenants_recordings_open_for_nobody(lab: KeysLab, monkeypatch: pytest.MonkeyPatch) -> None:
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
    started, destroyed = lab.audit("key_change_started", "key_destroyed")
    assert (started["event"], destroyed["event"]) == ("key_change_started", "key_destroyed")
    assert {line["key"] for line in (started, destroyed)} == {"dev"}
    assert destroyed["count"] == 2
    assert destroyed["tenant_handle"] == lab.file.load().tenants["clinic"].handle.hex()


def test_a_tenants_earlier_keys_are_destroyed_too(lab: KeysLab) -> None:
    lab.record(1)
    lab.switch()
    lab.record(1)
    assert lab.run(*SHRED) == 0, lab.err
    assert not (lab.keys / "dev.kek").exists()
    assert not (lab.keys / "next.kek").exists()
    assert (lab.keys / "audit.kek").exists()


@pytest.mark.parametrize("typed", ["", "\n", "yes\n", "Clinic\n"])
def test_without_the_tenants_name_nothing_is_destroyed(
    lab: KeysLab, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    calls = lab.record(1)
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert lab.run("keys", "shred", "clinic", *REASON) == NOT_CONFIRMED
    verified(lab, calls)
    assert lab.audit("key_change_started") == []
    assert [line["action"] for line in lab.audit("key_refused")] == ["shred"]


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
    lab: KeysLab, changes: dict[str, object], words: str
) -> None:
    calls = lab.record(1)
    kept = held(lab.entries()[0], **changes)
    lab.change(kept)
    assert lab.run(*SHRED) == IN_USE
    assert words in lab.err
    assert kept.file_id.hex() in lab.err
    assert (lab.keys / "dev.kek").exists()
    assert len(lab.audit("key_refused")) == 1
    assert calls[0].file_id not in lab.err


def test_retention_that_is_over_keeps_nothing(lab: KeysLab) -> None:
    lab.record(1)
    past = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    lab.change(held(lab.entries()[0], retain_until=past))
    assert lab.run(*SHRED) == 0, lab.err


def test_a_key_that_others_need_is_not_destroyed(lab: KeysLab) -> None:
    lab.record(1)
    handle = secrets.token_hex(16)
    foreign = held(lab.entries()[0], tenant_handle=bytes.fromhex(handle))
    lab.change(foreign)
    assert lab.run(*SHRED) == IN_USE
    assert foreign.file_id.hex() in lab.err
    lab.file.append(f'[tenants.ward]\nhandle = "{handle}"\nkey = "dev"')
    assert lab.run(*SHRED) == IN_USE
    assert "ward" in lab.err
    assert (lab.keys / "dev.kek").exists()
    assert lab.run("keys", "shred", "none", "--yes", *REASON) == 77


def test_a_key_that_cannot_be_destroyed_here_keeps_the_others_too(lab: KeysLab) -> None:
    """Else a tenant would be half shredded: what a public key wrapped would still open where the private part is."""
    rsa_files(lab.keys, "escrow")
    lab.file.append('[keys.escrow]\nprovider = "rsa-oaep-sha256"\npublic_key = "keys/escrow.pub"')
    lab.record(1)
    lab.file.replace('key = "dev"', 'key = "escrow"')
    lab.record(1)
    lab.file.replace('key = "escrow"', 'key = "dev"')
    assert lab.run(*SHRED) == REFUSED
    assert "private part" in lab.err
    assert (lab.keys / "dev.kek").exists()
    assert lab.audit("key_change_started") == []


def test_a_key_that_opens_another_tenants_index_or_the_audit_log_is_not_destroyed(lab: KeysLab) -> None:
    lab.record(1)
    index_key(lab, b"another tenant's")
    assert lab.run(*SHRED) == IN_USE
    assert "keys of the index for other tenants" in lab.err
    assert (lab.keys / "dev.kek").exists()


def test_a_key_that_was_the_audit_logs_is_not_destroyed(lab: KeysLab) -> None:
    """The log has a new key since, and a tenant got the old one."""
    create_kek(lab.keys / "audit2.kek")
    lab.run("keys", "rotate", "dev", *REASON)
    lab.file.replace("[audit]", '[keys.audit2]\nprovider = "local"\nkek = "keys/audit2.kek"\n\n[audit]')
    lab.file.replace('key = "audit" ', 'key = "audit2" ')
    lab.file.replace('key = "dev"', 'key = "audit"')
    lab.record(1)
    assert lab.run(*SHRED) == IN_USE
    assert "files of the audit log" in lab.err
    assert (lab.keys / "audit.kek").exists()


# --- what no index tells


def refused(lab: KeysLab, *named: str) -> None:
    assert lab.run(*SHRED) == IN_USE
    for each in named:
        assert each in lab.err
    assert (lab.keys / "dev.kek").exists()
    assert lab.audit("key_change_started") == []
    (line,) = lab.audit("key_refused")
    assert (line["action"], line["key"], line["reason"], line["uid"]) == (
        "shred", "dev", "ticket-17", os.getuid(),
    )  # fmt: skip


def test_a_recording_that_only_the_store_knows_keeps_the_keys(lab: KeysLab) -> None:
    lost, _ = lab.record(2)
    lab.forget(lost)
    refused(lab, lost.file_id, "index rebuild")


def test_a_recording_that_only_the_spool_knows_keeps_the_keys(lab: KeysLab) -> None:
    lost, _ = lab.record(2)
    lab.forget(lost)
    stored = lab.stored(lost)
    stored.rename(lab.place.spool_directory / stored.name)
    refused(lab, lost.file_id, "recordings recover")


def test_another_tenants_forgotten_recording_keeps_a_key_that_opens_it(lab: KeysLab) -> None:
    lost, _ = lab.record(2)
    lab.forget(lost)
    stored = lab.stored(lost)
    data = bytearray(stored.read_bytes())
    data[64:80] = secrets.token_bytes(16)  # the tenant's handle
    (lab.place.spool_directory / stored.name).write_bytes(data)
    stored.unlink()
    refused(lab, lost.file_id, "recordings recover")


def test_what_the_configuration_keeps_longer_than_was_promised_keeps_the_keys(lab: KeysLab) -> None:
    (call,) = lab.record(1)
    lab.file.replace("[tenants.clinic]", "[tenants.clinic]\nretain_days = 1")
    refused(lab, call.file_id, "inside retention")


def test_a_tenant_whose_calls_are_recorded_still_is_not_shredded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = KeysLab(tmp_path / "lab", capsys)
    lab.record(1)
    refused(lab, "trunk callee, caller")
    lab.file.path.write_text(lab.file.text.replace('recording = "required"', 'recording = "off"'))
    assert lab.run(*SHRED) == 0, lab.err


def test_a_hold_that_comes_while_the_name_is_typed_is_seen(
    lab: KeysLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    (call,) = lab.record(1)

    class Slow(io.StringIO):
        """Somebody else is quicker."""

        def readline(self, *_: object) -> str:
            hold = ["recordings", "hold", call.file_id, "-c", str(lab.file.path), "--reason", "court-order"]
            assert main(hold) == 0
            return "clinic\n"

    monkeypatch.setattr(sys, "stdin", Slow())
    assert lab.run("keys", "shred", "clinic", *REASON) == IN_USE
    assert f"on hold: {call.file_id}" in lab.err
    assert (lab.keys / "dev.kek").exists()


def test_a_recording_that_comes_while_the_name_is_typed_is_seen(
    lab: KeysLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.record(1)

    class Slow(io.StringIO):
        def readline(self, *_: object) -> str:
            lab.record(1)
            return "clinic\n"

    monkeypatch.setattr(sys, "stdin", Slow())
    assert lab.run("keys", "shred", "clinic", *REASON) == IN_USE
    assert "changed meanwhile" in lab.err
    assert (lab.keys / "dev.kek").exists()


# --- which keys


def test_a_retired_key_that_still_exists_is_destroyed_too(lab: KeysLab) -> None:
    """The head of each file keeps the slot that it was made with."""
    (call,) = lab.record(1)
    lab.switch()
    assert lab.run("keys", "retire", "dev", "--to", "next", "--rewrap", *REASON) == 0, lab.err
    lab.drop_section("dev")
    assert lab.run(*SHRED) == IN_USE
    assert f"opens {call.file_id}" in lab.err
    assert (lab.keys / "next.kek").exists()
    lab.file.append('[keys.former]\nprovider = "local"\nkek = "keys/dev.kek.disabled"')
    assert lab.run(*SHRED) == 0, lab.err
    assert not (lab.keys / "next.kek").exists()
    assert not (lab.keys / "dev.kek.disabled").exists()


def test_a_key_that_another_tenant_calls_otherwise_is_not_destroyed(lab: KeysLab) -> None:
    lab.record(1)
    lab.file.append('[keys.alias]\nprovider = "local"\nkek = "keys/dev.kek"')
    lab.file.append(f'[tenants.ward]\nhandle = "{secrets.token_hex(16)}"\nkey = "alias"')
    refused(lab, "tenant ward")


def test_a_key_of_the_sealed_log_is_not_destroyed(lab: KeysLab) -> None:
    lab.record(1)
    lab.file.append('[keys.alias]\nprovider = "local"\nkek = "keys/dev.kek"')
    lab.file.append('[log]\ndirectory = "log"\nkey = "alias"')
    refused(lab, "the log")


def test_a_file_of_the_sealed_log_keeps_the_key_it_is_under(lab: KeysLab) -> None:
    (call,) = lab.record(1)
    create_kek(lab.keys / "log.kek")
    lab.file.append('[keys.log]\nprovider = "local"\nkek = "keys/log.kek"')
    lab.file.append('[log]\ndirectory = "log"\nkey = "log"')
    directory = lab.file.path.parent / "log"
    directory.mkdir(mode=0o700)
    (directory / f"00000001-{call.file_id}.crec.open").write_bytes(lab.stored(call).read_bytes())
    refused(lab, "files of the log", call.file_id)


def test_a_key_that_is_destroyed_elsewhere_is_left_to_whoever_has_it(lab: KeysLab) -> None:
    rsa_files(lab.keys, "escrow")
    lab.file.append('[keys.escrow]\nprovider = "rsa-oaep-sha256"\npublic_key = "keys/escrow.pub"')
    lab.file.replace('key = "dev"', 'key = "escrow"')
    lab.record(1)
    lab.file.replace('key = "escrow"', 'key = "dev"')
    lab.record(1)
    assert lab.run(*SHRED) == REFUSED
    assert lab.run(*SHRED, "--elsewhere", "none") == 77
    assert (lab.keys / "dev.kek").exists()
    assert lab.run(*SHRED, "--elsewhere", "escrow") == 0, lab.err
    assert "can be opened by nobody once keys.escrow is destroyed too" in lab.out
    assert not (lab.keys / "dev.kek").exists()


# --- the audit log


def test_nothing_is_destroyed_that_could_not_be_written_down(lab: KeysLab) -> None:
    """The audit log's own key service is away."""
    lab.record(1)
    token = lab.keys / "vault.token"
    token.touch(mode=0o600)
    token.write_text("none\n")
    lab.file.append(
        '[keys.away]\nprovider = "vault-transit"\naddress = "https://127.0.0.1:9"\nkey = "audit"\n'
        'token_file = "keys/vault.token"\ntimeout_s = 0.2'
    )
    lab.file.replace('key = "audit" ', 'key = "away" ')
    shutil.rmtree(lab.file.path.parent / "audit", ignore_errors=True)
    assert lab.run(*SHRED) == AuditError.exit_code
    assert (lab.keys / "dev.kek").exists()
