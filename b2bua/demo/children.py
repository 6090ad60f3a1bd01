"""The demonstration's child processes: the server, the two endpoints, and single commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

from b2bua.demo.errors import DemoProcessError
from b2bua.demo.frames import Report, read_report
from b2bua.demo.process import Task

READY_S: Final = 30.0
STOP_S: Final = 20.0
_COMMAND_S: Final = 60.0
_KEPT_LINES: Final = 40


class Child:
    """A running child whose standard error is kept in memory, its end, to explain a failure."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._listening = asyncio.ensure_future(self._keep_errors())

    async def stop(self) -> int:
        """Send SIGTERM, wait, and kill what does not end; the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return await self.wait(STOP_S)

    async def wait(self, timeout_s: float) -> int:
        """Wait for the end, kill what does not come to it; the exit code."""
        try:
            code = await asyncio.wait_for(self.process.wait(), timeout_s)
        except TimeoutError:
            self.process.kill()
            code = await self.process.wait()
        await self._listening
        return code

    def failure(self, what: str) -> DemoProcessError:
        """An error that says what failed and quotes the last lines the child wrote."""
        quoted = "".join(f"\n  {self.name}: {line}" for line in self._lines)
        return DemoProcessError(f"{what}{quoted}")

    async def _keep_errors(self) -> None:
        stream = self.process.stderr
        while stream is not None and (line := await stream.readline()):
            self._lines.append(line.decode(errors="replace").rstrip())


class EndpointChild(Child):
    """An endpoint process and its reports."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        super().__init__(name, process)
        self.reports: list[Report] = []

    async def expect(self, event: str, timeout_s: float) -> Report:
        """Read reports up to an event.

        Raises:
            DemoProcessError: the process failed, ended, or did not get there in time.
        """
        try:
            return await asyncio.wait_for(self._read_to(event), timeout_s)
        except TimeoutError as error:
            raise self.failure(f"the {self.name} did not report `{event}` within {timeout_s} s") from error

    def command(self, word: str) -> None:
        """Send a command line."""
        if self.process.stdin is not None:
            self.process.stdin.write(word.encode() + b"\n")

    async def _read_to(self, event: str) -> Report:
        stream = self.process.stdout
        while stream is not None:
            report = await read_report(stream)
            if report is None:
                break
            self.reports.append(report)
            if report.event == "failed":
                raise self.failure(f"the {self.name} failed: {report.facts['error']}")
            if report.event == event:
                return report
        raise self.failure(f"the {self.name} ended before it reported `{event}`")


@contextlib.asynccontextmanager
async def serving(configuration: Path) -> AsyncIterator[Child]:
    """`b2bua serve`, ready, until the block ends; then drained and stopped.

    Raises:
        DemoProcessError: it did not become ready, or did not stop with 0.
    """
    read_end, write_end = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *_b2bua("serve", str(configuration), "--ready-fd", str(write_end)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(write_end,),
        )
    finally:
        os.close(write_end)
    server = Child("server", process)
    try:
        await _until_ready(server, read_end)
        yield server
    except BaseException:
        await server.stop()
        raise
    code = await server.stop()
    if code != 0:
        raise server.failure(f"the server ended with {code} instead of 0")


@contextlib.asynccontextmanager
async def endpoint(task: Task) -> AsyncIterator[EndpointChild]:
    """An endpoint process with its task given; ended with the block, at once if the block failed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "b2bua.demo.process",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    child = EndpointChild(task.role, process)
    try:
        if process.stdin is not None:
            process.stdin.write(task.line())
        yield child
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        raise
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await child.wait(STOP_S)


async def command(*words: str, accept: Sequence[int] | None = (0,)) -> dict[str, Any]:
    """Run a `b2bua` command that prints one JSON object, and return it. `accept` None takes any exit code.

    Raises:
        DemoProcessError: its exit code is not an accepted one, it took too long, or it printed something else.
    """
    name = " ".join(("b2bua", *words[:2]))
    process = await asyncio.create_subprocess_exec(
        *_b2bua(*words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), _COMMAND_S)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise DemoProcessError(f"`{name}` did not end within {_COMMAND_S} s") from error
    if accept is not None and process.returncode not in accept:
        raise DemoProcessError(
            f"`{name}` ended with {process.returncode}: {errors.decode(errors='replace').strip()}"
        )
    try:
        content = json.loads(output)
    except ValueError as error:
        raise DemoProcessError(f"`{name}` did not print a JSON object") from error
    if not isinstance(content, dict):
        raise DemoProcessError(f"`{name}` did not print a JSON object")
    return content


def _b2bua(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "b2bua", *words)


async def _until_ready(server: Child, read_end: int) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    try:
        line = await asyncio.wait_for(reader.readline(), READY_S)
    except TimeoutError as error:
        raise server.failure(f"the server did not get ready within {READY_S} s") from error
    finally:
        transport.close()
    if not line or json.loads(line).get("event") != "ready":
        await asyncio.wait_for(server.process.wait(), STOP_S)
        raise server.failure(f"the server ended with {server.process.returncode} before it was ready")
