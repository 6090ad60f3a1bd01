"""A tenant's key service is away before the start or during it: public key, refusal or no recording, as it says.

A real transit engine is sealed and unsealed under a real recorder and, at the end, under a served B2BUA.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from b2bua.app import tenant_keys
from b2bua.config import load
from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import Invitation
from b2bua.engine.admission import Admission, Admissions, Load, must_be_recorded
from b2bua.initialise import InitOptions, InitResult, initialise
from b2bua.settings import RecordingPolicy, Settings
from b2bua.sip.handler import Refusal
from recording.call_recording import CallRecording
from recording.errors import MissingSlotError, RecordingError
from recording.format.content import RecordingMeta
from recording.format.slots import SlotProvider, parse_area
from recording.keys.build import build_providers, slot_keys
from recording.keys.errors import KeyConfigurationError, NoKeyError, NotPermittedError
from recording.keys.pool import KeyPool, TenantKey
from recording.keys.provider import KeyProvider
from recording.reader import open_recording, read_head
from recording.recorder import Recorder
from recording.settings import Layout, PoolSettings
from recording.verify import verify
from support.edge import Edge, edge, scrape, serving
from support.key_pairs import rsa_files
from support.observers import ListeningObserver
from support.openbao import OpenBao, vault_settings
from support.providers import ScriptedProvider

TENANT = "clinic"
POOL = 2
IDLE = Load(calls=0, by_trunk={})
INVITE = b"INVITE sips:2001@edge.example.test SIP/2.0\r\nCall-ID: c\r\nFrom: <sips:1001@a>;tag=1\r\n\r\n"


class Site:
    """A configuration whose tenant's key is in the transit engine."""

    def __init__(self, server: OpenBao, directory: Path, policy: str) -> None:
        self.made = initialise(directory / "lab", InitOptions(free_ports=True))
        self.configure(self.made, server, policy)

    @staticmethod
    def configure(made: InitResult, server: OpenBao, policy: str) -> None:
        key = f"outage-{secrets.token_hex(8)}"
        server.create_key(key)
        keys = made.directory / "keys"
        vault_settings(server, key, keys / "vault.token")
        rsa_files(keys, "escrow")
        text = made.configuration.read_text()
        assert text.count('key = "dev"') == 1
        text = text.replace('key = "dev"', f'key = "vault"\n{policy}').replace(
            "[keys.dev]",
            f"""
[keys.vault]
provider = "vault-transit"
address = "{server.url}"
key = "{key}"
token_file = "keys/vault.token"
ca = "{server.files.ca_path}"

[keys.escrow]
provider = "rsa-oaep-sha256"
public_key = "keys/escrow.pub"

[keys.dev]""",
        )
        made.configuration.write_text(text)

    @property
    def settings(self) -> Settings:
        loaded = load(self.made.configuration)
        pool = PoolSettings(size=POOL)
        return replace(loaded, recording=replace(loaded.recording, pool=pool, min_free_bytes=1))

    def tenant(self) -> TenantKey:
        return tenant_keys(self.settings)[TENANT]

    def reader(self) -> list[KeyProvider]:
        """What a reader's configuration names: the private part, and not the transit engine."""
        escrow = self.settings.recording.keys["escrow"]
        private = replace(escrow, private_key_path=self.made.directory / "keys" / "escrow.key")  # type: ignore[call-arg]
        return list(build_providers({"escrow": private}).values())


FALLBACK = 'fallback_key = "escrow"'
UNRECORDED = 'on_key_outage = "connect-unrecorded"'


@contextmanager
def sealed(server: OpenBao) -> Iterator[None]:
    server.seal()
    try:
        yield
    finally:
        server.unseal()


