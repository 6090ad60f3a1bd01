"""Answered calls whose audio does not come are found; loss, hold and silence are events of the recording."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from b2bua.config import load
from b2bua.control.client import ask
from b2bua.control.protocol import Command, Request
from b2bua.demo.call import Call
from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import Invitation
from b2bua.demo.sdp import Direction
from b2bua.demo.stream import MediaSource
from recording.format.content import EventKind, RecordingEvent, parse_event
from recording.format.record import RecordType
from recording.keys.build import build_providers, slot_keys
from recording.reader import open_recording
from recording.settings import Layout
from recording.verify import RecordingState, verify
from support.edge import Edge, edge
from support.endpoint import babble, run

RATE_HZ = 8000
AFTER_S = 2
SOURCE = MediaSource.of_pcm(babble(3, seed=9), repeat=True)
_CHANNELS = {"A": 0, "B": 1}


def watched(text: str, policy: str) -> str:
    keys = f'no_media_s = {AFTER_S}\non_no_media = "{policy}"\n'
    text = re.sub(r"(\[trunks\.\w+\]\n)", lambda table: table[0] + keys, text)
    return text.replace("[limits]\n", "[limits]\ndrain_deadline_s = 1\n")


@pytest.fixture(scope="module")
def reporting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edge(
        tmp_path_factory.mktemp("report"), edit=lambda text: watched(text, "report"), layout=Layout.SPLIT
    ) as running:
        yield running
        assert running.stop() == 0
        assert not [line for line in running.audit() if line["event"] == "fault"]


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edge(tmp_path_factory.mktemp("end"), edit=lambda text: watched(text, "end")) as running:
        yield running
        assert running.stop() == 0


async def uid_of(served: Edge) -> str:
    """Of the only call."""
    socket = served.directory / "run" / "control.sock"
    (call,) = (await asyncio.to_thread(ask, socket, Request(command=Command.LIST)))["calls"]
    return str(call["call_uid"])


def lines(served: Edge, event: str, uid: str) -> list[dict[str, Any]]:
    """The call's audit lines of one kind."""
    return [line for line in served.audit() if line["event"] == event and line.get("call_uid") == uid]


async def told(served: Edge, event: str, uid: str) -> dict[str, Any]:
    """The call's first audit line of the kind."""
    return await asyncio.to_thread(
        served.wait_audit, lambda line: line["event"] == event and line.get("call_uid") == uid, timeout_s=20
    )


async def hear(call: Call, seconds: float) -> None:
    before = (await call.stream.stats()).received
    await call.stream.wait_for(
        lambda stream: stream.hearing.received >= before + 50 * seconds, "audio", timeout_s=seconds + 10
    )


def fresh_recordings(served: Edge, known: set[Path]) -> set[Path]:
    deadline = time.monotonic() + 10
    while not (fresh := set(served.recordings()) - known) and time.monotonic() < deadline:
        time.sleep(0.02)  # the sink has no other way to tell
    return fresh


async def events_of(served: Edge, known: set[Path]) -> list[tuple[int, RecordingEvent]]:
    """Of the one recording that is new, with their positions; it must be complete."""

    (path,) = await asyncio.to_thread(fresh_recordings, served, known)
    keys = slot_keys(build_providers(load(served.made.configuration).recording.keys).values())
    with open_recording(path, keys=keys) as reader:
        assert verify(reader).state is RecordingState.COMPLETE
        return [
            (record.position, parse_event(record.payload))
            for record in reader.records()
            if record.type == RecordType.EVENT
        ]


def gaps(events: list[tuple[int, RecordingEvent]]) -> list[tuple[int | None, int]]:
    return [(event.channel, event.frames or 0) for _, event in events if event.event is EventKind.GAP]


def with_another_key(body: bytes) -> bytes:
    """The description of a peer that sends under a key it never told."""

    def other(match: re.Match[bytes]) -> bytes:
        length = len(match[1]) * 3 // 4 - match[1].count(b"=")
        return b"inline:" + b64encode(secrets.token_bytes(length))

    return re.sub(rb"inline:([A-Za-z0-9+/=]+)", other, body)


