"""Numbers and names in the index: sealed by who records, opened by who plays, found by neither without the search key.

A recorder process draws an index key for each tenant from the key provider (`new_key`), keeps its wrapped form in the
index and the key itself in memory. It never asks for one to be unwrapped, so it cannot open what another process, or it
before its restart, has sealed.

Form of a sealed value: 0x01, 16 bytes key id, 12 bytes nonce, AES-256-GCM over JSON padded to a multiple of 64 bytes;
associated data: label, key id, tenant handle, file id. A value therefore opens in its own row only.
Source: NIST SP 800-38D section 8.2.2 (random nonces; 2**32 of them a key at most).
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recording.errors import MissingSlotError, RecordingError
from recording.format.slots import KeySlot
from recording.format.suites import wipe
from recording.index.entry import NO_PARTIES, IndexEntry, IndexKey, SealedParties, utc_hour
from recording.index.search_key import SearchKey
from recording.index.store import RecordingIndex
from recording.keys.errors import KeyConfigurationError
from recording.keys.pool import TenantKey
from recording.keys.provider import KeyContext, KeyProvider
from recording.unlock import SlotKey

KEY_LIFE_S: Final = 24 * 3600.0
"""After it a process takes a new index key: far below the 90 days of a data key, and below 2**32 nonces by any load."""
FIRST_BACKOFF_S: Final = 0.25
MAX_BACKOFF_S: Final = 30.0
MOST_CHARACTERS: Final = 256
"""Of a name; what is longer stands whole in the recording itself."""
_VERSION: Final = b"\x01"
_LABEL: Final = b"sealtrunk/index/parties/v1\0"
_KEY_ID_LEN: Final = 16
_NONCE_LEN: Final = 12
_PAD: Final = 64


class SealedPartiesError(RecordingError):
    """A sealed number or name does not open: altered, of another row, or of a form that this program does not know."""

    exit_code = 119


@dataclass(frozen=True, slots=True, kw_only=True)
class Parties:
    """Who called whom, in clear. In memory only."""

    from_: str | None = field(default=None, repr=False)
    to: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Held:
    """A tenant's key at work, and when to ask again."""

    key_id: bytes | None = None
    cipher: AESGCM | None = field(default=None, repr=False)
    due_s: float = 0.0
    failures: int = 0
    problem: str | None = None