class Running:
    """A recorder at work, and the door in front of it."""

    def __init__(self, site: Site) -> None:
        settings = site.settings
        self.settings = settings
        self.observer = ListeningObserver()
        self.recorder = Recorder(
            settings.recording,
            {TENANT: site.tenant()},
            build_providers(settings.recording.keys),
            self.observer,
        )
        self.door = Admissions(settings, self.recorder)

    def __enter__(self) -> Running:
        self.recorder.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.recorder.stop()

    def knock(self) -> Admission | Refusal:
        return self.door.decide(self.settings.trunks["caller"], INVITE, IDLE)

    def admitted(self) -> Admission:
        answer = self.knock()
        assert isinstance(answer, Admission), answer
        return answer

    def record(self, admission: Admission) -> CallRecording:
        """A second of silence, to the end."""
        assert admission.reservation is not None
        failures: list[RecordingError] = []
        call = self.recorder.open(
            admission.reservation,
            meta=RecordingMeta(rate_hz=8000, call_uid=secrets.token_hex(16)),
            layout=Layout.MIXED,
            on_failure=failures.append,
        )
        call.append(memoryview(bytes(16000)), 8000, 0)
        call.finish(ended_by="caller", reason="caller_hung_up")
        assert not failures
        return call

    def stored(self, call: CallRecording) -> Path:
        """Its one file, in the sink."""
        (file_id,) = call.file_ids
        self.recorder.stop()
        (path,) = self.settings.recording.directory.rglob(f"{file_id.hex()}.crec")
        return path

    def spend(self) -> list[int]:
        """Take keys, as calls do, until the next one is not the key service's; the providers of their slots."""
        found = []
        while len(found) < POOL + 5:
            admission = self.admitted()
            if admission.reservation is None:
                return found
            key = admission.reservation.take_key()
            assert key is not None
            found.append(key.key.slot.provider)
            key.wipe()
            if found[-1] != SlotProvider.VAULT_TRANSIT:
                return found
        raise AssertionError(f"the key service still serves: {found}")


def providers_of(path: Path) -> list[int]:
    with path.open("rb") as file:
        return [slot.provider for slot in parse_area(read_head(file).slots_area)]


def test_before_the_start_a_fallback_key_records_and_its_private_part_reads(
    openbao: OpenBao, tmp_path: Path
) -> None:
    site = Site(openbao, tmp_path, FALLBACK)
    with sealed(openbao), Running(site) as running:
        began = time.monotonic()
        assert running.recorder._pool.wait_ready(30, level=POOL)
        assert time.monotonic() - began < 20, "the first failure is enough to go on"
        assert running.recorder.wait_ready(1)
        readiness = running.recorder.readiness()
        assert readiness.is_ready
        assert any("sealed" in text for text in readiness.warnings)
        call = running.record(running.admitted())
        path = running.stored(call)
        assert [entry[0] for entry in running.observer.fallbacks] == [TENANT]
        assert running.observer.fallbacks[0][1:] == (call.file_ids[0], "escrow")
    assert providers_of(path) == [SlotProvider.RSA_OAEP_SHA256]
    with open_recording(path, keys=slot_keys(site.reader())) as reader:
        assert verify(reader).records > 1
    recorders_own = slot_keys(build_providers(site.settings.recording.keys).values())
    with pytest.raises(NotPermittedError, match="public part"):
        open_recording(path, keys=recorders_own)
    with pytest.raises(MissingSlotError):
        open_recording(
            path, keys=[key for key in recorders_own if key.provider == SlotProvider.VAULT_TRANSIT]
        )


def test_during_an_outage_the_pool_comes_first_and_the_service_again_afterwards(
    openbao: OpenBao, tmp_path: Path
) -> None:
    with Running(Site(openbao, tmp_path, FALLBACK)) as running:
        assert running.recorder.wait_ready(20)
        assert running.recorder.readiness().warnings == ()
        with sealed(openbao):
            assert running.spend() == [SlotProvider.VAULT_TRANSIT] * POOL + [SlotProvider.RSA_OAEP_SHA256]
            assert running.recorder.readiness().is_ready
        assert running.recorder.wait_ready(40)
        assert wait_level(running)
        used = len(running.observer.fallbacks)
        path = running.stored(running.record(running.admitted()))
        assert providers_of(path) == [SlotProvider.VAULT_TRANSIT]
        assert len(running.observer.fallbacks) == used == 1


