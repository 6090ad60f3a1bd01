"""Vault or OpenBao transit as key provider: data keys under a derived key.

The server derives the wrapping key from the context, so a slot opens for its own file and tenant alone; rewrap
happens inside the server. Source: docs/recording-format.md, Key slots.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from recording.format.slots import KeySlot, SlotProvider
from recording.keys.errors import (
    ContextMismatchError,
    KeyAnswerError,
    KeyConfigurationError,
)
from recording.keys.provider import (
    DEK_BYTES,
    DataKey,
    KeyContext,
    KeyLifecycle,
    require_own,
)
from recording.keys.transit import Transit, check_key_name, decoded_dek
from recording.settings import VaultTransitKeySettings

# Nonce, 32 bytes and tag make 60 bytes under AES-256-GCM, 80 characters; other key types stay far below this.
_WRAPPED: Final = re.compile(rb"vault:v(?P<version>[1-9][0-9]{0,8}):[A-Za-z0-9+/]{64,400}={0,2}")


class VaultTransitProvider:
    """One derived key of a transit mount. Any thread; calls block up to the server's `timeout_s`."""

    def __init__(self, name: str, settings: VaultTransitKeySettings) -> None:
        """No request is sent, no token is read.

        Raises:
            KeyConfigurationError: settings that no server could be asked with.
        """
        check_key_name(name, settings.key)
        self.name = name
        self._key = settings.key
        self._transit = Transit(name, settings.server)
        self.slot_provider: int = SlotProvider.VAULT_TRANSIT
        self.slot_key_id = self._transit.key_id(settings.key)
        self._is_known_to_bind = False

    def new_key(self, context: KeyContext) -> DataKey:
        """Raises KeyConfigurationError too: the key is one that binds no context."""
        self._require_binding()
        answer = self._transit.post(
            "datakey/plaintext", self._key, {"context": _encoded(context.text()), "bits": 8 * DEK_BYTES}
        )
        slot = self._slot(answer)
        return DataKey(dek=decoded_dek(answer), slot=slot)

    def unwrap(self, slot: KeySlot, context: KeyContext) -> bytearray:
        answer = self._transit.post("decrypt", self._key, self._request(slot, context))
        return decoded_dek(answer)

    def rewrap(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        """Inside the server: neither the data key nor audio is touched here."""
        return self._slot(self._transit.post("rewrap", self._key, self._request(slot, context)))

    def lifecycle(self) -> KeyLifecycle:
        return self._transit.lifecycle(self._key)

    def version_of(self, slot: KeySlot) -> int:
        match = _WRAPPED.fullmatch(slot.wrapped)
        return 0 if match is None else int(match["version"])

    def describe(self) -> dict[str, str]:
        return {
            "kind": "vault-transit",
            "key_id": self.slot_key_id.decode(),
            "endpoint": self._transit.address,
            "tls_floor": self._transit.tls_floor.value,
            "fit_for_production": "yes",
        }

    def health(self) -> None:
        """The server is unsealed, takes our token, has the key, and the key binds a context."""
        self._check_binding(self._transit.read_key(self._key))

    def _require_binding(self) -> None:
        """A key that is not derived takes a context and ignores it, which no answer would show."""
        if not self._is_known_to_bind:
            self._check_binding(self._transit.read_key(self._key))

    def _check_binding(self, facts: Mapping[str, Any]) -> None:
        if facts.get("derived") is not True:
            raise KeyConfigurationError(
                f"key {self._key} of {self._transit.address} does not bind a context; make one with derived=true"
            )
        if facts.get("exportable") is True or facts.get("allow_plaintext_backup") is True:
            raise KeyConfigurationError(
                f"key {self._key} of {self._transit.address} can be taken out of the server; "
                "make one with exportable=false and allow_plaintext_backup=false"
            )
        self._is_known_to_bind = True

    def _request(self, slot: KeySlot, context: KeyContext) -> dict[str, object]:
        """Refuse a slot that is not this provider's: a stranger's slot must not make us ask."""
        require_own(self, slot)
        if _WRAPPED.fullmatch(slot.wrapped) is None:
            raise ContextMismatchError("what the slot holds is no data key wrapped by transit")
        return {"ciphertext": slot.wrapped.decode(), "context": _encoded(context.text())}

    def _slot(self, answer: Mapping[str, Any]) -> KeySlot:
        text = answer.get("ciphertext")
        wrapped = text.encode() if isinstance(text, str) and text.isascii() else b""
        if _WRAPPED.fullmatch(wrapped) is None:
            raise KeyAnswerError("the key service answered with a wrapped key that is none")
        return KeySlot(provider=self.slot_provider, key_id=self.slot_key_id, wrapped=wrapped)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
