"""A key provider whose service can be switched off, slowed down or made to answer nonsense."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from recording.errors import RecordingError
from recording.format.slots import KeySlot, SlotProvider
from recording.keys.errors import UnknownKeyError
from recording.keys.provider import DataKey, KeyContext, KeyLifecycle, KeyVersion


class ScriptedProvider:
    """Keeps every data key that it gave out, so that a test can see it wiped."""

    def __init__(self, name: str = "scripted") -> None:
        self.name = name
        self.slot_provider: int = SlotProvider.LOCAL_DEV
        self.slot_key_id = b"0123456789abcdef"
        self.failure: RecordingError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.asked: list[KeyContext] = []
        self.given: dict[bytes, bytearray] = {}
        self.callers: set[str] = set()
        self.on_request: Callable[[], None] = lambda: None

    def new_key(self, context: KeyContext) -> DataKey:
        self.asked.append(context)
        self.callers.add(threading.current_thread().name)
        self.on_request()
        self.entered.set()
        self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        dek = bytearray(os.urandom(32))
        self.given[context.file_id] = dek
        slot = KeySlot(provider=self.slot_provider, key_id=self.slot_key_id, wrapped=context.file_id)
        return DataKey(dek=dek, slot=slot)

    def unwrap(self, slot: KeySlot, context: KeyContext) -> bytearray:
        if slot.wrapped not in self.given or slot.wrapped != context.file_id:
            raise UnknownKeyError("not a key of this provider")
        return bytearray(self.given[slot.wrapped])

    def rewrap(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        self.unwrap(slot, context)
        return slot

    def lifecycle(self) -> KeyLifecycle:
        return KeyLifecycle(versions=(KeyVersion(number=1, created_at=None),))

    def describe(self) -> dict[str, str]:
        return {"kind": "scripted"}

    def health(self) -> None:
        if self.failure is not None:
            raise self.failure
