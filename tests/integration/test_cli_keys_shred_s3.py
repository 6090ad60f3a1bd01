"""`b2bua keys shred` over a bucket with Object Lock, on a real server: what the store must keep stays readable."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recording.settings import S3SinkSettings
from recording.sinks.s3 import S3Sink
from support.keys_lab import KeysLab
from support.rgw import RGW
from support.s3 import rgw_settings

IN_USE = 113
SHRED = ("keys", "shred", "clinic", "--yes", "--reason", "ticket-17")


def section(sink: S3SinkSettings) -> str:
    return (
        f'\n[recording.sink]\nkind = "s3"\nbucket = "{sink.bucket}"\nregion = "{sink.region}"\n'
        f'endpoint_url = "{sink.endpoint_url}"\nca = "{sink.ca_path}"\nprefix = "{sink.prefix}"\n'
        f'credentials_file = "{sink.credentials_path}"\nobject_lock_mode = "GOVERNANCE"\n\n'
    )


@pytest.mark.parametrize("kept_by", ["retention", "hold"])
def test_what_the_store_keeps_keeps_its_key(
    rgw: RGW, tmp_path: Path, capsys: pytest.CaptureFixture[str], kept_by: str
) -> None:
    """By a word that no index has: another node's, or a lost one's."""
    lab = KeysLab(tmp_path / "lab", capsys)
    settings = rgw_settings(rgw, tmp_path / "sink")
    lab.file.replace("[keys.next]", section(settings) + "[keys.next]")
    (call,) = lab.record(1)
    lab.take_off()
    with closing(lab.index()) as index:
        (entry,) = index.find()
    assert entry.object_key is not None
    sink = S3Sink(settings)
    if kept_by == "hold":
        sink.set_hold(entry.object_key, is_held=True)
    else:
        sink.extend_retention(entry.object_key, datetime.now(UTC) + timedelta(hours=1))
    assert lab.run(*SHRED) == IN_USE
    assert call.file_id in lab.err
    assert "the store keeps 1 files" in lab.err
    assert (lab.keys / "dev.kek").exists()
    if kept_by == "hold":
        sink.set_hold(entry.object_key, is_held=False)
        assert lab.run(*SHRED) == 0, lab.err
        assert not (lab.keys / "dev.kek").exists()