def wait_level(running: Running) -> bool:
    """Wait for the service's own keys: a tenant with a fallback counts as ready without them."""
    pool = running.recorder._pool
    with pool._changed:
        return pool._changed.wait_for(lambda: bool(pool._shelves[TENANT].keys), 40)


def test_reject_refuses_calls_before_and_during_and_takes_them_again(
    openbao: OpenBao, tmp_path: Path
) -> None:
    site = Site(openbao, tmp_path, "")
    with sealed(openbao), Running(site) as running:
        assert not running.recorder.wait_ready(0.5)
        assert not running.recorder.readiness().is_ready
        refused = running.knock()
        assert isinstance(refused, Refusal)
        assert (refused.status, refused.reason) == (503, "no_key")
        assert dict(refused.headers)["Retry-After"]
        openbao.unseal()
        assert running.recorder.wait_ready(40)
        assert running.admitted().reservation is not None
        openbao.seal()
        taken = [running.knock() for _ in range(POOL + 1)]
        assert isinstance(taken[-1], Refusal)
        assert taken[-1].reason == "no_key"
        assert running.observer.fallbacks == []


def test_connect_unrecorded_lets_calls_through_before_and_during_and_records_them_again(
    openbao: OpenBao, tmp_path: Path
) -> None:
    site = Site(openbao, tmp_path, UNRECORDED)
    with sealed(openbao), Running(site) as running:
        assert running.recorder.wait_ready(20)
        assert running.recorder.readiness().is_ready
        assert running.recorder.readiness().warnings
        admission = running.admitted()
        assert (admission.reservation, admission.unrecorded) == (None, "no_key")
        openbao.unseal()
        assert wait_level(running)
        assert running.admitted().unrecorded is None
        openbao.seal()
        assert all(provider == SlotProvider.VAULT_TRANSIT for provider in running.spend())
        assert running.admitted().unrecorded == "no_key"


@pytest.mark.parametrize(
    ("policy", "goes_on"), [("", False), (UNRECORDED, True)], ids=["reject", "unrecorded"]
)
def test_a_call_that_runs_out_of_keys_ends_or_goes_on_as_its_tenant_says(
    openbao: OpenBao, tmp_path: Path, policy: str, goes_on: bool
) -> None:
    """A recording longer than a segment may be, and no key for the next one."""
    with Running(Site(openbao, tmp_path, policy)) as running:
        assert running.recorder.wait_ready(20)
        admission = running.admitted()
    no_key = NoKeyError(TENANT).reason_label
    assert must_be_recorded(running.settings, admission, no_key) is not goes_on
    assert must_be_recorded(running.settings, admission, "recorder_failed")
    assert not must_be_recorded(running.settings, replace(admission, emergency=True), "recorder_failed")
    best_effort = replace(admission, policy=RecordingPolicy.BEST_EFFORT)
    assert not must_be_recorded(running.settings, best_effort, "recorder_failed")


def test_connect_unrecorded_is_about_keys_alone(openbao: OpenBao, tmp_path: Path) -> None:
    with Running(Site(openbao, tmp_path, UNRECORDED)) as running:
        assert running.recorder.wait_ready(20)
        assert running.admitted().reservation is not None
        running.recorder.stop()
        refused = running.knock()
        assert isinstance(refused, Refusal)
        assert refused.reason == "recorder_not_running"


def test_a_fallback_comes_before_connect_unrecorded(openbao: OpenBao, tmp_path: Path) -> None:
    site = Site(openbao, tmp_path, f"{FALLBACK}\n{UNRECORDED}")
    with sealed(openbao), Running(site) as running:
        assert running.recorder.wait_ready(20)
        admission = running.admitted()
        assert admission.reservation is not None
        assert admission.unrecorded is None


def test_a_fallback_that_is_no_public_key_is_refused(tmp_path: Path) -> None:
    del tmp_path
    providers = {"main": ScriptedProvider("main"), "other": ScriptedProvider("other")}
    for fallback in ("other", "none"):
        tenants = {TENANT: TenantKey(handle=bytes(16), provider="main", fallback=fallback)}
        with pytest.raises(KeyConfigurationError, match=fallback):
            KeyPool(
                tenants=tenants, providers=providers, settings=PoolSettings(), observer=ListeningObserver()
            )


