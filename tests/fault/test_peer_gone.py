"""A peer that vanishes in a call: audio keeps a call alive without a connection, silence and no connection end it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from b2bua.demo.incoming import Answering
from b2bua.demo.stream import MediaSource
from support.edge import Edge, edge
from support.endpoint import babble, run

GONE_S = 2


def edit(text: str) -> str:
    return text.replace("[limits]\n", f"[limits]\npeer_gone_s = {GONE_S}\ndrain_deadline_s = 1\n")


def test_a_vanished_caller_ends_the_call_and_its_recording_is_complete(tmp_path: Path) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call, other = await p.established()
            await call.stream.wait_heard(0.5, timeout_s=5)
            await call.stream.close()
            p.connection.abort()
            await other.wait_ended(timeout_s=20)

    with edge(tmp_path, edit=edit) as served:
        run(scenario(served), limit_s=60)
        ended = served.wait_audit(lambda line: line["event"] == "call_ended", timeout_s=20)
        assert ended["reason"] == "transport_lost"
        finished = served.wait_audit(lambda line: line["event"] == "recording_finished")
        assert finished["reason"] == "complete"
        assert served.stop() == 0


def test_without_a_connection_but_with_audio_the_call_goes_on_and_may_be_ended_over_a_new_one(
    tmp_path: Path,
) -> None:
    async def scenario(served: Edge) -> None:
        source = MediaSource.of_pcm(babble(3, seed=1), repeat=True)
        async with served.parties(Answering(source=source)) as p:
            call, other = await p.established(source=source)
            p.connection.abort()
            before = (await other.stream.stats()).received
            await other.stream.wait_for(
                lambda s: s.hearing.received > before + 50 * 3 * GONE_S, "audio goes on", timeout_s=6 * GONE_S
            )
            assert not [
                line for line in await asyncio.to_thread(served.audit) if line["event"] == "call_ended"
            ]
            call.connection = await served.connect(p.caller)
            assert (await call.hang_up()).status == 200
            await other.wait_ended()

    with edge(tmp_path, edit=edit) as served:
        run(scenario(served), limit_s=60)
        assert served.stop() == 0
