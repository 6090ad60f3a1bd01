"""`b2bua demo` as a user runs it: what it prints, what it leaves on the disk, and what it shows on the wire."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from b2bua.demo import g711
from b2bua.demo.deployment import CALLED_NUMBER, CALLING_NUMBER
from b2bua.demo.errors import ScoreError, SpeechError
from b2bua.demo.g711 import PCM16
from b2bua.demo.recorded import read_wav
from b2bua.demo.speech import Side, programme
from b2bua.initialise import InitOptions, initialise
from support.capture import FORMS, LoopbackCapture, SpeechNeedles, search
from support.endpoint import prompts

pytestmark = [pytest.mark.alone, pytest.mark.slow]
IS_ROOT = os.geteuid() == 0


@dataclass(frozen=True)
class Run:
    """A finished demonstration. `capture`: what went over the loopback, where the user may see that."""

    directory: Path
    exit_code: int
    content: dict[str, Any]
    progress: str
    spoken: list[PCM16]
    capture: LoopbackCapture | None


def ports_of(configuration: Path) -> set[int]:
    content = tomllib.loads(configuration.read_text())
    first, last = map(int, content["media"]["rtp_ports"].split("-"))
    callee = int(content["trunks"]["callee"]["target"].rsplit(":", 1)[1])
    return {int(content["sip"]["listen"].rsplit(":", 1)[1]), callee, *range(first, last + 1)}


def demo(directory: Path, speech: Path) -> subprocess.CompletedProcess[str]:
    words = ["demo", "--directory", str(directory), "--speech", str(speech), "--json"]
    return subprocess.run(
        [sys.executable, "-m", "b2bua", *words], capture_output=True, text=True, timeout=150, check=False
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("demo")
    speech = prompts(root / "speech")
    directory = root / "demo"
    made = initialise(directory, InitOptions(free_ports=True, max_calls=10))
    with LoopbackCapture(ports_of(made.configuration)) if IS_ROOT else nullcontext() as capture:
        done = demo(directory, speech)
    assert done.returncode in (0, ScoreError.exit_code), done.stderr
    spoken = [programme(speech, side) for side in Side]
    return Run(
        directory=directory,
        exit_code=done.returncode,
        content=json.loads(done.stdout or "{}"),
        progress=done.stderr,
        spoken=[*spoken, *(g711.decode(g711.encode(pcm)) for pcm in spoken)],
        capture=capture,
    )


def test_everything_is_as_promised(finished: Run) -> None:
    assert finished.content.get("faults") == [], finished.progress
    assert finished.exit_code == 0
    assert finished.content["passed"] is True
    mixed, split = finished.content["calls"]
    for call in (mixed, split):
        for leg in (call["caller"], call["callee"]):
            assert (leg["tls"], leg["suite"]) == ("TLSv1.3", "AEAD_AES_256_GCM")
            assert leg["heard"]["worst"] >= 0.90
            assert leg["heard"]["covered_s"] >= 10
            assert leg["heard"]["drift_ms"] <= 40
            assert leg["plaintext"] == 0
        assert call["recording"]["state"] == "complete"
        assert call["recording"]["records"] >= 20
    assert mixed["recording"]["score"]["worst"] >= 0.90
    assert split["recording"]["score"]["crosstalk"] < 0.1
    assert mixed["recording"]["file_id"] != split["recording"]["file_id"]
    assert mixed["recording"]["call_uid"] != split["recording"]["call_uid"]


def test_the_exports_are_where_it_says(finished: Run) -> None:
    for call, channels in zip(finished.content["calls"], (1, 2), strict=True):
        path = Path(call["recording"]["wav"])
        assert path.is_relative_to(finished.directory)
        assert path.stat().st_mode & 0o777 == 0o600
        samples = read_wav(path)
        assert samples.shape[1] == channels
        assert len(samples) >= 12 * 8000


def test_nothing_readable_is_on_the_disk_but_the_exports_and_the_keys(finished: Run) -> None:
    files = [path for path in finished.directory.rglob("*") if path.is_file()]
    exports = {Path(call["recording"]["wav"]) for call in finished.content["calls"]}
    secrets = {path for path in files if path.suffix in (".kek", ".key")}
    assert len(secrets) >= 5
    others = [path for path in files if path not in exports | secrets]
    assert sum(path.suffix == ".crec" and "recordings" in path.parts for path in others) == 2
    reader = Reader(secrets, finished.spoken)
    found = [path.name for path in others if reader.reads(path.read_bytes())]
    assert found == []
    # the same search finds what is there to be found; in the mixed export nobody speaks alone
    split = Path(finished.content["calls"][1]["recording"]["wav"])
    for path in [split, *secrets]:
        assert reader.reads(path.read_bytes())
    assert reader.reads(b"head" + g711.encode(finished.spoken[0][8000:8400]))
    for number in (CALLED_NUMBER, CALLING_NUMBER):
        assert reader.reads(f"to={number}".encode())


class Reader:
    """Knows what must not be readable: the numbers, the keys in any usual writing, SDP keys, and the speech."""

    def __init__(self, secrets: Iterable[Path], spoken: list[PCM16]) -> None:
        self.texts = [number.lstrip("+").encode() for number in (CALLED_NUMBER, CALLING_NUMBER)]
        self.texts += [b"a=crypto", b"inline:"]
        for path in secrets:
            key = path.read_bytes()
            lines = [line for line in key.splitlines() if len(line) >= 40 and b"-----" not in line]
            self.texts += [key, key.hex().encode(), base64.b64encode(key).rstrip(b"="), *lines]
        self.needles = [SpeechNeedles(spoken, form) for form in FORMS]

    def reads(self, data: bytes) -> bool:
        """Whether the data hold any of it; speech also with a second channel interleaved."""
        if any(text in data for text in self.texts):
            return True
        views = [data]
        for width in (1, 2):
            for phase in range(width):
                whole = data[phase : phase + (len(data) - phase) // (2 * width) * 2 * width]
                pairs = np.frombuffer(whole, dtype=f"V{width}").reshape(-1, 2)
                views += [pairs[:, 0].tobytes(), pairs[:, 1].tobytes()]
        return any(True for view in views for needles in self.needles for _ in needles.places(view))


def test_the_progress_and_the_report_name_no_number(finished: Run) -> None:
    for text in (finished.progress, json.dumps(finished.content)):
        assert CALLED_NUMBER not in text
        assert CALLING_NUMBER not in text


@pytest.mark.skipif(not IS_ROOT, reason="packet capture needs root")
def test_nothing_readable_is_on_the_wire(finished: Run) -> None:
    assert finished.capture is not None
    datagrams = finished.capture.datagrams
    assert finished.capture.dropped == 0
    assert sum(datagram.protocol == 17 for datagram in datagrams) > 4000
    assert sum(datagram.protocol == 6 for datagram in datagrams) > 20
    found = search(datagrams, spoken=finished.spoken)
    assert found.sip == ()
    assert found.clean


def test_without_speech_it_fails_and_leaves_no_process(tmp_path: Path) -> None:
    done = demo(tmp_path / "demo", tmp_path)
    assert done.returncode not in (0, ScoreError.exit_code)
    assert "has no demo-" in done.stderr or str(SpeechError.exit_code) in done.stderr
    assert done.stdout == ""
    port = tomllib.loads((tmp_path / "demo" / "b2bua.toml").read_text())["sip"]["listen"]
    listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    assert port not in listening
