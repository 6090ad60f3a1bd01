"""Finished recordings in a sink, made under a key provider, and read back with whichever provider a test names."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from recording.format.slots import KeySlot, build_area
from recording.keys.build import slot_keys
from recording.keys.provider import KeyContext, KeyProvider
from recording.keys.rewrap import RewrapTask
from recording.reader import open_recording
from recording.sinks.sink import ObjectName, Sink, sidecars
from support.crec import ramp, recording

HOUR = datetime(2026, 5, 6, 7, tzinfo=UTC)
PCM = ramp(400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One recording in the sink."""

    key: str
    context: KeyContext
    slot: KeySlot
    content: bytes

    @property
    def task(self) -> RewrapTask:
        return RewrapTask(object_key=self.key, context=self.context)


def store(
    sink: Sink,
    provider: KeyProvider,
    directory: Path,
    *,
    tenant: bytes = b"T" * 16,
    others: Sequence[KeySlot] = (),
) -> Stored:
    """A short recording whose data key `provider` made; `others` are slots beside its own."""
    context = KeyContext(file_id=os.urandom(16), tenant_handle=tenant)
    key = provider.new_key(context)
    content = recording(
        PCM,
        file_id=context.file_id,
        tenant_handle=tenant,
        dek=bytearray(key.dek),
        slots_area=build_area([key.slot, *others]),
    )
    name = ObjectName(tenant_handle=tenant, file_id=context.file_id, started_hour=HOUR)
    source = directory / f"{context.file_id.hex()}.crec"
    source.write_bytes(content)
    sink.put(source, name)
    source.unlink(missing_ok=True)
    return Stored(key=name.key, context=context, slot=key.slot, content=content)


def read_with(sink: Sink, stored: Stored, *providers: KeyProvider) -> bytes:
    """Its audio, opened by `providers` alone. Raises what the reader raises."""
    with sink.open(stored.key) as file:
        data = io.BytesIO(file.read())
    opened = open_recording(data, keys=slot_keys(providers), sidecars=sidecars(sink, stored.key))
    return b"".join(bytes(record.payload) for record in opened.audio())
