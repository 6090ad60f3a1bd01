"""What reading a stored recording costs: a file on disk, opened, authenticated and gone through on one core."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recording.format.content import ChannelLayout, RecordingMeta
from recording.format.slots import KeySlot, SlotProvider, build_area
from recording.reader import RecordingReader, open_with_dek
from recording.verify import verify
from recording.writer import SegmentWriter
from tests.bench.capacity import Say

RATE_HZ = 8000
_PIECE_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingPlan:
    """How much audio the recording holds, and how often it is gone through; the median counts."""

    mebibytes: int = 256
    repeats: int = 5


def measure_reading(plan: ReadingPlan, directory: Path, say: Say) -> dict[str, Any]:
    """MB of the file for each second that this thread's processor time has, the kernel's share included."""
    path, dek = directory / "reading.crec", os.urandom(32)
    audio_bytes = _write(path, dek, plan.mebibytes << 20)
    size = path.stat().st_size
    say(f"reading: a recording of {size >> 20} MiB, {plan.repeats} times each way")
    try:
        reading = [_cpu_s(path, dek, lambda reader: _read(reader, audio_bytes)) for _ in range(plan.repeats)]
        verifying = [_cpu_s(path, dek, _verify) for _ in range(plan.repeats)]
    finally:
        path.unlink()
    return {
        "plan": {"mebibytes": plan.mebibytes, "repeats": plan.repeats},
        "file_bytes": size,
        "read_mb_per_s": _rate(size, reading),
        "verify_mb_per_s": _rate(size, verifying),
    }


def _write(path: Path, dek: bytes, audio_bytes: int) -> int:
    """A recording as the recorder's defaults make it, of noise; the bytes of audio in it."""
    slot = KeySlot(provider=SlotProvider.LOCAL_DEV, key_id=b"bench", wrapped=bytes(40))
    meta = RecordingMeta(rate_hz=RATE_HZ, channels=1, layout=ChannelLayout.MIXED, segment=0, call_uid="bench")
    writer = SegmentWriter(
        file_id=os.urandom(16),
        tenant_handle=os.urandom(16),
        dek=bytearray(dek),
        slots_area=build_area([slot]),
        meta=meta,
    )
    piece = os.urandom(2 * RATE_HZ * _PIECE_S)
    count = -(-audio_bytes // len(piece))
    with path.open("wb") as file:
        file.write(writer.head())
        for _ in range(count):
            file.write(writer.append(piece))
        file.write(writer.finish(ended_by="caller", reason="completed"))
    return count * len(piece)


def _cpu_s(path: Path, dek: bytes, go_through: Callable[[RecordingReader], None]) -> float:
    began = time.thread_time()
    with open_with_dek(path, dek) as reader:
        go_through(reader)
    return time.thread_time() - began


def _read(reader: RecordingReader, audio_bytes: int) -> None:
    found = sum(len(record.payload) for record in reader.audio())
    assert found == audio_bytes, f"{found} of {audio_bytes} bytes came back"


def _verify(reader: RecordingReader) -> None:
    verdict = verify(reader)
    assert verdict.is_complete, verdict


def _rate(size: int, seconds: list[float]) -> float:
    return round(size / sorted(seconds)[len(seconds) // 2] / 1e6, 1)
