"""What a key provider is, whoever keeps the key-encryption key (SP 800-57 part 1.

Data key, key-encryption key).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from recording.format.slots import KeySlot

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """One file's data key and its wrapped form. `dek` is 32 bytes, owned by the receiver, who wipes it."""

    dek: bytearray = field(repr=False)
    slot: KeySlot


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

    def describe(self) -> dict[str, str]:
        """What `keys status` prints: never key bytes."""
        ...

    def health(self) -> None:
        """Return if the provider can be reached; raise what stands in the way."""
        ...
