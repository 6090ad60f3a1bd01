"""One end of the demonstration call, as a process of its own: `python -m b2bua.demo.process`.

It reads its task as one JSON line on standard input, so that no number shows in a process list. A second line,
`hang_up`, ends the call; so does the end of standard input. It writes reports (see `frames`) on standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Final

from b2bua.demo.call import Call
from b2bua.demo.endpoint import Endpoint, EndpointSettings
from b2bua.demo.errors import DemoError
from b2bua.demo.frames import Report, write_report
from b2bua.demo.outgoing import Invitation
from b2bua.demo.pump import MediaPump
from b2bua.demo.sdp import AEAD_SUITES, SRTPSuite
from b2bua.demo.speech import Side, programme
from b2bua.demo.stream import MediaSource
from b2bua.demo.tls_context import client_context, server_context

RING_S: Final = 20.0
_TAIL_S: Final = 0.5
"""Listened for longer than the programme lasts: the bridge needs a moment to join the legs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What an endpoint process is to do; its JSON form is an object of these names."""

    role: str
    """`caller` or `callee`."""
    certificate: str
    private_key: str
    authority: str
    speech: str
    """Folder of the recorded prompts."""
    seconds: float
    port: int = 0
    """Callee: where to listen. Caller: where the far end listens."""
    server_name: str = ""
    uri: str = ""
    user: str = "demo"
    suites: tuple[str, ...] = tuple(suite.sdp_name for suite in AEAD_SUITES)

    @classmethod
    def parse(cls, text: str) -> Task:
        """A task from its JSON line.

        Raises:
            DemoError: it is no JSON object of a task's names.
        """
        try:
            content = json.loads(text)
            return cls(**{**content, "suites": tuple(content.get("suites", cls.default_suites()))})
        except (ValueError, TypeError, AttributeError) as error:
            raise DemoError(
                f"the task is not a JSON object of {', '.join(f.name for f in fields(cls))}"
            ) from error

    @staticmethod
    def default_suites() -> tuple[str, ...]:
        return tuple(suite.sdp_name for suite in AEAD_SUITES)

    def line(self) -> bytes:
        """The JSON line."""
        return json.dumps(asdict(self)).encode() + b"\n"


async def work(task: Task, commands: asyncio.StreamReader, output: BinaryIO) -> None:
    """Do a task from start to end, reporting as it goes.

    Raises:
        DemoError: the call could not be made, was refused, or something did not come in time.
    """
    side = Side.CALLER if task.role == "caller" else Side.CALLEE
    source = MediaSource.of_pcm(programme(Path(task.speech), side, seconds=task.seconds))

    def tell(event: str, **facts: object) -> None:
        write_report(output, Report(event=event, facts=facts))

    with MediaPump() as pump:
        async with Endpoint(_settings(task), pump) as endpoint:
            if side is Side.CALLER:
                call: Call = await _call_out(endpoint, task, source, tell)
            else:
                call = await _take_call(endpoint, source, tell)
            tell("answered", suite=call.suite_name, **_leg_facts(call))
            await _converse(call, task, commands, tell)
            await _report_result(call, output)


def _settings(task: Task) -> EndpointSettings:
    files = {
        "certificate": Path(task.certificate),
        "private_key": Path(task.private_key),
        "authority": Path(task.authority),
    }
    return EndpointSettings(
        user=task.user,
        port=task.port if task.role == "callee" else 0,
        client_context=client_context(**files),
        server_context=server_context(**files) if task.role == "callee" else None,
        suites=tuple(SRTPSuite.named(name) for name in task.suites),
    )


async def _call_out(endpoint: Endpoint, task: Task, source: MediaSource, tell: Any) -> Call:
    try:
        connection = await endpoint.connect("127.0.0.1", task.port, server_name=task.server_name)
    except OSError as error:  # ssl.SSLError is one
        raise DemoError(f"the TLS connection to port {task.port} failed: {error}") from error
    tell("connected", tls=connection.tls.version, cipher=connection.tls.cipher)
    call = await endpoint.invite(connection, Invitation(uri=task.uri, source=source))
    await call.wait_answered(timeout_s=RING_S)
    return call


async def _take_call(endpoint: Endpoint, source: MediaSource, tell: Any) -> Call:
    tell("listening", port=endpoint.port)
    call = await endpoint.next_call(timeout_s=60)
    tell("called")
    call.ring()
    await call.answer(source)
    await call.wait_acknowledged(timeout_s=RING_S)
    return call


async def _converse(call: Call, task: Task, commands: asyncio.StreamReader, tell: Any) -> None:
    """Speak and listen, tell when both programmes are through, and end the call on command or with the far end."""
    limit_s = task.seconds + 15
    listening = asyncio.ensure_future(_wait_for_both(call, task, limit_s, tell))
    obeying = asyncio.ensure_future(_obey(call, commands))
    try:
        await call.wait_ended(timeout_s=limit_s + 30)
        tell("ended")
    finally:
        for task_ in (listening, obeying):
            task_.cancel()
        await asyncio.gather(listening, obeying, return_exceptions=True)


async def _wait_for_both(call: Call, task: Task, limit_s: float, tell: Any) -> None:
    await call.stream.wait_spoken(timeout_s=limit_s)
    await call.stream.wait_heard(task.seconds + _TAIL_S, timeout_s=limit_s)
    tell("spoken")


async def _obey(call: Call, commands: asyncio.StreamReader) -> None:
    async for command in _lines(commands):
        if command == "hang_up":
            await call.hang_up()
            return
    await call.hang_up()  # the parent is gone


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    while line := await stream.readline():
        yield line.decode().strip()


def _leg_facts(call: Call) -> dict[str, object]:
    tls = call.connection.tls
    return {"tls": tls.version, "cipher": tls.cipher, "peer": list(tls.peer_names)}


async def _report_result(call: Call, output: BinaryIO) -> None:
    stats = await call.stream.stats()
    facts = {
        **_leg_facts(call),
        "suite": call.suite_name,
        "sent": stats.sent,
        "sent_late": stats.sent_late,
        "received": stats.received,
        "lost": stats.lost,
        "auth_failures": stats.auth_failures,
        "plaintext": stats.plaintext,
        "ended_by_remote": call.ending is not None and call.ending.by_remote,
    }
    audio = (await call.stream.heard_pcm(), await call.stream.spoken_pcm())
    write_report(output, Report(event="result", facts=facts, audio=audio))


async def _main(output: BinaryIO) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin.buffer)
    task = Task.parse((await commands.readline()).decode())
    try:
        await work(task, commands, output)
    except DemoError as error:
        write_report(
            output, Report(event="failed", facts={"error": str(error), "exit_code": error.exit_code})
        )
        raise


def main() -> int:
    """Run the process; the exit code is that of the error, 0 without one."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print may not tear a frame
    with output, contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(_main(output))
        except DemoError as error:
            return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
