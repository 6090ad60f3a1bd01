"""What the report says of the configuration: the good case of each rule, and each way in which it is not good."""

from __future__ import annotations

import dataclasses
import ipaddress
from pathlib import Path
from typing import Any

import pytest

from b2bua.posture.policy import policy_rows
from b2bua.posture.report import Level, Row
from b2bua.settings import KeyOutagePolicy, RecordingPolicy, Settings, SRTPSuite, Tenant
from recording.settings import IndexSettings, RetentionSettings
from support.posture import find, with_trunk


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


def test_no_address_of_a_trunk_is_in_the_report(settings: Settings) -> None:
    """The report is for auditors as well; who may connect from where is not theirs to have."""
    source = (ipaddress.ip_network("198.51.100.0/24"),)
    rows = policy_rows(with_trunk(settings, sources=source))
    assert "198.51.100" not in str(rows)
