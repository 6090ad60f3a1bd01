"""The pool of data keys: never waits, never gives a key twice, wipes what nobody used."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from recording.keys.errors import KeyConfigurationError, KeyUnavailableError, NoKeyError, NotPermittedError
from recording.keys.pool import FIRST_BACKOFF_S, MAX_BACKOFF_S, KeyPool, PooledKey, TenantKey
from recording.settings import PoolSettings
from support.observers import ListeningObserver
from support.providers import ScriptedProvider

A, B = TenantKey(handle=b"a" * 16, provider="one"), TenantKey(handle=b"b" * 16, provider="two")
S = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_000 * S

    def __call__(self) -> int:
        return self.now_ns


class Rig:
    """A pool without its thread: the test calls `refill` as the thread would, at times of its choosing."""

    def __init__(
        self, *, size: int = 2, ttl_s: int = 100, refill_per_request: int = 4, parallel_requests: int = 4
    ) -> None:
        self.clock = Clock()
        self.one, self.two = ScriptedProvider("one"), ScriptedProvider("two")
        self.observer = ListeningObserver()
        self.pool = KeyPool(
            tenants={"a": A, "b": B},
            providers={"one": self.one, "two": self.two},
            settings=PoolSettings(
                size=size,
                ttl_s=ttl_s,
                refill_per_request=refill_per_request,
                parallel_requests=parallel_requests,
            ),
            observer=self.observer,
            clock_ns=self.clock,
            jitter=lambda: 1.0,
        )


def test_keys_belong_to_their_tenant_and_file() -> None:
    rig = Rig()
    rig.pool.refill()
    key = rig.pool.take("a")
    assert (key.tenant, key.tenant_handle) == ("a", A.handle)
    assert rig.one.asked[0].file_id == key.file_id
    assert rig.one.asked[0].tenant_handle == A.handle
    assert rig.one.unwrap(key.key.slot, rig.one.asked[0]) == key.key.dek
    assert all(context.tenant_handle == B.handle for context in rig.two.asked)


def test_take_says_at_once_that_there_is_none() -> None:
    rig = Rig(size=1)
    with pytest.raises(NoKeyError):
        rig.pool.take("a")
    rig.pool.refill()
    rig.pool.take("a")
    with pytest.raises(NoKeyError) as caught:
        rig.pool.take("a")
    assert caught.value.tenant == "a"
    assert rig.pool.take("b").tenant == "b"


def test_an_unknown_tenant_has_no_key() -> None:
    rig = Rig()
    rig.pool.refill()
    with pytest.raises(NoKeyError):
        rig.pool.take("c")
    assert rig.pool.level("c") == 0


def test_a_tenant_of_a_missing_provider_is_refused() -> None:
    with pytest.raises(KeyConfigurationError, match=r"'a'.*'one'.*\['two'\]"):
        KeyPool(
            tenants={"a": A},
            providers={"two": ScriptedProvider()},
            settings=PoolSettings(),
            observer=ListeningObserver(),
        )


def test_one_round_asks_for_a_bounded_number_so_that_no_tenant_starves() -> None:
    rig = Rig(size=8, refill_per_request=3)
    assert rig.pool.refill() == 0
    assert (rig.pool.level("a"), rig.pool.level("b")) == (3, 3)
    rig.pool.refill()
    assert rig.pool.refill() > 0
    assert (rig.pool.level("a"), rig.pool.level("b")) == (8, 8)
    assert len(rig.one.asked) == 8


def test_an_unused_key_is_wiped_when_it_expires() -> None:
    rig = Rig(size=1, ttl_s=100)
    rig.pool.refill()
    (dek,) = rig.one.given.values()
    rig.clock.now_ns += 100 * S - 1
    assert rig.pool.level("a") == 1
    assert any(dek)
    rig.clock.now_ns += 1
    with pytest.raises(NoKeyError):
        rig.pool.take("a")
    assert not any(dek)
    rig.pool.refill()
    assert rig.pool.take("a").file_id == rig.one.asked[1].file_id


def test_the_thread_wakes_for_the_next_expiry() -> None:
    rig = Rig(size=1, ttl_s=7)
    assert rig.pool.refill() == pytest.approx(7)


def test_failures_back_off_and_one_success_forgets_them() -> None:
    rig = Rig(size=1, ttl_s=1_000_000)
    rig.one.failure = KeyUnavailableError("down")
    pauses = []
    for _ in range(12):
        asked = len(rig.one.asked)
        pause = rig.pool.refill()
        assert len(rig.one.asked) == asked + 1
        rig.clock.now_ns += int(pause * S) - 1
        rig.pool.refill()
        assert len(rig.one.asked) == asked + 1, "asked again before its time"
        rig.clock.now_ns += 1
        pauses.append(pause)
    assert pauses[:3] == pytest.approx([FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, 4 * FIRST_BACKOFF_S])
    assert pauses[-1] == pytest.approx(MAX_BACKOFF_S)
    assert rig.pool.problems() == {"a": "KeyUnavailableError: down"}
    assert rig.pool.level("b") == 1, "the other tenant's provider works"
    rig.one.failure = None
    rig.pool.refill()
    assert (rig.pool.problems(), rig.pool.level("a")) == ({}, 1)


def test_jitter_spreads_the_return() -> None:
    rig = Rig(size=1)
    rig.pool._jitter = lambda: 0.0
    rig.one.failure = KeyUnavailableError("down")
    assert rig.pool.refill() == pytest.approx(FIRST_BACKOFF_S / 2)


def test_the_observer_hears_of_requests_errors_and_levels() -> None:
    rig = Rig(size=1)
    rig.two.failure = NotPermittedError("no")
    rig.one.on_request = lambda: setattr(rig.clock, "now_ns", rig.clock.now_ns + S // 4)
    rig.pool.refill()
    assert rig.observer.key_requests == [("one", 0.25, None), ("two", 0.0, "NotPermittedError")]
    rig.pool.take("a")
    assert rig.observer.levels == [("a", 1), ("a", 0)]


def met_once(provider: ScriptedProvider, parties: int) -> None:
    """The provider's first `parties` requests go on when all of them are there."""
    met = threading.Barrier(parties)
    turns = itertools.count()

    def wait() -> None:
        if next(turns) < parties:
            met.wait(10)

    provider.on_request = wait


