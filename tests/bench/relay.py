"""The yardstick: rtpengine relaying as many SRTP calls in the same run, with a plaintext recording of each.

It is the cheapest open relay in C that records. It only moves media (somebody else has its signalling), it seals
nothing, and its recording is a pcap file of readable packets; the program under test does all of its work in the same
measurement: TLS, call logic, mixing, sealing, syncing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
import statistics
import subprocess
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from b2bua.demo.sdp import SRTPSuite
from b2bua.demo.session import MediaSession
from support.endpoint import LOCALHOST
from tests.bench.capacity import CapacityPlan, Say, measure_window, run_capacity
from tests.bench.generator import Counts, GeneratedStream, Generator, generating
from tests.bench.process import on_last_core

ANSWER_S = 1.0
READY_TRIES = 20
SAMPLES = 160
"""Octets of audio in a packet."""
RTP_PORTS = (30000, 31999)
SUITE = SRTPSuite.AEAD_AES_256_GCM
Bencoded = dict[str, "Bencoded"] | list["Bencoded"] | str | int


class RelayError(Exception):
    """The relay is not installed, did not start, or refused a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayCall:
    """A call through the relay: what its two ends count."""

    streams: tuple[GeneratedStream, GeneratedStream]

    def counts(self) -> Counts:
        """What both ends counted."""
        return self.streams[0].counts() + self.streams[1].counts()


def measure_relay(
    plan: CapacityPlan, packets: tuple[bytes, ...], directory: Path, say: Say
) -> dict[str, Any]:
    """Our recorded calls and the relay's, in alternating order; the ratio of the medians is the result.

    Raises:
        RelayError: rtpengine is not installed or does not work here.
    """
    program = shutil.which("rtpengine")
    if program is None:
        raise RelayError("rtpengine is not installed; on Debian 12: apt-get install rtpengine-daemon")
    samples: dict[str, list[dict[str, Any]]] = {"sealtrunk": [], "rtpengine": []}
    order = [name for turn in range(plan.repeats) for name in sorted(samples, reverse=turn % 2 == 0)]
    for number, name in enumerate(order, 1):
        say(f"relay {number}/{len(order)}: {plan.calls} recorded calls through {name}")
        where = directory / f"relay-{number}"
        if name == "sealtrunk":
            sample = run_capacity(plan, packets, where, "required")
        else:
            sample = _run(program, plan, packets, where)
        samples[name].append(sample)
        say(f"  {sample['cpu_percent_per_call']:.3f} % of a core for a call")
    ours, theirs = (
        statistics.median(sample["cpu_percent_per_call"] for sample in samples[name])
        for name in ("sealtrunk", "rtpengine")
    )
    return {
        "version": _version(program),
        "plan": {"calls": plan.calls, "window_s": plan.window_s, "repeats": plan.repeats},
        "order": order,
        "samples": samples,
        "cpu_percent_per_call": ours,
        "cpu_percent_per_call_rtpengine": theirs,
        "cost_of_relay": round(ours / theirs, 3),
    }  # fmt: skip


def _run(program: str, plan: CapacityPlan, packets: tuple[bytes, ...], directory: Path) -> dict[str, Any]:
    directory.mkdir()
    with on_last_core() as core, generating(directory, packets) as generator:
        sample = asyncio.run(_load(program, plan, generator, directory))
    recorded = [path.stat().st_size for path in directory.rglob("*.pcap")]
    if sum(recorded) < sample["media"]["received"] * SAMPLES:
        raise RelayError("rtpengine did not record what it relayed: the run measures something else")
    return sample | {"generator_core": core, "recordings": len(recorded), "recorded_bytes": sum(recorded)}


async def _load(program: str, plan: CapacityPlan, generator: Generator, directory: Path) -> dict[str, Any]:
    async with _relay(program, directory) as (pid, control):
        calls = []
        for _ in range(plan.calls):
            calls.append(await _call(control, generator))
            await asyncio.sleep(1 / plan.per_second)
        await asyncio.sleep(plan.settle_s)
        return await measure_window(plan, pid, generator, calls)


async def _call(control: _Control, generator: Generator) -> RelayCall:
    ends = [
        MediaSession(stream, suites=(SUITE,), encodings=("PCMU/8000",))  # type: ignore[arg-type]
        for stream in (GeneratedStream(generator, LOCALHOST), GeneratedStream(generator, LOCALHOST))
    ]
    caller, callee = ends
    call: dict[str, Bencoded] = {
        "call-id": secrets.token_hex(8),
        "from-tag": "caller",
        "record call": "on",
        "ICE": "remove",
        "SDES": ["pad"],
    }
    offer = await control.ask({**call, "command": "offer", "sdp": caller.offer().decode()})
    answer = await callee.answer(offer.encode())
    reply = await control.ask({**call, "command": "answer", "to-tag": "callee", "sdp": answer.decode()})
    await caller.answered(reply.encode())
    return RelayCall(streams=(caller.stream, callee.stream))  # type: ignore[arg-type]


