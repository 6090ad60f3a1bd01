"""The audit log of a serving process: killed, locked out, and written to by commands beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from b2bua.config import load
from b2bua.demo.incoming import Answering
from b2bua.demo.stream import MediaSource
from b2bua.journal.head import HeadFile
from support.audited import read_audit, sealed_lines
from support.command import b2bua
from support.edge import Edge, edge, serving
from support.endpoint import babble, run

COMMIT_S = 0.5
"""What a commit may take on a machine that does other things too, besides the interval that is waited for."""


def sound() -> MediaSource:
    return MediaSource.of_pcm(babble(4, seed=1), repeat=True)


def test_a_killed_process_loses_no_more_than_is_stated_and_the_next_says_so(tmp_path: Path) -> None:
    answered_at = 0.0

    async def scenario(served: Edge) -> None:
        nonlocal answered_at
        async with served.parties(Answering(source=sound())) as parties:
            await parties.established(source=sound())
            answered_at = time.time()
            await asyncio.sleep(served_settings.kill_loss_bound_ms / 1000 + COMMIT_S)
            os.kill(served.pid, signal.SIGKILL)

    with edge(tmp_path) as served:
        served_settings = load(served.made.configuration).audit
        run(scenario(served))
        served.process.wait(10)
        assert answered_at > 0
        report, lines = read_audit(served_settings)
        assert report.is_whole, report.findings
        assert "call_answered" in {line.values["event"] for line in lines}, "it was older than the bound"
        assert "call_ended" not in {line.values["event"] for line in lines}
        killed = len(lines)
        made = served.made
    with serving(made):
        pass
    code, found = b2bua("audit", "verify", "-c", str(made.configuration))
    assert code == 0
    assert found["whole"] is True
    assert len(found["crashes"]) == 1
    events = [line["event"] for line in sealed_lines(made.configuration)]
    assert events[killed] == "audit_recovered", "the first thing the next process says"
    assert events[killed + 1 :].count("service_started") == 1
    assert events[-2:] == ["service_stopped", "audit_verified"], "nothing is lost where it stops in order"


def test_without_its_audit_log_it_takes_no_new_call_and_keeps_the_running_one(tmp_path: Path) -> None:
    """The log's head stays locked by somebody else, as a disk that hangs would keep it."""

    async def scenario(served: Edge, head: HeadFile) -> None:
        async with served.parties(Answering(source=sound())) as parties:
            call, _ = await parties.established(source=sound())
            with head.locked():
                refused = None
                deadline = time.monotonic() + 30
                while refused is None and time.monotonic() < deadline:
                    other = await parties.invite(source=sound())
                    status = (await other.wait_final()).status
                    if status == 503:
                        refused = other
                    else:
                        await other.hang_up()
                        await (await parties.callee.next_call()).wait_ended()
                assert refused is not None, "it goes on without an audit log"
                await call.stream.wait_heard(1.0, timeout_s=10)
            await asyncio.to_thread(
                served.wait_audit, lambda line: line.get("reason") == "audit_unavailable", timeout_s=20
            )
            again, _ = await parties.established(source=sound())
            await again.hang_up()
            await call.hang_up()

    with edge(tmp_path) as served:
        head = HeadFile.open(served.directory / "audit")
        run(scenario(served, head))
        head.close()
        assert served.stop() == 0
        events = [line["event"] for line in served.audit()]
        assert events.count("recording_finished") == events.count("recording_started")
        assert "service_stopped" in events
        assert "lines_lost" not in events


def test_commands_write_to_the_log_of_a_running_process(tmp_path: Path) -> None:
    with edge(tmp_path) as served:
        config = str(served.made.configuration)
        for number in range(3):
            code, found = b2bua("audit", "show", "-c", config, "--reason", f"look-{number}")
            assert code == 0
            assert found["whole"] is True
        assert served.stop() == 0
    report, lines = read_audit(load(served.made.configuration).audit)
    assert report.is_whole, report.findings
    assert report.files == 4
    events = [line.values["event"] for line in lines]
    assert [event for event in events if not event.startswith("peer")] == [
        "service_started",
        "audit_read",
        "audit_read",
        "audit_read",
        "service_stopped",
    ]
