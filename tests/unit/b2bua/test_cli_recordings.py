"""`b2bua recordings` over recordings made by the recorder itself: whole, cut, altered, foreign, without a key."""

from __future__ import annotations

import json
import os
import secrets
import stat
import wave
from dataclasses import replace
from pathlib import Path

import pytest

from b2bua.cli.main import main
from b2bua.initialise import InitOptions
from recording.index import IndexState, RecordingIndex
from recording.keys.local import create_kek
from recording.settings import Layout
from recording.spool_state import make_spool_directory, segment_path, write_state
from support import spooled
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration
from support.recorded import CALLED, CALLER, RATE_HZ, record_call


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "lab")
    made.replace("[keys.dev]", "fsync_interval_ms = 50\n[keys.dev]")
    return made


@pytest.fixture
def split(tmp_path: Path) -> ConfigurationFile:
    return make_configuration(tmp_path / "split", InitOptions(layout=Layout.SPLIT))


REASON = ("--reason", "test")
DEFAULTS = {"show": REASON, "verify": REASON, "export": REASON}
"""Arguments that every command of that name gets."""


class Command:
    """Runs `b2bua recordings` with a configuration."""

    def __init__(self, file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self.capsys = capsys
        self.code = 0
        self.err = ""

    def __call__(self, *words: str) -> str:
        more = [*words, *DEFAULTS.get(words[0], ())]
        self.code = main(["recordings", more[0], "-c", str(self.file.path), *more[1:]])
        captured = self.capsys.readouterr()
        self.err = captured.err
        return captured.out

    def json(self, *words: str) -> dict[str, list[dict[str, object]]]:
        found: dict[str, list[dict[str, object]]] = json.loads(self(*words, "--json"))
        return found


@pytest.fixture
def run(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(file, capsys)


def stored(file: ConfigurationFile) -> Path:
    (path,) = (file.made.directory / "recordings").rglob("*.crec")
    return path


# --- list and show


def test_list_before_anything_was_recorded(run: Command, file: ConfigurationFile) -> None:
    assert run.json("list") == {"recordings": [], "more": False}
    assert run.code == 0
    assert "there is no index" in run.err
    assert not (file.made.directory / "recordings-index.sqlite").exists(), "reading makes no index"


def test_list_names_every_recording_and_filters(run: Command, file: ConfigurationFile) -> None:
    one, other = (record_call(file.load()) for _ in range(2))
    rows = run.json("list")["recordings"]
    assert {row["file_id"] for row in rows} == {one.file_id, other.file_id}
    assert {row["state"] for row in rows} == {"complete"}
    assert [row["file_id"] for row in run.json("list", "--call", one.call_uid)["recordings"]] == [one.file_id]
    assert run.json("list", "--state", "incomplete")["recordings"] == []
    assert len(run.json("list", "--limit", "1")["recordings"]) == 1
    table = run("list")
    assert one.file_id in table
    assert one.call_uid in table


def test_show_tells_what_happened_but_no_number_unless_asked(run: Command, file: ConfigurationFile) -> None:
    call = record_call(file.load(), seconds=2)
    (facts,) = run.json("show", call.call_uid)["segments"]
    assert facts["frames"] == 2 * RATE_HZ
    assert facts["trunk_a"] == "caller"
    assert facts["reason"] == "caller_hung_up"
    assert facts["events"] == [{"event": "answered", "position": 1600, "frames": None}]
    text = run("show", call.file_id)
    assert "answered" in text
    for number in (CALLER, CALLED, "example.test"):
        assert number not in json.dumps(facts)
        assert number not in text
    (facts,) = run.json("show", call.call_uid, "--parties")["segments"]
    assert (facts["from"], facts["to"]) == (CALLER, CALLED)
    assert facts["sip_call_ids"] == ["a@caller.example.test", "b@callee.example.test"]


def test_an_unknown_id_is_an_error(run: Command, file: ConfigurationFile) -> None:
    call = record_call(file.load())
    run("show", secrets.token_hex(16))
    assert run.code == 77
    assert "index knows no such id" in run.err
    run("show", call.file_id)
    assert run.code == 0


# --- verify


def test_a_whole_recording_verifies(run: Command, file: ConfigurationFile) -> None:
    call = record_call(file.load(), seconds=2)
    (row,) = run.json("verify", call.file_id)["recordings"]
    assert (row["state"], row["audio_bytes"], row["exit_code"]) == ("complete", len(call.pcm), 0)
    assert run.code == 0
    run("verify", "--all")
    assert run.code == 0


def test_a_recording_that_was_not_finished_is_incomplete(run: Command, file: ConfigurationFile) -> None:
    call = record_call(file.load(), finished=False)
    (row,) = run.json("verify", call.file_id)["recordings"]
    assert row["state"] == "incomplete"
    assert run.code == 27
    assert "incomplete" in run.err


def test_a_flipped_bit_is_corrupt_and_the_index_learns_of_it(run: Command, file: ConfigurationFile) -> None:
    call = record_call(file.load(), seconds=3)
    path = stored(file)
    data = bytearray(path.read_bytes())
    data[-3 * 8208] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    (row,) = run.json("verify", call.file_id)["recordings"]
    assert row["state"] == "corrupt"
    assert row["records"] != 0, "the records before the damage are authentic"
    assert run.code == 26
    assert str(path.relative_to(file.made.directory / "recordings")) in run.err
    assert [row["file_id"] for row in run.json("list", "--state", "corrupt")["recordings"]] == [call.file_id]


def test_a_verdict_with_the_key_raises_what_the_index_said_without_one(
    run: Command, file: ConfigurationFile
) -> None:
    call = record_call(file.load())
    index = RecordingIndex(file.load().recording.index_path)
    entry = index.get(call.file_ids[0])
    assert entry is not None
    index.put([replace(entry, state=IndexState.INCOMPLETE)])
    run("verify", call.file_id)
    raised = index.get(call.file_ids[0])
    index.close()
    assert raised is not None
    assert raised.state is IndexState.COMPLETE


def test_one_bad_recording_does_not_hide_the_others(
    run: Command, file: ConfigurationFile, tmp_path: Path
) -> None:
    call = record_call(file.load())
    foreign = tmp_path / "song.crec"
    foreign.write_bytes(b"RIFF" * 1000)
    rows = run.json("verify", str(foreign), call.file_id)["recordings"]
    assert [row["state"] for row in rows] == ["unreadable", "complete"]
    assert run.code == 22
    assert str(foreign) in run.err


def test_a_cut_file_by_its_path(run: Command, file: ConfigurationFile, tmp_path: Path) -> None:
    record_call(file.load(), seconds=3)
    whole = stored(file).read_bytes()
    copy = tmp_path / "copy.crec"
    copy.write_bytes(whole)
    run("verify", str(copy))
    assert run.code == 0
    copy.write_bytes(whole[:-5000])
    run("verify", str(copy))
    assert run.code == 27


def test_another_key_opens_nothing_and_says_so(run: Command, file: ConfigurationFile) -> None:
    call = record_call(file.load())
    kept = file.made.kek.rename(file.made.kek.with_suffix(".kept"))
    create_kek(file.made.kek)
    (row,) = run.json("verify", call.file_id)["recordings"]
    assert row["state"] == "unreadable"
    assert run.code == 24, "no slot names the new key"
    assert "no slot names a configured key" in run.err
    kept.replace(file.made.kek)
    run("verify", call.file_id)
    assert run.code == 0


def test_a_file_that_is_gone_is_said_to_be_gone(run: Command, file: ConfigurationFile) -> None:
    call = record_call(file.load())
    stored(file).unlink()
    (row,) = run.json("verify", call.file_id)["recordings"]
    assert row["state"] == "unreadable"
    assert run.code == 77
    assert "neither in the store nor in this machine's spool" in run.err


@pytest.mark.parametrize("words", [[], ["--all", "x"]])
def test_verify_wants_names_or_all(run: Command, words: list[str]) -> None:
    run("verify", *words)
    assert run.code == 77


# --- export


def frames_of(path: Path) -> tuple[int, bytes]:
    with wave.open(str(path), "rb") as audio:
        assert (audio.getframerate(), audio.getsampwidth()) == (RATE_HZ, 2)
        return audio.getnchannels(), audio.readframes(audio.getnframes())


def test_export_gives_back_the_audio_in_a_private_file(
    run: Command, file: ConfigurationFile, tmp_path: Path
) -> None:
    call = record_call(file.load(), seconds=1.5)
    out = tmp_path / "call.wav"
    found: dict[str, object] = dict(run.json("export", "--plaintext", call.call_uid, "-o", str(out)))
    assert frames_of(out) == (1, call.pcm)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert found["complete"] is True
    assert found["frames"] == len(call.pcm) // 2


def test_export_to_standard_output(
    file: ConfigurationFile, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    call = record_call(file.load())
    words = ["recordings", "export", "-c", str(file.path), call.file_id, "-o", "-", "--plaintext", *REASON]
    assert main(words) == 0
    out = tmp_path / "piped.wav"
    out.write_bytes(capfdbinary.readouterr().out)
    assert frames_of(out) == (1, call.pcm)


def test_export_of_one_party(
    split: ConfigurationFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = record_call(split.load())
    run = Command(split, capsys)
    for name, first in (("caller", 0), ("called", 1)):
        out = tmp_path / f"{name}.wav"
        run("export", "--plaintext", call.file_id, "-o", str(out), "--channel", name)
        assert run.code == 0
        samples = memoryview(call.pcm).cast("h")[first::2]
        assert frames_of(out) == (1, samples.tobytes())


def test_export_never_overwrites_without_force(run: Command, file: ConfigurationFile, tmp_path: Path) -> None:
    call = record_call(file.load())
    out = tmp_path / "call.wav"
    out.write_text("mine")
    run("export", "--plaintext", call.file_id, "-o", str(out))
    assert run.code == 32
    assert "--force" in run.err
    assert out.read_text() == "mine"
    assert not [line for line in sealed_lines(file.path) if line["event"] == "export_plaintext"]
    run("export", "--plaintext", call.file_id, "-o", str(out), "--force")
    assert run.code == 0
    assert frames_of(out) == (1, call.pcm)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".wav"] == ["call.wav"]


def test_force_keeps_the_old_file_when_the_export_fails(
    run: Command, file: ConfigurationFile, tmp_path: Path
) -> None:
    call = record_call(file.load(), finished=False)
    out = tmp_path / "call.wav"
    out.write_text("mine")
    run("export", "--plaintext", call.file_id, "-o", str(out), "--force")
    assert run.code == 27
    assert out.read_text() == "mine"


def test_a_damaged_recording_is_exported_only_when_asked_and_still_fails(
    run: Command, file: ConfigurationFile, tmp_path: Path
) -> None:
    call = record_call(file.load(), seconds=2, finished=False)
    out = tmp_path / "call.wav"
    run("export", "--plaintext", call.file_id, "-o", str(out))
    assert run.code == 27
    assert not out.exists()
    run("export", "--plaintext", call.file_id, "-o", str(out), "--allow-partial")
    assert run.code == 27
    assert "damaged" in run.err
    _, pcm = frames_of(out)
    assert pcm
    assert call.pcm.startswith(pcm)


def test_audio_and_json_do_not_share_standard_output(run: Command, file: ConfigurationFile) -> None:
    call = record_call(file.load())
    assert run("export", "--plaintext", call.file_id, "-o", "-", "--json") == ""
    assert run.code == 77


def test_a_directory_that_is_not_there(run: Command, file: ConfigurationFile, tmp_path: Path) -> None:
    call = record_call(file.load())
    run("export", "--plaintext", call.file_id, "-o", str(tmp_path / "none" / "call.wav"))
    assert run.code == 77
    assert "No such file" in run.err


def test_reading_is_audited_by_file_and_reason_alone(
    run: Command, file: ConfigurationFile, tmp_path: Path
) -> None:
    call = record_call(file.load())
    run("list")
    assert sealed_lines(file.path) == [], "the index holds nothing sealed"
    run("verify", call.file_id)
    run("show", call.file_id, "--parties", "--ticket", "QA-1234")
    run("export", "--plaintext", call.file_id, "-o", str(tmp_path / "call.wav"))
    lines = sealed_lines(file.path)
    told = [(line["event"], line["action"], line["reason"], line.get("ticket")) for line in lines]
    assert told == [
        ("recording_read", "verify", "test", None),
        ("recording_read", "show", "test", "QA-1234"),
        ("export_plaintext", "export", "test", None),
        ("recording_read", "export", "test", None),
    ]
    for line in lines:
        assert (line["file_id"], line["call_uid"], line["uid"]) == (call.file_id, call.call_uid, os.getuid())
        known = {"at", "event", "call_uid", "tenant_handle", "reason", "action", "ticket", "uid", "file_id"}
        assert set(line) <= known


# --- recover


def test_recover_keeps_every_whole_record_and_needs_no_key(run: Command, file: ConfigurationFile) -> None:
    recording = file.load().recording
    make_spool_directory(recording.spool_directory)
    segment = spooled.make_segment(finished=False)
    path = segment_path(recording.spool_directory, segment.file_id)
    path.write_bytes(segment.content + b"ragged")
    write_state(recording.spool_directory, segment.state(call_uid=secrets.token_hex(16)))
    file.made.kek.write_bytes(secrets.token_bytes(32))  # whatever key there is: it is of no use here
    (row,) = run.json("recover")["files"]
    assert run.code == 0
    assert (row["state"], row["records"], row["problem"]) == ("incomplete", len(segment.records), None)
    assert stored(file).read_bytes() == segment.content
    assert run.json("recover") == {"files": []}
    assert [each["state"] for each in run.json("list")["recordings"]] == ["incomplete"]


def test_recover_reports_what_it_could_not_store(run: Command, file: ConfigurationFile) -> None:
    recording = file.load().recording
    make_spool_directory(recording.spool_directory)
    segment = spooled.make_segment()
    segment_path(recording.spool_directory, segment.file_id).write_bytes(b"RIFF" * 3000)
    write_state(recording.spool_directory, segment.state(call_uid=secrets.token_hex(16)))
    (row,) = run.json("recover")["files"]
    assert "left alone" in str(row["problem"])
    assert run.code == 77
    assert segment.file_id.hex() in run.err
