"""Calls through a real `b2bua serve`, recorded into a real bucket under the shipped policies, and read back by command.

The service has the recorder's policy, the commands that read have the player's, each as an own user of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from b2bua.cli.main import main
from b2bua.config import load
from b2bua.demo.g711 import RATE_HZ
from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import OutgoingCall
from b2bua.demo.stream import MediaSource
from recording.settings import PART_MIN_BYTES, S3SinkSettings
from recording.sinks.s3 import S3Sink
from recording.sinks.sink import SinkRefusedError
from support.discreet import assert_discreet
from support.edge import Edge, edge
from support.endpoint import babble, run
from support.rgw import KMS_KEYS, REGION, RGW, Credentials
from support.s3 import credentials_file

POLICIES: Final = Path(__file__).parents[2] / "packaging" / "policies" / "aws"
BUCKET: Final = "calls"
RETAIN_DAYS: Final = 2
SAID: Final = [MediaSource.of_pcm(babble(20, seed=seed)) for seed in (1, 2)]
# 64 KiB for each 20 ms: a part of 5 MiB, the least there is, fills in 1.6 s
COARSE: Final = "chunk_size = 65536\nrecord_ms = 20\nfsync_interval_ms = 200\n"


@dataclass(frozen=True, kw_only=True)
class Store:
    """A bucket with Object Lock, and who may do what in it."""

    server: RGW
    users: Mapping[str, Credentials]

    @property
    def client(self) -> Any:
        return self.server.client(self.server.owner)

    def keys(self) -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def parts(self) -> list[int]:
        """Sizes of the parts of all uploads that go on."""
        uploads = self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return [
            part["Size"]
            for each in uploads
            for part in self.client.list_parts(Bucket=BUCKET, Key=each["Key"], UploadId=each["UploadId"]).get(
                "Parts", []
            )
        ]


def make_store(server: RGW) -> Store:
    users = {role: server.add_user(role) for role in ("recorder", "player", "steward", "rewrapper")}
    statements = []
    for role in users:
        for statement in json.loads((POLICIES / f"{role}.json").read_text())["Statement"]:
            if "s3:" in json.dumps(statement["Action"]):
                text = json.dumps(statement).replace("example-recordings", BUCKET)
                whose = {
                    "Sid": f"{role}{statement['Sid']}",
                    "Principal": {"AWS": [f"arn:aws:iam:::user/{role}"]},
                }
                statements.append({**json.loads(text), **whose})
    client = server.client(server.owner)
    client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    client.put_bucket_policy(
        Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements})
    )
    return Store(server=server, users=users)


def sink_table(store: Store, **more: str) -> str:
    lines = {
        "kind": "s3",
        "bucket": BUCKET,
        "region": REGION,
        "endpoint_url": store.server.url,
        "ca": str(store.server.files.ca_path),
        "credentials_file": "keys/recorder",
        "acl": "bucket-owner-full-control",
        "object_lock_mode": "GOVERNANCE",
        "server_side_encryption": "aws:kms",
        "sse_kms_key_id": KMS_KEYS[0],
        **more,
    }
    text = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
    return f"\n[recording.sink]\n{text}multipart_chunksize = {PART_MIN_BYTES}\ntimeout_s = 2.0\n"


@dataclass(frozen=True, kw_only=True)
class Rig:
    """A service that records into a store, and commands beside it."""

    store: Store
    edge: Edge

    def configuration(self, role: str) -> Path:
        """The service's configuration with another role's credentials."""
        directory = self.edge.directory
        credentials_file(directory / "keys" / role, self.store.users[role])
        path = directory / f"{role}.toml"
        path.write_text(self.edge.made.configuration.read_text().replace("keys/recorder", f"keys/{role}"))
        path.chmod(0o600)
        return path

    def entries(self) -> list[dict[str, Any]]:
        return list(self.told("player", "list")["recordings"])

    def told(self, role: str, *words: str, code: int = 0) -> dict[str, Any]:
        """What a command of `b2bua recordings` prints with a role's credentials; nothing where it fails as it must."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            arguments = ["recordings", words[0], "-c", str(self.configuration(role)), *words[1:], "--json"]
            assert main(arguments) == code
        return {} if code else dict(json.loads(printed.getvalue()))

    def wait(self, condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
        """For what a process brings about that has no other way to tell."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.edge.stderr.read_text()[-3000:] + self.edge.audit_text()
            time.sleep(0.05)

    def wait_stored(self, count: int) -> list[dict[str, Any]]:
        """The index's entries once so many files are in the store and none is in the spool."""
        spool = self.edge.directory / "recordings-spool"

        def is_stored() -> bool:
            if list(spool.glob("*.crec")):
                return False
            return sum(entry["object_key"] is not None for entry in self.entries()) == count

        self.wait(is_stored)
        return self.entries()

    def assert_readable(self, entry: dict[str, Any], seconds: float) -> None:
        """`verify`, `show` and `export` from the store, with the player's rights alone."""
        reading = [entry["recording"], "--reason", "integrity_check"]
        (verdict,) = self.told("player", "verify", *reading)["recordings"]
        assert (verdict["state"], verdict["manifest"]) == ("complete", "signed"), verdict
        (segment,) = self.told("player", "show", *reading)["segments"]
        assert segment["file_id"] == entry["file_id"]
        target = self.edge.directory / f"{entry['file_id']}.wav"
        self.told("player", "export", *reading, "--plaintext", "-o", str(target))
        with wave.open(str(target)) as file:
            assert file.getframerate() == RATE_HZ
            assert file.getnframes() >= seconds * RATE_HZ
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        assert np.abs(samples.astype(int)).mean() > 100, "both parties spoke"
        self.told("recorder", "verify", *reading, code=SinkRefusedError.exit_code)

    def assert_kept(self, entry: dict[str, Any]) -> None:
        """Object and manifest are locked until what was promised, and encrypted by the store's own key."""
        until = datetime.fromisoformat(entry["retain_until"])
        assert timedelta(days=RETAIN_DAYS) - timedelta(hours=2) < until - datetime.now(UTC)
        for key in (entry["object_key"], entry["object_key"].replace(".crec", ".manifest")):
            where = {"Bucket": BUCKET, "Key": key}
            kept = self.store.client.get_object_retention(**where)["Retention"]
            assert (kept["Mode"], kept["RetainUntilDate"]) == ("GOVERNANCE", until)
            told = self.store.client.head_object(**where)
            assert (told["ServerSideEncryption"], told["SSEKMSKeyId"]) == ("aws:kms", KMS_KEYS[0])


@pytest.fixture(scope="module")
def store(rgw: RGW) -> Store:
    return make_store(rgw)


def serving(store: Store, directory: Path) -> Any:
    def edit(text: str) -> str:
        text = text.replace("[recording]\n", f"[recording]\n{COARSE}")
        text = text.replace("[tenants.clinic]\n", f"[tenants.clinic]\nretain_days = {RETAIN_DAYS}\n")
        text = text.replace("[limits]\n", "[limits]\ndrain_deadline_s = 1\n")
        return text + sink_table(store)

    def prepare(made: Any) -> None:
        credentials_file(made.directory / "keys" / "recorder", store.users["recorder"])

    return edge(directory, edit=edit, prepare=prepare)


@pytest.fixture
def rig(store: Store, tmp_path: Path) -> Iterator[Rig]:
    with serving(store, tmp_path) as running:
        yield Rig(store=store, edge=running)
        assert running.stop() == 0
        assert_discreet(running.stderr.read_text() + running.audit_text())


async def speak(call: OutgoingCall, seconds: float) -> None:
    """Until the caller has heard so much more: the call is up, both ways, and recorded."""
    before = (await call.stream.stats()).received
    await call.stream.wait_for(
        lambda stream: stream.hearing.received >= before + 50 * seconds, "speech", timeout_s=seconds + 10
    )


def recorded(rig: Rig, seconds: float) -> dict[str, Any]:
    """The index's entry of a call that has ended and is in the store."""

    async def scenario() -> None:
        async with rig.edge.parties(Answering(source=SAID[1])) as p:
            call, _ = await p.established(source=SAID[0])
            await speak(call, seconds)
            await call.hang_up()

    run(scenario())
    (entry,) = rig.wait_stored(1)
    return entry


def test_a_short_call_is_one_object_and_is_read_by_command(rig: Rig) -> None:
    entry = recorded(rig, 1.0)
    assert entry["state"] == "complete"
    assert entry["size_bytes"] < PART_MIN_BYTES
    whole = rig.store.client.head_object(Bucket=BUCKET, Key=entry["object_key"])
    assert whole["ContentLength"] == entry["size_bytes"]
    assert "-" not in whole["ETag"], "in one request"
    rig.assert_kept(entry)
    rig.assert_readable(entry, 1.0)


def test_a_long_call_leaves_in_parts_while_it_runs(rig: Rig) -> None:
    before = set(rig.store.keys())

    async def scenario() -> None:
        async with rig.edge.parties(Answering(source=SAID[1])) as p:
            call, _ = await p.established(source=SAID[0])
            await speak(call, 3.5)
            await asyncio.to_thread(rig.wait, lambda: len(rig.store.parts()) >= 2)
            assert set(rig.store.parts()) == {PART_MIN_BYTES}
            assert set(rig.store.keys()) == before, "no object before the end"
            (entry,) = rig.entries()
            assert (entry["state"], entry["object_key"]) == ("recording", None)
            await speak(call, 0.5)
            await call.hang_up()

    run(scenario())
    (entry,) = rig.wait_stored(1)
    assert entry["size_bytes"] > 2 * PART_MIN_BYTES
    whole = rig.store.client.head_object(Bucket=BUCKET, Key=entry["object_key"])
    assert whole["ContentLength"] == entry["size_bytes"]
    assert int(whole["ETag"].strip('"').rpartition("-")[2]) >= 3, "in parts"
    assert rig.store.parts() == []
    rig.assert_kept(entry)
    rig.assert_readable(entry, 3.5)


def test_a_hold_and_a_document_of_a_call_reach_the_store(rig: Rig, tmp_path: Path) -> None:
    entry = recorded(rig, 0.5)
    document = tmp_path / "transcript.txt"
    document.write_text("what was said")
    rig.told("recorder", "attach", entry["recording"], str(document), "--type", "text/plain")
    attached = next(each for each in rig.entries() if each["kind"] == "artefact")
    assert attached["retain_until"] == entry["retain_until"]
    for each in (entry, attached):
        rig.assert_kept(each)

    def held() -> set[bool]:
        keys = [each["object_key"] for each in (entry, attached)]
        keys += [key.replace(".crec", ".manifest") for key in keys]
        return {is_held(rig.store.client, key) for key in keys}

    assert held() == {False}
    rig.told("steward", "hold", entry["recording"], "--reason", "court-order")
    assert held() == {True}
    slots = entry["object_key"].replace(".crec", ".1.slots")
    S3Sink(sink_of(rig, "rewrapper")).put_slots(entry["object_key"], 1, b"moved to another key")
    assert is_held(rig.store.client, slots), "by who may write slots and nothing else"
    kept = rig.store.client.get_object_retention(Bucket=BUCKET, Key=slots)["Retention"]
    assert kept["RetainUntilDate"] == datetime.fromisoformat(entry["retain_until"])
    assert rig.told("steward", "expire", "--repeat-locks")["kept"]["hold"] == 1
    rig.told("steward", "release", entry["recording"], "--reason", "lifted")
    assert held() == {False}
    assert not is_held(rig.store.client, slots)
    rig.assert_kept(entry)


def sink_of(rig: Rig, role: str) -> S3SinkSettings:
    sink = load(rig.configuration(role)).recording.sink
    assert isinstance(sink, S3SinkSettings)
    return sink


def is_held(client: Any, key: str) -> bool:
    try:
        answer = client.get_object_legal_hold(Bucket=BUCKET, Key=key)
    except client.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return False
    return bool(answer["LegalHold"]["Status"] == "ON")


def test_calls_go_on_while_the_store_is_away_and_reach_it_when_it_is_back(tmp_path: Path) -> None:
    with RGW(tmp_path / "rgw") as server:
        store = make_store(server)
        with serving(store, tmp_path) as running:
            rig = Rig(store=store, edge=running)
            spool = running.directory / "recordings-spool"

            async def scenario() -> None:
                async with running.parties(Answering(source=SAID[1])) as p:
                    call, _ = await p.established(source=SAID[0])
                    await speak(call, 2.0)
                    await asyncio.to_thread(rig.wait, lambda: len(store.parts()) >= 1)
                    server.stop_gateway()
                    await speak(call, 2.0)
                    later, _ = await p.established(source=SAID[0])
                    await speak(later, 0.5)
                    for each in (call, later):
                        assert (await each.hang_up()).status == 200

            run(scenario())
            running.wait_audit(
                lambda line: line["event"] == "upload_failed" and line["reason"] == "unreachable"
            )
            assert running.wait_calls_ended() == 2
            entries = rig.entries()
            assert [(entry["state"], entry["object_key"]) for entry in entries] == [("complete", None)] * 2
            assert len(list(spool.glob("*.crec"))) == 2, "whole, in the spool"
            server.start_gateway()
            entries = rig.wait_stored(2)
            assert list(spool.glob("*.upload")) == []
            assert sorted(store.keys()) == sorted(
                key
                for entry in entries
                for key in (entry["object_key"], entry["object_key"].replace(".crec", ".manifest"))
            )
            for entry, seconds in zip(
                sorted(entries, key=lambda each: each["size_bytes"]), (0.5, 4), strict=True
            ):
                rig.assert_kept(entry)
                rig.assert_readable(entry, seconds)
            assert running.stop() == 0
