"""A real `b2bua serve` in a process of its own, configured by `b2bua init`, with an endpoint on either side of it.

with edge(tmp_path) as e:
    async def scenario():
        async with e.parties() as p:
            call = await p.call()
            ...
    run(scenario())
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from b2bua.demo.connection import Connection
from b2bua.demo.endpoint import Endpoint, EndpointSettings
from b2bua.demo.incoming import Answering, IncomingCall
from b2bua.demo.outgoing import Invitation, OutgoingCall
from b2bua.demo.pump import MediaPump
from b2bua.initialise import RTP_SEARCH, InitOptions, InitResult, identity_of, initialise
from recording.settings import Layout
from support.audited import AuditTail, sealed_lines
from support.endpoint import LOCALHOST, contexts
from support.ports import kept, share
from tls.settings import TLSMaterialSettings

READY_S = 30.0
STOP_S = 30.0
CALLER_USER, CALLEE_USER = "1001", "2001"


@dataclass
class Edge:
    """The running process. `made` has the paths, ports and peers' material."""

    made: InitResult
    process: subprocess.Popen[bytes]
    stderr: Path
    pump: MediaPump
    exit_code: int | None = field(default=None)
    tail: AuditTail | None = field(default=None)

    @property
    def directory(self) -> Path:
        return self.made.directory

    @property
    def pid(self) -> int:
        return self.process.pid

    def audit(self) -> list[dict[str, Any]]:
        """The audit lines written so far, in order, decrypted."""
        if self.tail is None:
            self.tail = AuditTail(self.made.configuration)
        return self.tail.lines()

    def assert_audit_whole(self) -> None:
        """The log verifies from its first line to its last."""
        sealed_lines(self.made.configuration)

    def audit_text(self) -> str:
        """All that the audit log says."""
        return "\n".join(json.dumps(line) for line in self.audit())

    def wait_audit(
        self, wanted: Callable[[dict[str, Any]], bool], *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """The first audit line that is wanted; the log has no other way to tell that it grew."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for line in self.audit():
                if wanted(line):
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no such audit line; there are: {self.audit()}")

    def wait_calls_ended(self, *, timeout_s: float = 10.0) -> int:
        """Wait until the log holds the end of every call it holds the start of; how many. Lines come a little late."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            events = Counter(line["event"] for line in self.audit())
            if events["call_started"] == events["call_ended"]:
                return events["call_ended"]
            time.sleep(0.02)
        raise AssertionError(f"calls go on: {events}")

    def recordings(self) -> list[Path]:
        """Finished recordings in the local sink."""
        return sorted((self.directory / "recordings").rglob("*.crec"))

    def uri(self, scheme: str = "sips", user: str = CALLEE_USER) -> str:
        suffix = ";transport=tls" if scheme == "sip" else ""
        return f"{scheme}:{user}@{identity_of('edge')}:{self.made.sip_port}{suffix}"

    def endpoint(
        self, material: TLSMaterialSettings, *, user: str, port: int = 0, **settings: Any
    ) -> Endpoint:
        """An endpoint under a certificate; it listens."""
        client, server = contexts(material)
        return Endpoint(
            EndpointSettings(user=user, client_context=client, server_context=server, port=port, **settings),
            self.pump,
        )

    async def connect(self, endpoint: Endpoint) -> Connection:
        return await endpoint.connect(LOCALHOST, self.made.sip_port, server_name=identity_of("edge"))

    @contextlib.asynccontextmanager
    async def parties(self, answering: Answering | None = None, **settings: Any) -> AsyncIterator[Parties]:
        """Caller and callee, the caller connected. Without `answering` incoming calls wait for `next_call`."""
        async with (
            self.endpoint(
                self.made.caller, user=CALLER_USER, port=self.made.caller_port, **settings
            ) as caller,
            self.endpoint(
                self.made.callee,
                user=CALLEE_USER,
                port=self.made.callee_port,
                answering=answering,
                **settings,
            ) as callee,
        ):
            yield Parties(edge=self, caller=caller, callee=callee, connection=await self.connect(caller))

    def stop(self, *, sig: signal.Signals = signal.SIGTERM, timeout_s: float = STOP_S) -> int:
        """End it and wait; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        self.exit_code = self.process.wait(timeout_s)
        return self.exit_code


@dataclass
class Parties:
    """Two endpoints with the B2BUA between them."""

    edge: Edge
    caller: Endpoint
    callee: Endpoint
    connection: Connection

    async def invite(self, *, scheme: str = "sips", **invitation: Any) -> OutgoingCall:
        """An INVITE from the caller; it returns at once."""
        return await self.caller.invite(self.connection, Invitation(uri=self.edge.uri(scheme), **invitation))

    async def established(
        self, *, scheme: str = "sips", **invitation: Any
    ) -> tuple[OutgoingCall, IncomingCall]:
        """A call that is up on both sides; the callee must answer by itself."""
        call = await self.invite(scheme=scheme, **invitation)
        await call.wait_answered()
        other = await self.callee.next_call()
        await other.wait_acknowledged()
        return call, other


def scrape(served: Edge, path: str) -> tuple[int, str]:
    """GET over TLS 1.3 with the monitor's certificate."""
    material = served.made.monitor
    context = ssl.create_default_context(cafile=str(material.trust_path))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(material.certificate_path, material.private_key_path)
    with (
        socket.create_connection((LOCALHOST, served.made.metrics_port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="edge.example.test") as tls,
    ):
        tls.sendall(f"GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n".encode())
        response = http.client.HTTPResponse(tls)
        response.begin()
        return response.status, response.read().decode()


@contextlib.contextmanager
def edge(
    directory: Path,
    *,
    layout: Layout = Layout.MIXED,
    edit: Callable[[str], str] = lambda text: text,
    prepare: Callable[[InitResult], None] = lambda made: None,
    max_calls: int = 100,
    env: dict[str, str] | None = None,
) -> Iterator[Edge]:
    """Make a configuration, change its text with `edit` and its files with `prepare`, serve it, stop it at the end."""
    options = InitOptions(free_ports=True, rtp_search=share(RTP_SEARCH), layout=layout, max_calls=max_calls)
    made = initialise(directory / "edge", options)
    text = made.configuration.read_text()
    made.configuration.write_text(edit(text))
    prepare(made)
    with serving(made, env=env) as running:
        yield running


def ports_kept(made: InitResult) -> contextlib.AbstractContextManager[None]:
    """Nobody else is given a port of this configuration while the block runs."""
    return kept(made.sip_port, made.metrics_port, made.caller_port, made.callee_port)


@contextlib.contextmanager
def serving(made: InitResult, *, env: dict[str, str] | None = None) -> Iterator[Edge]:
    """Serve an existing configuration until the block ends."""
    stderr = made.directory / "stderr.txt"
    reader, writer = os.pipe()
    with ports_kept(made), MediaPump() as pump, stderr.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "b2bua", "serve", str(made.configuration), "--ready-fd", str(writer)],
            stdout=errors,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            pass_fds=(writer,),
            env={**os.environ, **(env or {})},
        )
        os.close(writer)
        running = Edge(made=made, process=process, stderr=stderr, pump=pump)
        try:
            _wait_ready(reader, running)
            yield running
        finally:
            os.close(reader)
            try:
                running.stop()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait(STOP_S)


def _wait_ready(reader: int, running: Edge) -> None:
    readable, _, _ = select.select([reader], [], [], READY_S)
    line = os.read(reader, 4096) if readable else b""
    if not line.startswith(b'{"event": "ready"'):
        raise AssertionError(f"b2bua serve is not ready ({line!r}): {running.stderr.read_text()[-4000:]}")
