"""`recordings verify` with manifests: signed, unsigned or wrong, and a cut in storage told from a crash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from b2bua.cli.main import main
from recording.format.manifest import MANIFEST_SUFFIX, MANIFEST_TYPE, Manifest, ManifestState
from recording.settings import RecordingSettings
from recording.signing import create_signing_key, public_path
from recording.spool_state import make_spool_directory, segment_path, write_state
from recording.voucher import build_verifier
from support import spooled
from support.configuration import ConfigurationFile, make_configuration
from support.recorded import RecordedCall, record_call

RECORD = 8192 + 16


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "lab")
    made.replace("[keys.dev]", "fsync_interval_ms = 50\n[keys.dev]")
    return made


@pytest.fixture
def call(file: ConfigurationFile) -> RecordedCall:
    return record_call(file.load())


def stored(file: ConfigurationFile) -> Path:
    (path,) = (file.made.directory / "recordings").rglob("*.crec")
    return path


def manifest_of(settings: RecordingSettings, path: Path) -> Manifest:
    token = path.with_suffix(MANIFEST_SUFFIX).read_bytes()
    payload, why = build_verifier(settings).verify(token, typ=MANIFEST_TYPE)
    assert payload is not None, why
    return Manifest.parse(payload)


class Verify:
    """Runs `b2bua recordings verify --all` with a configuration."""

    def __init__(self, file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self.capsys = capsys
        self.code = 0

    def __call__(self) -> dict[str, Any]:
        self.code = main(
            ["recordings", "verify", "-c", str(self.file.path), "--all", "--reason", "test", "--json"]
        )
        (found,) = json.loads(self.capsys.readouterr().out)["recordings"]
        assert isinstance(found, dict)
        return found


@pytest.fixture
def verify(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> Verify:
    return Verify(file, capsys)


@pytest.mark.usefixtures("call")
def test_a_recording_is_signed_as_it_was_written(file: ConfigurationFile, verify: Verify) -> None:
    found = verify()
    assert (verify.code, found["state"], found["manifest"], found["detail"]) == (
        0,
        "complete",
        "signed",
        None,
    )
    manifest = manifest_of(file.load().recording, stored(file))
    content = stored(file).read_bytes()
    assert manifest.sha256 == hashlib.sha256(content).digest()
    assert (manifest.size_bytes, manifest.records) == (len(content), found["records"])
    assert manifest.state is ManifestState.COMPLETE
    assert manifest.file_id.hex() == stored(file).stem


@pytest.mark.usefixtures("call")
def test_a_cut_in_storage_is_named_as_such(file: ConfigurationFile, verify: Verify) -> None:
    path = stored(file)
    path.write_bytes(path.read_bytes()[:-RECORD])
    found = verify()
    assert (found["state"], found["manifest"]) == ("incomplete", "wrong")
    assert "cut in storage" in found["detail"]
    assert "left it complete" in found["detail"]
    assert verify.code == 26


@pytest.mark.usefixtures("call")
def test_a_cut_shows_by_the_index_where_the_manifest_was_taken_too(
    file: ConfigurationFile, verify: Verify
) -> None:
    path = stored(file)
    path.write_bytes(path.read_bytes()[:-RECORD])
    path.with_suffix(MANIFEST_SUFFIX).unlink()
    records = (path.stat().st_size - 4096) // RECORD + 1
    for _ in range(2):  # having said it once it still knows
        found = verify()
        assert (found["state"], found["manifest"], verify.code) == ("incomplete", "unsigned", 27)
        assert f"the index has it with {records} records" in found["detail"]


@pytest.mark.usefixtures("call")
def test_what_no_record_shows_the_manifest_does(file: ConfigurationFile, verify: Verify) -> None:
    """The generation of the slots is not covered by the commitment."""
    path = stored(file)
    content = bytearray(path.read_bytes())
    content[96 + 32 + 4] ^= 1
    path.write_bytes(content)
    found = verify()
    assert (verify.code, found["state"], found["manifest"]) == (26, "complete", "wrong")
    assert "altered in storage" in found["detail"]


@pytest.mark.usefixtures("call")
def test_without_a_manifest_it_is_unsigned(file: ConfigurationFile, verify: Verify) -> None:
    stored(file).with_suffix(MANIFEST_SUFFIX).unlink()
    found = verify()
    assert (verify.code, found["state"], found["manifest"]) == (0, "complete", "unsigned")


@pytest.mark.usefixtures("call")
def test_a_manifest_by_another_key_is_wrong_until_that_key_is_named(
    file: ConfigurationFile, verify: Verify
) -> None:
    key = file.made.directory / "keys" / "signing.pem"
    key.rename(key.with_name("former.pem"))
    public_path(key).rename(key.with_name("former.pub"))
    create_signing_key(key)
    found = verify()
    assert (verify.code, found["manifest"]) == (26, "wrong")
    assert "not configured" in found["detail"]
    file.replace('signing_key = "keys/signing.pem"', 'verification_keys = ["keys/former.pub"]')
    assert verify()["manifest"] == "signed"
    assert verify.code == 0


def test_a_recorder_without_a_key_signs_nothing(file: ConfigurationFile, verify: Verify) -> None:
    file.replace('signing_key = "keys/signing.pem"', "")
    record_call(file.load())
    assert not stored(file).with_suffix(MANIFEST_SUFFIX).exists()
    assert verify()["manifest"] == "unsigned"


@pytest.mark.parametrize(("is_finished", "state"), [(False, "incomplete"), (True, "complete")])
def test_what_is_recovered_is_read_and_signed(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str], is_finished: bool, state: str
) -> None:
    recording = file.load().recording
    make_spool_directory(recording.spool_directory)
    segment = spooled.make_segment(finished=is_finished)
    path = segment_path(recording.spool_directory, segment.file_id)
    path.write_bytes(segment.content + b"" if is_finished else segment.content + b"ragged")
    ended = len(segment.records) if is_finished else None
    write_state(recording.spool_directory, segment.state(ended=ended, previous=b"P" * 16))
    assert main(["recordings", "recover", "-c", str(file.path)]) == 0
    capsys.readouterr()
    manifest = manifest_of(recording, stored(file))
    assert manifest.state.value == state
    assert manifest.sha256 == hashlib.sha256(segment.content).digest()
    assert (manifest.previous, manifest.records) == (b"P" * 16, len(segment.records))


def test_a_recovery_that_stopped_after_the_object_goes_on_with_its_manifest(
    file: ConfigurationFile, call: RecordedCall, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = file.load().recording
    path = stored(file)
    path.with_suffix(MANIFEST_SUFFIX).unlink()
    segment = spooled.make_segment()
    hour = spooled.HOUR
    target = recording.directory / segment.state(file_id=bytes.fromhex(call.file_id)).object_name.key
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    state = segment.state(file_id=bytes.fromhex(call.file_id), started_hour=hour, ended=1)
    write_state(recording.spool_directory, state)
    assert main(["recordings", "recover", "-c", str(file.path)]) == 0
    capsys.readouterr()
    manifest = manifest_of(recording, target)
    assert manifest.sha256 == hashlib.sha256(target.read_bytes()).digest()
    assert manifest.state is ManifestState.INCOMPLETE, "one record was to be there"
