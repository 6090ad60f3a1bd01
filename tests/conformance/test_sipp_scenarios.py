"""SIPp on both sides of a served B2BUA: every row of sipp-scenarios/scenarios.toml, and what README.md says of them."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from b2bua.demo.children import command
from b2bua.demo.g711 import PCM16, decode
from b2bua.demo.heard import Hearing
from b2bua.demo.recorded import Samples, export
from b2bua.demo.rtp import srtp_receiver
from b2bua.demo.score import Limits, score_heard, score_split
from b2bua.demo.sdp import SRTPSuite
from b2bua.initialise import InitResult
from recording.settings import Layout
from support import sipp
from support.edge import Edge, edge

pytestmark = pytest.mark.sipp

ROOT = sipp.SCENARIOS.parent
README = sipp.SCENARIOS / "README.md"
ROWS = {row.name: row for row in sipp.read_scenarios()}
LIMITS = Limits(covered_s=3.0)
PCMU, EVENTS = 0, 120
PYTHON, B2BUA = ".venv/bin/python", ".venv/bin/b2bua"
Line = dict[str, Any]


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scenario_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_hand_lines() -> list[str]:
    """The commands under `By hand` in README.md."""
    _, _, section = README.read_text().partition("## By hand\n")
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1].splitlines()


def edit_by_hand(made: InitResult) -> None:
    """Change a configuration by README.md's own commands; each must find what it changes."""
    edits = [line for line in by_hand_lines() if line.startswith("sed ")]
    for edit in edits:
        before = made.configuration.read_text()
        assert edit.endswith(" lab/b2bua.toml")
        changed = edit.replace("lab/b2bua.toml", str(made.configuration))
        subprocess.run(["/bin/sh", "-c", changed], check=True)
        assert made.configuration.read_text() != before
    assert len(edits) == 2


@pytest.fixture(scope="module")
def speech() -> tuple[PCM16, PCM16]:
    """What caller and callee say."""
    load_script(sipp.SCENARIOS / "media/make.py").make_media(sipp.SCENARIOS / "media")
    caller, callee = ((sipp.SCENARIOS / f"media/{who}.ulaw").read_bytes() for who in ("caller", "callee"))
    return decode(caller), decode(callee)


