"""Data keys that are ready before a call needs them.

Single use, per tenant, bound to a file id drawn with them.

Only the pool's threads, named `keys`, ask a key service: several, because keys come no faster than requests under way
over the time of one. A provider that is slow or down costs no call anything until the tenant's keys are spent.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from recording.errors import RecordingError
from recording.format.slots import SlotProvider
from recording.format.suites import wipe
from recording.keys.errors import KeyConfigurationError, NoKeyError
from recording.keys.provider import DataKey, KeyContext, KeyProvider
from recording.observer import RecordingObserver
from recording.settings import PoolSettings

FIRST_BACKOFF_S: Final = 0.25
MAX_BACKOFF_S: Final = 30.0
_NS_PER_S: Final = 1_000_000_000
_IDLE_S: Final = 60.0  # nothing expires sooner unnoticed: the wait is cut to the next expiry


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantKey:
    """A tenant's opaque handle (16 random bytes) and the name of the provider that wraps for it.

    `fallback`: a provider that wraps with a public key, without asking anybody, while that one is away and no key is
    left. `may_lack_keys`: the tenant's calls go on without a key, so nobody waits for the first one.
    """

    handle: bytes
    provider: str
    fallback: str | None = None
    may_lack_keys: bool = False

    @property
    def waits_for_keys(self) -> bool:
        """Whether calls cannot be served as the tenant wants while its provider is away."""
        return self.fallback is None and not self.may_lack_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledKey:
    """A file id and the data key bound to it, for one file. Whoever took it wipes it, or hands it on."""

    file_id: bytes
    tenant: str
    tenant_handle: bytes
    key: DataKey
    expires_ns: int

    def wipe(self) -> None:
        wipe(self.key.dek)


@dataclass(slots=True, kw_only=True)
class _Shelf:
    """One tenant's keys, the oldest first. Guarded by the pool's lock."""

    tenant: TenantKey
    keys: deque[PooledKey] = field(default_factory=deque)
    under_way: int = 0
    failures: int = 0
    failed_ns: int = 0
    not_before_ns: int = 0
    problem: str | None = None


class KeyPool:
    """Keeps `settings.size` keys ready for each tenant.

    `take`, `level` and `problems` may be called from any thread and never wait for a provider.
    """

    def __init__(
        self,
        *,
        tenants: Mapping[str, TenantKey],
        providers: Mapping[str, KeyProvider],
        settings: PoolSettings,
        observer: RecordingObserver,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """No thread and no request yet.

        Raises:
            KeyConfigurationError: a tenant names a provider that is not there, or a fallback that is no public key.
        """
        for name, tenant in tenants.items():
            if tenant.provider not in providers:
                raise KeyConfigurationError(
                    f"tenant {name!r} names key provider {tenant.provider!r}; "
                    f"the configured ones are {sorted(providers)}"
                )
            _check_fallback(name, tenant, providers)
        self._providers = providers
        self._settings = settings
        self._observer = observer
        self._clock_ns = clock_ns
        self._jitter = jitter
        self._shelves = MappingProxyType({name: _Shelf(tenant=tenant) for name, tenant in tenants.items()})
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._wanted = threading.Condition(lock)  # one key gone wakes one thread, not all of them
        self._stopping = False
        self._threads: tuple[threading.Thread, ...] = ()

    def start(self) -> None:
        """Start the keys threads. A stopped pool is not started again."""
        assert not self._threads, "a pool is started once"
        assert not self._stopping, "a stopped pool is not started again"
        self._threads = tuple(
            threading.Thread(target=self._run, name=f"keys-{number}", daemon=True)
            for number in range(self._settings.parallel_requests)
        )
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Wipe every key and end the threads.

        Provider calls under way are waited for up to `timeout_s`; their keys are wiped too.
        """
        end = time.monotonic() + timeout_s
        with self._changed:
            self._stopping = True
            for shelf in self._shelves.values():
                while shelf.keys:
                    shelf.keys.popleft().wipe()
            self._changed.notify_all()
            self._wanted.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def take(self, tenant: str) -> PooledKey:
        """The tenant's oldest key that has not expired, else one of its fallback; the caller owns it.

        A fallback's key is made here and now: that is computation, some tenths of a millisecond, and no request.

        Raises:
            NoKeyError: none is ready and there is no fallback, the tenant is unknown, or the pool has stopped.
        """
        now = self._clock_ns()
        with self._changed:
            shelf = self._shelves.get(tenant)
            if shelf is None:
                raise NoKeyError(tenant)
            _discard_expired(shelf, now)
            key = shelf.keys.popleft() if shelf.keys else None
            if key is None and (shelf.tenant.fallback is None or self._stopping):
                raise NoKeyError(tenant)
            level = len(shelf.keys)
            self._wanted.notify()
        if key is None:
            return self._fallback_key(tenant, shelf.tenant)
        self._observer.pool_level(tenant=tenant, level=level)
        return key

    def _fallback_key(self, name: str, tenant: TenantKey) -> PooledKey:
        assert tenant.fallback is not None
        context = KeyContext(file_id=os.urandom(16), tenant_handle=tenant.handle)
        try:
            key = self._providers[tenant.fallback].new_key(context)
        except RecordingError as error:
            raise NoKeyError(name) from error
        self._observer.fallback_key_used(
            tenant=name, tenant_handle=tenant.handle, file_id=context.file_id, provider=tenant.fallback
        )
        return PooledKey(
            file_id=context.file_id,
            tenant=name,
            tenant_handle=tenant.handle,
            key=key,
            expires_ns=self._clock_ns(),
        )

    def level(self, tenant: str) -> int:
        """Keys ready now; 0 for an unknown tenant."""
        now = self._clock_ns()
        with self._changed:
            shelf = self._shelves.get(tenant)
            return 0 if shelf is None else sum(key.expires_ns > now for key in shelf.keys)

    @property
    def is_running(self) -> bool:
        """False before start, after stop, and when a thread has died."""
        return (
            bool(self._threads) and all(map(threading.Thread.is_alive, self._threads)) and not self._stopping
        )

    def problems(self) -> dict[str, str]:
        """By tenant, why its last request failed; empty when all went well."""
        with self._changed:
            return {name: shelf.problem for name, shelf in self._shelves.items() if shelf.problem is not None}

    def wait_ready(self, timeout_s: float, *, level: int = 1, until_failure: bool = False) -> bool:
        """Wait until every tenant has `level` keys, for start-up.

        A tenant that can do without is waited for until its provider has failed once; `until_failure`: so is any.
        False when the time is over first, or the pool stopped.
        """

        def is_over() -> bool:
            has_failed = until_failure and any(shelf.failures for shelf in self._shelves.values())
            return self._stopping or has_failed or self._have(level)

        with self._changed:
            self._changed.wait_for(is_over, timeout_s)
            return not self._stopping and self._have(level)

    def refill(self) -> float:
        """One round.

        Drop what expired, then up to `refill_per_request` requests for each tenant that is short and not backing off.

        Called by the keys threads. Returns the seconds until there is something to do again.
        """
        for name, shelf in self._shelves.items():
            self._expire(name, shelf)
            for _ in range(self._settings.refill_per_request):
                if not self._claim(shelf):
                    break
                try:
                    self._request(name, shelf)
                finally:
                    self._let_go(shelf)
        return self._next_due_s()

    def _claim(self, shelf: _Shelf) -> bool:
        """Whether the calling thread is the one to ask for the shelf's next key."""
        with self._changed:
            if not self._is_due(shelf):
                return False
            shelf.under_way += 1
            return True

    def _let_go(self, shelf: _Shelf) -> None:
        with self._changed:
            shelf.under_way -= 1

    def _run(self) -> None:
        while True:
            pause_s = self.refill()
            with self._changed:
                if self._stopping:
                    return
                if pause_s > 0 and not any(self._is_due(shelf) for shelf in self._shelves.values()):
                    self._wanted.wait(pause_s)

    def _have(self, level: int) -> bool:
        return all(
            len(shelf.keys) >= level or (shelf.failures > 0 and not shelf.tenant.waits_for_keys)
            for shelf in self._shelves.values()
        )

    def _is_short(self, shelf: _Shelf) -> bool:
        """A key more is wanted than is under way; of a service that failed, one at a time."""
        return len(shelf.keys) + shelf.under_way < self._settings.size and not (
            shelf.failures and shelf.under_way
        )

    def _is_due(self, shelf: _Shelf) -> bool:
        return not self._stopping and self._is_short(shelf) and self._clock_ns() >= shelf.not_before_ns

    def _request(self, name: str, shelf: _Shelf) -> None:
        """One key from the tenant's provider, onto the shelf. The lock is not held while the provider works."""
        provider = self._providers[shelf.tenant.provider]
        context = KeyContext(file_id=os.urandom(16), tenant_handle=shelf.tenant.handle)
        started_ns = self._clock_ns()
        try:
            key = provider.new_key(context)
        except RecordingError as error:
            self._failed(shelf, error, started_ns)
            self._report(provider, started_ns, type(error).__name__)
            return
        self._report(provider, started_ns, None)
        self._deposit(name, shelf, context, key)

    def _deposit(self, name: str, shelf: _Shelf, context: KeyContext, key: DataKey) -> None:
        pooled = PooledKey(
            file_id=context.file_id,
            tenant=name,
            tenant_handle=context.tenant_handle,
            key=key,
            expires_ns=self._clock_ns() + self._settings.ttl_s * _NS_PER_S,
        )
        with self._changed:
            if self._stopping:
                pooled.wipe()
                return
            shelf.keys.append(pooled)
            if shelf.failures:
                self._wanted.notify_all()  # they kept away from a service that failed
            shelf.failures, shelf.not_before_ns, shelf.problem = 0, 0, None
            level = len(shelf.keys)
            self._changed.notify_all()
        self._observer.pool_level(tenant=name, level=level)

    def _failed(self, shelf: _Shelf, error: RecordingError, started_ns: int) -> None:
        """Full jitter over a doubling step, so that a service coming back is not met by everybody at once.

        Requests that were under way together fail once.
        """
        with self._changed:
            shelf.problem = f"{type(error).__name__}: {error}"
            if shelf.failures and started_ns <= shelf.failed_ns:
                return
            shelf.failed_ns = self._clock_ns()
            step_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(shelf.failures, 16))
            shelf.failures += 1
            shelf.not_before_ns = shelf.failed_ns + int(step_s * (0.5 + 0.5 * self._jitter()) * _NS_PER_S)
            self._changed.notify_all()

    def _report(self, provider: KeyProvider, started_ns: int, error: str | None) -> None:
        seconds = (self._clock_ns() - started_ns) / _NS_PER_S
        self._observer.key_requested(provider=provider.name, seconds=seconds, error=error)

    def _expire(self, name: str, shelf: _Shelf) -> None:
        with self._changed:
            dropped = _discard_expired(shelf, self._clock_ns())
            level = len(shelf.keys)
        if dropped:
            self._observer.pool_level(tenant=name, level=level)

    def _next_due_s(self) -> float:
        now = self._clock_ns()
        with self._changed:
            due = [now + int(_IDLE_S * _NS_PER_S)]
            for shelf in self._shelves.values():
                if self._is_short(shelf):
                    due.append(shelf.not_before_ns)
                if shelf.keys:
                    due.append(shelf.keys[0].expires_ns)
        return max(0, min(due) - now) / _NS_PER_S


def _check_fallback(name: str, tenant: TenantKey, providers: Mapping[str, KeyProvider]) -> None:
    """It must need nobody: it is asked on the thread that wants a key."""
    if tenant.fallback is None:
        return
    provider = providers.get(tenant.fallback)
    if provider is None or provider.slot_provider != SlotProvider.RSA_OAEP_SHA256:
        raise KeyConfigurationError(
            f"tenant {name!r} names the fallback {tenant.fallback!r}, which is no rsa-oaep-sha256 key of this "
            "configuration; name one"
        )


def _discard_expired(shelf: _Shelf, now_ns: int) -> int:
    dropped = 0
    while shelf.keys and shelf.keys[0].expires_ns <= now_ns:
        shelf.keys.popleft().wipe()
        dropped += 1
    return dropped
