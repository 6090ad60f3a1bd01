"""Each thing that the report looks at is broken, and its row is found to say so; the rows beside it stay."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from b2bua.journal.head import NAME as HEAD
from b2bua.journal.segment import segment_names
from b2bua.posture.audit import ask_audit
from b2bua.posture.policy import policy_rows
from b2bua.posture.probing import run_probes
from b2bua.posture.report import Level
from b2bua.posture.run import probes_of
from b2bua.posture.sink import ask_sink
from b2bua.posture.storage import ask_files, ask_index, ask_spool
from b2bua.settings import PauseCodes, Settings
from support.configuration import make_configuration
from support.posture import find, write_audit
from support.recorded import record_call


@pytest.fixture
def recorded(tmp_path: Path) -> Settings:
    """A deployment with a recording in it."""
    settings = make_configuration(tmp_path / "lab").load()
    record_call(settings)
    return settings


def test_an_index_that_is_gone_is_not_taken_for_one_that_never_was(recorded: Settings) -> None:
    for path in recorded.recording.index_path.parent.glob(f"{recorded.recording.index_path.name}*"):
        path.unlink()
    row = find(ask_index(recorded.recording), "recordings.states")
    assert row.level is Level.ALARM
    assert "index restore" in row.finding
    shutil.rmtree(recorded.recording.directory)
    assert find(ask_index(recorded.recording), "recordings.states").level is Level.OK


def test_an_index_that_cannot_be_read_hides_no_other_row(recorded: Settings) -> None:
    recorded.recording.index_path.write_bytes(b"x" * 4096)
    wanted = ("recordings.states", "own-keys", "index-keys")
    rows = run_probes([probe for probe in probes_of(recorded) if probe.key in wanted])
    assert find(rows, "recordings.states").level is Level.UNKNOWN
    assert find(rows, "index-keys").level is Level.UNKNOWN
    assert find(rows, "recordings.signed").level is Level.OK
    assert [row for row in rows if row.key.startswith("age.signing.")]


def test_a_store_that_is_gone_is_an_alarm_and_stays_gone(recorded: Settings) -> None:
    store = recorded.recording.directory
    assert find(ask_sink(recorded.recording), "sink.health").level is Level.OK
    shutil.rmtree(store)
    row = find(ask_sink(recorded.recording), "sink.health")
    assert row.level is Level.ALARM
    assert "the newest segment" in row.finding
    assert not store.exists()
    store.mkdir()  # as a mount point without its file system
    assert find(ask_sink(recorded.recording), "sink.health").level is Level.ALARM


def test_a_store_that_no_recording_went_to_yet_is_no_fault(tmp_path: Path) -> None:
    settings = make_configuration(tmp_path / "lab").load()
    row = find(ask_sink(settings.recording), "sink.health")
    assert row.level is Level.OK
    assert "is made with the first recording" in row.finding


@pytest.mark.parametrize(("factor", "level"), [(0.25, Level.OK), (0.75, Level.ATTENTION), (2, Level.ALARM)])
def test_a_spool_without_room_is_seen_before_calls_are_refused(
    recorded: Settings, factor: float, level: Level
) -> None:
    free = shutil.disk_usage(recorded.recording.spool_directory).free
    recording = dataclasses.replace(recorded.recording, min_free_bytes=int(free * factor))
    assert find(ask_spool(recording), "recordings.space").level is level


@pytest.mark.parametrize("what", ["control", "log"])
def test_a_directory_that_others_may_enter_is_named(recorded: Settings, tmp_path: Path, what: str) -> None:
    place = tmp_path / "loose"
    place.mkdir(mode=0o700)
    changed = {
        "control": {"control": dataclasses.replace(recorded.control, socket=place / "control.sock")}
        if recorded.control
        else {},
        "log": {"log": dataclasses.replace(recorded.log, directory=place, key_name="log")},
    }[what]
    settings = dataclasses.replace(recorded, **changed)  # type: ignore[arg-type]
    assert find(ask_files(settings), "files.data").level is Level.OK
    place.chmod(0o755)
    row = find(ask_files(settings), "files.data")
    assert row.level is Level.ATTENTION
    assert f"{place} has mode 0755" in row.finding


def test_who_may_pause_is_told_and_digits_need_attention(recorded: Settings) -> None:
    row = find(policy_rows(recorded), "recording.pauses")
    assert row.level is Level.OK
    assert row.finding == "can be paused by command, for 300 s at a time; each is audited"
    nobody = dataclasses.replace(recorded, control=None)
    assert find(policy_rows(nobody), "recording.pauses").finding == "nobody can pause one"
    caller = dataclasses.replace(recorded.trunks["caller"], pause_codes=PauseCodes(pause="*71", resume="*72"))
    codes = dataclasses.replace(recorded, trunks={**recorded.trunks, "caller": caller})
    row = find(policy_rows(codes), "recording.pauses")
    assert row.level is Level.ATTENTION
    assert "by digits on caller" in row.finding
    assert "*71" not in row.finding


def test_a_file_taken_out_of_the_audit_log_is_an_alarm(recorded: Settings) -> None:
    names = segment_names(write_audit(recorded, files=3))
    assert find(ask_audit(recorded), "audit.sealed").level is Level.OK
    names[1].path.unlink()
    row = find(ask_audit(recorded), "audit.sealed")
    assert row.level is Level.ALARM
    assert row.finding == "1 files are missing in between"


def test_a_damaged_head_of_the_audit_log_is_an_alarm_and_hides_no_other_row(recorded: Settings) -> None:
    (write_audit(recorded) / HEAD).write_bytes(b"junk")
    rows = ask_audit(recorded)
    assert find(rows, "audit.sealed").level is Level.ALARM
    assert find(rows, "audit.place").level is Level.OK
    assert find(rows, "exports.sealed").level is Level.OK
