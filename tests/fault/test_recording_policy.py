"""No key, no disk: what each trunk policy does about it, before the call and in it; what was sealed is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from b2bua.demo.call import EndCause
from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import Invitation, OutgoingCall
from recording.index import IndexState, RecordingIndex
from support.disks import small_disk
from support.edge import Edge, Parties, edge
from support.endpoint import run
from support.kms import REGION, TEST_CREDENTIALS, MotoKMS

EMERGENCY = "112"


@pytest.fixture
def kms(tmp_path: Path) -> Iterator[MotoKMS]:
    directory = tmp_path / "kms"
    directory.mkdir()
    with MotoKMS(directory) as server:
        yield server


@pytest.fixture
def spool_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", size_kib=4096) as mount_point:
        yield mount_point


def with_kms(server: MotoKMS, policy: str) -> Callable[[str], str]:
    """Keys from the server, two in the pool, and `policy` on both trunks."""
    section = (
        f'provider = "aws-kms"\nkey_id = "{server.create_key()}"\nregion = "{REGION}"\n'
        f'endpoint_url = "{server.url}"\nca = "{server.files.ca_path}"\ntimeout_s = 1.0\n'
    )

    def edit(text: str) -> str:
        before, _, rest = text.partition("[keys.dev]")
        _, _, after = rest.partition("[tenants.")
        changed = f"{before}[keys.dev]\n{section}\n[tenants.{after}"
        changed = changed.replace("[recording]", "[recording.pool]\nsize = 2\n\n[recording]", 1)
        return changed.replace('recording = "required"', f'recording = "{policy}"')

    return edit


def with_spool(directory: Path, policy: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        changed = text.replace(
            "[recording]", f'[recording]\nspool = "{directory}/spool"\nmin_free_bytes = 1048576', 1
        )
        return changed.replace('recording = "required"', f'recording = "{policy}"')

    return edit


async def place(p: Parties, user: str = "2001") -> OutgoingCall:
    call = await p.caller.invite(p.connection, Invitation(uri=p.edge.uri(user=user)))
    await call.wait_final()
    return call


async def drain_pool(p: Parties) -> list[int]:
    """Place calls, a bounded number, until one is refused or goes unrecorded; the statuses."""
    statuses = []
    for _ in range(12):
        call = await place(p)
        statuses.append(call.responses[-1].status)
        if call.responses[-1].status != 200:
            break
        await call.stream.wait_heard(0.3, timeout_s=5)
        await call.hang_up()
    return statuses


def unrecorded(served: Edge) -> list[str]:
    return [line["reason"] for line in served.audit() if line["event"] == "call_unrecorded"]


def states(served: Edge) -> list[IndexState]:
    index = RecordingIndex(served.directory / "recordings-index.sqlite")
    try:
        return [entry.state for entry in index.find()]
    finally:
        index.close()


def test_required_without_a_key_is_503_before_the_callee_rings_but_an_emergency_goes_through(
    tmp_path: Path, kms: MotoKMS
) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            await (await place(p)).hang_up()
            kms.stop()
            statuses = await drain_pool(p)
            assert statuses[-1] == 503
            rung = len(p.callee.incoming)
            refused = await place(p)
            assert refused.responses[-1].status == 503
            assert any(header.name == "Retry-After" for header in refused.responses[-1].headers)
            assert len(p.callee.incoming) == rung
            call = await place(p, EMERGENCY)
            assert call.responses[-1].status == 200
            await call.hang_up()
            await asyncio.to_thread(served.wait_audit, lambda line: line["event"] == "call_unrecorded")
            assert unrecorded(served) == ["no_key"]

    with edge(tmp_path, edit=with_kms(kms, "required"), env=TEST_CREDENTIALS) as served:
        run(scenario(served), limit_s=90)
        assert served.stop() == 0
        assert set(states(served)) == {IndexState.COMPLETE}


def test_best_effort_without_a_key_goes_on_audited(tmp_path: Path, kms: MotoKMS) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            kms.stop()
            assert set(await drain_pool(p)) == {200}
            assert set(unrecorded(served)) == {"no_key"}

    with edge(tmp_path, edit=with_kms(kms, "best-effort"), env=TEST_CREDENTIALS) as served:
        run(scenario(served), limit_s=90)


def test_off_asks_for_no_key_and_leaves_no_file(tmp_path: Path) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call = await place(p)
            await call.stream.wait_heard(0.5, timeout_s=5)
            await call.hang_up()
            assert unrecorded(served) == []

    with edge(tmp_path, edit=lambda text: text.replace('"required"', '"off"')) as served:
        run(scenario(served))
        assert served.stop() == 0
        assert served.recordings() == []


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            return


@pytest.mark.parametrize("policy", ["required", "best-effort"])
def test_a_disk_that_fills_up_in_a_call(tmp_path: Path, spool_disk: Path, policy: str) -> None:
    """required: both legs get BYE; best-effort: the call goes on. What was sealed before is kept either way."""

    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call, other = await p.established()
            await call.stream.wait_heard(1.5, timeout_s=8)
            fill(spool_disk)
            await asyncio.to_thread(served.wait_audit, lambda line: line["event"] == "recording_failed")
            if policy == "required":
                assert (await call.wait_ended()).cause is EndCause.BYE
                assert (await other.wait_ended()).cause is EndCause.BYE
            else:
                before = (await call.stream.stats()).received
                await call.stream.wait_for(
                    lambda s: s.hearing.received > before + 25, "audio goes on", timeout_s=5
                )
                await call.hang_up()
            refused = await place(p)
            assert (refused.responses[-1].status == 503) is (policy == "required")
            if policy == "best-effort":
                await refused.hang_up()
            (spool_disk / "filler").unlink()

    with edge(tmp_path, edit=with_spool(spool_disk, policy)) as served:
        run(scenario(served), limit_s=60)
        assert served.stop() == 0
        assert states(served) == [IndexState.INCOMPLETE]
        (kept,) = served.recordings()
        assert kept.stat().st_size > 2 * 8208
