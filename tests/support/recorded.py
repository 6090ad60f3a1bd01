"""Recordings made by the product's own recorder under a configuration, for tests of what reads them."""

from __future__ import annotations

import math
import secrets
import struct
from dataclasses import dataclass

from b2bua.settings import Settings
from recording.format.content import EventKind, RecordingEvent, RecordingMeta
from recording.keys.build import build_providers
from recording.observer import SilentObserver
from recording.recorder import Recorder, TenantKey

RATE_HZ = 8000
CALLER, CALLED = "+4915112345678", "+493012345678"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """Ids of a call's recording and the PCM that went in."""

    call_uid: str
    file_ids: tuple[bytes, ...]
    pcm: bytes

    @property
    def file_id(self) -> str:
        (file_id,) = self.file_ids
        return file_id.hex()


def tone(frames: int, hz: float, *, channels: int) -> bytes:
    """A sine, the second channel an octave above the first."""
    samples = (
        int(9000 * math.sin(2 * math.pi * hz * (channel + 1) * frame / RATE_HZ))
        for frame in range(frames)
        for channel in range(channels)
    )
    return b"".join(struct.pack("<h", sample) for sample in samples)


def record_call(settings: Settings, *, seconds: float = 1.0, finished: bool = True) -> RecordedCall:
    """One call from first to last, through keys, spool, sink and index. Unfinished: as if the process had to stop."""
    tenants = {
        tenant.name: TenantKey(handle=tenant.handle, provider=tenant.key)
        for tenant in settings.tenants.values()
    }
    recording = settings.recording
    recorder = Recorder(recording, tenants, build_providers(recording.keys), SilentObserver())
    recorder.start()
    try:
        assert recorder.wait_ready(10)
        call_uid = secrets.token_hex(16)
        channels = recording.layout.channels
        meta = RecordingMeta(
            rate_hz=RATE_HZ,
            call_uid=call_uid,
            from_=CALLER,
            to=CALLED,
            trunk_a="caller",
            trunk_b="callee",
            sip_call_ids=("a@caller.example.test", "b@callee.example.test"),
        )
        failures: list[Exception] = []
        call = recorder.open(
            recorder.reserve(next(iter(tenants))),
            meta=meta,
            layout=recording.layout,
            on_failure=failures.append,
        )
        pcm = tone(int(seconds * RATE_HZ), 440, channels=channels)
        step = RATE_HZ // 5 * 2 * channels
        for offset in range(0, len(pcm), step):
            part = pcm[offset : offset + step]
            call.append(memoryview(part), len(part) // (2 * channels), 0)
            if offset == 0:
                call.event(RecordingEvent(event=EventKind.ANSWERED))
        if finished:
            call.finish(ended_by="caller", reason="caller_hung_up")
    finally:
        is_stored = recorder.stop(10.0 if finished else 0.5)
    assert is_stored == finished
    assert not failures or not finished, failures
    return RecordedCall(call_uid=call_uid, file_ids=call.file_ids, pcm=pcm)
