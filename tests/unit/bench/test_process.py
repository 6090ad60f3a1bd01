"""CPU time and memory as the kernel counts them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.bench.process import cpu_time, machine_time, on_last_core, resident_bytes, tree

pytestmark = pytest.mark.alone

BURN = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\n"
BURN_AND_STAY = BURN + "print(1, flush=True)\ninput()\n"


def test_cpu_of_a_dead_child_and_of_a_live_one_counts() -> None:
    program = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {BURN!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {BURN_AND_STAY!r}],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print('ready', flush=True)\n"
        "input()\n"
        "child.communicate(b'\\n')\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    members, used = tree(parent.pid), cpu_time(parent.pid)
    parent.communicate("\n", timeout=10)
    assert len(members) == 2
    assert 0.75 <= used.total_s < 2


def test_threads_are_told_apart_by_name() -> None:
    before = cpu_time(os.getpid())
    done = threading.Event()

    def burn() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("burner_7")
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            pass
        burned.set()
        done.wait()

    burned = threading.Event()
    thread = threading.Thread(target=burn)
    thread.start()
    burned.wait()
    spent = cpu_time(os.getpid()).threads - before.threads
    done.set()
    thread.join()
    assert 0.25 <= spent["burner"] < 0.6


def test_memory_that_is_touched_is_resident() -> None:
    before = resident_bytes(os.getpid())
    held = bytearray(os.urandom(1)) * (32 << 20)
    after = resident_bytes(os.getpid())
    assert after["rss"] - before["rss"] >= 30 << 20
    assert after["anonymous"] - before["anonymous"] >= 30 << 20
    del held


def test_the_machine_s_busy_time_holds_ours() -> None:
    before, own = machine_time(), time.process_time()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert machine_time().busy_s - before.busy_s >= (time.process_time() - own) * 0.8


def test_the_last_core_is_left_again() -> None:
    allowed = os.sched_getaffinity(0)
    with on_last_core() as core:
        assert core is None or os.sched_getaffinity(0) == {max(allowed)}
    assert os.sched_getaffinity(0) == allowed
