"""kill -9 of a process that records into a bucket: at each of its steps, and at a hundred random moments.

Each next process recovers what the one before left, and may be killed while it does. At the end every recording is
known, whole up to the stated bound, locked, there once, and nothing is left behind.
"""

from __future__ import annotations

import json
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recording.errors import TruncatedRecordingError
from recording.index import IndexEntry, IndexState, RecordingIndex
from recording.keys.build import slot_keys
from recording.keys.local import LocalKeyProvider, create_kek
from recording.reader import open_recording
from recording.recorder import recover
from recording.settings import LocalKeySettings
from recording.sinks.build import build_sink
from recording.verify import RecordingState, verify
from support import s3_victim
from support.rgw import LOCKED_BUCKET, REGION, RGW
from support.s3 import credentials_file
from support.spooled import prefix_audio

MOMENTS = 100
SEED = 20_261_124
SETTLED = {IndexState.COMPLETE, IndexState.INCOMPLETE, IndexState.FAILED}


@dataclass(slots=True, kw_only=True)
class Told:
    """What a killed process had handed to its recorder."""

    frames: dict[str, int] = field(default_factory=dict)
    ended_well: set[str] = field(default_factory=set)


class Victims:
    """Forks processes that record and die; `told` says what they had done."""

    def __init__(self, directory: Path, server: RGW) -> None:
        create_kek(directory / "kek")
        self.document = {
            "directory": str(directory),
            "bucket": LOCKED_BUCKET,
            "prefix": f"{secrets.token_hex(8)}/",
            "region": REGION,
            "url": server.url,
            "ca": str(server.files.ca_path),
            "credentials": str(credentials_file(directory / "credentials", server.owner)),
        }
        path = directory / "victim.json"
        path.write_text(json.dumps(self.document))
        self.settings = s3_victim.settings(self.document)
        self.sink = build_sink(self.settings)
        self.told = Told()
        self.server = server
        self.killed = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.s3_victim", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
        )

    def run(self, call: str, kind: str, value: float) -> int:
        """One process; how many steps it did, 0 if it was killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{call} {kind} {value}\n")
        self.process.stdin.flush()
        steps = 0
        for line in self.process.stdout:
            match line.split():
                case ["told", uid, frames]:
                    self.told.frames[uid] = int(frames)
                case ["steps", count]:
                    steps = int(count)
                case ["ended", status]:
                    assert status in ("0", str(-signal.SIGKILL)), line
                    self.killed += status != "0"
                    if status == "0":
                        self.told.ended_well.update(uid for uid in self.told.frames if uid.startswith(call))
                    return steps
                case _:
                    raise AssertionError(line)
        raise AssertionError("the process that forks has died")

    def check(self) -> None:
        """After a last recovery: everything is known, whole, locked, there once; nothing else is left."""
        for _ in range(3):
            if not recover(self.settings).files:
                break
        assert list(self.settings.spool_directory.iterdir()) == []
        with closing(RecordingIndex(self.settings.index_path)) as index:
            entries = {entry.call_uid: entry for entry in index.find(limit=100_000)}
        assert {entry.state for entry in entries.values()} <= SETTLED
        bound_frames = self.settings.kill_loss_bound_ms * 8
        for uid, frames in self.told.frames.items():
            entry = entries[uid]
            found = self._frames(entry)
            assert found >= frames - bound_frames, f"{uid}: {frames} frames handed in, {found} found"
            if uid in self.told.ended_well:
                assert (entry.state, found) == (IndexState.COMPLETE, frames)
        keys = {entry.object_key for entry in entries.values() if entry.object_key is not None}
        assert {uid for uid, entry in entries.items() if entry.object_key is None} == {
            uid for uid, entry in entries.items() if entry.state is IndexState.FAILED
        }
        self._check_bucket(keys)

    def _frames(self, entry: IndexEntry) -> int:
        if entry.object_key is None:
            return 0
        key = self.settings.keys["main"]
        assert isinstance(key, LocalKeySettings)
        provider = LocalKeyProvider("main", key)
        with (
            self.sink.open(entry.object_key) as file,
            open_recording(file, keys=slot_keys([provider])) as reader,
        ):
            try:
                verdict = verify(reader)
                audio = prefix_audio(reader)
            except TruncatedRecordingError:  # the head alone, or META: no audio was sealed yet
                return 0
        assert verdict.records == entry.records
        if entry.state is IndexState.COMPLETE:
            assert verdict.state is RecordingState.COMPLETE
        frames = len(audio) // 2
        assert audio == s3_victim.audio(0, frames)
        return frames

    def _check_bucket(self, keys: set[str]) -> None:
        client = self.server.client(self.server.owner)
        listed = client.list_object_versions(Bucket=LOCKED_BUCKET, Prefix=self.document["prefix"])
        assert not listed["IsTruncated"]
        assert sorted(each["Key"] for each in listed["Versions"]) == sorted(
            f"{self.document['prefix']}{key}" for key in keys
        )
        assert "DeleteMarkers" not in listed
        assert "Uploads" not in client.list_multipart_uploads(
            Bucket=LOCKED_BUCKET, Prefix=self.document["prefix"]
        )
        for key in keys:
            assert self.sink.retention(key).until is not None, key


@pytest.fixture(scope="module")
def quick_rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RGW]:
    with RGW(tmp_path_factory.mktemp("rgw-kill"), part_min_bytes=1) as server:
        yield server


@pytest.fixture
def victims(quick_rgw: RGW, tmp_path: Path) -> Iterator[Victims]:
    made = Victims(tmp_path, quick_rgw)
    yield made
    assert made.process.stdin is not None
    made.process.stdin.close()
    assert made.process.wait(60) == 0
    assert made.process.stdout is not None
    made.process.stdout.close()


@pytest.mark.slow
def test_kill_at_each_step_of_uploading_loses_nothing(victims: Victims) -> None:
    """Before and after each request, each change of the index and each name that comes or goes in the spool."""
    steps = victims.run("whole", "steps", 0)
    assert steps > 40
    victims.check()
    for number in range(1, steps + 1):
        victims.run(f"step{number}", "steps", number)
    assert victims.killed >= steps * 0.9, "a few fewer steps in another order of threads"
    victims.check()


def timed(victims: Victims, call: str) -> float:
    begun = time.monotonic()
    victims.run(call, "steps", 0)
    return time.monotonic() - begun


@pytest.mark.slow
def test_kill_at_a_hundred_random_moments_loses_nothing(victims: Victims) -> None:
    victims.run("first", "steps", 0)
    usual_s = min(timed(victims, f"whole{number}") for number in range(3))
    moments = random.Random(SEED)
    for number in range(MOMENTS):
        victims.run(f"moment{number}", "after", moments.uniform(0.0, usual_s))
    assert victims.killed >= MOMENTS * 0.6, "most moments lie within the life of a process"
    victims.check()
