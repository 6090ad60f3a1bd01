"""What moving recordings to a new version of their key costs, against a real key service: OpenBao on loopback, TLS 1.3.

The same requests are made twice, by as many threads: alone, which is what the key service takes, and as
`b2bua keys retire` makes them, with slots read, sidecars written durably and the outcome told.
"""

from __future__ import annotations

import concurrent.futures
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recording.format.content import ChannelLayout, RecordingMeta
from recording.format.slots import KeySlot, build_area
from recording.keys.build import build_mover, build_provider
from recording.keys.provider import KeyContext, KeyProvider
from recording.keys.rewrap import CONCURRENCY, Outcome, RewrapTask, rewrap_all
from recording.sinks.local import LocalSink
from recording.sinks.sink import ObjectName
from recording.writer import SegmentWriter
from support.openbao import OpenBao, vault_settings
from support.stored import HOUR
from tests.bench.capacity import Say


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrappingPlan:
    """So many recordings, whose data keys are moved; the two ways are measured in turn so often, the best counts."""

    recordings: int = 1000
    repeats: int = 3


def measure_rewrapping(plan: RewrappingPlan, directory: Path, say: Say) -> dict[str, Any]:
    """Seconds of the key service alone and of the whole, and our CPU time in it."""
    say(f"rewrapping: {plan.recordings} data keys at OpenBao, {CONCURRENCY} at a time")
    directory.mkdir()
    with OpenBao(directory) as server:
        key = f"recordings-{secrets.token_hex(4)}"
        server.create_key(key)
        settings = vault_settings(server, key, directory / "token")
        provider = build_provider("bench", settings)
        sink = LocalSink(directory / "store")
        files = [_store(sink, provider, directory) for _ in range(plan.recordings)]
        alone, whole, cpu = [], [], []
        for _ in range(plan.repeats):
            server.rotate_key(key)
            alone.append(_ask_alone(provider, files))
            mover = build_mover("bench", "bench", {"bench": settings})
            began, cpu_began = time.monotonic(), time.process_time()
            outcomes = [outcome for _, outcome in rewrap_all(sink, mover, [task for task, _ in files])]
            whole.append(time.monotonic() - began)
            cpu.append(time.process_time() - cpu_began)
            assert outcomes == [Outcome.MOVED] * plan.recordings
    return {
        "plan": {"recordings": plan.recordings, "repeats": plan.repeats, "concurrency": CONCURRENCY},
        "key_service_s": round(min(alone), 3),
        "rewrap_s": round(min(whole), 3),
        "added_percent": round(100 * (min(whole) / min(alone) - 1), 1),
        "rewraps_per_second": round(plan.recordings / min(whole)),
        "cpu_ms_per_rewrap": round(1000 * min(cpu) / plan.recordings, 3),
        "samples": {"key_service_s": alone, "rewrap_s": whole, "cpu_s": cpu},
    }


def _ask_alone(provider: KeyProvider, files: list[tuple[RewrapTask, KeySlot]]) -> float:
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CONCURRENCY) as pool:
        for moved in pool.map(lambda file: provider.rewrap(file[1], file[0].context), files):
            assert moved.wrapped
    return time.monotonic() - began


def _store(sink: LocalSink, provider: KeyProvider, directory: Path) -> tuple[RewrapTask, KeySlot]:
    """A recording without audio: what is moved is in its head."""
    context = KeyContext(file_id=os.urandom(16), tenant_handle=b"T" * 16)
    key = provider.new_key(context)
    writer = SegmentWriter(
        file_id=context.file_id,
        tenant_handle=context.tenant_handle,
        dek=key.dek,
        slots_area=build_area([key.slot]),
        meta=RecordingMeta(rate_hz=8000, channels=1, layout=ChannelLayout.MIXED, segment=0, call_uid="bench"),
    )
    source = directory / "spooled"
    source.write_bytes(writer.head() + writer.finish(ended_by="caller", reason="completed"))
    name = ObjectName(tenant_handle=context.tenant_handle, file_id=context.file_id, started_hour=HOUR)
    sink.put(source, name)
    return RewrapTask(object_key=name.key, context=context), key.slot
