"""The loopback capture finds a plain call's SIP and speech in every form, and finds neither in a secure call."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from b2bua.demo import g711
from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import Invitation
from b2bua.demo.stream import MediaSource
from support.capture import LoopbackCapture, audible_frames, search
from support.endpoint import LOCALHOST, babble, rig, run

pytestmark = [
    pytest.mark.alone,  # all that goes over the loopback is looked at, and must fit a buffer
    pytest.mark.skipif(os.geteuid() != 0, reason="packet capture needs root"),
]

SPOKEN = babble(1.0, seed=21)


@pytest.mark.parametrize("form", ["PCMU", "PCMA", "s16le", "s16be"])
@pytest.mark.parametrize("shift", [0, 37])
def test_a_planted_plain_call_is_found(form: str, shift: int) -> None:
    speech = SPOKEN[shift:]
    coded = {
        "PCMU": g711.encode(speech),
        "PCMA": g711.encode(speech, "PCMA/8000"),
        "s16le": speech.astype("<i2").tobytes(),
        "s16be": speech.astype(">i2").tobytes(),
    }[form]
    size = 160 * len(coded) // len(speech)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
        socket.create_server((LOCALHOST, 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        ear.bind((LOCALHOST, 0))
        media_port, sip_port = ear.getsockname()[1], listener.getsockname()[1]
        with LoopbackCapture({media_port, sip_port}) as capture:
            client.sendall(b"OPTIONS sip:a@b SIP/2.0\r\n\r\n")
            for start in range(0, len(coded) - size + 1, size):
                mouth.sendto(b"h" * 12 + coded[start : start + size], ear.getsockname())
    found = search(capture.datagrams, spoken=[SPOKEN])
    assert capture.dropped == 0
    assert len(found.sip) == 1
    assert len(found.speech[form]) >= audible_frames(speech) - 4 > 40
    assert not any(packets for name, packets in found.speech.items() if name != form)
    assert not found.clean


def test_ports_that_are_not_watched_are_not_kept() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        ear.bind((LOCALHOST, 0))
        with LoopbackCapture({1}) as capture:
            mouth.sendto(b"nothing to see", ear.getsockname())
    assert capture.datagrams == []


def test_a_secure_call_shows_neither_sip_nor_speech(tmp_path: Path) -> None:
    async def scenario() -> LoopbackCapture:
        plan = Answering(source=MediaSource.of_pcm(SPOKEN))
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=plan) as bob:
            with LoopbackCapture() as capture:
                connection = await alice.connect(LOCALHOST, bob.port)
                call = await alice.invite(
                    connection, Invitation(uri=r.uri(bob), source=MediaSource.of_pcm(SPOKEN))
                )
                await call.wait_answered()
                other = await bob.next_call()
                await asyncio.gather(
                    call.stream.wait_heard(1, timeout_s=5), other.stream.wait_heard(1, timeout_s=5)
                )
                await call.hang_up()
            ports = {bob.port, call.stream.local[1], other.stream.local[1]}
            capture.datagrams = [d for d in capture.datagrams if d.destination_port in ports]
            return capture

    with rig(tmp_path) as r:
        capture = run(scenario())
    assert capture.dropped == 0
    assert sum(d.protocol == 17 for d in capture.datagrams) >= 98
    assert sum(d.protocol == 6 for d in capture.datagrams) >= 5
    assert search(capture.datagrams, spoken=[SPOKEN]).clean