class PartySealer:
    """The recorder's half. `seal` may be called from any thread and never waits.

    A thread named `index-keys` asks the providers. While a tenant has no key yet, entries get blind indexes alone: they
    are found by number, and who called is read from the recording; `index rebuild` seals it in later.
    """

    def __init__(
        self,
        *,
        index: RecordingIndex,
        tenants: Mapping[str, TenantKey],
        providers: Mapping[str, KeyProvider],
        search_key: SearchKey,
        key: str | None = None,
    ) -> None:
        """No thread and no request yet. `key` names the provider to ask for all tenants; None: each tenant's own.

        Raises:
            KeyConfigurationError: there is no such provider.
        """
        if key is not None and key not in providers:
            raise KeyConfigurationError(
                f"the index names key {key!r}; the configured ones are {sorted(providers)}"
            )
        self._index = index
        self._search_key = search_key
        self._providers = {
            tenant.handle: providers[tenant.provider if key is None else key] for tenant in tenants.values()
        }
        self._held = {handle: _Held() for handle in self._providers}
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        assert self._thread is None, "a sealer is started once"
        self._thread = threading.Thread(target=self._run, name="index-keys", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Forget the keys and end the thread; a request under way is waited for up to `timeout_s`."""
        with self._changed:
            self._is_stopping = True
            for held in self._held.values():
                held.cipher = None
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until every tenant has a key. False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(
                lambda: all(held.cipher is not None for held in self._held.values()), timeout_s
            )

    @property
    def problem(self) -> str | None:
        """Why a tenant has no key, or no new one; None while all have."""
        with self._changed:
            return next((held.problem for held in self._held.values() if held.problem), None)

    def seal(
        self, *, tenant_handle: bytes, file_id: bytes, from_: str | None, to: str | None
    ) -> SealedParties:
        """What the entry of `file_id` may say of them."""
        if from_ is None and to is None:
            return NO_PARTIES
        with self._changed:
            held = self._held.get(tenant_handle, _Held())
            key_id, cipher = held.key_id, held.cipher
        sealed = None
        if cipher is not None and key_id is not None:
            nonce = os.urandom(_NONCE_LEN)
            sealed = b"".join(
                (
                    _VERSION,
                    key_id,
                    nonce,
                    cipher.encrypt(nonce, _plain(from_, to), _context(key_id, tenant_handle, file_id)),
                )
            )
        return SealedParties(
            sealed=sealed,
            blind_from=self._search_key.blind(tenant_handle, from_),
            blind_to=self._search_key.blind(tenant_handle, to),
        )

    def _run(self) -> None:
        while (handle := self._next()) is not None:
            try:
                key_id, cipher = self._new_key(handle)
            except RecordingError as error:
                self._failed(handle, error)
                continue
            with self._changed:
                if not self._is_stopping:
                    self._held[handle] = _Held(
                        key_id=key_id, cipher=cipher, due_s=time.monotonic() + KEY_LIFE_S
                    )
                self._changed.notify_all()

    def _next(self) -> bytes | None:
        """The tenant whose key is due next, when it is; None when it is time to end."""
        with self._changed:
            while not self._is_stopping and self._held:
                handle, held = min(self._held.items(), key=lambda item: item[1].due_s)
                wait_s = held.due_s - time.monotonic()
                if wait_s <= 0:
                    return handle
                self._changed.wait(wait_s)
        return None

    def _new_key(self, tenant_handle: bytes) -> tuple[bytes, AESGCM]:
        """A key whose wrapped form is in the index: nothing is sealed under one that nobody could unwrap."""
        key_id = secrets.token_bytes(_KEY_ID_LEN)
        made = self._providers[tenant_handle].new_key(KeyContext(file_id=key_id, tenant_handle=tenant_handle))
        try:
            cipher = AESGCM(made.dek)
        finally:
            wipe(made.dek)
        self._index.put_key(
            IndexKey(
                key_id=key_id,
                tenant_handle=tenant_handle,
                provider=made.slot.provider,
                slot_key_id=made.slot.key_id,
                wrapped=made.slot.wrapped,
                created_hour=utc_hour(datetime.now(UTC)),
            )
        )
        return key_id, cipher

    def _failed(self, tenant_handle: bytes, error: RecordingError) -> None:
        with self._changed:
            held = self._held[tenant_handle]
            pause_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(held.failures, 16))
            held.failures += 1
            held.problem = f"{type(error).__name__}: {error}"
            held.due_s = time.monotonic() + pause_s * (0.5 + 0.5 * secrets.randbelow(1000) / 1000)


class PartyReader:
    """The player's half: opens with whatever of `keys` the configuration gives. Not for several threads."""

    def __init__(self, index: RecordingIndex, keys: Sequence[SlotKey]) -> None:
        self._keys = keys
        self._index_keys = {key.key_id: key for key in index.index_keys()}
        self._ciphers: dict[bytes, AESGCM] = {}

    def open(self, entry: IndexEntry) -> Parties | None:
        """Who called whom; None where the entry has nothing sealed.

        Raises:
            SealedPartiesError: it does not open.
            MissingSlotError: no configured key wraps its index key, or the index has lost that one.
            RecordingError: what the key provider says.
        """
        sealed = entry.parties.sealed
        if sealed is None:
            return None
        key_id = sealed[1 : 1 + _KEY_ID_LEN]
        at = 1 + _KEY_ID_LEN + _NONCE_LEN
        if sealed[:1] != _VERSION or len(sealed) <= at:
            raise SealedPartiesError(f"{entry.file_id.hex()}: its sealed parties are of no known form")
        try:
            plain = self._cipher(key_id).decrypt(
                sealed[1 + _KEY_ID_LEN : at],
                sealed[at:],
                _context(key_id, entry.tenant_handle, entry.file_id),
            )
            found = json.loads(plain)
            return Parties(from_=found["from"], to=found["to"])
        except (InvalidTag, ValueError, LookupError, TypeError) as error:
            raise SealedPartiesError(
                f"{entry.file_id.hex()}: its sealed parties were altered or belong elsewhere; "
                f"b2bua index rebuild makes them anew"
            ) from error

    def _cipher(self, key_id: bytes) -> AESGCM:
        if key_id not in self._ciphers:
            kept = self._index_keys.get(key_id)
            if kept is None:
                raise MissingSlotError(
                    f"the index has no key {key_id.hex()}; restore it from a backup, or rebuild"
                )
            dek = self._unwrap(kept)
            try:
                self._ciphers[key_id] = AESGCM(dek)
            finally:
                wipe(dek)
        return self._ciphers[key_id]

    def _unwrap(self, kept: IndexKey) -> bytearray:
        slot = KeySlot(provider=kept.provider, key_id=kept.slot_key_id, wrapped=kept.wrapped)
        context = KeyContext(file_id=kept.key_id, tenant_handle=kept.tenant_handle)
        for key in self._keys:
            if key.fits(slot):
                return key.unwrap(slot, context)
        raise MissingSlotError(f"index key {kept.key_id.hex()} is wrapped by no configured key")


def _plain(from_: str | None, to: str | None) -> bytes:
    """Padded, so that the length tells a name from another of the same length only roughly."""
    names = {
        name: None if value is None else value[:MOST_CHARACTERS]
        for name, value in (("from", from_), ("to", to))
    }
    text = json.dumps(names, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return text + b" " * (-len(text) % _PAD)


def _context(key_id: bytes, tenant_handle: bytes, file_id: bytes) -> bytes:
    return _LABEL + key_id + tenant_handle + file_id
