"""Pausing a recording of real media: by command and by digits, silence of the true length, nothing said in it kept.

Each party says a programme in which no 20 ms is like another, so that every packet can be looked for in the recording.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from b2bua.config import load
from b2bua.control.client import ask
from b2bua.control.protocol import Command, Request
from b2bua.demo import g711
from b2bua.demo.g711 import PCM16, RATE_HZ
from b2bua.demo.incoming import Answering
from b2bua.demo.rtp import event_payloads
from b2bua.demo.stream import MediaSource
from b2bua.errors import RefusedCommandError
from b2bua.posture.running import MonitorSettings, read_samples, scrape
from b2bua.sip.digits import BURST, MOST_PER_S
from recording.format.content import EventKind, RecordingEvent, parse_event
from recording.format.record import RecordType
from recording.keys.build import build_providers, slot_keys
from recording.pause import RESUME_GUARD_MS
from recording.reader import open_recording
from recording.settings import Layout
from recording.verify import RecordingState, verify
from support.discreet import assert_discreet
from support.edge import Edge, Parties, edge
from support.endpoint import run

FRAME = RATE_HZ // 50
JITTER_BUFFER_MS = 240
SAID = [np.random.default_rng(seed).integers(-9000, 9000, 20 * RATE_HZ).astype(np.int16) for seed in (1, 2)]
SOURCES = [MediaSource.of_pcm(pcm) for pcm in SAID]
PAUSE_MAX_S = 60
FORGOTTEN_S = 2


def edit(text: str) -> str:
    codes = 'pause_code = "*71"\nresume_code = "*72"\n'
    text = text.replace("[limits]\n", f"[limits]\ndrain_deadline_s = 1\npause_max_s = {PAUSE_MAX_S}\n")
    text = text.replace("[trunks.caller]\n", f'[trunks.caller]\n{codes}pause_codes_from = "a"\n')
    return text.replace("[trunks.callee]\n", f"[trunks.callee]\n{codes}pause_codes_relayed = false\n")


@pytest.fixture(scope="module", params=list(Layout), ids=lambda layout: layout.value)
def paused(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edge(tmp_path_factory.mktemp("pause"), edit=edit, layout=request.param) as running:
        yield running
        assert running.stop() == 0
        told = running.stderr.read_text() + running.audit_text()
        assert_discreet(told)
        assert "*71" not in told
        assert not [line for line in running.audit() if line["event"] == "fault"]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edge(tmp_path_factory.mktemp("pause"), edit=edit, layout=Layout.SPLIT) as running:
        yield running
        assert running.stop() == 0


async def calls(
    served: Edge, command: Command, call_uid: str = "", reason: str = "", *, error: str = ""
) -> dict[str, Any]:
    """Ask over the control socket; `error`: the refusal that must come."""
    control = load(served.made.configuration).control
    assert control is not None
    request = Request(command=command, call_uid=call_uid, reason=reason)
    if not error:
        return dict(await asyncio.to_thread(ask, control.socket, request))
    with pytest.raises(RefusedCommandError, match=error):
        await asyncio.to_thread(ask, control.socket, request)
    return {}


async def run_cli(served: Edge, *words: str, code: int = 0) -> str:
    """`b2bua calls` as a user runs it; its output, or its errors where it must fail."""
    command = [sys.executable, "-m", "b2bua", "calls", *words, "-c", str(served.made.configuration)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    out, errors = await process.communicate()
    assert process.returncode == code, errors.decode()
    return (errors if code else out).decode()


async def uid_of(served: Edge) -> str:
    (call,) = (await calls(served, Command.LIST))["calls"]
    return str(call["call_uid"])


@dataclass
class Kept:
    """The recording of the only call since: samples by channel, and its events with their positions."""

    pcm: PCM16
    events: list[tuple[int, RecordingEvent]]

    def positions(self, kind: EventKind) -> list[int]:
        return [position for position, event in self.events if event.event is kind]


def kept(served: Edge, known: set[Path]) -> Kept:
    deadline = time.monotonic() + 10
    while not (fresh := set(served.recordings()) - known) and time.monotonic() < deadline:
        time.sleep(0.02)  # the sink has no other way to tell
    (path,) = fresh
    settings = load(served.made.configuration).recording
    with open_recording(path, keys=slot_keys(build_providers(settings.keys).values())) as reader:
        assert verify(reader).state is RecordingState.COMPLETE
        pcm = np.frombuffer(b"".join(bytes(record.payload) for record in reader.audio()), dtype="<i2")
        found = [
            (record.position, parse_event(record.payload))
            for record in reader.records()
            if record.type == RecordType.EVENT
        ]
    return Kept(pcm=pcm.reshape(-1, settings.layout.channels), events=found)


def heard_as(pcm: PCM16) -> PCM16:
    """What the far end of the codec decodes."""
    return g711.decode(g711.encode(pcm), "PCMU/8000")


def frame_numbers(channel: PCM16, said: PCM16) -> list[tuple[int, int]]:
    """(place in the recording, number of the packet) of every packet of `said` that is found sample for sample.

    The bridge delays by whole samples and changes none, so a packet is found by its own bytes.
    """
    octets = channel.tobytes()
    found = []
    for number in range(len(said) // FRAME):
        at = octets.find(said[number * FRAME : (number + 1) * FRAME].tobytes())
        if at >= 0:
            assert at % 2 == 0
            found.append((at // 2, number))
    return found


async def speak(p: Parties, seconds: float, call: Any) -> None:
    """Until the callee has heard so much more."""
    before = (await call.stream.stats()).received
    await call.stream.wait_for(
        lambda stream: stream.hearing.received >= before + 50 * seconds, "speech", timeout_s=seconds + 10
    )


@pytest.mark.alone
def test_nothing_said_in_a_pause_is_in_the_recording_and_what_follows_is_in_its_place(split: Edge) -> None:
    known = set(split.recordings())
    sent: dict[str, list[int]] = {}

    async def scenario() -> None:
        async with split.parties(Answering(source=SOURCES[1])) as p:
            call, other = await p.established(source=SOURCES[0])
            await speak(p, 1.5, other)
            uid = await uid_of(split)
            answer = await calls(split, Command.PAUSE, uid, "card_number")
            sent["paused"] = [call.stream._position, other.stream._position]
            assert answer["call"]["recording"] == "paused"
            await speak(p, 1.5, other)
            sent["resumed"] = [call.stream._position, other.stream._position]
            assert (await calls(split, Command.RESUME, uid, "card_taken"))["changed"] is True
            await speak(p, 2.5, other)
            assert (await calls(split, Command.SHOW, uid))["call"]["recording"] == "running"
            await call.hang_up()
            await other.wait_ended()

    run(scenario(), limit_s=60)
    recording = kept(split, known)
    (start,), (end,) = recording.positions(EventKind.PAUSE), recording.positions(EventKind.RESUME)
    assert not recording.pcm[start:end].any()
    (length,) = [event.frames for _, event in recording.events if event.event is EventKind.RESUME]
    assert length == end - start > RATE_HZ * (1.4 + RESUME_GUARD_MS / 1000)
    for channel, said in enumerate(SAID):
        found = frame_numbers(recording.pcm[:, channel], heard_as(said))
        before = [(place, number) for place, number in found if place < start]
        after = [(place, number) for place, number in found if place >= end]
        assert len(before) > 40
        assert len(after) > 40
        paused, resumed = sent["paused"][channel], sent["resumed"][channel]
        assert not [number for _, number in found if paused <= number < resumed], "said in the pause"
        # one offset for every packet before and after, but for what a loaded machine's jitter buffer shifts
        offsets = [place - number * FRAME for place, number in before + after]
        assert max(offsets) - min(offsets) <= JITTER_BUFFER_MS * RATE_HZ // 1000


def test_both_layouts_are_silent_and_the_audit_says_who_and_under_which_policy(paused: Edge) -> None:
    known = set(paused.recordings())
    uids: list[str] = []

    async def scenario() -> None:
        async with paused.parties(Answering(source=SOURCES[1])) as p:
            call, other = await p.established(source=SOURCES[0])
            await speak(p, 0.5, other)
            uids.append(await uid_of(paused))
            await calls(paused, Command.PAUSE, uids[0], "card_number")
            assert (await calls(paused, Command.PAUSE, uids[0], "again"))["changed"] is False
            await speak(p, 1, other)
            await call.hang_up()
            await other.wait_ended()

    run(scenario(), limit_s=60)
    recording = kept(paused, known)
    (start,) = recording.positions(EventKind.PAUSE)
    assert recording.pcm[:start].any()
    assert not recording.pcm[start:].any()
    assert len(recording.pcm) - start > RATE_HZ * 0.8, "a hang-up in a pause keeps its silence"
    line = paused.wait_audit(lambda line: line["event"] == "recording_paused")
    assert (line["call_uid"], line["by"], line["reason"], line["policy"]) == (
        uids[0], "command", "card_number", "required",
    )  # fmt: skip
    asked = paused.wait_audit(lambda line: line["event"] == "control_command")
    assert (asked["by"], asked["reason"], asked["call_uid"]) == ("pause", "card_number", uids[0])


def test_a_forgotten_pause_ends_by_itself(tmp_path: Path) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering(source=SOURCES[1])) as p:
            call, other = await p.established(source=SOURCES[0])
            await speak(p, 0.3, other)
            uid = await uid_of(served)
            await calls(served, Command.PAUSE, uid, "card_number")
            await asyncio.to_thread(
                served.wait_audit,
                lambda line: line["event"] == "recording_resumed" and line["call_uid"] == uid,
            )
            await calls(served, Command.RESUME, uid, "done", error="not_paused")
            await speak(p, 1.5, other)
            await call.hang_up()
            await other.wait_ended()

    shorter = f"pause_max_s = {FORGOTTEN_S}"
    with edge(
        tmp_path, edit=lambda text: edit(text).replace(f"pause_max_s = {PAUSE_MAX_S}", shorter)
    ) as served:
        run(scenario(served), limit_s=60)
        recording = kept(served, set())
        audit = served.audit()
    (start,), (end,) = recording.positions(EventKind.PAUSE), recording.positions(EventKind.RESUME)
    assert FORGOTTEN_S <= (end - start) / RATE_HZ - RESUME_GUARD_MS / 1000 < FORGOTTEN_S + 1
    assert recording.pcm[end + RATE_HZ // 5 :].any()
    lines = [line for line in audit if line["event"] == "recording_resumed" and line["by"] == "limit"]
    assert [line["reason"] for line in lines] == ["pause_limit"]


@pytest.mark.parametrize("sender", ["caller", "callee"])
def test_digits_pause_and_resume_and_cross_only_where_they_may(split: Edge, sender: str) -> None:
    known = set(split.recordings())

    async def scenario() -> None:
        async with split.parties(Answering(source=SOURCES[1])) as p:
            call, other = await p.established(source=SOURCES[0])
            uid = await uid_of(split)
            one, two = (call, other) if sender == "caller" else (other, call)

            async def audited(event: str) -> dict[str, Any]:
                return await asyncio.to_thread(
                    split.wait_audit, lambda line: line["event"] == event and line["call_uid"] == uid
                )

            await one.stream.send_digits("*71")
            paused = await audited("recording_paused")
            assert (paused["by"], paused["reason"]) == ("dtmf", "dtmf_code")
            await speak(p, 0.7, other)
            await one.stream.send_digits("*72")
            assert (await audited("recording_resumed"))["by"] == "dtmf"
            await one.stream.send_digits("*75")
            # *71 and *72 cross from the caller's trunk alone, *75 is no code and crosses from both
            wanted = "*71*72*75" if sender == "caller" else "*75"
            assert await two.stream.wait_digits(len(wanted), timeout_s=8) == wanted
            await speak(p, 1, other)
            await call.hang_up()
            await other.wait_ended()

    run(scenario(), limit_s=60)
    recording = kept(split, known)
    (start,), (end,) = recording.positions(EventKind.PAUSE), recording.positions(EventKind.RESUME)
    assert not recording.pcm[start:end].any()
    assert recording.pcm[end:].any()
    for _, event in recording.events:
        assert b"7" not in json.dumps(dict(event.extra)).encode()


def last_packets(digits: str) -> list[bytes | None]:
    """What is left of digits whose first packets were lost: the three that end each event, and the pause after it."""
    slots: list[bytes | None] = []
    for digit in digits:
        slots += [*list(event_payloads(digit))[-3:], *[None] * 3]
    return slots


def test_digits_of_which_only_the_ends_came_are_digits(split: Edge) -> None:
    """A code that a lossy network thinned out pauses all the same: a card number hangs on it."""
    known = set(split.recordings())

    async def scenario() -> None:
        async with split.parties(Answering(source=SOURCES[1])) as p:
            call, other = await p.established(source=SOURCES[0])
            uid = await uid_of(split)
            await call.stream._pump.call(lambda: call.stream._event_slots.extend(last_packets("*71")))
            await asyncio.to_thread(
                split.wait_audit,
                lambda line: line["event"] == "recording_paused" and line["call_uid"] == uid,
            )
            assert await other.stream.wait_digits(3, timeout_s=8) == "*71"
            await call.hang_up()
            await other.wait_ended()

    run(scenario(), limit_s=60)
    assert len(kept(split, known).positions(EventKind.PAUSE)) == 1


def test_a_flood_of_digits_costs_its_sender_digits_and_nobody_anything_else(split: Edge) -> None:
    known = set(split.recordings())

    async def scenario() -> None:
        async with split.parties(Answering(source=SOURCES[1])) as p:
            call, other = await p.established(source=SOURCES[0])
            stream = call.stream
            beginnings = [next(event_payloads(digit)) for digit in "0123456789" * 40]

            def flood() -> None:
                for payload in beginnings:
                    stream._event_slots.append(payload)
                    stream._event_timestamp = None
                    stream.on_slot(time.monotonic_ns())

            await stream._pump.call(flood)
            await other.stream.wait_digits(BURST, timeout_s=20)
            await speak(p, 1, other)
            assert len(await other.stream.digits()) <= BURST + MOST_PER_S
            await call.hang_up()
            await other.wait_ended()

    run(scenario(), limit_s=60)
    events = kept(split, known).positions(EventKind.DTMF)
    assert BURST <= len(events) <= BURST + MOST_PER_S
    assert not [line for line in split.audit() if line["event"] == "fault"]


def lost_digits(served: Edge) -> dict[str, float]:
    """How many, by reason, as the metrics tell."""
    metrics, material = load(served.made.configuration).metrics, served.made.monitor
    assert metrics is not None
    monitor = MonitorSettings(
        certificate_path=material.certificate_path, private_key_path=material.private_key_path
    )
    samples = read_samples(scrape(metrics, monitor))
    return {
        dict(labels)["reason"]: value
        for (name, labels), value in samples.items()
        if name == "sealtrunk_dtmf_lost"
    }


def test_digits_that_the_far_leg_cannot_be_sent_are_counted_and_no_fault(split: Edge) -> None:
    """It gets each one more slowly than a machine dials, and has room for some that wait."""
    slots: list[bytes | None] = []
    for digit in "0123456789" * 7:
        slots += [list(event_payloads(digit))[-1], None, None, None]

    async def scenario() -> None:
        async with split.parties(Answering(source=SOURCES[1])) as p:
            call, other = await p.established(source=SOURCES[0])
            before = await asyncio.to_thread(lost_digits, split)
            await call.stream._pump.call(lambda: call.stream._event_slots.extend(slots))
            await call.stream.wait_for(lambda stream: not stream._event_slots, "digits", timeout_s=20)
            await speak(p, 0.5, other)
            after = await asyncio.to_thread(lost_digits, split)
            assert after.get("not_sent", 0) > before.get("not_sent", 0)
            await call.hang_up()
            await other.wait_ended()

    run(scenario(), limit_s=60)
    assert not [line for line in split.audit() if line["event"] == "fault"]


def test_a_call_is_ended_by_command_and_other_calls_are_told_from_it(split: Edge) -> None:
    async def scenario() -> None:
        async with split.parties(Answering(source=SOURCES[1])) as p:
            call, other = await p.established(source=SOURCES[0])
            uid = await uid_of(split)
            await calls(split, Command.SHOW, "0" * 32, error="no_such_call")
            await calls(split, Command.RESUME, uid, "done", error="not_paused")
            assert (await calls(split, Command.HANG_UP, uid, "abuse"))["call"]["state"] == "ending"
            await call.wait_ended()
            await other.wait_ended()
            ended = await asyncio.to_thread(
                split.wait_audit, lambda line: line["event"] == "call_ended" and line["call_uid"] == uid
            )
            assert ended["reason"] == "operator"
            await calls(split, Command.HANG_UP, uid, "abuse", error="no_such_call")
            assert (await calls(split, Command.LIST))["calls"] == []

    run(scenario(), limit_s=60)


def test_the_commands_of_a_user(split: Edge) -> None:
    async def scenario() -> None:
        async with split.parties(Answering(source=SOURCES[1])) as p:
            call, other = await p.established(source=SOURCES[0])
            uid = await uid_of(split)
            assert uid in await run_cli(split, "list")
            shown = json.loads(await run_cli(split, "show", uid, "--json"))["call"]
            assert shown["legs"]["A"]["trunk"] == "caller"
            assert shown["legs"]["B"]["packets_received"] > 0
            assert "--reason" in await run_cli(split, "pause", uid, code=2)
            assert "no number" in await run_cli(split, "pause", uid, "--reason", "card_4111111111", code=77)
            assert "paused" in await run_cli(split, "pause", uid, "--reason", "card_number")
            assert "at_ms" in await run_cli(split, "resume", uid, "--reason", "card_taken")
            assert "no_such_call" in await run_cli(split, "show", "0" * 32, code=97)
            assert "ending" in await run_cli(split, "hang-up", uid, "--reason", "done")
            await call.wait_ended()
            await other.wait_ended()

    run(scenario(), limit_s=90)


def test_without_a_serving_process_the_command_says_so(tmp_path: Path) -> None:
    with edge(tmp_path, edit=edit) as served:
        socket = served.directory / "run" / "control.sock"
        assert socket.is_socket()
        assert served.stop() == 0
        assert not socket.exists()
        assert "b2bua serve" in run(run_cli(served, "list", code=96))
