"""The fuzzing targets in a few seconds, with the same inputs each time: seeds, mutations, and what broke before."""

from __future__ import annotations

import io
import platform
import random
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from recording.reader import open_with_dek
from recording.verify import verify
from support.crec import DEK
from tests.fuzz.targets import DATA, TARGETS, sealed_file, sealed_seeds

ROOT = DATA.parents[1]
needs_atheris = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="atheris has wheels for x86-64 only"
)
MUTATIONS = {"container": 500, "sealed": 800, "configuration": 500}
"""Where an input costs a millisecond; 4,000 elsewhere."""
PIECES = (
    b"",
    b"\0",
    b"\xff",
    b"\r\n",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"[",
    b'"',
    b"\\u0000",
    b"=" * 40,
)


def mutations(name: str) -> Iterator[bytes]:
    """Seeds with bytes changed, taken out, doubled and cut; which ones follows from the target's name alone."""
    chance = random.Random(zlib.crc32(name.encode()))
    seeds = [seed for seed in TARGETS[name].seeds() if seed]
    for _ in range(MUTATIONS.get(name, 4000)):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            at, length = chance.randrange(len(data) + 1), chance.choice((0, 1, 2, 4, 8, 64))
            piece = chance.choice((*PIECES, bytes(data[at : at + length]) * 2, chance.randbytes(4)))
            data[at : at + length] = piece
        if chance.random() < 0.2:
            del data[chance.randrange(len(data) + 1) :]
        yield bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_mutations_break_nothing(name: str) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds())
    assert seeds
    for data in (b"", b"\0", *seeds, *mutations(name)):
        target.check(data)


def test_what_broke_before_breaks_nothing_now() -> None:
    """`python -m tests.fuzz` puts an input that breaks a target there."""
    for path in sorted((DATA / "fuzz").glob("*/*")):
        TARGETS[path.parent.name].check(path.read_bytes())


def test_mutations_are_the_same_each_time_and_differ_from_the_seeds() -> None:
    assert list(mutations("sdp")) == list(mutations("sdp"))
    assert len(set(mutations("sdp")) - set(TARGETS["sdp"].seeds())) > 3000


def test_sealed_seeds_are_good_recordings() -> None:
    """A script whose records would not authenticate would test nothing behind the cipher."""
    for script in sealed_seeds():
        assert verify(open_with_dek(io.BytesIO(sealed_file(script)), DEK)).is_complete


def test_a_broken_promise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that lets an IndexError through must not pass."""
    monkeypatch.setattr("recording.format.slots.parse_area", lambda data: data[3])
    with pytest.raises((IndexError, TypeError)):
        TARGETS["slots"].check(b"\0")


@needs_atheris
def test_the_fuzzer_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "1", "--target", "sidecar", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    words = done.stderr.split()
    assert int(words[words.index("inputs,") - 1]) > 100, done.stderr


BROKEN = """
import sys
from tests.fuzz import targets
def check(data):
    if data[:2] == b"ab":
        raise IndexError("planted")
targets.TARGETS["slots"] = targets.Target(check=check, seeds=lambda: iter(()))
from tests.fuzz.engine import main
sys.argv = ["engine", "slots", "-runs=2000000", "-max_len=8", "-seed=1", "-artifact_prefix=" + sys.argv[1] + "/"]
main()
"""


@needs_atheris
def test_the_fuzzer_finds_what_is_broken_and_keeps_the_input(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BROKEN, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 77, done.stderr[-2000:]
    assert "planted" in done.stdout + done.stderr
    (found,) = tmp_path.iterdir()
    assert found.read_bytes()[:2] == b"ab"
