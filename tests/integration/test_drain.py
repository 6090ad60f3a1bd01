"""SIGTERM: no new calls, live ones finish; at the deadline they are ended with their recordings complete."""

from __future__ import annotations

import signal
from pathlib import Path

from b2bua.demo.call import EndCause
from b2bua.demo.incoming import Answering
from recording.index import IndexState, RecordingIndex
from support.edge import Edge, edge
from support.endpoint import run


def states(served: Edge) -> list[IndexState]:
    index = RecordingIndex(served.directory / "recordings-index.sqlite")
    try:
        return [entry.state for entry in index.find()]
    finally:
        index.close()


def test_a_live_call_finishes_and_a_new_one_is_sent_away(tmp_path: Path) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call, other = await p.established()
            await call.stream.wait_heard(0.5, timeout_s=5)
            served.process.send_signal(signal.SIGTERM)
            attempt = await p.invite()
            while (refused := await attempt.wait_final()).status == 200:  # the signal had not arrived yet
                await attempt.hang_up()
                attempt = await p.invite()
            assert refused.status == 503
            assert any(header.name == "Retry-After" for header in refused.headers)
            before = (await call.stream.stats()).received
            await call.stream.wait_for(
                lambda s: s.hearing.received > before + 20, "audio goes on", timeout_s=5
            )
            assert served.process.poll() is None
            assert (await call.hang_up()).status == 200
            await other.wait_ended()

    with edge(tmp_path) as served:
        run(scenario(served))
        assert served.process.wait(20) == 0
        assert set(states(served)) == {IndexState.COMPLETE}


def test_at_the_deadline_calls_are_ended_and_recorded_to_the_end(tmp_path: Path) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call, other = await p.established()
            await call.stream.wait_heard(1.0, timeout_s=5)
            served.process.send_signal(signal.SIGTERM)
            assert (await call.wait_ended()).cause is EndCause.BYE
            assert (await other.wait_ended()).cause is EndCause.BYE

    with edge(
        tmp_path, edit=lambda text: text.replace("[limits]\n", "[limits]\ndrain_deadline_s = 1\n")
    ) as served:
        run(scenario(served))
        assert served.process.wait(20) == 0
        assert states(served) == [IndexState.COMPLETE]
        assert [line["reason"] for line in served.audit() if line["event"] == "call_ended"] == ["drained"]


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call, other = await p.established()
            await call.stream.wait_heard(0.5, timeout_s=5)
            served.process.send_signal(signal.SIGTERM)
            await call.stream.wait_heard(1.0, timeout_s=5)
            served.process.send_signal(signal.SIGTERM)
            await call.wait_ended()
            await other.wait_ended()

    with edge(tmp_path) as served:
        run(scenario(served))
        assert served.process.wait(20) == 0
        assert states(served) == [IndexState.COMPLETE]