@pytest.mark.parametrize("silent", ["A", "B"])
def test_a_side_that_falls_silent_is_reported_and_told_in_the_recording(reporting: Edge, silent: str) -> None:
    known = set(reporting.recordings())
    uids: list[str] = []

    async def scenario() -> list[tuple[int, RecordingEvent]]:
        async with reporting.parties(Answering(source=SOURCE)) as p:
            call, other = await p.established(source=SOURCE)
            await hear(call, 0.5)
            mute, ear = (call, other) if silent == "A" else (other, call)
            await mute.stream.close()
            uids.append(await uid_of(reporting))
            line = await told(reporting, "media_absent", uids[0])
            assert (line["leg"], line["policy"]) == (silent, "report")
            assert (line["reason"], line["count"]) == ("nothing_came", 0)
            assert call.ending is None
            assert (await ear.hang_up()).status == 200
            await mute.wait_ended()
            return await events_of(reporting, known)

    events = run(scenario(), limit_s=60)
    (gap,) = gaps(events)
    assert gap[0] == _CHANNELS[silent]
    assert AFTER_S <= gap[1] / RATE_HZ < AFTER_S + 3
    assert len(lines(reporting, "media_absent", uids[0])) == 1
    assert "media_absent" in reporting.stderr.read_text()


@pytest.mark.parametrize("silent", ["A", "B"])
def test_packets_that_do_not_authenticate_are_silence(reporting: Edge, silent: str) -> None:
    known = set(reporting.recordings())
    uids: list[str] = []

    async def scenario() -> None:
        answering = Answering(source=SOURCE, sdp_hook=with_another_key if silent == "B" else None)
        async with reporting.parties(answering) as p:
            hook = {"sdp_hook": with_another_key} if silent == "A" else {}
            call = await p.invite(source=SOURCE, **hook)
            await call.wait_answered()
            other = await p.callee.next_call()
            uids.append(await uid_of(reporting))
            line = await told(reporting, "media_absent", uids[0])
            assert (line["leg"], line["reason"]) == (silent, "not_authenticated")
            assert 50 <= line["count"] <= 50 * (AFTER_S + 3)
            loud = call if silent == "A" else other
            assert loud.stream.sent > 50 * AFTER_S, "it did send"
            await loud.hang_up()
            assert gaps(await events_of(reporting, known))

    run(scenario(), limit_s=60)
    assert len(lines(reporting, "media_absent", uids[0])) == 1