@pytest.fixture(scope="module")
def served(speech: tuple[PCM16, PCM16], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """One B2BUA for all rows; it must live to the end without a fault of its own."""

    def short_drain(text: str) -> str:
        return text.replace("[limits]\n", "[limits]\ndrain_deadline_s = 1\n")

    directory = tmp_path_factory.mktemp("served")
    with edge(directory, layout=Layout.SPLIT, edit=short_drain, prepare=edit_by_hand) as running:
        yield running
        log = running.stderr.read_text()[-4000:]
        assert running.process.poll() is None, log
        assert running.stop() == 0, log
        assert [line for line in running.audit() if line["event"] == "fault"] == [], log


@pytest.fixture(scope="module")
def lab(served: Edge) -> sipp.Lab:
    return sipp.read_lab(served.made.configuration)


def heard_by(side: sipp.Side) -> Hearing:
    """What a side received, as its log of packets has it, opened with the key of the first SDP it was sent.

    SIPp pads what it logs to the frame that it plays; the second number is the packet's own length.
    """
    received = re.split(r"^-{40,} .*\n", side.messages, flags=re.MULTILINE)
    keys = [re.search(r"^a=crypto:\d+ AES_CM_128_HMAC_SHA1_80 inline:(\S+)", text, re.MULTILINE)
            for text in received if text.startswith("TLS message received")]  # fmt: skip
    key = next(found[1] for found in keys if found)
    session = srtp_receiver(SRTPSuite.AES_CM_128_HMAC_SHA1_80, base64.b64decode(key))
    hearing = Hearing()
    for line in (side.folder / "debugafile").read_text().splitlines():
        logged = re.search(r"SUCCESS RECV LOG: +\d+ 0x([0-9a-f]+) \d+ \[([0-9A-F]+)\]", line)
        if logged is not None:
            packet = bytes.fromhex(logged[2])[: int(logged[1], 16)]
            hearing.take(session.unprotect(packet), 0, PCMU, EVENTS)
    return hearing


def pcm(hearing: Hearing) -> PCM16:
    return decode(hearing.octets)


def called(played: sipp.Played) -> sipp.Side:
    assert played.callee is not None
    return played.callee


def assert_speech_both_ways(played: sipp.Played, recorded: Samples, said: tuple[PCM16, PCM16]) -> None:
    """Each heard the other and not itself, and the recording has both."""
    assert score_heard(pcm(heard_by(played.caller)), said[1], LIMITS).faults == ()
    assert score_heard(pcm(heard_by(called(played))), said[0], LIMITS).faults == ()
    assert not score_heard(pcm(heard_by(played.caller)), said[0], LIMITS).passed
    score = score_split(recorded, *said, LIMITS)
    assert score.passed, score


def assert_echo(played: sipp.Played, recorded: Samples, said: tuple[PCM16, PCM16]) -> None:
    """The caller heard itself, and so does who listens to either channel."""
    assert score_heard(pcm(heard_by(played.caller)), said[0], LIMITS).faults == ()
    for channel in (0, 1):
        assert score_heard(recorded[:, channel], said[0], LIMITS).faults == ()


def assert_early(played: sipp.Played, recorded: Samples, said: tuple[PCM16, PCM16]) -> None:
    """The callee's speech reached the caller from its beginning, most of it before the answer."""
    heard = score_heard(pcm(heard_by(played.caller)), said[1], Limits(covered_s=2.5))
    assert heard.faults == ()
    assert score_heard(recorded[:, 1], said[1], Limits(covered_s=2.5)).faults == ()


def assert_digits(played: sipp.Played, recorded: Samples, said: tuple[PCM16, PCM16]) -> None:
    assert [event.digit for event in heard_by(called(played)).digits] == ["5", "9"]


CHECKS: dict[str, Callable[[sipp.Played, Samples, tuple[PCM16, PCM16]], None]] = {
    "call": assert_speech_both_ways,
    "echo": assert_echo,
    "early-media": assert_early,
    "digits": assert_digits,
}


def wait_lines(served: Edge, since: int, row: sipp.Scenario) -> list[Line]:
    """The audit lines of a run, once every call and every recording in them has ended."""
    deadline = time.monotonic() + 15
    while True:
        lines = served.audit()[since:]
        events = [line["event"] for line in lines]
        is_over = (
            events.count("call_ended") == (row.calls if row.ended else 0)
            and events.count("call_started") == events.count("call_ended")
            and events.count("recording_started") == events.count("recording_finished")
            and events.count("request_refused") == len(row.refusals)
            and events.count("peer_accepted") == events.count("peer_closed")
        )
        if is_over or time.monotonic() > deadline:
            return lines
        time.sleep(0.02)


def recorded_audio(served: Edge, file_id: str, wav: Path) -> Samples:
    """A recording's audio, exported once the index knows it stored."""

    async def exported() -> Samples:
        configuration = served.made.configuration
        async with asyncio.timeout(20):
            while True:
                listed = await command("recordings", "list", "--config", str(configuration), "--json")
                if any(row["file_id"] == file_id and row["object_key"] for row in listed["recordings"]):
                    return await export(configuration, file_id, wav)

    return asyncio.run(exported())


def of(lines: list[Line], event: str) -> list[Line]:
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.alone] if name in CHECKS else []) for name in ROWS]
)
def test_scenario(
    served: Edge, lab: sipp.Lab, speech: tuple[PCM16, PCM16], tmp_path: Path, name: str
) -> None:
    row = ROWS[name]
    since = len(served.audit())
    played = sipp.play(lab, row, tmp_path)
    lines = wait_lines(served, since, row)
    assert sorted(line["reason"] for line in of(lines, "request_refused")) == sorted(row.refusals)
    expected = [row.ended] * row.calls if row.ended else []
    assert [line["reason"] for line in of(lines, "call_ended")] == expected
    assert len(of(lines, "recording_finished")) == len(of(lines, "recording_started"))
    assert all(line["reason"] == "complete" for line in of(lines, "recording_finished"))
    assert len(of(lines, "recording_started")) >= len(of(lines, "call_answered"))
    if name in CHECKS:
        (finished,) = of(lines, "recording_finished")
        audio = recorded_audio(served, finished["file_id"], tmp_path / "recorded.wav")
        CHECKS[name](played, audio, speech)


