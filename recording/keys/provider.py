"""What a key provider is, whoever keeps the key-encryption key (SP 800-57 part 1: data key, key-encryption key)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from recording.format.slots import KeySlot


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyContext:
    """What a data key is bound to, where the provider can bind: random ids only, for the context may be logged in clear."""

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
    """May block and may fail; raises only `recording.errors` classes. Never called from the SIP, pump or spool thread."""

    name: str

    def new_key(self, context: KeyContext) -> DataKey: ...
    def unwrap(self, slot: KeySlot, context: KeyContext) -> bytearray: ...
    def rewrap(self, slot: KeySlot, context: KeyContext) -> KeySlot: ...
    def describe(self) -> dict[str, str]: ...
    def health(self) -> None: ...