def test_keys_are_asked_for_side_by_side() -> None:
    rig = Rig(size=4, parallel_requests=8)
    met_once(rig.one, 4)
    met_once(rig.two, 4)
    rig.pool.start()
    try:
        assert rig.pool.wait_ready(20, level=4)
        assert (len(rig.one.asked), len(rig.two.asked)) == (4, 4), "no key more than wanted was asked for"
    finally:
        rig.pool.stop()


def test_requests_that_were_under_way_together_fail_once() -> None:
    rig = Rig(size=3)
    met_once(rig.one, 3)
    rig.one.failure = KeyUnavailableError("away")
    rig.pool.start()
    try:
        shelf = rig.pool._shelves["a"]
        with rig.pool._changed:
            assert rig.pool._changed.wait_for(lambda: len(rig.one.asked) == 3 and shelf.failures > 0, 10)
        rig.pool.stop(10)  # waits for what is under way
        assert shelf.failures == 1
        assert len(rig.one.asked) == 3, "and nobody asks before the time to try again"
    finally:
        rig.pool.stop()


def test_of_a_service_that_failed_one_key_at_a_time_is_asked_for() -> None:
    rig = Rig(size=3)
    rig.one.failure = KeyUnavailableError("away")
    rig.pool.refill()
    shelf = rig.pool._shelves["a"]
    rig.clock.now_ns += 60 * S
    assert [rig.pool._claim(shelf) for _ in range(3)] == [True, False, False]
    rig.pool._let_go(shelf)
    rig.one.failure = None
    rig.pool.refill()
    assert rig.pool.level("a") == 3


def test_only_the_keys_threads_call_a_provider() -> None:
    rig = Rig(size=3)
    rig.pool.start()
    try:
        assert rig.pool.wait_ready(10, level=3)
        rig.pool.take("a")
        assert rig.pool.wait_ready(10, level=3), "what was taken is replaced"
        assert all(name.startswith("keys-") for name in rig.one.callers | rig.two.callers)
        assert rig.pool.is_running
    finally:
        rig.pool.stop()
    assert not rig.pool.is_running


