"""What the report says of the keys of recordings and of the program's own: place, health and age."""

from __future__ import annotations

import dataclasses
import os
import secrets
import time
from datetime import timedelta
from pathlib import Path

import pytest

from b2bua.key_age import KeyAge, KeyKind
from b2bua.posture.keys import ask_key, judge_age, judge_place
from b2bua.posture.own_keys import ask_own_keys, judge_signing
from b2bua.posture.own_keys import judge_age as judge_own_age
from b2bua.posture.report import Level
from b2bua.settings import Settings
from recording.keys.provider import KeyLifecycle, KeyVersion
from recording.settings import LocalKeySettings
from support.openbao import OpenBao, vault_settings
from support.posture import NOW, find

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
