"""A recorder whose recordings go to a real S3 server, over TLS 1.3, in one request or in parts while the call runs."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recording.format.content import RecordingMeta
from recording.index import IndexEntry, IndexState, RecordingIndex
from recording.keys.build import slot_keys
from recording.keys.local import LocalKeyProvider, create_kek
from recording.reader import open_recording
from recording.recorder import Recorder, RecorderUnavailable, TenantKey, UnavailableReason, recover
from recording.settings import (
    PART_MIN_BYTES,
    CannedACL,
    Layout,
    LocalKeySettings,
    RecordingSettings,
    S3SinkSettings,
)
from recording.sinks.build import build_sink
from recording.sinks.s3 import S3Sink
from recording.sinks.sink import LockMode, LockNotInForceError, SinkRefusedError, SinkUnavailableError
from recording.verify import verify
from support.observers import ListeningObserver
from support.rgw import LOCKED_BUCKET, RGW, Credentials
from support.s3 import rgw_settings

TENANT = "clinic"
SECOND = 16_000  # bytes of PCM at 8 kHz mono
LONG_S = 700  # seconds of audio that make two parts and a rest


class Bench:
    """A recorder with a bucket."""

    def __init__(self, directory: Path, sink: S3SinkSettings, **changes: object) -> None:
        directory.mkdir(exist_ok=True)
        if not (directory / "kek").exists():
            create_kek(directory / "kek")
        keys = {"main": LocalKeySettings(kek_path=directory / "kek")}
        self.settings = replace(
            RecordingSettings(
                directory=directory / "unused",
                spool_directory=directory / "spool",
                index_path=directory / "index.sqlite",
                keys=keys,
                sink=sink,
                fsync_interval_ms=50,
                min_free_bytes=0,
            ),
            **changes,  # type: ignore[arg-type]
        )
        self.provider = LocalKeyProvider("main", keys["main"])
        self.observer = ListeningObserver()
        self.recorder = Recorder(
            self.settings,
            {TENANT: TenantKey(handle=bytes(16), provider="main")},
            {"main": self.provider},
            self.observer,
        )

    def record(self, seconds: int, *, before_end: Callable[[], None] | None = None) -> None:
        """One call of so much audio, handed in faster than it would be spoken, but not faster than the disk."""
        failed = threading.Event()
        recording = self.recorder.open(
            self.recorder.reserve(TENANT),
            meta=RecordingMeta(rate_hz=8000, call_uid="call-1"),
            layout=Layout.MIXED,
            on_failure=lambda error: failed.set(),
        )
        for second in range(seconds):
            recording.append(memoryview(pcm(second)), SECOND // 2, 0)
        if before_end is not None:
            before_end()
        recording.finish(ended_by="caller", reason="bye")
        assert not failed.is_set()

    def wait(self, condition: Callable[[], bool], timeout_s: float = 30) -> None:
        """For what another thread brings about; asked again as long as nothing tells."""
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline, self.recorder.readiness()
            pause.wait(0.02)

    def entries(self) -> list[IndexEntry]:
        with closing(RecordingIndex(self.settings.index_path)) as index:
            return index.find()

    def audio(self, entry: IndexEntry) -> bytes:
        """Read back from the bucket with the key, verified."""
        assert entry.object_key is not None
        with (
            build_sink(self.settings).open(entry.object_key) as file,
            open_recording(file, keys=slot_keys([self.provider])) as reader,
        ):
            assert verify(reader).is_complete
            return b"".join(record.payload for record in reader.audio())


def pcm(second: int) -> bytes:
    return bytes([second % 251, 1]) * (SECOND // 2)


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    with contextlib.ExitStack() as stack:

        def make(sink: S3SinkSettings, **changes: object) -> Bench:
            bench = Bench(tmp_path, sink, **changes)
            stack.callback(bench.recorder.stop, 5)
            return bench

        yield make


def started(bench: Bench) -> Bench:
    bench.recorder.start()
    assert bench.recorder.wait_ready(30)
    return bench


def test_a_short_call_is_one_request_locked_and_read_back(
    rgw: RGW, benches: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = started(benches(rgw_settings(rgw, tmp_path, object_lock_days=1)))
    bench.record(3)
    assert bench.recorder.stop(20)
    (entry,) = bench.entries()
    assert entry.state is IndexState.COMPLETE
    assert entry.object_key is not None
    assert bench.audio(entry) == b"".join(map(pcm, range(3)))
    kept = build_sink(bench.settings).retention(entry.object_key)
    assert kept.mode is LockMode.GOVERNANCE
    assert kept.until is not None
    assert timedelta(days=1) < kept.until - datetime.now(UTC) < timedelta(days=1, hours=6)
    assert list((tmp_path / "spool").iterdir()) == []
    assert bench.observer.uploads == [(entry.file_id, entry.size_bytes)]
    assert (bench.observer.sent_bytes, bench.observer.most_parts) == (entry.size_bytes, 0)


def test_a_long_call_leaves_in_parts_while_it_runs(
    rgw: RGW, benches: Callable[..., Bench], tmp_path: Path
) -> None:
    sink = rgw_settings(rgw, tmp_path, object_lock_days=1)
    bench = started(benches(sink))
    client = rgw.client(rgw.owner)

    def parts_are_there() -> None:
        bench.wait(lambda: bench.observer.sent_bytes >= 2 * PART_MIN_BYTES)
        (upload,) = client.list_multipart_uploads(Bucket=LOCKED_BUCKET, Prefix=sink.prefix)["Uploads"]
        parts = client.list_parts(Bucket=LOCKED_BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])[
            "Parts"
        ]
        assert [part["Size"] for part in parts] == [PART_MIN_BYTES] * 2
        (note,) = (tmp_path / "spool").glob("*.upload")
        assert json.loads(note.read_text())["upload_id"] == upload["UploadId"]
        assert len(list((tmp_path / "spool").glob("*.crec"))) == 1, "the spool keeps all until the end"
        assert "Contents" not in client.list_objects_v2(Bucket=LOCKED_BUCKET, Prefix=sink.prefix)

    bench.record(LONG_S, before_end=parts_are_there)
    assert bench.recorder.stop(30)
    (entry,) = bench.entries()
    assert entry.object_key is not None
    assert bench.audio(entry) == b"".join(map(pcm, range(LONG_S)))
    assert bench.observer.sent_bytes == entry.size_bytes, "each byte went once"
    assert (bench.observer.parts, bench.observer.most_parts) == (0, 1)
    assert build_sink(bench.settings).retention(entry.object_key).until is not None
    assert list((tmp_path / "spool").iterdir()) == []
    assert "Uploads" not in client.list_multipart_uploads(Bucket=LOCKED_BUCKET, Prefix=sink.prefix)


def test_a_store_that_is_away_costs_nothing_but_room(benches: Callable[..., Bench], tmp_path: Path) -> None:
    with RGW(tmp_path / "rgw") as server:
        sink = rgw_settings(server, tmp_path, timeout_s=1.0)
        bench = started(benches(sink, max_spool_bytes=1 << 20))
        server.stop_gateway()
        bench.record(20)
        bench.wait(lambda: bool(bench.observer.upload_failures))
        assert bench.recorder.readiness().is_ready, "the spool has room"
        assert "sink" in str(bench.recorder.readiness().warnings)
        assert bench.observer.upload_failures[0][1] == "unreachable"
        bench.record(60)
        bench.wait(lambda: not bench.recorder.readiness().is_ready)
        with pytest.raises(RecorderUnavailable) as caught:
            bench.recorder.reserve(TENANT)
        assert caught.value.reason is UnavailableReason.NO_SPACE
        assert len(list((tmp_path / "spool").glob("*.crec"))) == 2, "nothing was deleted"
        assert not bench.recorder.stop(5)

        again = started(benches(sink))  # it starts without the store, too
        assert again.recorder.readiness().is_ready
        again.record(1)
        server.start_gateway()
        again.wait(lambda: len(again.observer.uploads) == 3, 90)
        assert again.recorder.stop(10)
        assert {entry.state for entry in again.entries()} == {IndexState.COMPLETE}
        assert sorted(len(again.audio(entry)) // SECOND for entry in again.entries()) == [1, 20, 60]
        assert list((tmp_path / "spool").iterdir()) == []


def test_recover_stores_what_a_dead_process_left(
    rgw: RGW, benches: Callable[..., Bench], tmp_path: Path
) -> None:
    denied = rgw_settings(rgw, tmp_path, bucket="no-such-bucket", object_lock_mode=None)
    bench = benches(denied)
    with pytest.raises(SinkRefusedError) as caught:
        bench.recorder.start()
    assert caught.value.reason_label == "bucket"
    bench.recorder.stop(5)

    bench = started(benches(rgw_settings(rgw, tmp_path)))
    bench.recorder._sink.put = lambda source, name: _away()  # type: ignore[method-assign]  # this process only
    bench.record(2)
    bench.wait(lambda: bool(bench.observer.upload_failures))
    assert not bench.recorder.stop(2)
    (file,) = recover(bench.settings).files
    assert file.is_stored
    assert bench.audio(file.entry) == pcm(0) + pcm(1)
    assert recover(bench.settings).files == ()


def _away() -> int:
    raise SinkUnavailableError("away")


def test_a_bucket_without_object_lock_is_refused_where_it_is_asked_for(
    rgw: RGW, benches: Callable[..., Bench], tmp_path: Path
) -> None:
    plain = rgw_settings(rgw, tmp_path, locked=False)
    bench = benches(replace(plain, object_lock_mode=LockMode.GOVERNANCE))
    with pytest.raises(LockNotInForceError, match="Object Lock"):
        bench.recorder.start()
    S3Sink(plain).health()
    S3Sink(rgw_settings(rgw, tmp_path)).health()


def test_credentials_are_read_again_when_they_change(rgw: RGW, tmp_path: Path) -> None:
    settings = rgw_settings(rgw, tmp_path)
    assert settings.credentials_path is not None
    good = settings.credentials_path.read_text()
    sink = S3Sink(settings)
    sink.health()
    wrong = Credentials(access_key=rgw.owner.access_key, secret_key="wrong")
    settings.credentials_path.write_text(good.replace(rgw.owner.secret_key, wrong.secret_key))
    with pytest.raises(SinkRefusedError) as caught:
        sink.health()
    assert caught.value.reason_label == "credentials"
    settings.credentials_path.write_text(good)
    sink.health()


WRITE_ONLY_OBJECT = (
    "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:PutObjectRetention",
    "s3:GetObjectRetention",
)  # fmt: skip
WRITE_ONLY_BUCKET = (
    "s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketVersioning",
    "s3:GetBucketObjectLockConfiguration",
)  # fmt: skip
NEVER = (
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:PutObjectAcl",
)


@pytest.fixture
def write_only(rgw: RGW) -> Iterator[None]:
    """The uploader may do what a recorder needs and no more; a grant it does not need would hide a need."""
    principal = {"AWS": ["arn:aws:iam:::user/uploader"]}
    bucket, objects = f"arn:aws:s3:::{LOCKED_BUCKET}", f"arn:aws:s3:::{LOCKED_BUCKET}/*"
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": principal,
                "Action": list(WRITE_ONLY_OBJECT),
                "Resource": [objects],
            },
            {
                "Effect": "Allow",
                "Principal": principal,
                "Action": list(WRITE_ONLY_BUCKET),
                "Resource": [bucket],
            },
            {"Effect": "Deny", "Principal": principal, "Action": list(NEVER), "Resource": [objects]},
        ],
    }
    client = rgw.client(rgw.owner)
    client.put_bucket_policy(Bucket=LOCKED_BUCKET, Policy=json.dumps(policy))
    yield
    client.delete_bucket_policy(Bucket=LOCKED_BUCKET)


@pytest.mark.usefixtures("write_only")
def test_a_recorder_that_may_neither_read_nor_delete_does_all_its_work(
    rgw: RGW, benches: Callable[..., Bench], tmp_path: Path
) -> None:
    owner = rgw_settings(rgw, tmp_path / "owner", object_lock_days=1)
    sink = rgw_settings(
        rgw,
        tmp_path / "uploader",
        credentials=rgw.uploader,
        prefix=owner.prefix,
        object_lock_days=1,
        acl=CannedACL.BUCKET_OWNER_FULL_CONTROL,
    )
    bench = started(benches(sink))
    bench.record(2)
    bench.record(LONG_S)
    assert bench.recorder.stop(30)
    assert list((tmp_path / "spool").iterdir()) == []
    for entry in bench.entries():
        assert entry.state is IndexState.COMPLETE
        assert entry.object_key is not None
        assert S3Sink(sink).size(entry.object_key) == entry.size_bytes
        for operation in (S3Sink(sink).open, S3Sink(sink).delete):
            with pytest.raises(SinkRefusedError):
                operation(entry.object_key)
    reader = Bench(tmp_path, owner)
    for entry in bench.entries():
        assert len(reader.audio(entry)) in (2 * SECOND, LONG_S * SECOND)
        assert S3Sink(owner).retention(str(entry.object_key)).until is not None
