"""kill -9 in a call: keyless recovery yields every full record, marked incomplete, and loses at most the bound."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from b2bua.config import load
from b2bua.demo.incoming import Answering
from b2bua.demo.stream import MediaSource
from recording.keys.build import build_providers, slot_keys
from recording.reader import open_recording
from support.command import b2bua
from support.edge import Edge, edge, serving
from support.endpoint import babble, run

MEASURING_S = 0.25
"""Between the first audio and its time stamp, and between the signal and the death: not the recorder's loss."""


@pytest.mark.alone
def test_a_killed_process_leaves_every_full_record(tmp_path: Path) -> None:
    killed_at = 0.0

    async def scenario(served: Edge) -> None:
        nonlocal killed_at
        source = MediaSource.of_pcm(babble(6, seed=1), repeat=True)
        async with served.parties(Answering(source=MediaSource.of_pcm(babble(6, seed=2), repeat=True))) as p:
            call, _ = await p.established(source=source)
            await call.stream.wait_heard(4.0, timeout_s=10)
            os.kill(served.pid, signal.SIGKILL)
            killed_at = time.time()

    with edge(tmp_path) as served:
        run(scenario(served))
        served.process.wait(10)
        config = str(served.made.configuration)
        spooled = list((served.directory / "recordings-spool").glob("*.crec"))
        assert len(spooled) == 1
        file_id = spooled[0].stem

        code, recovered = b2bua("recordings", "recover", "-c", config)
        assert code == 0
        assert file_id in json.dumps(recovered)
        code, again = b2bua("recordings", "recover", "-c", config)
        assert code == 0
        assert file_id not in json.dumps(again)

        code, verified = b2bua("recordings", "verify", file_id, "-c", config, "--reason", "test")
        assert code != 0
        (entry,) = verified["recordings"]
        assert entry["state"] == "incomplete"

        settings = load(served.made.configuration)
        (stored,) = served.recordings()
        keys = slot_keys(build_providers(settings.recording.keys).values())
        with stored.open("rb") as stream:
            reader = open_recording(stream, keys=keys)
            assert reader.meta.started_at is not None
            spoken_s = killed_at - reader.meta.started_at.timestamp()
        frames = entry["audio_bytes"] / 2
        bound_s = settings.recording.kill_loss_bound_ms / 1000
        assert 0 < spoken_s - frames / 8000 <= bound_s + MEASURING_S

    with serving(served.made) as next_one:
        assert run(one_call(next_one)) == 200
        assert next_one.stop() == 0


async def one_call(served: Edge) -> int:
    async with served.parties(Answering()) as p:
        call, _ = await p.established()
        return (await call.hang_up()).status
