"""What sealing and reading recordings cost without a call: many recordings open at once, no keys service, no disk."""

from __future__ import annotations

import io
import os
import time
from dataclasses import dataclass
from typing import Any

from recording.format.content import ChannelLayout, RecordingMeta
from recording.format.slots import KeySlot, SlotProvider, build_area
from recording.reader import open_with_dek
from recording.writer import SegmentWriter
from tests.bench.capacity import Say

RATE_HZ = 8000
DRAIN_S = 0.2
"""The pump's interval: how much audio a recording gets at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingPlan:
    """`recordings` open at once, each given so many seconds of audio."""

    recordings: int = 1000
    seconds: float = 5.0


def measure_sealing(plan: SealingPlan, say: Say) -> dict[str, Any]:
    """CPU seconds of sealing, and of reading one recording back, on this thread."""
    say(f"sealing: {plan.recordings} recordings at once, {plan.seconds:g} s each")
    pieces = [os.urandom(int(RATE_HZ * DRAIN_S) * 2) for _ in range(16)]
    deks = [bytearray(os.urandom(32)) for _ in range(plan.recordings)]
    kept = bytes(deks[0])
    began = time.thread_time()
    writers = [_writer(dek) for dek in deks]
    opening_s = time.thread_time() - began
    sealed_bytes, first = 0, bytearray(writers[0].head())
    began = time.thread_time()
    for turn in range(round(plan.seconds / DRAIN_S)):
        for number, writer in enumerate(writers):
            sealed = writer.append(pieces[(turn + number) % len(pieces)])
            sealed_bytes += len(sealed)
            if number == 0:
                first += sealed
    sealing_s = time.thread_time() - began
    for number, writer in enumerate(writers):
        last = writer.finish(ended_by="caller", reason="completed")
        if number == 0:
            first += last
    reading_s, read_bytes = _read(bytes(first), kept)
    audio_s = plan.recordings * plan.seconds
    return {
        "plan": {"recordings": plan.recordings, "seconds": plan.seconds},
        "cpu_percent_of_a_core_for_1000_calls": round(100_000 * sealing_s / audio_s, 2),
        "sealed_mib_per_cpu_second": round(sealed_bytes / sealing_s / 2**20, 1),
        "opening_ms": round(1000 * opening_s / plan.recordings, 3),
        "read_mib_per_cpu_second": round(read_bytes / reading_s / 2**20, 1),
    }


def _writer(dek: bytearray) -> SegmentWriter:
    slot = KeySlot(provider=SlotProvider.LOCAL_DEV, key_id=b"bench", wrapped=bytes(40))
    meta = RecordingMeta(rate_hz=RATE_HZ, channels=1, layout=ChannelLayout.MIXED, segment=0, call_uid="bench")
    return SegmentWriter(
        file_id=os.urandom(16),
        tenant_handle=os.urandom(16),
        dek=dek,
        slots_area=build_area([slot]),
        meta=meta,
        record_ms=500,
    )


def _read(recording: bytes, dek: bytes, *, at_least_s: float = 0.5) -> tuple[float, int]:
    """CPU seconds and bytes of reading the recording again and again."""
    began, read = time.thread_time(), 0
    while (spent := time.thread_time() - began) < at_least_s or not read:
        with open_with_dek(io.BytesIO(recording), dek) as reader:
            for record in reader.records():
                assert record.payload is not None
        read += len(recording)
    return spent, read
