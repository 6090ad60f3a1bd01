"""kill -9 in the middle of calls: every full record is recovered without a key, the loss is within the stated bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recording.index import IndexState, RecordingIndex
from recording.keys.build import slot_keys
from recording.keys.local import LocalKeyProvider, create_kek
from recording.reader import open_recording
from recording.recorder import recover
from recording.settings import LocalKeySettings, RecordingSettings
from recording.verify import RecordingState, verify
from support.spooled import prefix_audio

CALLS = 3

# Records audio as the pump does, a drain at a time, and says before each drain what the drains before it brought.
CHILD = """
import struct, sys, threading
from pathlib import Path
from recording.format.content import RecordingMeta
from recording.keys.local import LocalKeyProvider
from recording.observer import SilentObserver
from recording.recorder import Recorder, TenantKey
from recording.settings import Layout, LocalKeySettings, RecordingSettings

directory, calls = Path(sys.argv[1]), int(sys.argv[2])
keys = LocalKeySettings(kek_path=directory / "kek")
settings = RecordingSettings(
    directory=directory / "store", spool_directory=directory / "spool", index_path=directory / "index.sqlite",
    keys={"main": keys}, min_free_bytes=0,
)
recorder = Recorder(
    settings, {"clinic": TenantKey(handle=bytes(16), provider="main")},
    {"main": LocalKeyProvider("main", keys)}, SilentObserver(),
)
recorder.start()
assert recorder.wait_ready(30)
recordings = [
    recorder.open(
        recorder.reserve("clinic"), meta=RecordingMeta(rate_hz=8000, call_uid=f"call-{number}"),
        layout=Layout.MIXED, on_failure=lambda error: sys.exit(str(error)),
    )
    for number in range(calls)
]
pace, drain_frames, frames = threading.Event(), 8 * settings.drain_interval_ms, 0
while True:
    print(frames, flush=True)
    pcm = struct.pack(f"<{drain_frames}h", *((frames + at) % 30000 for at in range(drain_frames)))
    for recording in recordings:
        recording.append(memoryview(pcm), drain_frames, 0)
    frames += drain_frames
    pace.wait(settings.drain_interval_ms / 1000)
"""


@pytest.mark.parametrize("drains", [4, 9, 13])
def test_kill_loses_at_most_the_stated_bound(tmp_path: Path, drains: int) -> None:
    create_kek(tmp_path / "kek")
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path, str(CALLS)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None
        told = 0
        for line in child.stdout:
            told = int(line)
            if told >= drains * 1600:
                break
        child.send_signal(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
    assert told >= drains * 1600

    keys = LocalKeySettings(kek_path=tmp_path / "kek")
    settings = RecordingSettings(
        directory=tmp_path / "store",
        spool_directory=tmp_path / "spool",
        index_path=tmp_path / "index.sqlite",
        keys={"main": keys},
    )
    (tmp_path / "kek").rename(tmp_path / "kek.away")  # recovery must not need it
    report = recover(settings)
    (tmp_path / "kek.away").rename(tmp_path / "kek")

    assert len(report.files) == CALLS
    provider = LocalKeyProvider("main", keys)
    for file in report.files:
        entry = file.entry
        assert (entry.state, file.is_stored) == (IndexState.INCOMPLETE, True)
        assert entry.object_key is not None
        with open_recording(settings.directory / entry.object_key, keys=slot_keys([provider])) as reader:
            verdict = verify(reader)
            audio = prefix_audio(reader)
        assert (verdict.state, verdict.records) == (RecordingState.INCOMPLETE, entry.records)
        frames = len(audio) // 2
        assert list(memoryview(audio).cast("h")) == [at % 30000 for at in range(frames)]
        # `told` frames were there a drain ago: with that drain, this is the whole bound.
        lost_ms = (told - frames) / 8 + settings.drain_interval_ms
        assert lost_ms <= settings.kill_loss_bound_ms
    assert recover(settings).files == ()
    assert list((tmp_path / "spool").iterdir()) == []
    index = RecordingIndex(settings.index_path)
    assert index.counts()[IndexState.INCOMPLETE] == CALLS
    index.close()
