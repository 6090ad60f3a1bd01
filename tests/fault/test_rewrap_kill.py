"""kill -9 while data keys are being rewrapped: the next run does the rest, nothing is lost and nothing done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recording.keys.local import LocalKeyProvider, create_kek
from recording.keys.rewrap import BetweenKeys, Outcome, rewrap_all
from recording.settings import LocalKeySettings
from recording.sinks.local import LocalSink
from support.stored import PCM, read_with, store

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


@pytest.mark.parametrize("after", [1, 17, 60, 95])
def test_a_killed_run_is_finished_by_the_next(tmp_path: Path, after: int) -> None:
    for name in ("old", "new"):
        create_kek(tmp_path / name)
    old, new = (LocalKeyProvider(name, LocalKeySettings(kek_path=tmp_path / name)) for name in ("old", "new"))
    sink = LocalSink(tmp_path / "store")
    stored = [store(sink, old, tmp_path) for _ in range(FILES)]
    lines = "".join(
        f"{each.key} {each.context.file_id.hex()} {each.context.tenant_handle.hex()}\n" for each in stored
    )
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(lines)
        child.stdin.close()
        for _ in range(after):
            assert child.stdout.readline() == "done\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL

    moved = [each for each in stored if sink.slot_generations(each.key)]
    assert after <= len(moved) < FILES, "killed in the middle"
    assert all(read_with(sink, each, old) == PCM for each in stored), (
        "until the old key goes, nothing needs the new"
    )

    outcomes = [
        outcome for _, outcome in rewrap_all(sink, BetweenKeys(old, new), [each.task for each in stored])
    ]
    assert outcomes.count(Outcome.DONE_BEFORE) == len(moved)
    assert outcomes.count(Outcome.MOVED) == FILES - len(moved)
    assert [sink.slot_generations(each.key) for each in stored] == [[1]] * FILES
    assert all(read_with(sink, each, new) == PCM for each in stored)
