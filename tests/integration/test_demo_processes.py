"""The two endpoint processes of the demonstration, calling each other directly."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from b2bua.demo.children import endpoint
from b2bua.demo.errors import DemoProcessError
from b2bua.demo.process import Task
from b2bua.demo.score import Limits, score_heard
from b2bua.demo.speech import Side, programme
from support.certificates import Issuer
from support.endpoint import LOCALHOST, prompts, run

pytestmark = pytest.mark.alone

SECONDS = 3.0


def task(directory: Path, role: str, **changes: object) -> Task:
    material = Issuer(directory / "tls" / role).material(role, f"{role}.example", LOCALHOST)
    made = Task(
        role=role,
        certificate=str(material.certificate_path),
        private_key=str(material.private_key_path),
        authority=str(material.trust_path),
        speech=str(directory),
        seconds=SECONDS,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[Task, Task]:
    """A caller and a callee that trust each other."""
    prompts(tmp_path)
    caller, callee = task(tmp_path, "caller"), task(tmp_path, "callee")
    trust = tmp_path / "both.pem"
    trust.write_bytes(Path(caller.authority).read_bytes() + Path(callee.authority).read_bytes())
    return replace(caller, authority=str(trust)), replace(callee, authority=str(trust))


def test_each_process_returns_what_it_heard_and_what_it_said(
    tmp_path: Path, tasks: tuple[Task, Task]
) -> None:
    async def scenario() -> None:
        async with endpoint(tasks[1]) as callee:
            port = (await callee.expect("listening", 10)).facts["port"]
            uri = f"sips:1000@{LOCALHOST}:{port}"
            async with endpoint(replace(tasks[0], port=port, server_name=LOCALHOST, uri=uri)) as caller:
                await asyncio.gather(caller.expect("spoken", 20), callee.expect("spoken", 20))
                callee.command("hang_up")
                results = await asyncio.gather(caller.expect("result", 10), callee.expect("result", 10))
                assert await caller.wait(10) == 0
            assert await callee.wait(10) == 0
        (caller_heard, caller_said), (callee_heard, callee_said) = (report.audio for report in results)
        limits = Limits(covered_s=SECONDS - 0.1)
        assert (
            score_heard(caller_heard, programme(tmp_path, Side.CALLEE, seconds=SECONDS), limits).faults == ()
        )
        assert (
            score_heard(callee_heard, programme(tmp_path, Side.CALLER, seconds=SECONDS), limits).faults == ()
        )
        assert score_heard(caller_heard, callee_said, limits).passed
        assert not score_heard(caller_heard, caller_said, limits).passed
        for report in results:
            facts = report.facts
            assert (facts["tls"], facts["suite"]) == ("TLSv1.3", "AEAD_AES_256_GCM")
            assert (facts["lost"], facts["auth_failures"], facts["plaintext"]) == (0, 0, 0)
        assert [report.facts["ended_by_remote"] for report in results] == [True, False]

    run(scenario())


def test_a_failure_in_a_process_comes_back_in_words(tmp_path: Path, tasks: tuple[Task, Task]) -> None:
    async def scenario() -> None:
        strange = replace(tasks[0], port=1, server_name=LOCALHOST, uri="sips:x@y")
        async with endpoint(strange) as caller:
            with pytest.raises(DemoProcessError, match="connection to port 1 failed"):
                await caller.expect("answered", 10)
        async with endpoint(replace(tasks[1], speech=str(tmp_path / "none"))) as callee:
            with pytest.raises(DemoProcessError, match="fetch"):
                await callee.expect("listening", 10)
            assert await callee.wait(5) == 91

    run(scenario())


def test_a_process_whose_parent_lets_go_hangs_up(tasks: tuple[Task, Task]) -> None:
    async def scenario() -> None:
        async with endpoint(tasks[1]) as callee:
            port = (await callee.expect("listening", 10)).facts["port"]
            uri = f"sips:1000@{LOCALHOST}:{port}"
            async with endpoint(replace(tasks[0], port=port, server_name=LOCALHOST, uri=uri)) as caller:
                await caller.expect("answered", 10)
                assert caller.process.stdin is not None
                caller.process.stdin.close()
                await callee.expect("ended", 5)
                assert await caller.wait(5) == 0

    run(scenario())