def test_take_does_not_wait_for_a_provider_that_hangs() -> None:
    rig = Rig(size=1)
    rig.one.gate.clear()
    rig.pool.start()
    try:
        assert rig.one.entered.wait(10)
        with pytest.raises(NoKeyError):  # the keys thread is inside the provider now
            rig.pool.take("a")
        assert not rig.pool.wait_ready(0.05)
        rig.one.gate.set()
        assert rig.pool.wait_ready(10)
    finally:
        rig.one.gate.set()
        rig.pool.stop()


def test_stop_wipes_what_is_there_and_what_is_still_coming() -> None:
    rig = Rig(size=1)
    rig.pool.refill()
    (before,) = rig.one.given.values()
    rig.two.gate.clear()
    rig.pool.take("b")
    rig.two.entered.clear()
    rig.pool.start()
    assert rig.two.entered.wait(10)
    stopping = threading.Thread(target=rig.pool.stop, args=(10,))
    stopping.start()
    with rig.pool._changed:
        assert rig.pool._changed.wait_for(lambda: rig.pool._stopping, 10)
    rig.two.gate.set()
    stopping.join(10)
    assert not any(before)
    late = list(rig.two.given.values())[-1]
    assert not any(late)
    with pytest.raises(NoKeyError):
        rig.pool.take("a")
    assert not rig.pool.wait_ready(0)


class PoolMachine(RuleBasedStateMachine):
    """Takes, failures, recoveries and the passing of time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(size=3, ttl_s=50, refill_per_request=2)
        self.taken: list[PooledKey] = []
        self.not_before_ns = 0

    @rule()
    def refill(self) -> None:
        asked = len(self.rig.one.asked)
        self.rig.pool.refill()
        made = len(self.rig.one.asked) - asked
        assert made <= 2
        if self.rig.clock.now_ns < self.not_before_ns:
            assert made == 0
        if made and self.rig.one.failure is not None:
            assert made == 1
            self.not_before_ns = self.rig.clock.now_ns + int(FIRST_BACKOFF_S / 2 * S)

    @rule(tenant=st.sampled_from("ab"))
    def take(self, tenant: str) -> None:
        level = self.rig.pool.level(tenant)
        if level == 0:
            with pytest.raises(NoKeyError):
                self.rig.pool.take(tenant)
            return
        key = self.rig.pool.take(tenant)
        assert key.tenant == tenant
        assert any(key.key.dek)
        assert key.expires_ns > self.rig.clock.now_ns
        assert self.rig.pool.level(tenant) == level - 1
        self.taken.append(key)

    @rule(seconds=st.floats(min_value=0, max_value=60))
    def pass_time(self, seconds: float) -> None:
        self.rig.clock.now_ns += int(seconds * S)

    @precondition(lambda self: self.rig.one.failure is None)
    @rule()
    def fail(self) -> None:
        self.rig.one.failure = KeyUnavailableError("down")

    @precondition(lambda self: self.rig.one.failure is not None)
    @rule()
    def mend(self) -> None:
        self.rig.one.failure = None
        self.not_before_ns = 0

    @invariant()
    def no_key_is_given_twice(self) -> None:
        assert len({key.file_id for key in self.taken}) == len(self.taken)

    @invariant()
    def every_key_is_ready_taken_or_wiped(self) -> None:
        taken = {key.file_id for key in self.taken}
        for tenant, provider in (("a", self.rig.one), ("b", self.rig.two)):
            live = [file_id for file_id, dek in provider.given.items() if any(dek) and file_id not in taken]
            assert self.rig.pool.level(tenant) <= len(live) <= 3

    def teardown(self) -> None:
        self.rig.pool.stop()
        taken = {key.file_id for key in self.taken}
        for provider in (self.rig.one, self.rig.two):
            for file_id, dek in provider.given.items():
                assert any(dek) == (file_id in taken)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