def test_an_answer_that_a_scenario_does_not_expect_fails_it(lab: sipp.Lab, tmp_path: Path) -> None:
    wrong = replace(ROWS["callee-away"], caller=ROWS["busy"].caller)
    with pytest.raises(sipp.SippError, match=r"unexpected message .* received 'SIP/2.0 503"):
        sipp.play(lab, wrong, tmp_path)


def test_a_warning_that_says_something_else_fails_a_scenario(
    lab: sipp.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (sipp.SCENARIOS / "uac-plain-rtp-expect-488.xml").read_text()
    changed = text.replace("RTP without SRTP refused", "something else")
    assert changed != text
    (tmp_path / "part").symlink_to(sipp.SCENARIOS / "part")
    for name, content in (("wrong", changed), ("right", text)):
        (tmp_path / f"{name}.xml").write_text(content.replace("media/", f"{sipp.SCENARIOS}/media/"))
    callee = ROWS["plain-rtp"].callee
    assert callee is not None
    (tmp_path / f"{callee}.xml").write_text(
        (sipp.SCENARIOS / f"{callee}.xml").read_text().replace("media/", f"{sipp.SCENARIOS}/media/")
    )
    monkeypatch.setattr(sipp, "SCENARIOS", tmp_path)
    with pytest.raises(sipp.SippError, match="Failed regexp match"):
        sipp.play(lab, replace(ROWS["plain-rtp"], caller="wrong"), tmp_path / "wrong")
    sipp.play(lab, replace(ROWS["plain-rtp"], caller="right"), tmp_path / "right")


def test_a_scenario_plays_by_hand(served: Edge) -> None:
    """The command of the table, on the configuration that the commands before it make."""
    lines = by_hand_lines()
    assert [line.split()[0] for line in lines] == [PYTHON, B2BUA, "sed", "sed", B2BUA]
    typed = sipp.by_hand(ROWS["options"]).replace(PYTHON, sys.executable)
    words = typed.replace(" lab ", f" {served.directory} ").split()
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "options passed" in done.stdout


def test_the_table_of_the_readme_is_current() -> None:
    text = README.read_text()
    run = load_script(sipp.SCENARIOS / "run.py")
    assert run.readme_with_table(text) == text, "run sipp-scenarios/run.py --table"
    assert all(sipp.by_hand(row) in text for row in ROWS.values())


def test_every_file_is_played_by_a_row_and_every_part_by_a_file() -> None:
    named = {name for row in ROWS.values() for name in (row.caller, row.callee) if name}
    files = {path.stem: path for path in sipp.SCENARIOS.glob("*.xml")}
    assert named == set(files)
    included = {
        element.attrib["href"]
        for path in files.values()
        for element in ET.parse(path).iter("{http://www.w3.org/2001/XInclude}include")
    }
    assert included == {f"part/{path.name}" for path in (sipp.SCENARIOS / "part").glob("*.xml")}
    assert set(CHECKS) <= set(ROWS)


def test_every_refusal_of_an_offer_is_followed_by_the_same_offer_made_right() -> None:
    """Both in one scenario: the same SIPp, on the same connection, with one thing changed."""
    for row in ROWS.values():
        if (
            row.refusals
            and row.callee
            and row.caller.endswith("-expect-488")
            and row.ended == "caller_hung_up"
        ):
            text = (sipp.SCENARIOS / f"{row.caller}.xml").read_text()
            first, second = text.split("\nINVITE ")[1:]
            assert first.split("\nm=")[1] != second.split("\nm=")[1]
            assert first.split("\nm=")[0].split("\n")[0] == second.split("\nm=")[0].split("\n")[0]