def test_a_stopped_pool_gives_no_fallback_key(openbao: OpenBao, tmp_path: Path) -> None:
    site = Site(openbao, tmp_path, FALLBACK)
    settings = site.settings
    pool = KeyPool(
        tenants={TENANT: site.tenant()},
        providers=build_providers(settings.recording.keys),
        settings=PoolSettings(),
        observer=ListeningObserver(),
    )
    pool.take(TENANT).wipe()
    pool.stop()
    with pytest.raises(NoKeyError):
        pool.take(TENANT)


# --- a served B2BUA


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def one_call(running: Any) -> None:
    async def scenario() -> None:
        async with running.parties(Answering()) as parties:
            call, _ = await parties.established()
            await asyncio.sleep(0.6)  # some audio must flow
            await call.hang_up()

    run(scenario())


SERVED: dict[str, tuple[str, Callable[[dict[str, Any]], bool], str]] = {
    "fallback": (FALLBACK, lambda line: line["event"] == "key_fallback", "fallback_key_used"),
    "unrecorded": (
        UNRECORDED,
        lambda line: line["event"] == "call_unrecorded" and line["reason"] == "no_key",
        "call_unrecorded_without_key",
    ),
}


@pytest.mark.parametrize(("policy", "is_told", "alarm"), SERVED.values(), ids=SERVED)
def test_a_served_b2bua_goes_on_and_says_so(
    openbao: OpenBao,
    tmp_path: Path,
    policy: str,
    is_told: Callable[[dict[str, Any]], bool],
    alarm: str,
) -> None:
    def prepare(made: InitResult) -> None:
        Site.configure(made, openbao, policy)
        openbao.seal()

    try:
        with edge(tmp_path, prepare=prepare) as running:
            one_call(running)
            running.wait_audit(is_told)
            running.stop()
            errors = running.stderr.read_text()
            assert alarm in errors
            assert "key_request_failed" in errors
            files = running.recordings()
    finally:
        openbao.unseal()
    found = [provider for path in files for provider in providers_of(path)]
    assert found == ([SlotProvider.RSA_OAEP_SHA256] if policy == FALLBACK else [])
    with serving(running.made) as again:
        one_call(again)
        again.stop()
        new = [path for path in again.recordings() if path not in files]
    assert [provider for path in new for provider in providers_of(path)] == [SlotProvider.VAULT_TRANSIT]


def test_a_tenant_that_needs_keys_is_refused_until_they_come_and_the_process_serves(
    openbao: OpenBao, tmp_path: Path
) -> None:
    outage = ExitStack()

    def prepare(made: InitResult) -> None:
        Site.configure(made, openbao, "")
        outage.enter_context(sealed(openbao))

    async def knock(running: Edge) -> None:
        async with running.parties(Answering()) as p:
            refused = await p.invite()
            assert (await refused.wait_final()).status == 503
            emergency = await p.caller.invite(p.connection, Invitation(uri=running.uri(user="112")))
            await emergency.wait_answered()
            await emergency.hang_up()

    with outage, edge(tmp_path, prepare=prepare) as running:
        assert scrape(running, "/readyz")[0] == 503
        assert scrape(running, "/livez")[0] == 200
        run(knock(running))
        line = running.wait_audit(lambda line: line["event"] == "request_refused")
        assert (line["reason"], line["status"]) == ("no_key", 503)
        running.wait_audit(lambda line: line["event"] == "call_unrecorded" and line["reason"] == "no_key")
        assert "not_ready" in running.stderr.read_text()
        outage.close()
        deadline = time.monotonic() + 45
        while scrape(running, "/readyz")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)  # who watches a service asks again and again as well
        one_call(running)
        assert running.stop() == 0
        (recorded,) = running.recordings()
        assert providers_of(recorded) == [SlotProvider.VAULT_TRANSIT]
