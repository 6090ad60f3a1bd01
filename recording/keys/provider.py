"""What a key provider is, whoever keeps the key-encryption key. Source: SP 800-57 part 1, the two kinds of key."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

from recording.errors import RecordingError
from recording.format.slots import KeySlot
from recording.keys.errors import KeyAnswerError, UnknownKeyError

DEK_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyContext:
    """What a data key is bound to, where the provider can bind.

    Random ids only, for the context may be logged in clear.
    """

    file_id: bytes
    tenant_handle: bytes

    def pairs(self) -> dict[str, str]:
        """The two pairs of docs/recording-format.md, key slots."""
        return {"crec-file": self.file_id.hex(), "crec-tenant": self.tenant_handle.hex()}

    def text(self) -> bytes:
        """The same pairs as bytes, for providers that bind a text."""
        return ",".join(f"{name}={value}" for name, value in self.pairs().items()).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """One file's data key and its wrapped form. `dek` is 32 bytes, owned by the receiver, who wipes it."""

    dek: bytearray = field(repr=False)
    slot: KeySlot


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyVersion:
    """One generation of a key-encryption key. `created_at` None: whoever keeps the key does not say."""

    number: int
    created_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLifecycle:
    """How old a key is and what renews it. `versions` from the oldest to the newest, never empty.

    `rotation_period_s` None: nothing renews the key by itself.
    """

    versions: tuple[KeyVersion, ...]
    rotation_period_s: int | None = None

    def facts(self) -> dict[str, str]:
        """As `keys status` prints it."""
        newest = self.versions[-1]
        told = {
            "versions": str(len(self.versions)),
            "version": str(newest.number),
            "version_created_at": "unknown" if newest.created_at is None else newest.created_at.isoformat(),
            "rotates_by_itself": "no",
        }
        if self.rotation_period_s is not None:
            told["rotates_by_itself"] = f"every {self.rotation_period_s / 86400:g} days"
        return told


def checked_dek(told: bytes) -> bytearray:
    """What a key service gave as a data key, the caller's to wipe.

    Raises:
        KeyAnswerError: it has not 32 bytes, or is one byte repeated: no generator's work but a service's that failed.
    """
    if len(told) != DEK_BYTES or len(set(told)) == 1:
        raise KeyAnswerError(f"the key service gave what is no data key of {DEK_BYTES} random bytes")
    return bytearray(told)


class KeyProvider(Protocol):
    """May block and may fail.

    Raises only the classes of `recording.keys.errors`. Never called from the SIP, pump or spool thread.

    `name` is the configuration section's; metrics carry it. `slot_provider` and `slot_key_id` are what its slots say.
    """

    name: str
    slot_provider: int
    slot_key_id: bytes

    def new_key(self, context: KeyContext) -> DataKey:
        """A fresh 256-bit data key, wrapped and bound to `context` where the provider can bind."""
        ...

    def unwrap(self, slot: KeySlot, context: KeyContext) -> bytearray:
        """The data key of `slot`, the caller's to wipe.

        A slot of another provider or key never causes a request.

        Raises:
            UnwrapError: this key does not open this slot; try the next.
            NotPermittedError, KeyUnavailableError, KeyAnswerError: nothing was learned about the slot.
        """
        ...

    def rewrap(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        """`slot` under the newest version of this provider's key.

        The data key is not shown to us where the provider can do so.
        """
        ...

    def lifecycle(self) -> KeyLifecycle:
        """The key's versions with their ages.

        Raises:
            NotPermittedError: this identity may use the key and not ask about it.
            RecordingError: as for the other requests.
        """
        ...

    def describe(self) -> dict[str, str]:
        """What is known without asking anybody: never key bytes."""
        ...

    def health(self) -> None:
        """Return if the provider can be reached; raise what stands in the way."""
        ...


@runtime_checkable
class VersionedProvider(KeyProvider, Protocol):
    """A provider whose slots say which version of the key wrapped them."""

    def version_of(self, slot: KeySlot) -> int:
        """As the slot says; 0 where it says nothing of the kind."""
        ...


def require_own(provider: KeyProvider, slot: KeySlot) -> None:
    """The slot is for this provider's key: a stranger's must not make anybody ask for a stranger's key.

    Raises:
        UnknownKeyError: it is not.
    """
    if (slot.provider, slot.key_id) != (provider.slot_provider, provider.slot_key_id):
        raise UnknownKeyError(
            f"the slot is for provider {slot.provider} and a key that keys.{provider.name} does not name"
        )


def told_lifecycle(provider: KeyProvider) -> KeyLifecycle | str:
    """The lifecycle, or why there is none: many an identity may use a key and not ask about it."""
    try:
        return provider.lifecycle()
    except RecordingError as error:
        return f"{type(error).__name__}: {error}"
