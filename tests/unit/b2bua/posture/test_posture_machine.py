"""What the report says of cryptographic modules, of the process and of the machine."""

from __future__ import annotations

import ctypes
import dataclasses
import sys

import pytest

from b2bua.posture.modules import ModuleFacts, judge_fips, judge_module
from b2bua.posture.process import (
    ProcessFacts,
    judge_clock,
    judge_core,
    judge_machine,
    judge_service,
    read_machine,
)
from b2bua.posture.report import Level, Row
from b2bua.settings import Listener, PostureSettings
from support.posture import find

LISTENER = Listener(address="127.0.0.1", port=5061, public_host="edge.example.test", public_port=5061)


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
        return list(
            judge_machine(dataclasses.replace(read_machine(), swap_devices=swap, core_pattern=pattern), None)
        )

    assert find(rows("core"), "machine.core_pattern").level is Level.OK
    piped = find(rows("|/usr/lib/systemd/systemd-coredump %P"), "machine.core_pattern")
    assert piped.level is Level.ATTENTION
    assert "/usr/lib/systemd/systemd-coredump," in piped.finding
    for is_dumpable, level in ((False, Level.OK), (None, Level.ATTENTION), (True, Level.ATTENTION)):
        facts = ProcessFacts(pid=1, core_limits=("0", "0"), locked_kib=0, is_dumpable=is_dumpable)
        machine = dataclasses.replace(read_machine(), core_pattern="|/bin/handler %P")
        assert find(list(judge_machine(machine, facts)), "machine.core_pattern").level is level
    assert find(rows("core"), "machine.swap").level is Level.OK
    assert find(rows("core", ("/dev/sda2",)), "machine.swap").level is Level.ATTENTION


@pytest.mark.parametrize(
    ("synchronised", "level"), [(True, Level.OK), (False, Level.ATTENTION), (None, Level.UNKNOWN)]
)
def test_a_clock_that_nobody_sets_needs_attention(synchronised: bool | None, level: Level) -> None:
    machine = dataclasses.replace(read_machine(), is_clock_synchronised=synchronised)
    assert judge_clock(machine).level is level


def test_the_kernel_says_of_its_clock_what_it_says_to_others() -> None:
    """Bit 0x40 of the status is STA_UNSYNC. Source: adjtimex(2)."""
    buffer = ctypes.create_string_buffer(256)
    state = ctypes.CDLL(None).adjtimex(buffer)
    status = int.from_bytes(buffer[40:44], sys.byteorder)
    assert state >= 0
    if status & 0x40:
        assert read_machine().is_clock_synchronised is False
    elif state == 0:
        assert read_machine().is_clock_synchronised is True


def test_a_service_that_does_not_run_needs_attention() -> None:
    assert judge_service(None, LISTENER).level is Level.ATTENTION
    facts = ProcessFacts(pid=4711, core_limits=("0", "0"), locked_kib=0)
    assert judge_service(facts, LISTENER).level is Level.OK