class _Control:
    """A client of the relay's control protocol: a cookie and a bencoded dictionary in one datagram."""

    def __init__(self, client: socket.socket, address: tuple[str, int]) -> None:
        self._client = client
        self._address = address

    async def ask(self, question: dict[str, Bencoded]) -> str:
        """The SDP, or the result, that a command is answered with.

        Raises:
            RelayError: no answer came in time, or it is an error.
        """
        loop = asyncio.get_running_loop()
        cookie = secrets.token_hex(8).encode()
        await loop.sock_sendto(self._client, cookie + b" " + bencode(question), self._address)
        try:
            async with asyncio.timeout(ANSWER_S):
                reply = await loop.sock_recv(self._client, 65536)
        except TimeoutError as error:
            raise RelayError(f"rtpengine did not answer {question['command']!r}") from error
        if not reply.startswith(cookie + b" "):
            raise RelayError("rtpengine answered another question")
        answer = bdecode(reply[len(cookie) + 1 :])
        if not isinstance(answer, dict) or answer.get("result") not in ("ok", "pong"):
            raise RelayError(f"rtpengine refused {question['command']!r}: {answer}")
        return str(answer.get("sdp", answer["result"]))


@contextlib.asynccontextmanager
async def _relay(program: str, directory: Path) -> AsyncIterator[tuple[int, _Control]]:
    """A relay of our own on loopback, without its kernel module, recording plain packets into a directory."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.setblocking(False)
        address = (LOCALHOST, _free_port())
        recordings = directory / "pcap"
        recordings.mkdir()
        log = stack.enter_context((directory / "rtpengine.log").open("wb"))
        process = await asyncio.create_subprocess_exec(
            *[program, "--foreground", "--log-stderr", "--log-level=4", "--table=-1", f"--interface={LOCALHOST}",
             f"--listen-ng={address[0]}:{address[1]}", f"--port-min={RTP_PORTS[0]}", f"--port-max={RTP_PORTS[1]}",
             "--recording-method=pcap", "--recording-format=raw", f"--recording-dir={recordings}",
             f"--pidfile={directory / 'rtpengine.pid'}", "--config-file=none"],
            stdout=log, stderr=log, cwd=directory,
        )  # fmt: skip
        try:
            control = _Control(client, address)
            await _until_ready(control, process, directory / "rtpengine.log")
            yield process.pid, control
        finally:
            process.terminate()
            await process.wait()


async def _until_ready(control: _Control, process: Process, log: Path) -> None:
    for _ in range(READY_TRIES):
        if process.returncode is not None:
            break
        with contextlib.suppress(RelayError, OSError):
            await control.ask({"command": "ping"})
            return
        await asyncio.sleep(0.05)
    raise RelayError(f"rtpengine did not start: {_end_of(log)}")


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])


def _version(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (said.stdout or said.stderr).strip()


def bencode(value: Bencoded) -> bytes:
    """Source: the bencode of BEP 3."""
    match value:
        case int():
            return b"i%de" % value
        case str():
            octets = value.encode()
            return b"%d:%b" % (len(octets), octets)
        case list():
            return b"l" + b"".join(map(bencode, value)) + b"e"
        case dict():
            return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


def bdecode(octets: bytes) -> Bencoded:
    """Raises RelayError: these octets are no value, or more than one."""
    try:
        value, end = _value_at(octets, 0)
    except (ValueError, IndexError) as error:
        raise RelayError("the answer cannot be read") from error
    if end != len(octets):
        raise RelayError("octets follow the answer")
    return value


def _value_at(octets: bytes, at: int) -> tuple[Bencoded, int]:
    kind = octets[at : at + 1]
    if kind == b"i":
        end = octets.index(b"e", at)
        return int(octets[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items, at = [], at + 1
        while octets[at] != ord("e"):
            item, at = _value_at(octets, at)
            items.append(item)
        if kind == b"l":
            return items, at + 1
        return {str(key): value for key, value in zip(items[::2], items[1::2], strict=True)}, at + 1
    colon = octets.index(b":", at)
    end = colon + 1 + int(octets[at:colon])
    if end > len(octets):
        raise ValueError("a text ends beyond the answer")
    return octets[colon + 1 : end].decode(), end
