"""A process whose children record into a bucket and are killed: `python -m support.s3_victim SETTINGS`.

It loads everything once and forks a child for each line of standard input, `CALL KIND VALUE`: `steps N` kills the
child by its own hand at the N-th step of uploading (0: never), `after SECONDS` kills it from outside. A child says
what it has handed to the recorder; the last line of each is `ended STATUS STEPS`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recording.format.content import RecordingMeta
from recording.index import RecordingIndex
from recording.keys.local import LocalKeyProvider
from recording.observer import SilentObserver
from recording.recorder import Recorder, TenantKey
from recording.settings import Layout, LocalKeySettings, RecordingSettings, S3SinkSettings
from recording.sinks import s3_multipart
from recording.sinks.s3_client import S3Client
from recording.sinks.sink import LockMode
from recording.voucher import Voucher

DRAIN_FRAMES = 1600  # 200 ms at 8 kHz
LONG_DRAINS, SHORT_DRAINS = 30, 6


def settings(document: dict[str, Any]) -> RecordingSettings:
    """The recorder of these tests: records of 64 KiB for half a second of audio, parts of 256 KiB."""
    directory = Path(document["directory"])
    return RecordingSettings(
        directory=directory / "unused",
        spool_directory=directory / "spool",
        index_path=directory / "index.sqlite",
        keys={"main": LocalKeySettings(kek_path=directory / "kek")},
        sink=S3SinkSettings(
            bucket=document["bucket"],
            region=document["region"],
            endpoint_url=document["url"],
            ca_path=Path(document["ca"]),
            credentials_path=Path(document["credentials"]),
            prefix=document["prefix"],
            object_lock_mode=LockMode.GOVERNANCE,
            object_lock_days=1,
            multipart_chunksize=256 * 1024,
            max_concurrency=2,
        ),
        chunk_size=65536,
        fsync_interval_ms=10,
        min_free_bytes=0,
    )


def audio(start: int, frames: int) -> bytes:
    return struct.pack(f"<{frames}h", *((start + at) % 30000 for at in range(frames)))


class Steps:
    """Counts what touches the bucket, the index or the spool's names; dies before or after the one it is told."""

    def __init__(self, kill_at: int) -> None:
        self.done = 0
        self._kill_at = kill_at
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self.done += 1
            if self.done == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def stepping(*arguments: Any, **named: Any) -> Any:
            self.step()
            result = function(*arguments, **named)
            self.step()
            return result

        setattr(owner, name, stepping)


def record(document: dict[str, Any], call: str, steps: Steps, say: Callable[[str], None]) -> None:
    """Two calls at a time, a long one and a short one, handed in no faster than the spool writes."""
    made = settings(document)
    for owner, name in (
        (S3Client, "call"),
        (s3_multipart, "write_upload"),
        (RecordingIndex, "put"),
        (Voucher, "store"),
        (os, "unlink"),
        (os, "rename"),
        (os, "ftruncate"),
    ):
        steps.around(owner, name)
    key = made.keys["main"]
    assert isinstance(key, LocalKeySettings)
    recorder = Recorder(
        made,
        {"clinic": TenantKey(handle=bytes(16), provider="main")},
        {"main": LocalKeyProvider("main", key)},
        SilentObserver(),
    )
    recorder.start()
    assert recorder.wait_ready(30), recorder.readiness()
    spool, pause = recorder._spool, threading.Event()
    assert spool is not None
    calls = {
        f"{call}-{name}": (
            drains,
            recorder.open(
                recorder.reserve("clinic"),
                meta=RecordingMeta(rate_hz=8000, call_uid=f"{call}-{name}"),
                layout=Layout.MIXED,
                on_failure=lambda error: os._exit(3),
            ),
        )
        for name, drains in (("long", LONG_DRAINS), ("short", SHORT_DRAINS))
    }
    for drain in range(LONG_DRAINS):
        for drains, recording in calls.values():
            if drain < drains:
                recording.append(memoryview(audio(drain * DRAIN_FRAMES, DRAIN_FRAMES)), DRAIN_FRAMES, 0)
            if drain == drains - 1:
                recording.finish(ended_by="caller", reason="bye")
        while spool._queued_bytes:
            pause.wait(0.001)
        for uid, (drains, _) in calls.items():
            say(f"told {uid} {min(drain + 1, drains) * DRAIN_FRAMES}")
    if not recorder.stop(30):
        os._exit(4)


def child(document: dict[str, Any], call: str, kind: str, value: float, output: int) -> None:
    def say(text: str) -> None:
        os.write(output, f"{text}\n".encode())

    steps = Steps(int(value) if kind == "steps" else 0)
    try:
        record(document, call, steps, say)
        say(f"steps {steps.done}")
    except BaseException as error:  # noqa: BLE001  # told to the test, which fails with it
        say(f"error {type(error).__name__} {error}".replace("\n", " "))
        os._exit(5)
    os._exit(0)


def main() -> None:
    document = json.loads(Path(sys.argv[1]).read_text())
    for line in sys.stdin:
        call, kind, text = line.split()
        pid = os.fork()
        if pid == 0:
            child(document, call, kind, float(text), sys.stdout.fileno())
        handle = os.pidfd_open(pid)
        if kind == "after" and not select.select([handle], [], [], float(text))[0]:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(handle)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
