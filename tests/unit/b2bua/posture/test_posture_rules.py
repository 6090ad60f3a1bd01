"""What each probe's facts amount to: the good case, and each way in which it is not good."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.journal.head import NAME as HEAD
from b2bua.journal.segment import segment_names
from b2bua.key_age import KeyAge, KeyKind
from b2bua.metrics import Metrics
from b2bua.posture.audit import ask_audit
from b2bua.posture.hops import Hop, ask_hops, hops_of, judge_exceptions, judge_hop
from b2bua.posture.keys import ask_key, judge_age, judge_health, judge_place
from b2bua.posture.modules import ModuleFacts, judge_fips, judge_module
from b2bua.posture.own_keys import ask_own_keys, judge_signing
from b2bua.posture.own_keys import judge_age as judge_own_age
from b2bua.posture.policy import policy_rows
from b2bua.posture.process import MachineFacts, ProcessFacts, judge_core, judge_machine, judge_service
from b2bua.posture.report import Level, Row
from b2bua.posture.running import judge_losses, judge_pool, pools, read_samples
from b2bua.posture.sink import ask_sink, judge_encryption, judge_lock
from b2bua.posture.storage import ask_files, ask_index, ask_spool, judge_states
from b2bua.settings import (
    AuditSettings,
    KeyOutagePolicy,
    Listener,
    PostureSettings,
    RecordingPolicy,
    Settings,
    SRTPSuite,
    Tenant,
)
from recording.index import IndexState
from recording.keys.provider import KeyLifecycle, KeyVersion
from recording.settings import (
    AWSKMSKeySettings,
    IndexSettings,
    LocalKeySettings,
    PostgreSQLSettings,
    RecordingSettings,
    RetentionSettings,
    S3SinkSettings,
    TLSFloor,
)
from recording.sinks.sink import LockMode, Retention
from support.configuration import make_configuration
from support.openbao import OpenBao, vault_settings
from support.recorded import record_call
from tls.settings import TLSVersion

NOW = datetime(2026, 11, 24, tzinfo=UTC)
KMS = AWSKMSKeySettings(
    key_id="arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    region="eu-central-1",
)
LISTENER = Listener(address="127.0.0.1", port=5061, public_host="edge.example.test", public_port=5061)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_configuration(tmp_path / "lab").load()


def find(rows: object, key: str) -> Row:
    assert isinstance(rows, list | tuple)
    (found,) = [row for row in rows if row.key == key]
    assert isinstance(found, Row)
    return found


# --- the configuration


def with_trunk(settings: Settings, **changes: object) -> Settings:
    trunk = dataclasses.replace(settings.trunks["caller"], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(settings, trunks={**settings.trunks, "caller": trunk})


def test_aead_suites_are_ok_and_others_need_attention(settings: Settings) -> None:
    assert find(policy_rows(settings), "srtp.caller").level is Level.OK
    suites = (SRTPSuite.AEAD_AES_256_GCM, SRTPSuite.AES_CM_128_HMAC_SHA1_80)
    row = find(policy_rows(with_trunk(settings, srtp_suites=suites)), "srtp.caller")
    assert row.level is Level.ATTENTION
    assert "not AEAD: AES_CM_128_HMAC_SHA1_80" in row.finding


@pytest.mark.parametrize(
    ("policy", "level"),
    [
        (RecordingPolicy.REQUIRED, Level.OK),
        (RecordingPolicy.BEST_EFFORT, Level.ATTENTION),
        (RecordingPolicy.OFF, Level.ATTENTION),
    ],
)
def test_a_trunk_that_may_go_unrecorded_needs_attention(
    settings: Settings, policy: RecordingPolicy, level: Level
) -> None:
    assert find(policy_rows(with_trunk(settings, recording=policy)), "recording.caller").level is level


def test_tenants_that_share_a_key_need_attention(settings: Settings) -> None:
    assert find(policy_rows(settings), "tenants.dev").level is Level.OK
    other = Tenant(name="surgery", handle=bytes(16), key="dev")
    shared = dataclasses.replace(settings, tenants={**settings.tenants, "surgery": other})
    row = find(policy_rows(shared), "tenants.dev")
    assert row.level is Level.ATTENTION
    assert "clinic, surgery" in row.finding


def test_a_tenant_whose_calls_go_on_without_a_key_needs_attention(settings: Settings) -> None:
    assert find(policy_rows(settings), "tenants.clinic.outage").level is Level.OK

    def row(**changes: Any) -> Row:
        clinic = dataclasses.replace(settings.tenants["clinic"], **changes)
        changed = dataclasses.replace(settings, tenants={"clinic": clinic})
        return find(policy_rows(changed), "tenants.clinic.outage")

    goes_on = row(on_key_outage=KeyOutagePolicy.CONNECT_UNRECORDED)
    assert (goes_on.level, "unrecorded" in goes_on.finding) == (Level.ATTENTION, True)
    wraps = row(fallback_key="escrow")
    clinic = dataclasses.replace(settings.tenants["clinic"], fallback_key="escrow")
    rows = policy_rows(dataclasses.replace(settings, tenants={"clinic": clinic}))
    assert find(rows, "tenants.escrow").finding == "clinic alone"
    assert (wraps.level, "escrow" in wraps.finding) == (Level.OK, True)


def test_recordings_that_are_kept_for_ever_need_attention(settings: Settings) -> None:
    assert find(policy_rows(settings), "retention.clinic").level is Level.ATTENTION
    handle = settings.tenants["clinic"].handle
    retention = RetentionSettings(tenants={handle: 3650}, trunks={"callee": 30})
    recording = dataclasses.replace(settings.recording, retention=retention)
    row = find(policy_rows(dataclasses.replace(settings, recording=recording)), "retention.clinic")
    assert row.level is Level.OK
    assert row.finding == "3650 days; on trunk callee 30 days"


def test_numbers_in_the_index_are_told(settings: Settings, tmp_path: Path) -> None:
    row = find(policy_rows(settings), "index.numbers")
    without = settings.recording.index.search_key_path is None
    assert ("none is in it" in row.finding) == without
    index = IndexSettings(search_key_path=tmp_path / "search.key", key="index")
    recording = dataclasses.replace(settings.recording, index=index)
    row = find(policy_rows(dataclasses.replace(settings, recording=recording)), "index.numbers")
    assert "sealed under key index" in row.finding


def test_emergency_numbers_are_counted_and_never_shown(settings: Settings) -> None:
    row = find(policy_rows(settings), "recording.emergency")
    assert row.level is Level.OK
    assert "calls to 2 numbers" in row.finding
    assert "112" not in row.finding
    none = dataclasses.replace(settings, emergency_numbers=frozenset())
    assert find(policy_rows(none), "recording.emergency").level is Level.ATTENTION


# --- keys


def test_a_local_key_is_an_alarm(settings: Settings) -> None:
    rows = ask_key("dev", settings.recording.keys["dev"], None)
    place = find(rows, "keys.dev.place")
    assert place.level is Level.ALARM
    assert "beside the data" in place.finding
    assert find(rows, "keys.dev.health").level is Level.OK
    assert find(rows, "keys.dev.age").level is Level.OK


def test_a_key_elsewhere_is_ok_and_a_claim_is_called_one() -> None:
    facts = {"kind": "aws-kms", "endpoint": "https://kms.example.test", "fit_for_production": "yes"}
    row = judge_place("main", facts, "4884")
    assert row.level is Level.OK
    assert "4884, as claimed by operator" in row.finding
    assert "claimed" not in judge_place("main", facts, None).finding


def lifecycle(days: float | None, *, period_days: int | None = None) -> KeyLifecycle:
    """A key of two versions; the newest is so old."""
    created_at = None if days is None else NOW - timedelta(days=days)
    return KeyLifecycle(
        versions=(
            KeyVersion(number=1, created_at=NOW - timedelta(days=4000)),
            KeyVersion(number=2, created_at=created_at),
        ),
        rotation_period_s=None if period_days is None else period_days * 86400,
    )


def test_a_private_part_on_this_machine_needs_attention() -> None:
    facts = {"kind": "rsa-oaep-sha256", "fit_for_production": "yes", "unwraps_with": "public part alone"}
    assert judge_place("paper", facts, None).level is Level.OK
    row = judge_place("paper", {**facts, "unwraps_with": "private key file"}, None)
    assert row.level is Level.ATTENTION
    assert "wrong for a recorder" in row.finding


@pytest.mark.parametrize(
    ("days", "level"),
    [(0, Level.OK), (350, Level.OK), (352, Level.ATTENTION), (366, Level.ALARM), (4000, Level.ALARM)],
)
def test_a_key_is_as_old_as_its_newest_version(days: int, level: Level) -> None:
    row = judge_age("main", lifecycle(days), NOW)
    assert row.level is level
    assert f"version 2 is {days} days old" in row.finding
    assert "nothing renews it" in row.finding


def test_who_renews_a_key_is_told() -> None:
    assert (
        "renewed by its service every 90 days" in judge_age("main", lifecycle(1, period_days=90), NOW).finding
    )


def test_an_age_that_nobody_tells_is_unknown() -> None:
    assert judge_age("main", lifecycle(None), NOW).level is Level.UNKNOWN
    row = judge_age("main", "not permitted", NOW)
    assert row.level is Level.UNKNOWN
    assert "not permitted" in row.finding


def test_the_age_of_a_local_key_is_that_of_its_file(settings: Settings) -> None:
    key = settings.recording.keys["dev"]
    assert isinstance(key, LocalKeySettings)
    then = time.time() - 400 * 86400
    os.utime(key.kek_path, (then, then))
    row = find(ask_key("dev", key, None), "keys.dev.age")
    assert row.level is Level.ALARM
    assert "400 days" in row.finding


def test_the_age_of_a_transit_key_is_what_the_server_says(openbao: OpenBao, tmp_path: Path) -> None:
    name = f"posture-{secrets.token_hex(8)}"
    openbao.create_key(name)
    key = vault_settings(openbao, name, tmp_path / "token")
    rows = ask_key("main", key, None)
    assert find(rows, "keys.main.place").level is Level.OK
    age = find(rows, "keys.main.age")
    assert age.level is Level.OK
    assert age.finding.startswith("version 1 is 0 days old")
    openbao.rotate_key(name)
    assert find(ask_key("main", key, None), "keys.main.age").finding.startswith("version 2 is 0 days old")


# --- services


def at_service(settings: Settings, **changes: object) -> RecordingSettings:
    return dataclasses.replace(settings.recording, **changes)  # type: ignore[arg-type]


def test_each_service_is_a_hop_of_its_own(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "pgpass").touch(mode=0o600)
    recording = at_service(
        settings,
        keys={"main": KMS, **settings.recording.keys},
        sink=S3SinkSettings(bucket="recordings", region="eu-central-1"),
        index=IndexSettings(
            postgresql=PostgreSQLSettings(
                host="db.example.test", database="index", user="edge", ca_path=tmp_path
            )
        ),
    )
    hops = list(hops_of(recording))
    rows = [*(judge_hop(hop, None) for hop in hops), judge_exceptions(hops)]
    assert [row.key for row in rows] == ["tls.keys.main", "tls.sink", "tls.index", "tls.exceptions"]
    assert all(row.level is Level.OK for row in rows)
    assert "https://kms.eu-central-1.amazonaws.com" in rows[0].finding
    assert "db.example.test" in rows[2].finding
    assert rows[3].finding.startswith("none")


def test_an_exception_in_writing_is_counted(settings: Settings, tmp_path: Path) -> None:
    recording = at_service(
        settings,
        keys={"main": dataclasses.replace(KMS, tls_floor=TLSFloor.TLS_1_2)},
        sink=S3SinkSettings(bucket="recordings", region="eu-central-1", tls_floor=TLSFloor.TLS_1_2),
        index=IndexSettings(
            postgresql=PostgreSQLSettings(
                host="db.example.test",
                database="index",
                user="edge",
                ca_path=tmp_path,
                tls_floor=TLSFloor.TLS_1_2,
            )
        ),
    )
    hops = list(hops_of(recording))
    rows = [*(judge_hop(hop, None) for hop in hops), judge_exceptions(hops)]
    assert all(row.level is Level.ATTENTION for row in rows)
    assert rows[-1].finding == "3: service of key main, store, shared index"


@pytest.mark.parametrize(
    ("floor", "accepted", "level", "words"),
    [
        (TLSFloor.TLS_1_3, {TLSVersion.TLS_1_3, TLSVersion.TLS_1_2}, Level.OK, "accepts TLSv1.2, TLSv1.3"),
        (TLSFloor.TLS_1_3, {TLSVersion.TLS_1_2}, Level.ALARM, "accepts TLSv1.2"),
        (TLSFloor.TLS_1_2, {TLSVersion.TLS_1_2}, Level.ATTENTION, "accepts TLSv1.2"),
        (TLSFloor.TLS_1_2, {TLSVersion.TLS_1_3}, Level.ATTENTION, "the exception is not needed"),
        (TLSFloor.TLS_1_3, None, Level.UNKNOWN, "nobody listens"),
    ],
)
def test_what_a_service_negotiates_is_held_against_what_we_speak(
    floor: TLSFloor, accepted: set[TLSVersion] | None, level: Level, words: str
) -> None:
    hop = Hop(key="tls.sink", service="store", endpoint="https://store.example.test", floor=floor)
    row = judge_hop(hop, "nobody listens" if accepted is None else frozenset(accepted))
    assert row.level is level
    assert words in row.finding


def test_a_real_key_service_is_asked_what_it_negotiates(
    openbao: OpenBao, settings: Settings, tmp_path: Path
) -> None:
    recording = at_service(settings, keys={"main": vault_settings(openbao, "any", tmp_path / "token")})
    row = find(ask_hops(recording), "tls.keys.main")
    assert row.level is Level.OK
    assert "TLSv1.3" in row.finding
    assert "handshakes with the service" in row.evidence


def test_a_configuration_without_services_has_no_exceptions(settings: Settings) -> None:
    (row,) = ask_hops(settings.recording)
    assert row.key == "tls.exceptions"
    assert row.level is Level.OK


def test_a_service_that_does_not_answer_is_an_alarm() -> None:
    assert judge_health("main", None).level is Level.OK
    row = judge_health("main", "timed out")
    assert row.level is Level.ALARM
    assert "timed out" in row.finding


# --- modules


def module(*, aes: bool = True, chacha: bool = True, **facts: object) -> ModuleFacts:
    return ModuleFacts(
        use="SRTP",
        module="OpenSSL 3",
        linkage="dynamic",
        works_aes_gcm=aes,
        works_chacha20=chacha,
        **facts,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("required", "level"), [(None, Level.ATTENTION), (False, Level.OK), (True, Level.ALARM)]
)
def test_without_a_fips_provider_it_depends_on_what_is_needed(required: bool | None, level: Level) -> None:
    row = judge_fips("sip", module(), PostureSettings(fips_required=required))
    assert row.level is level
    assert "none is in force" in row.finding


@pytest.mark.parametrize("required", [None, False, True])
def test_a_fips_provider_is_in_force_if_one_cipher_fails_and_the_other_works(required: bool | None) -> None:
    row = judge_fips("sip", module(chacha=False), PostureSettings(fips_required=required))
    assert row.level is Level.OK
    assert row.finding.startswith("in force")
    assert row.evidence.endswith("it failed, it worked")


@pytest.mark.parametrize("required", [None, False, True])
@pytest.mark.parametrize("chacha", [False, True])
def test_a_mode_in_which_nothing_works_is_an_alarm_whatever_is_needed(
    required: bool | None, chacha: bool
) -> None:
    row = judge_fips("sip", module(aes=False, chacha=chacha), PostureSettings(fips_required=required))
    assert row.level is Level.ALARM
    assert "in force" not in row.finding


def test_a_module_that_was_not_found_is_unknown() -> None:
    missing = ModuleFacts(use="SRTP", problem="not installed")
    posture = PostureSettings(fips_required=True)
    for row in (judge_fips("sip", missing, posture), judge_module("sip", missing, posture)):
        assert row.level is Level.UNKNOWN
        assert "not installed" in row.finding


def test_a_module_is_named_with_its_providers_and_the_operators_claim() -> None:
    facts = module(providers=("default 3.0",), are_providers_known=True)
    row = judge_module("sip", facts, PostureSettings(claimed_certificates={"sip": "4282"}))
    assert row.finding == (
        "OpenSSL 3, dynamic; providers loaded: default 3.0; CMVP certificate 4282, as claimed by operator"
    )
    other = judge_module("cryptography", module(), PostureSettings(claimed_certificates={"sip": "4282"}))
    assert "claimed" not in other.finding
    assert "can't be listed" in other.finding


# --- the process and the machine


def test_core_dumps_must_be_off_for_good() -> None:
    def level(soft: str, hard: str) -> Level:
        return judge_core(ProcessFacts(pid=1, core_limits=(soft, hard), locked_kib=0)).level

    assert level("0", "0") is Level.OK
    assert level("0", "unlimited") is Level.ALARM
    assert level("unlimited", "unlimited") is Level.ALARM
    assert judge_core(ProcessFacts(pid=1, core_limits=None, locked_kib=0)).level is Level.ALARM


def test_a_handler_that_dumps_are_piped_to_needs_attention() -> None:
    def rows(pattern: str, swap: tuple[str, ...] = ()) -> list[Row]:
        return list(judge_machine(MachineFacts(swap_devices=swap, core_pattern=pattern), None))

    assert find(rows("core"), "machine.core_pattern").level is Level.OK
    piped = find(rows("|/usr/lib/systemd/systemd-coredump %P"), "machine.core_pattern")
    assert piped.level is Level.ATTENTION
    assert "/usr/lib/systemd/systemd-coredump," in piped.finding
    assert find(rows("core"), "machine.swap").level is Level.OK
    assert find(rows("core", ("/dev/sda2",)), "machine.swap").level is Level.ATTENTION


def test_a_service_that_does_not_run_needs_attention() -> None:
    assert judge_service(None, LISTENER).level is Level.ATTENTION
    facts = ProcessFacts(pid=4711, core_limits=("0", "0"), locked_kib=0)
    assert judge_service(facts, LISTENER).level is Level.OK


# --- what is stored


@pytest.mark.parametrize(
    ("counts", "level", "words"),
    [
        ({}, Level.OK, "nothing was recorded yet"),
        ({IndexState.COMPLETE: 3}, Level.OK, "complete 3 (100.0 %)"),
        ({IndexState.COMPLETE: 3, IndexState.INCOMPLETE: 1}, Level.ATTENTION, "incomplete 1 (25.0 %)"),
        ({IndexState.COMPLETE: 9999, IndexState.CORRUPT: 1}, Level.ALARM, "corrupt 1 (under 0.1 %)"),
        ({IndexState.COMPLETE: 3, IndexState.FAILED: 1}, Level.ALARM, "failed 1 (25.0 %)"),
        ({IndexState.COMPLETE: 3, IndexState.RECORDING: 1}, Level.OK, "recording 1 (25.0 %)"),
    ],
)
def test_states_are_shares(counts: dict[IndexState, int], level: Level, words: str) -> None:
    row = judge_states(counts, is_store_empty=True)
    assert row.level is level
    assert words in row.finding


def test_the_index_is_counted_and_none_is_made(settings: Settings) -> None:
    (row,) = ask_index(settings.recording)
    assert "nothing was recorded yet" in row.finding
    assert not settings.recording.index_path.exists()
    record_call(settings)
    (row,) = ask_index(settings.recording)
    assert "1 segments: complete 1 (100.0 %)" in row.finding


def test_what_lies_in_the_spool_for_long_is_noticed(settings: Settings) -> None:
    spool = settings.recording.spool_directory
    assert ask_spool(settings.recording)[0].level is Level.OK
    spool.mkdir()
    path = spool / "x.crec"
    path.touch()
    assert ask_spool(settings.recording)[0].level is Level.OK
    os.utime(path, (NOW.timestamp() - 3 * 365 * 86400,) * 2)
    row = ask_spool(settings.recording)[0]
    assert row.level is Level.ATTENTION
    assert "1 of them unchanged" in row.finding


def test_a_local_directory_is_said_to_be_one(settings: Settings) -> None:
    record_call(settings)
    rows = ask_sink(settings.recording)
    assert find(rows, "sink.health").level is Level.OK
    assert find(rows, "sink.lock").level is Level.ATTENTION
    assert "local directory" in find(rows, "sink.encryption").finding


def test_a_report_makes_no_directory(settings: Settings) -> None:
    ask_sink(settings.recording)
    ask_spool(settings.recording)
    assert not settings.recording.directory.exists()
    assert not settings.recording.spool_directory.exists()


def locked(days: int = 30, mode: LockMode = LockMode.COMPLIANCE) -> S3SinkSettings:
    return S3SinkSettings(bucket="b", region="eu-central-1", object_lock_mode=mode, object_lock_days=days)


@pytest.mark.parametrize(
    ("settings_", "found", "level"),
    [
        (locked(), Retention(mode=LockMode.COMPLIANCE, until=NOW + timedelta(days=1)), Level.OK),
        (locked(), Retention(mode=LockMode.COMPLIANCE, until=NOW - timedelta(days=1)), Level.ALARM),
        (locked(), Retention(mode=LockMode.GOVERNANCE, until=NOW + timedelta(days=1)), Level.ALARM),
        (locked(), Retention(), Level.ALARM),
        (locked(), Retention(is_held=True), Level.OK),
        (locked(days=0), Retention(), Level.OK),
    ],
)
def test_a_lock_must_be_what_was_asked_for(settings_: S3SinkSettings, found: Retention, level: Level) -> None:
    row = judge_lock(settings_, "key", found, now=NOW)
    assert row.level is level
    assert "read back" in row.finding


@pytest.mark.parametrize(
    ("wanted", "found", "level"),
    [
        ("AES256", {"kind": "AES256"}, Level.OK),
        ("aws:kms", {"kind": "aws:kms", "key_id": "k"}, Level.OK),
        ("aws:kms", {"kind": "AES256"}, Level.ALARM),
        ("AES256", {}, Level.ALARM),
        ("AES256", None, Level.UNKNOWN),
        (None, {}, Level.OK),
        (None, {"kind": "AES256"}, Level.OK),
        (None, None, Level.OK),
    ],
)
def test_encryption_must_be_what_was_asked_for(
    wanted: str | None, found: dict[str, str] | None, level: Level
) -> None:
    assert judge_encryption(wanted, found, "denied", "asked").level is level


def test_modes_of_keys_and_data_are_looked_at(settings: Settings) -> None:
    record_call(settings)
    rows = ask_files(settings)
    assert find(rows, "files.keys").level is Level.OK
    assert find(rows, "files.data").level is Level.OK
    settings.recording.index_path.chmod(0o640)
    settings.tls.private_key_path.chmod(0o604)
    rows = ask_files(settings)
    data, keys = find(rows, "files.data"), find(rows, "files.keys")
    assert data.level is Level.ATTENTION
    assert f"{settings.recording.index_path} has mode 0640" in data.finding
    assert keys.level is Level.ALARM
    assert "edge.key has mode 0604" in keys.finding


def test_no_address_of_a_trunk_is_in_the_report(settings: Settings) -> None:
    """The report is for auditors as well; who may connect from where is not theirs to have."""
    source = (ipaddress.ip_network("198.51.100.0/24"),)
    rows = policy_rows(with_trunk(settings, sources=source))
    assert "198.51.100" not in str(rows)


# --- the audit log


def write_audit(settings: Settings) -> Path:
    """A sealed log with a line in it."""
    log = AuditLog(settings.audit)
    log.start()
    log.write(AuditLine(event=AuditEvent.SERVICE_STARTED))
    log.close()
    assert settings.audit.directory is not None
    return settings.audit.directory


def test_a_sealed_log_is_seen_to_be_one(settings: Settings) -> None:
    row = find(ask_audit(settings), "audit.sealed")
    assert row.level is Level.OK
    assert "nothing was written yet" in row.finding
    write_audit(settings)
    row = find(ask_audit(settings), "audit.sealed")
    assert row.level is Level.OK
    assert "chained, 1 files" in row.finding


def test_a_file_in_clear_in_the_log_is_an_alarm(settings: Settings) -> None:
    directory = write_audit(settings)
    (name,) = segment_names(directory)
    name.path.write_bytes(b'{"event":"service_started"}\n')
    row = find(ask_audit(settings), "audit.sealed")
    assert row.level is Level.ALARM
    assert name.path.name in row.finding


def test_a_log_without_its_head_is_an_alarm(settings: Settings) -> None:
    directory = write_audit(settings)
    (directory / HEAD).unlink()
    assert find(ask_audit(settings), "audit.sealed").level is Level.ALARM


def test_lines_in_clear_need_attention(settings: Settings, tmp_path: Path) -> None:
    plain = dataclasses.replace(settings, audit=AuditSettings(path=tmp_path / "audit.jsonl"))
    rows = ask_audit(plain)
    assert find(rows, "audit.sealed").level is Level.ATTENTION
    assert find(rows, "audit.place").level is Level.OK
    assert find(ask_audit(dataclasses.replace(settings, audit=AuditSettings())), "audit.place").level is (
        Level.ATTENTION
    )


# --- the running service's metrics


@pytest.mark.parametrize(
    ("ready", "level"),
    [(8, Level.OK), (4, Level.OK), (3, Level.ATTENTION), (1, Level.ATTENTION), (0, Level.ALARM)],
)
def test_a_pool_that_runs_dry_is_noticed(ready: int, level: Level) -> None:
    row = judge_pool("clinic", ready, 8)
    assert row.level is level
    assert row.finding == f"{ready} of 8"


def test_losses_are_counted_over_all_labels() -> None:
    metrics = Metrics()
    assert judge_losses(read_samples(metrics_text(metrics))).level is Level.OK
    metrics.pool_level(tenant="clinic", level=5)
    metrics.refused("unrecorded")
    metrics.tap_overruns(7)
    for reason in ("SpoolError", "SpoolFullError"):
        metrics.recording_failed(file_id=b"F" * 16, call_uid="c", reason=reason)
    samples = read_samples(metrics_text(metrics))
    row = judge_losses(samples)
    assert row.level is Level.ATTENTION
    assert row.finding == (
        "2 recordings failed; 7 frames were lost before they were sealed; 1 calls went unrecorded"
    )
    assert list(pools(samples)) == [("clinic", 5)]


def metrics_text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


# --- the program's own keys


@pytest.mark.parametrize(
    ("days", "level"), [(0, Level.OK), (75, Level.OK), (80, Level.ATTENTION), (91, Level.ALARM)]
)
def test_a_key_that_signs_or_seals_is_good_for_ninety_days(days: int, level: Level) -> None:
    age = KeyAge(kind=KeyKind.SIGNING, name="s", action="renew it", since=NOW - timedelta(days=days))
    row = judge_own_age(age, NOW)
    assert row.level is level
    assert row.finding.startswith(f"{days} days of at most 90; ")


def test_unsigned_segments_need_attention(settings: Settings) -> None:
    assert judge_signing(None).level is Level.ATTENTION
    rows = ask_own_keys(settings)
    assert (find(rows, "recordings.signed").level is Level.OK) == (
        settings.recording.signing_key_path is not None
    )
    assert find(rows, "log.sealed").level is Level.OK


def test_the_age_of_a_signing_key_is_that_of_its_file(settings: Settings, tmp_path: Path) -> None:
    key = tmp_path / "signing.pem"
    key.touch()
    then = time.time() - 100 * 86400
    os.utime(key, (then, then))
    recording = dataclasses.replace(settings.recording, signing_key_path=key)
    rows = ask_own_keys(dataclasses.replace(settings, recording=recording))
    assert find(rows, "age.signing.signing.pem").level is Level.ALARM
    assert find(rows, "recordings.signed").level is Level.OK