class OnePacket:
    """An SRTP context that gives its first packet again and again."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._packet = b""

    def protect(self, packet: bytes) -> bytes:
        self._packet = self._packet or self._sender.protect(packet)
        return self._packet


@pytest.mark.parametrize("cause", ["replayed", "other_source"])
def test_packets_of_before_and_of_others_are_silence_and_told_as_such(reporting: Edge, cause: str) -> None:
    """Somebody else sends to the port all the time; the peer repeats one packet, or sends nothing."""
    known = set(reporting.recordings())

    async def scenario() -> tuple[str, dict[str, Any]]:
        async with reporting.parties(Answering(source=SOURCE)) as p:
            call, other = await p.established(source=SOURCE)
            await hear(call, 0.5)
            stream = call.stream
            assert stream.plan is not None
            sender = OnePacket(stream._sender) if cause == "replayed" else None
            await stream._pump.call(lambda: setattr(stream, "_sender", sender))
            uid = await uid_of(reporting)
            telling = asyncio.ensure_future(told(reporting, "media_absent", uid))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                while not telling.done():
                    stranger.sendto(b"\x80\x00" + secrets.token_bytes(186), stream.plan.remote)
                    await asyncio.wait([telling], timeout=0.05)
            assert (await call.hang_up()).status == 200
            await other.wait_ended()
            assert gaps(await events_of(reporting, known))
            return uid, telling.result()

    uid, line = run(scenario(), limit_s=60)
    assert (line["leg"], line["reason"]) == ("A", cause)
    assert line["count"] >= (50 if cause == "replayed" else 10)
    assert len(lines(reporting, "media_absent", uid)) == 1


@pytest.mark.alone
@pytest.mark.parametrize("direction", [Direction.SENDONLY, Direction.INACTIVE])
def test_a_call_on_hold_is_not_reported_and_its_hold_is_told(reporting: Edge, direction: Direction) -> None:
    known = set(reporting.recordings())
    uids: list[str] = []

    async def scenario() -> list[tuple[int, RecordingEvent]]:
        async with reporting.parties(Answering(source=SOURCE)) as p:
            call, other = await p.established(source=SOURCE)
            await hear(call, 0.5)
            assert (await call.hold(direction)).status == 200
            await asyncio.sleep(AFTER_S + 2.5)  # nothing may happen, so nothing can be waited for
            uids.append(await uid_of(reporting))
            assert (await call.resume()).status == 200
            await hear(call, AFTER_S + 1.5)
            assert (await call.hang_up()).status == 200
            await other.wait_ended()
            return await events_of(reporting, known)

    events = run(scenario(), limit_s=60)
    run(told(reporting, "call_ended", uids[0]))
    assert not lines(reporting, "media_absent", uids[0])
    found = [(event.event, event.channel) for _, event in events if event.event is not EventKind.ANSWERED]
    assert found == [(EventKind.HOLD, 0), (EventKind.UNHOLD, 0)]
    held, resumed = (
        position for position, event in events if event.event in (EventKind.HOLD, EventKind.UNHOLD)
    )
    assert AFTER_S + 2 < (resumed - held) / RATE_HZ < AFTER_S + 6


async def lose(call: Call, packets: int) -> None:
    """The next packets of the peer are lost on their way."""

    def skip() -> None:
        stream = call.stream
        stream._sequence = (stream._sequence + packets) & 0xFFFF
        stream._timestamp = (stream._timestamp + packets * 160) & 0xFFFFFFFF

    await call.stream._pump.call(skip)


@pytest.mark.alone
@pytest.mark.parametrize(("packets", "heard"), [(25, True), (5, False)], ids=["500 ms", "100 ms"])
def test_a_burst_of_lost_packets_is_an_event_if_it_is_long(
    reporting: Edge, packets: int, heard: bool
) -> None:
    known = set(reporting.recordings())

    async def scenario() -> list[tuple[int, RecordingEvent]]:
        async with reporting.parties(Answering(source=SOURCE)) as p:
            call, other = await p.established(source=SOURCE)
            await hear(call, 1.5)
            await lose(other, packets)
            await hear(call, 2.5)
            await call.hang_up()
            await other.wait_ended()
            return await events_of(reporting, known)

    events = run(scenario(), limit_s=60)
    assert gaps(events) == ([(1, packets * 160)] if heard else [])


def test_audio_that_comes_back_is_told_in_full(reporting: Edge) -> None:
    known = set(reporting.recordings())
    uids: list[str] = []

    async def scenario() -> list[tuple[int, RecordingEvent]]:
        async with reporting.parties(Answering(source=SOURCE)) as p:
            call, other = await p.established(source=SOURCE)
            await hear(call, 0.5)
            uids.append(await uid_of(reporting))
            stream, plan = call.stream, call.stream.plan
            assert plan is not None
            sender = stream._sender
            await stream._pump.call(lambda: setattr(stream, "_sender", None))
            await told(reporting, "media_absent", uids[0])
            await stream._pump.call(lambda: setattr(stream, "_sender", sender))
            await stream.start(plan)
            line = await told(reporting, "media_returned", uids[0])
            assert line["leg"] == "A"
            await call.hang_up()
            await other.wait_ended()
            return await events_of(reporting, known)

    events = run(scenario(), limit_s=60)
    told_gaps = gaps(events)
    assert [channel for channel, _ in told_gaps] == [0, 0]
    assert sum(frames for _, frames in told_gaps) > AFTER_S * RATE_HZ


def test_where_the_trunk_says_so_the_call_ends_with_its_reason_and_its_recording(ending: Edge) -> None:
    async def scenario() -> None:
        known = set(ending.recordings())
        async with ending.parties(Answering(source=SOURCE)) as p:
            call, other = await p.established(source=SOURCE)
            await hear(call, 0.5)
            await other.stream.close()
            _, bye = await call.wait_received("BYE", timeout_s=AFTER_S + 15)
            reasons = [header.value for header in bye.headers if header.name == "Reason"]
            assert reasons == ['SIP;cause=408;text="no media"']
            await other.wait_ended()
            assert gaps(await events_of(ending, known))

    run(scenario(), limit_s=60)
    ended = ending.wait_audit(lambda line: line["event"] == "call_ended")
    assert (ended["reason"], ended["status"]) == ("no_media", 408)
    assert ending.wait_audit(lambda line: line["event"] == "media_absent")["policy"] == "end"


def test_a_call_with_audio_is_left_alone(ending: Edge) -> None:
    async def scenario() -> str:
        async with ending.parties(Answering(source=SOURCE)) as p:
            call, other = await p.established(source=SOURCE)
            uid = await uid_of(ending)
            await hear(call, AFTER_S + 2)
            assert call.ending is None
            assert (await call.hang_up()).status == 200
            await other.wait_ended()
            await told(ending, "call_ended", uid)
            return uid

    assert not lines(ending, "media_absent", run(scenario(), limit_s=60))


def test_an_emergency_call_is_reported_and_not_ended(ending: Edge) -> None:
    async def scenario() -> None:
        async with ending.parties(Answering(source=SOURCE)) as p:
            call = await p.caller.invite(p.connection, Invitation(uri=ending.uri(user="112"), source=SOURCE))
            await call.wait_answered()
            other = await p.callee.next_call()
            await call.stream.close()
            line = await told(ending, "media_absent", await uid_of(ending))
            assert line["policy"] == "report"
            await hear(other, 0)
            assert other.ending is None
            assert (await other.hang_up()).status == 200
            await call.wait_ended()

    run(scenario(), limit_s=60)
