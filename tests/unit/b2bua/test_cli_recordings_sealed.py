"""`b2bua recordings export`: to whom, for what reason, which part; and recordings of several segments."""

from __future__ import annotations

import json
import secrets
import stat
import wave
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from b2bua.cli.access import AccessReason
from b2bua.cli.main import main
from b2bua.settings import Settings
from recording.cms import parse_recipient
from recording.format.content import RecordingMeta
from recording.index import IndexState, RecordingIndex
from recording.keys.build import build_providers
from recording.observer import SilentObserver
from recording.recorder import Recorder, TenantKey
from recording.sinks.local import LocalSink
from recording.spool_state import segment_path
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration
from support.recipients import DAY, NOW, RecipientFiles, make_recipient
from support.recorded import RATE_HZ, RecordedCall, record_call, tone

KEY = ec.generate_private_key(ec.SECP256R1())
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "lab")
    made.replace("[keys.dev]", "fsync_interval_ms = 50\nsegment_seconds = 10\n[keys.dev]")
    return made


@pytest.fixture
def run(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[int, str, str]:
        code = main(["recordings", words[0], "-c", str(file.path), *words[1:], "--reason", "complaint"])
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def recipient(tmp_path: Path) -> RecipientFiles:
    return make_recipient(tmp_path, "doctor", KEY)


def samples(path: Path) -> bytes:
    with wave.open(str(path), "rb") as audio:
        return audio.readframes(audio.getnframes())


def index_of(file: ConfigurationFile) -> RecordingIndex:
    return RecordingIndex(file.load().recording.index_path)


# --- to whom


def test_an_export_says_who_may_read_it(run: Run, file: ConfigurationFile, tmp_path: Path) -> None:
    call = record_call(file.load())
    out = tmp_path / "call.wav"
    for words in ((), ("--plaintext", "--recipient", str(tmp_path / "x.pem"))):
        code, _, err = run("export", call.call_uid, "-o", str(out), *words)
        assert code == 77
        assert "--recipient" in err
        assert "--plaintext" in err
        assert not out.exists()
    assert sealed_lines(file.path) == [], "nothing was read"
    assert run("export", call.call_uid, "-o", str(out), "--plaintext")[0] == 0


def test_a_sealed_export_is_opened_by_openssl_alone(
    run: Run, file: ConfigurationFile, tmp_path: Path, recipient: RecipientFiles
) -> None:
    call = record_call(file.load(), seconds=25)
    other = make_recipient(tmp_path, "other", rsa.generate_private_key(65537, 2048))
    out = tmp_path / "call.wav.p7m"
    seal = ["--recipient", str(recipient.certificate), "--recipient", str(other.certificate)]
    code, printed, _ = run("export", call.call_uid, "-o", str(out), "--json", *seal)
    assert code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    prints = [
        parse_recipient(each.certificate.read_bytes(), now=NOW).fingerprint for each in (recipient, other)
    ]
    assert json.loads(printed)["sealed_to"] == prints
    for each in (recipient, other):
        plain = tmp_path / "plain.wav"
        assert each.open(out, plain).returncode == 0
        assert samples(plain) == call.pcm
    lines = sealed_lines(file.path)
    assert [line["fingerprint"] for line in lines if line["event"] == "export_sealed"] == prints
    read = [line["file_id"] for line in lines if line["event"] == "recording_read"]
    assert sorted(read) == sorted(file_id.hex() for file_id in call.file_ids), "each once"


@pytest.mark.parametrize("why", ["expired", "certification authority"])
def test_a_bad_recipient_is_refused_and_a_good_one_is_not(
    run: Run, file: ConfigurationFile, tmp_path: Path, recipient: RecipientFiles, why: str
) -> None:
    call = record_call(file.load())
    changes = {"start": NOW - 2 * DAY, "end": NOW - DAY} if why == "expired" else {"ca": True}
    bad = make_recipient(tmp_path, "bad", KEY, **changes)  # type: ignore[arg-type]
    out = str(tmp_path / "call.p7m")
    code, _, err = run("export", call.call_uid, "-o", out, "--recipient", str(bad.certificate))
    assert (code, why in err, "bad.pem" in err) == (107, True, True)
    assert not Path(out).exists()
    assert run("export", call.call_uid, "-o", out, "--recipient", str(recipient.certificate))[0] == 0
    assert run("export", call.call_uid, "-o", out, "--recipient", str(tmp_path / "none"))[0] == 77


# --- for what reason


@pytest.mark.parametrize("command", [["show"], ["verify"], ["export", "-o", "x.wav", "--plaintext"]])
@pytest.mark.parametrize("reason", [[], ["--reason", "john.smith"], ["--reason", "4915112345678"]])
def test_nothing_is_decrypted_without_a_reason_of_the_list(
    file: ConfigurationFile, tmp_path: Path, command: list[str], reason: list[str]
) -> None:
    call = record_call(file.load())
    with pytest.raises(SystemExit) as ended:
        main(["recordings", command[0], "-c", str(file.path), call.call_uid, *command[1:], *reason])
    assert ended.value.code == 2
    assert sealed_lines(file.path) == []


@pytest.mark.parametrize("ticket", ["QA-1234567", "SMITH-1", "qa-1", "QA1234", "+49-151", "QA-"])
def test_a_ticket_has_a_form_that_holds_no_name_and_no_number(
    file: ConfigurationFile, run: Run, ticket: str
) -> None:
    call = record_call(file.load())
    with pytest.raises(SystemExit) as ended:
        run("show", call.call_uid, "--ticket", ticket)
    assert ended.value.code == 2
    assert run("show", call.call_uid, "--ticket", "QA-123456")[0] == 0


def test_every_reason_is_one_that_the_audit_log_takes(
    run: Run, file: ConfigurationFile, tmp_path: Path
) -> None:
    call = record_call(file.load())
    for reason in AccessReason:
        assert (
            main(["recordings", "show", "-c", str(file.path), call.call_uid, "--reason", reason.value]) == 0
        )
    lines = sealed_lines(file.path)
    assert [line["reason"] for line in lines] == [reason.value for reason in AccessReason]


# --- several segments


def test_a_recording_is_played_across_its_segments(run: Run, file: ConfigurationFile, tmp_path: Path) -> None:
    call = record_call(file.load(), seconds=35)
    assert len(call.file_ids) == 4
    code, printed, _ = run("export", call.call_uid, "-o", str(tmp_path / "a.wav"), "--plaintext", "--json")
    assert (code, json.loads(printed)["states"]) == (0, ["complete"] * 4)
    assert samples(tmp_path / "a.wav") == call.pcm
    part = ["--from", "00:00:07.5", "--to", "25"]
    assert run("export", call.call_uid, "-o", str(tmp_path / "b.wav"), "--plaintext", *part)[0] == 0
    assert samples(tmp_path / "b.wav") == call.pcm[2 * 60_000 : 2 * 200_000]
    code, printed, _ = run("verify", call.call_uid, "--json")
    (whole,) = json.loads(printed)["wholes"]
    assert (code, whole["segments"], whole["faults"]) == (0, 4, [])


def test_a_lost_segment_is_named_and_only_patched_when_asked(
    run: Run, file: ConfigurationFile, tmp_path: Path
) -> None:
    call = record_call(file.load(), seconds=35)
    lost = call.file_ids[1]
    index = index_of(file)
    entry = index.get(lost)
    assert entry is not None
    index.put([replace(entry, state=IndexState.FAILED)])
    index.close()
    out = tmp_path / "a.wav"
    for words in (["verify", call.call_uid], ["export", call.call_uid, "-o", str(out), "--plaintext"]):
        code, _, err = run(*words)
        assert (code, f"segment 1 is not there (file {lost.hex()})" in err) == (108, True)
    assert not out.exists()
    code, _, err = run("export", call.call_uid, "-o", str(out), "--plaintext", "--allow-partial")
    assert (code, lost.hex() in err) == (108, True)
    start, end = 2 * 10 * RATE_HZ, 2 * 20 * RATE_HZ
    assert samples(out) == call.pcm[:start] + bytes(end - start) + call.pcm[end:]


def test_one_file_of_many_is_read_by_itself(run: Run, file: ConfigurationFile, tmp_path: Path) -> None:
    call = record_call(file.load(), seconds=35)
    middle = call.file_ids[1].hex()
    assert run("verify", middle)[0] == 0
    assert run("export", middle, "-o", str(tmp_path / "a.wav"), "--plaintext")[0] == 0
    assert samples(tmp_path / "a.wav") in call.pcm


# --- live, and just ended


class Live:
    """A call that is being recorded by this process, for as long as the test wants."""

    def __init__(self, settings: Settings) -> None:
        tenants = {
            tenant.name: TenantKey(handle=tenant.handle, provider=tenant.key)
            for tenant in settings.tenants.values()
        }
        recording = settings.recording
        self.recorder = Recorder(recording, tenants, build_providers(recording.keys), SilentObserver())
        self.recorder.start()
        assert self.recorder.wait_ready(10)
        self.call_uid = secrets.token_hex(16)
        self.call = self.recorder.open(
            self.recorder.reserve(next(iter(tenants))),
            meta=RecordingMeta(rate_hz=RATE_HZ, call_uid=self.call_uid, started_at=datetime.now(UTC)),
            layout=recording.layout,
            on_failure=lambda error: pytest.fail(str(error)),
        )
        self.pcm = b""

    def speak(self, seconds: float) -> None:
        for _ in range(round(seconds * 5)):
            part = tone(RATE_HZ // 5, 440, channels=1)
            self.call.append(memoryview(part), len(part) // 2, 0)
            self.pcm += part


def test_the_finished_segments_of_a_live_call_can_be_read(
    run: Run, file: ConfigurationFile, tmp_path: Path
) -> None:
    live = Live(file.load())
    try:
        live.speak(5)
        code, _, err = run("export", live.call_uid, "-o", str(tmp_path / "none.wav"), "--plaintext")
        assert code == 77
        live.speak(20)
        assert live.recorder._spool is not None
        live.recorder._spool.flush(0.2)
        code, printed, err = run(
            "export", live.call_uid, "-o", str(tmp_path / "a.wav"), "--plaintext", "--json"
        )
        found = json.loads(printed)
        assert (code, found["live"], found["frames"]) == (0, True, 20 * RATE_HZ)
        assert "the call goes on" in err
        assert samples(tmp_path / "a.wav") == live.pcm[: 40 * RATE_HZ]
        code, printed, _ = run("verify", live.call_uid, "--json")
        assert (code, json.loads(printed)["wholes"][0]["live"]) == (0, True)
        live.call.finish(ended_by="caller", reason="bye")
        code, printed, _ = run(
            "export", live.call_uid, "-o", str(tmp_path / "b.wav"), "--plaintext", "--json"
        )
        assert (code, json.loads(printed)["live"]) == (0, False), "the index may not know yet, the file does"
        assert samples(tmp_path / "b.wav") == live.pcm
    finally:
        assert live.recorder.stop(10)


@pytest.mark.parametrize("moment", ["in the store, the index unaware", "between the index and the store"])
def test_a_file_on_its_way_from_spool_to_store_is_found(
    run: Run, file: ConfigurationFile, tmp_path: Path, moment: str
) -> None:
    call: RecordedCall = record_call(file.load())
    recording = file.load().recording
    index = index_of(file)
    (entry,) = index.find(call_uid=call.call_uid)
    index.put([replace(entry, object_key=None)])
    if moment != "in the store, the index unaware":
        assert entry.object_key is not None
        stored = LocalSink(recording.directory).path(entry.object_key)
        stored.rename(segment_path(recording.spool_directory, entry.file_id))
    index.close()
    assert run("export", call.call_uid, "-o", str(tmp_path / "a.wav"), "--plaintext")[0] == 0
    assert samples(tmp_path / "a.wav") == call.pcm
