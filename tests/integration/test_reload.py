"""New certificates under load: fifty connections a second through twenty reloads, none refused, a call stays up."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from b2bua.demo.errors import DemoError
from b2bua.demo.incoming import Answering
from b2bua.initialise import identity_of
from support.edge import Edge, Parties, edge
from support.endpoint import LOCALHOST, contexts, run
from tls.authority import DevelopmentAuthority

RELOADS = 20
CONNECTIONS_PER_S = 50


def renew(served: Edge) -> str:
    """A new certificate for the edge under the same authority, put in place of the old; its fingerprint."""
    tls = served.directory / "tls"
    fresh = tls / "fresh"
    shutil.copytree(tls, fresh, ignore=lambda *_: ["edge.pem", "edge.key", "fresh"], dirs_exist_ok=True)
    now = datetime.now(UTC)
    DevelopmentAuthority.load(fresh, now=now).issue("edge", sip_identities=[identity_of("edge")], now=now)
    for name in ("edge.key", "edge.pem"):
        (fresh / name).replace(tls / name)
    certificate = x509.load_pem_x509_certificates((tls / "edge.pem").read_bytes())[0]
    return certificate.fingerprint(hashes.SHA256()).hex()


def reloads(served: Edge) -> list[str]:
    return [line["fingerprint"] for line in served.audit() if line["event"] == "certificate_reloaded"]


async def hammer(p: Parties, stop: asyncio.Event, failures: list[str]) -> int:
    """Open a connection every 20 ms, ask OPTIONS on each, until told to stop; how many there were."""
    started, count, tasks = time.monotonic(), 0, set()

    async def one() -> None:
        try:
            connection = await p.edge.connect(p.caller)
            answer = await p.caller.options(connection, p.edge.uri())
            if answer.status != 200:
                failures.append(str(answer.status))
            await connection.close()
        except (OSError, DemoError) as error:
            failures.append(repr(error))

    while not stop.is_set():
        task = asyncio.create_task(one())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        count += 1
        await asyncio.sleep(max(0.0, started + count / CONNECTIONS_PER_S - time.monotonic()))
    await asyncio.gather(*tasks)
    return count


def test_no_connection_is_refused_while_certificates_change(tmp_path: Path) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call, other = await p.established()
            stop, failures = asyncio.Event(), []
            load = asyncio.create_task(hammer(p, stop, failures))
            for number in range(RELOADS):
                fingerprint = await asyncio.to_thread(renew, served)
                served.process.send_signal(signal.SIGHUP)
                await asyncio.to_thread(
                    served.wait_audit,
                    lambda line, wanted=fingerprint: line.get("fingerprint") == wanted,
                )
                assert len(reloads(served)) >= number + 1
            stop.set()
            assert await load > RELOADS
            assert failures == []
            before = (await call.stream.stats()).received
            await call.stream.wait_for(lambda s: s.hearing.received > before + 10, "audio", timeout_s=5)
            assert await asyncio.to_thread(served_fingerprint, served) == fingerprint
            assert (await call.hang_up()).status == 200
            await other.wait_ended()

    with edge(tmp_path) as served:
        run(scenario(served), limit_s=120)
        assert served.stop() == 0


def served_fingerprint(served: Edge) -> str:
    """The certificate that a new connection is shown."""
    context, _ = contexts(served.made.caller)
    with (
        socket.create_connection((LOCALHOST, served.made.sip_port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=identity_of("edge")) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).fingerprint(hashes.SHA256()).hex()


def test_a_bad_set_is_reported_and_the_old_one_stays(tmp_path: Path) -> None:
    with edge(tmp_path) as served:
        before = served_fingerprint(served)
        key = served.directory / "tls" / "edge.key"
        good = key.read_bytes()
        key.write_bytes((served.directory / "tls" / "caller.key").read_bytes())
        served.process.send_signal(signal.SIGHUP)
        served.wait_audit(lambda line: line["event"] == "certificate_refused")
        assert served_fingerprint(served) == before
        key.write_bytes(good)
        served.process.send_signal(signal.SIGHUP)
        served.wait_audit(lambda line: line["event"] == "certificate_reloaded")
        assert served_fingerprint(served) == before


def test_changed_files_are_noticed_without_a_signal(tmp_path: Path) -> None:
    with edge(tmp_path) as served:
        fingerprint = renew(served)
        served.wait_audit(lambda line: line.get("fingerprint") == fingerprint, timeout_s=20)
        assert served_fingerprint(served) == fingerprint
