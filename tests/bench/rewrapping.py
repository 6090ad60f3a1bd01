"""What moving recordings to a new version of their key costs, against a real key service: OpenBao on loopback, TLS 1.3.

The same requests are made twice, by as many threads: alone, which is what the key service takes, and as
`b2bua keys retire` makes them, with slots read, sidecars written durably and the outcome told.

OpenBao on the same cores takes them from us. So the same is measured with a service that takes its time and no core:
one that answers after 1 ms, as one on another machine does.
"""

from __future__ import annotations

import base64
import concurrent.futures
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recording.format.content import ChannelLayout, RecordingMeta
from recording.format.slots import KeySlot, build_area
from recording.keys.build import build_mover, build_provider
from recording.keys.provider import DataKey, KeyContext, KeyProvider
from recording.keys.rewrap import CONCURRENCY, Outcome, RewrapTask, rewrap_all
from recording.settings import VaultTransitKeySettings
from recording.sinks.local import LocalSink
from recording.sinks.sink import ObjectName
from recording.writer import SegmentWriter
from support.openbao import OpenBao, vault_settings
from support.stored import HOUR
from tests.bench.capacity import Say
from tests.bench.key_service import key_service


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrappingPlan:
    """So many recordings, whose data keys are moved; the two ways are measured in turn so often, the best counts."""

    recordings: int = 1000
    repeats: int = 3
    answer_ms: float = 1.0


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
        files = [_store(sink, provider.new_key, directory) for _ in range(plan.recordings)]
        alone, whole, cpu = [], [], []
        for _ in range(plan.repeats):
            server.rotate_key(key)
            alone.append(_ask_alone(provider, files))
            seconds, cpu_seconds = _rewrap(sink, settings, files)
            whole.append(seconds)
            cpu.append(cpu_seconds)
    return {
        "plan": {"recordings": plan.recordings, "repeats": plan.repeats, "concurrency": CONCURRENCY},
        "key_service_s": round(min(alone), 3),
        "rewrap_s": round(min(whole), 3),
        "added_percent": round(100 * (min(whole) / min(alone) - 1), 1),
        "rewraps_per_second": round(plan.recordings / min(whole)),
        "cpu_ms_per_rewrap": round(1000 * min(cpu) / plan.recordings, 3),
        "samples": {"key_service_s": alone, "rewrap_s": whole, "cpu_s": cpu},
        **_measure_remote(plan, directory, say),
    }


def _measure_remote(plan: RewrappingPlan, directory: Path, say: Say) -> dict[str, Any]:
    """Each time on recordings that were never moved."""
    say(f"rewrapping: {plan.recordings} data keys at a service that answers after {plan.answer_ms} ms")
    alone, whole = [], []
    with key_service(directory, answer_ms=plan.answer_ms) as settings:
        provider = build_provider("bench", settings)
        for number in range(plan.repeats):
            sink = LocalSink(directory / f"remote-{number}")
            files = [_store(sink, _old_key(provider), directory) for _ in range(plan.recordings)]
            alone.append(_ask_alone(provider, files))
            whole.append(_rewrap(sink, settings, files)[0])
    return {
        "remote_service_per_second": round(plan.recordings / min(alone)),
        "remote_rewraps_per_second": round(plan.recordings / min(whole)),
        "remote_samples": {"key_service_s": alone, "rewrap_s": whole},
    }


def _old_key(provider: KeyProvider) -> Callable[[KeyContext], DataKey]:
    """A data key that was wrapped by the service's first version, as far as its slot says."""

    def make(_: KeyContext) -> DataKey:
        wrapped = b"vault:v1:" + base64.b64encode(os.urandom(60))
        slot = KeySlot(provider=provider.slot_provider, key_id=provider.slot_key_id, wrapped=wrapped)
        return DataKey(dek=bytearray(os.urandom(32)), slot=slot)

    return make


def _rewrap(
    sink: LocalSink, settings: VaultTransitKeySettings, files: list[tuple[RewrapTask, KeySlot]]
) -> tuple[float, float]:
    """Seconds that it took, and seconds of our CPU."""
    mover = build_mover("bench", "bench", {"bench": settings})
    began, cpu_began = time.monotonic(), time.process_time()
    outcomes = [outcome for _, outcome in rewrap_all(sink, mover, [task for task, _ in files])]
    took = time.monotonic() - began, time.process_time() - cpu_began
    assert outcomes == [Outcome.MOVED] * len(files)
    return took


def _ask_alone(provider: KeyProvider, files: list[tuple[RewrapTask, KeySlot]]) -> float:
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CONCURRENCY) as pool:
        for moved in pool.map(lambda file: provider.rewrap(file[1], file[0].context), files):
            assert moved.wrapped
    return time.monotonic() - began


def _store(
    sink: LocalSink, new_key: Callable[[KeyContext], DataKey], directory: Path
) -> tuple[RewrapTask, KeySlot]:
    """A recording without audio: what is moved is in its head."""
    context = KeyContext(file_id=os.urandom(16), tenant_handle=b"T" * 16)
    key = new_key(context)
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
