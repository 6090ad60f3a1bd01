"""What each probe's facts amount to: the good case, and each way in which it is not good."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from b2bua.posture.keys import ask_key, judge_age, judge_health, judge_place
from b2bua.posture.modules import ModuleFacts, judge_fips, judge_module
from b2bua.posture.policy import policy_rows
from b2bua.posture.process import MachineFacts, ProcessFacts, judge_core, judge_machine, judge_service
from b2bua.posture.report import Level, Row
from b2bua.posture.storage import ask_files, ask_index, ask_local_sink, ask_spool, judge_states
from b2bua.settings import (
    KeyOutagePolicy,
    Listener,
    PostureSettings,
    RecordingPolicy,
    Settings,
    SRTPSuite,
    Tenant,
)
from recording.index import IndexState
from recording.settings import (
    AWSKMSKeySettings,
    KeySettings,
    LocalKeySettings,
    RSAKeySettings,
    TLSFloor,
    TransitSettings,
    VaultTransitKeySettings,
)
from support.configuration import make_configuration
from support.openbao import OpenBao, vault_settings
from support.recorded import record_call

NOW = datetime(2026, 11, 24, tzinfo=UTC)
KMS = AWSKMSKeySettings(key_id="arn", region="eu-central-1")
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


def test_emergency_numbers_are_counted_and_never_shown(settings: Settings) -> None:
    row = find(policy_rows(settings), "recording.emergency")
    assert row.level is Level.OK
    assert "calls to 2 numbers" in row.finding
    assert "112" not in row.finding
    none = dataclasses.replace(settings, emergency_numbers=frozenset())
    assert find(policy_rows(none), "recording.emergency").level is Level.ATTENTION


def test_each_key_service_is_a_hop_of_its_own(settings: Settings) -> None:
    recording = dataclasses.replace(settings.recording, keys={"main": KMS})
    rows = policy_rows(dataclasses.replace(settings, recording=recording))
    assert "TLS 1.3 only" in find(rows, "tls.keys.main").finding
    assert not [row for row in policy_rows(settings) if row.key.startswith("tls.keys.")]


def test_an_exception_from_tls_1_3_needs_attention(settings: Settings) -> None:
    assert find(policy_rows(settings), "tls.exceptions").finding == "none"
    older = dataclasses.replace(KMS, tls_floor=TLSFloor.TLS_1_2)
    recording = dataclasses.replace(settings.recording, keys={"main": older})
    rows = policy_rows(dataclasses.replace(settings, recording=recording))
    exceptions, hop = find(rows, "tls.exceptions"), find(rows, "tls.keys.main")
    assert (exceptions.level, exceptions.finding) == (Level.ATTENTION, "1: keys.main")
    assert hop.level is Level.ATTENTION
    assert "TLS 1.2 by exception" in hop.finding


def test_a_transit_server_is_a_hop_as_key_and_as_holder_of_a_private_part(settings: Settings) -> None:
    server = TransitSettings(
        address="https://vault.example.test", token_path=Path("/t"), ca_path=Path("/ca.pem")
    )
    vault = VaultTransitKeySettings(key="recordings", server=server)
    keys: dict[str, KeySettings] = {
        "vault": vault,
        "reader": RSAKeySettings(public_key_path=Path("/p"), transit=vault),
        "escrow": RSAKeySettings(public_key_path=Path("/p")),
    }
    recording = dataclasses.replace(settings.recording, keys=keys)
    rows = [
        row
        for row in policy_rows(dataclasses.replace(settings, recording=recording))
        if row.key.startswith("tls.keys.")
    ]
    assert {row.key for row in rows} == {"tls.keys.vault", "tls.keys.reader"}
    assert all("/ca.pem" in row.finding and row.level is Level.OK for row in rows)


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


# --- keys


def test_the_age_of_a_transit_key_is_what_the_server_says(openbao: OpenBao, tmp_path: Path) -> None:
    name = f"posture-{secrets.token_hex(8)}"
    openbao.create_key(name)
    key = vault_settings(openbao, name, tmp_path / "token")
    age = find(ask_key("main", key, None), "keys.main.age")
    assert (age.level, age.finding.startswith("0 days"), "created_at" in age.evidence) == (
        Level.OK,
        True,
        True,
    )
    openbao.rotate_key(name)
    assert "rotated_at" in find(ask_key("main", key, None), "keys.main.age").evidence


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


@pytest.mark.parametrize(
    ("days", "level"),
    [(0, Level.OK), (330, Level.OK), (340, Level.ATTENTION), (366, Level.ALARM), (4000, Level.ALARM)],
)
def test_a_key_grows_old(days: int, level: Level) -> None:
    facts = {
        "rotated_at": (NOW - timedelta(days=days)).isoformat(),
        "created_at": "2001-01-01T00:00:00+00:00",
    }
    assert judge_age("main", facts, KMS, NOW).level is level


def test_an_age_counts_from_the_making_where_there_was_no_rotation() -> None:
    row = judge_age("main", {"created_at": "2026-11-01T00:00:00"}, KMS, NOW)
    assert row.level is Level.OK
    assert "23 days" in row.finding


def test_an_age_that_nobody_tells_is_unknown() -> None:
    assert judge_age("main", {"kind": "aws-kms"}, KMS, NOW).level is Level.UNKNOWN


def test_the_age_of_a_local_key_is_that_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_bytes(bytes(32))
    os.utime(path, (NOW.timestamp() - 400 * 86400,) * 2)
    row = judge_age("dev", {}, LocalKeySettings(kek_path=path), NOW)
    assert row.level is Level.ALARM
    assert "400 days" in row.finding


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
    row = judge_states(counts)
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
    rows = ask_local_sink(settings.recording)
    assert find(rows, "sink.lock").level is Level.ATTENTION
    assert "local directory" in find(rows, "sink.encryption").finding


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
