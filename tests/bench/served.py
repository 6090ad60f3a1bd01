"""A B2BUA to be measured, and the two endpoints on either side of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from b2bua.demo.connection import Connection
from b2bua.demo.endpoint import EndpointSettings
from b2bua.demo.incoming import Answering, IncomingCall
from b2bua.demo.outgoing import Invitation, OutgoingCall
from b2bua.initialise import InitOptions, InitResult, identity_of, initialise
from recording.keys.build import build_provider, slot_keys
from recording.reader import RecordingReader, open_recording
from recording.settings import LocalKeySettings
from recording.verify import verify
from support.edge import CALLEE_USER, CALLER_USER, Edge, serving
from support.endpoint import LOCALHOST, contexts
from tests.bench.generator import Counts, GeneratedStream, Generator, LoadEndpoint

POOL_KEYS = 128
"""Keys ready before the first call: what refilling costs is in the measured time, waiting for it is not."""
ANSWER_S = 30.0
LOUD = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCall:
    """Both ends of a call that is up."""

    caller: OutgoingCall
    callee: IncomingCall

    def counts(self) -> Counts:
        """What both ends counted."""
        total = Counts()
        for call in (self.caller, self.callee):
            stream = call.stream
            assert isinstance(stream, GeneratedStream)
            total += stream.counts()
        return total


@contextlib.contextmanager
def served(directory: Path, *, max_calls: int, recording: str) -> Iterator[Edge]:
    """A serving process with room for so many calls; both trunks with one recording policy."""
    made = initialise(directory / f"edge-{recording}", InitOptions(free_ports=True, max_calls=max_calls))
    text = made.configuration.read_text()
    text, policies = re.subn(
        r'^recording = "required"', f'recording = "{recording}"\nmax_calls = {max_calls}', text, flags=re.MULTILINE
    )  # fmt: skip
    assert policies == 2, "the configuration of `b2bua init` has two trunks"
    text = text.replace("[recording]\n", f"[recording]\npool = {{ size = {POOL_KEYS} }}\n", 1)
    made.configuration.write_text(text)
    with serving(made) as edge:
        yield edge


class Parties:
    """Caller and callee under generated load, each with one connection that stays."""

    def __init__(self, edge: Edge, generator: Generator) -> None:
        self.edge = edge
        self._generator = generator
        self.caller = self._endpoint(edge.made, caller=True)
        self.callee = self._endpoint(edge.made, caller=False)
        self._arrived: dict[str, IncomingCall] = {}
        self._looked_at = 0

    def _endpoint(self, made: InitResult, *, caller: bool) -> LoadEndpoint:
        client, server = contexts(made.caller if caller else made.callee)
        settings = EndpointSettings(
            user=CALLER_USER if caller else CALLEE_USER,
            client_context=client,
            server_context=server,
            port=made.caller_port if caller else made.callee_port,
            answering=None if caller else Answering(),
            keep_audio=False,
        )
        return LoadEndpoint(settings, self._generator)

    async def connect(self) -> None:
        """Open the caller's connections: to the B2BUA, and straight to the callee."""
        made = self.edge.made
        self.through = await self.caller.connect(LOCALHOST, made.sip_port, server_name=identity_of("edge"))
        self.direct = await self.caller.connect(
            LOCALHOST, made.callee_port, server_name=identity_of("callee")
        )

    async def call(self, *, direct: bool = False) -> OutgoingCall:
        """A call that the callee has answered.

        Raises:
            DemoError: it was refused, or not answered in time.
        """
        made = self.edge.made
        straight = f"sips:{CALLEE_USER}@{identity_of('callee')}:{made.callee_port}"
        connection: Connection = self.direct if direct else self.through
        uri = straight if direct else self.edge.uri("sips")
        call = await self.caller.invite(connection, Invitation(uri=uri))
        await call.wait_answered(timeout_s=ANSWER_S)
        return call

    async def calls(self, count: int, *, per_second: float) -> list[LoadCall]:
        """So many calls up, begun at a steady pace."""
        before = len(self.callee.incoming)
        tasks = []
        for _ in range(count):
            tasks.append(asyncio.create_task(self.call()))
            await asyncio.sleep(1 / per_second)
        callers = await asyncio.gather(*tasks)
        await self.callee.until(
            lambda: (
                all(call.acknowledged for call in self.callee.incoming[before:])
                and len(self.callee.incoming) == before + count
            ),
            "ACK of every call",
            timeout_s=ANSWER_S,
        )
        # The pairs need not be one call each: only sums over all of them are used.
        arrived = self.callee.incoming[before:]
        return [LoadCall(caller=a, callee=b) for a, b in zip(callers, arrived, strict=True)]

    async def hang_up(self, calls: list[LoadCall]) -> None:
        """End calls from the caller's side and wait for the callee to know."""
        for call in calls:
            response = await call.caller.hang_up(timeout_s=ANSWER_S)
            assert response.status == 200, f"BYE was answered with {response.status}"
        for call in calls:
            await call.callee.wait_ended(timeout_s=ANSWER_S)


@contextlib.asynccontextmanager
async def parties(edge: Edge, generator: Generator) -> AsyncIterator[Parties]:
    """Caller and callee listening and connected."""
    made = Parties(edge, generator)
    async with made.caller, made.callee:
        await made.connect()
        yield made


def metric(edge: Edge, name: str) -> float:
    """A value of the metrics endpoint, summed over its labels.

    Raises:
        LookupError: the endpoint does not know the name.
    """
    text = scrape(edge)
    found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    if not found:
        raise LookupError(f"the metrics endpoint has no {name}")
    return sum(float(value) for value in found)


def scrape(edge: Edge) -> str:
    """The text of the metrics endpoint."""
    material = edge.made.monitor
    context = ssl.create_default_context(cafile=str(material.trust_path))
    context.load_cert_chain(material.certificate_path, material.private_key_path)
    name = identity_of("edge")
    with (
        socket.create_connection((LOCALHOST, edge.made.metrics_port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        secured.sendall(f"GET /metrics HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: secured.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise LookupError(f"the metrics endpoint answers {head[:60]!r}")
    return body.decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What the recordings of a run are worth. `silent` ones hold nothing loud."""

    complete: int
    incomplete: int
    silent: int
    seconds: float


def judge_recordings(edge: Edge) -> Archive:
    """Open every recording with the development key and read it to its end."""
    keys = slot_keys([build_provider("dev", LocalKeySettings(kek_path=edge.made.kek))])
    complete = incomplete = silent = 0
    seconds = 0.0
    for path in edge.recordings():
        with open_recording(path, keys=keys) as reader:
            verdict = verify(reader)
            complete += verdict.is_complete
            incomplete += not verdict.is_complete
            seconds += verdict.audio_bytes / 16000
            silent += not _has_sound(reader)
    return Archive(complete=complete, incomplete=incomplete, silent=silent, seconds=round(seconds, 1))


def _has_sound(reader: RecordingReader) -> bool:
    """A loud sample somewhere; the generated programme peaks far above this."""
    return any(max(memoryview(record.payload).cast("h"), default=0) > LOUD for record in reader.audio())
