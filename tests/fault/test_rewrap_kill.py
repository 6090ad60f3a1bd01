"""kill -9 while data keys are being rewrapped: the next run does the rest, nothing is lost and nothing done twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.rewrap import BetweenKeys, Outcome, rewrap_all
from recording.settings import LocalKeySettings
from recording.sinks.local import LocalSink
from support.stored import PCM, Stored, read_with, store

FILES = 120

CHILD = """
import sys
from pathlib import Path
from recording.keys.local import LocalKeyProvider
from recording.keys.provider import KeyContext
from recording.keys.rewrap import BetweenKeys, RewrapTask, rewrap_all
from recording.settings import LocalKeySettings
from recording.sinks.local import LocalSink

directory = Path(sys.argv[1])
old, new = (LocalKeyProvider(name, LocalKeySettings(kek_path=directory / name)) for name in ("old", "new"))
tasks = []
for line in sys.stdin:
    key, file_id, tenant = line.split()
    context = KeyContext(file_id=bytes.fromhex(file_id), tenant_handle=bytes.fromhex(tenant))
    tasks.append(RewrapTask(object_key=key, context=context))
for _ in rewrap_all(LocalSink(directory / "store"), BetweenKeys(old, new), tasks):
    print("done", flush=True)
"""


KILLED_AT_A_STEP = """
import os, signal
name, countdown = sys.argv[2], int(sys.argv[3])
call = getattr(os, name)
def counted(*arguments, **named):
    global countdown
    countdown -= 1
    if countdown == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return call(*arguments, **named)
setattr(os, name, counted)
"""


class Place:
    """A store of recordings under the old key, and the new key beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("old", "new"):
            create_kek(directory / name)
        self.old, self.new = (
            LocalKeyProvider(name, LocalKeySettings(kek_path=directory / name)) for name in ("old", "new")
        )
        self.sink = LocalSink(directory / "store")
        self.stored = [store(self.sink, self.old, directory) for _ in range(FILES)]

    @contextlib.contextmanager
    def child(self, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A run over all recordings in a process of its own."""
        lines = "".join(
            f"{each.key} {each.context.file_id.hex()} {each.context.tenant_handle.hex()}\n"
            for each in self.stored
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, self.directory, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as child:
            assert child.stdin is not None
            child.stdin.write(lines)
            child.stdin.close()
            yield child

    def moved(self) -> list[Stored]:
        return [each for each in self.stored if self.sink.slot_generations(each.key)]

    def finish(self) -> None:
        """Another run does the rest: nothing is lost, and nothing done twice."""
        moved = self.moved()
        assert all(read_with(self.sink, each, self.old) == PCM for each in self.stored), (
            "until the old key goes, nothing needs the new"
        )
        outcomes = [
            outcome
            for _, outcome in rewrap_all(
                self.sink, BetweenKeys(self.old, self.new), [each.task for each in self.stored]
            )
        ]
        assert outcomes.count(Outcome.DONE_BEFORE) == len(moved)
        assert outcomes.count(Outcome.MOVED) == FILES - len(moved)
        assert [self.sink.slot_generations(each.key) for each in self.stored] == [[1]] * FILES
        assert all(read_with(self.sink, each, self.new) == PCM for each in self.stored)
        names = {name for each in self.stored for name in _beside(self.sink, each)}
        assert all(name.endswith((".crec", ".slots")) for name in names), "nothing half-written is left"


def _beside(sink: LocalSink, stored: Stored) -> list[str]:
    return [path.name for path in sink.path(stored.key).parent.iterdir()]


@pytest.mark.parametrize("after", [1, 17, 60, 95])
def test_a_killed_run_is_finished_by_the_next(tmp_path: Path, after: int) -> None:
    place = Place(tmp_path)
    with place.child(CHILD) as child:
        assert child.stdout is not None
        for _ in range(after):
            assert child.stdout.readline() == "done\n"
        child.send_signal(signal.SIGKILL)
        told = after + len(child.stdout.readlines())
        assert child.wait(10) == -signal.SIGKILL
    assert told <= len(place.moved()), "what was told is there"
    place.finish()


@pytest.mark.parametrize("step", ["posix_fadvise", "fsync", "link"])
@pytest.mark.parametrize("countdown", [1, 2, 9, 40, 100])
def test_a_run_that_is_killed_while_it_stores_is_finished_by_the_next(
    tmp_path: Path, step: str, countdown: int
) -> None:
    """Before a sidecar is on its way to the disk, before it is there, before it has its name, before that is kept."""
    place = Place(tmp_path)
    with place.child(KILLED_AT_A_STEP.join(CHILD.partition("\n\n")[::2]), step, str(countdown)) as child:
        assert child.stdout is not None
        told = len(child.stdout.readlines())
        assert child.wait(30) == -signal.SIGKILL
    moved = len(place.moved())
    assert told <= moved < FILES
    place.finish()
