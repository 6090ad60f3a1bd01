"""The door: every reason to refuse a call beside a call that gets in, and the numbers that are never refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from b2bua.config import load
from b2bua.engine.admission import Admission, Admissions, Load
from b2bua.initialise import InitOptions, initialise
from b2bua.settings import Limits, RecordingPolicy, Settings, TrunkSettings
from b2bua.sip.handler import Refusal
from recording.keys.build import build_providers
from recording.observer import SilentObserver
from recording.recorder import Recorder, TenantKey
from recording.settings import PoolSettings

IDLE = Load(calls=0, by_trunk={})


class Clock:
    def __init__(self) -> None:
        self.now_ns = 10_000_000_000

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = initialise(tmp_path / "lab", InitOptions(free_ports=True))
    loaded = load(made.configuration)
    trunks = {name: replace(trunk, max_calls=3) for name, trunk in loaded.trunks.items()}
    limits = Limits(max_calls=5, max_calls_per_s=4, retry_after_s=7)
    return replace(loaded, trunks=trunks, limits=limits, emergency_numbers=frozenset({"112"}))


def policies(settings: Settings, caller: RecordingPolicy, callee: RecordingPolicy) -> Settings:
    trunks = dict(settings.trunks)
    trunks["caller"] = replace(trunks["caller"], recording=caller)
    trunks["callee"] = replace(trunks["callee"], recording=callee)
    return replace(settings, trunks=trunks)


def off(settings: Settings) -> Settings:
    return policies(settings, RecordingPolicy.OFF, RecordingPolicy.OFF)


@pytest.fixture
def recorder(settings: Settings) -> Iterator[Recorder]:
    """One that has a single data key and gets no other while a test runs."""
    pool = PoolSettings(size=1, refill_per_request=1)
    recorder = Recorder(
        replace(settings.recording, pool=pool, min_free_bytes=1),
        {
            name: TenantKey(handle=tenant.handle, provider=tenant.key)
            for name, tenant in settings.tenants.items()
        },
        build_providers(settings.recording.keys),
        SilentObserver(),
    )
    recorder.start()
    assert recorder.wait_ready(10)
    yield recorder
    recorder.stop()


def invite(user: str = "2001", *headers: str) -> bytes:
    lines = [
        f"INVITE sips:{user}@edge.example.test SIP/2.0",
        "Call-ID: c",
        "From: <sips:1001@a>;tag=1",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def caller(settings: Settings) -> TrunkSettings:
    return settings.trunks["caller"]


def admitted(decision: Admission | Refusal) -> Admission:
    assert isinstance(decision, Admission), decision
    return decision


def refused(decision: Admission | Refusal) -> Refusal:
    assert isinstance(decision, Refusal), decision
    return decision


def test_a_call_gets_in_with_its_destination(settings: Settings) -> None:
    decision = admitted(Admissions(off(settings), None).decide(caller(off(settings)), invite(), IDLE))
    assert (decision.destination.trunk.name, decision.destination.user) == ("callee", "2001")
    assert (decision.reservation, decision.unrecorded, decision.emergency) == (None, None, False)


@pytest.mark.parametrize(
    ("message", "status", "reason"),
    [
        (invite("2001", "Max-Forwards: x"), 400, "malformed_header"),
        (invite("2001", "Max-Forwards: 0"), 483, "max_forwards"),
        (invite("2001", "Replaces: a;to-tag=b;from-tag=c"), 403, "replaces"),
    ],
)
def test_a_message_that_may_not_start_a_call(
    settings: Settings, message: bytes, status: int, reason: str
) -> None:
    refusal = refused(Admissions(off(settings), None).decide(caller(off(settings)), message, IDLE))
    assert (refusal.status, refusal.reason) == (status, reason)


def test_no_route_is_404(settings: Settings) -> None:
    lonely = replace(off(settings), routes=())
    assert refused(Admissions(lonely, None).decide(caller(off(settings)), invite(), IDLE)).status == 404


LOADS = {
    "call_limit": Load(calls=5, by_trunk={}),
    "trunk_limit": Load(calls=3, by_trunk={"callee": 3}),
    "trunk_limit of the caller": Load(calls=3, by_trunk={"caller": 3}),
}


@pytest.mark.parametrize("reason", LOADS)
def test_a_full_house_is_503_with_retry_after_but_not_for_an_emergency(
    settings: Settings, reason: str
) -> None:
    door = Admissions(off(settings), None)
    refusal = refused(door.decide(caller(off(settings)), invite(), LOADS[reason]))
    assert (refusal.status, refusal.reason) == (503, reason.partition(" ")[0])
    assert tuple(refusal.headers) == (("Retry-After", "7"),)
    assert admitted(door.decide(caller(off(settings)), invite("112"), LOADS[reason])).emergency
    admitted(door.decide(caller(off(settings)), invite(), IDLE))


def test_the_rate_is_counted_over_one_second_of_admitted_calls(settings: Settings) -> None:
    clock = Clock()
    door = Admissions(off(settings), None, clock_ns=clock)
    for _ in range(4):
        admitted(door.decide(caller(off(settings)), invite(), IDLE))
    assert refused(door.decide(caller(off(settings)), invite(), IDLE)).reason == "rate_limit"
    assert admitted(door.decide(caller(off(settings)), invite("112"), IDLE)).emergency
    clock.now_ns += 1_000_000_000
    admitted(door.decide(caller(off(settings)), invite(), IDLE))


def test_a_draining_process_takes_emergencies_only(settings: Settings) -> None:
    door = Admissions(off(settings), None)
    door.draining = True
    assert refused(door.decide(caller(off(settings)), invite(), IDLE)).reason == "draining"
    admitted(door.decide(caller(off(settings)), invite("112"), IDLE))


def test_while_the_audit_log_takes_no_line_no_call_starts_but_an_emergency(settings: Settings) -> None:
    audited = False
    door = Admissions(off(settings), None, is_audited=lambda: audited)
    refusal = refused(door.decide(caller(off(settings)), invite(), IDLE))
    assert (refusal.status, refusal.reason) == (503, "audit_unavailable")
    assert tuple(refusal.headers) == (("Retry-After", "7"),)
    assert admitted(door.decide(caller(off(settings)), invite("112"), IDLE)).emergency
    audited = True
    admitted(door.decide(caller(off(settings)), invite(), IDLE))


REQUIRED, BEST_EFFORT, OFF = RecordingPolicy.REQUIRED, RecordingPolicy.BEST_EFFORT, RecordingPolicy.OFF


@pytest.mark.parametrize(
    ("near", "far", "governs"),
    [(OFF, REQUIRED, REQUIRED), (REQUIRED, OFF, REQUIRED), (OFF, BEST_EFFORT, BEST_EFFORT), (OFF, OFF, OFF)],
)
def test_the_stricter_trunk_governs(
    settings: Settings,
    recorder: Recorder,
    near: RecordingPolicy,
    far: RecordingPolicy,
    governs: RecordingPolicy,
) -> None:
    chosen = policies(settings, near, far)
    door = Admissions(chosen, recorder)
    decision = admitted(door.decide(caller(chosen), invite(), IDLE))
    assert decision.policy is governs
    assert (decision.reservation is None) is (governs is OFF)
    door.release(decision)


@pytest.mark.parametrize(
    ("policy", "user", "gets_in"),
    [(REQUIRED, "2001", False), (REQUIRED, "112", True), (BEST_EFFORT, "2001", True)],
)
def test_with_a_recorder_that_can_take_nothing(
    settings: Settings, recorder: Recorder, policy: RecordingPolicy, user: str, gets_in: bool
) -> None:
    recorder.stop()
    chosen = policies(settings, policy, policy)
    decision = Admissions(chosen, recorder).decide(caller(chosen), invite(user), IDLE)
    if gets_in:
        assert admitted(decision).unrecorded == "recorder_not_running"
        assert admitted(decision).reservation is None
    else:
        assert (refused(decision).status, refused(decision).reason) == (503, "recorder_not_running")


def test_without_a_recorder_a_required_call_is_refused(settings: Settings) -> None:
    refusal = refused(Admissions(settings, None).decide(caller(settings), invite(), IDLE))
    assert (refusal.status, refusal.reason) == (503, "no_recorder")
