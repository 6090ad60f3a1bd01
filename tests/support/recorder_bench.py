"""A recorder in a directory of its own, with real keys, threads and spool, and the way back to what it wrote."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from recording.errors import RecordingError
from recording.format.content import RecordingMeta
from recording.index import IndexEntry, RecordingIndex
from recording.keys.build import slot_keys
from recording.keys.local import LocalKeyProvider, create_kek
from recording.reader import RecordingReader, open_recording
from recording.recorder import CallRecording, Recorder, TenantKey
from recording.settings import Layout, LocalKeySettings, RecordingSettings
from support.observers import ListeningObserver

TENANT = "clinic"
RATE_HZ = 8000
META = RecordingMeta(rate_hz=RATE_HZ, call_uid="call-1", from_="+15551234567", to="+15557654321")


class RecorderBench:
    """Started on construction; `close` stops what is still running."""

    def __init__(self, directory: Path, **changes: object) -> None:
        create_kek(directory / "kek")
        keys = {"main": LocalKeySettings(kek_path=directory / "kek")}
        self.settings = replace(
            RecordingSettings(
                directory=directory / "store",
                spool_directory=directory / "spool",
                index_path=directory / "index.sqlite",
                keys=keys,
                fsync_interval_ms=20,
                min_free_bytes=0,
            ),
            **changes,  # type: ignore[arg-type]
        )
        self.provider = LocalKeyProvider("main", keys["main"])
        self.failures: list[RecordingError] = []
        self.recorder = Recorder(
            self.settings,
            {TENANT: TenantKey(handle=bytes(16), provider="main")},
            {"main": self.provider},
            ListeningObserver(),
        )
        self.recorder.start()
        assert self.recorder.wait_ready(10)

    def open(self, layout: Layout = Layout.MIXED) -> CallRecording:
        return self.recorder.open(
            self.recorder.reserve(TENANT), meta=META, layout=layout, on_failure=self.failures.append
        )

    def entries(self) -> list[IndexEntry]:
        """Everything in the catalogue, oldest segment first; the recorder must have been stopped."""
        index = RecordingIndex(self.settings.index_path)
        try:
            return sorted(index.find(), key=lambda entry: entry.segment)
        finally:
            index.close()

    def reader(self, entry: IndexEntry) -> RecordingReader:
        assert entry.object_key is not None
        return open_recording(self.settings.directory / entry.object_key, keys=slot_keys([self.provider]))

    def close(self) -> None:
        self.recorder.stop(5)


def sound(frames: int, channels: int = 1) -> bytes:
    """Noise without a zero byte: where a zero is found, silence was put."""
    return bytes(byte or 1 for byte in os.urandom(2 * frames * channels))


def feed(recording: CallRecording, pcm: bytes, *, gap_frames: int = 0) -> None:
    with memoryview(pcm) as view:
        recording.append(view, len(pcm) // recording.frame_bytes, gap_frames)
