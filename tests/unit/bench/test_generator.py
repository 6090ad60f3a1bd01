"""The load generator's counts, against an independent SRTP implementation and over a network that loses packets."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pylibsrtp import Policy, Session

from b2bua.demo.pump import MediaPump
from b2bua.demo.sdp import MediaPlan, SRTPSuite
from b2bua.demo.stream import MediaSource, MediaStream
from support.endpoint import LOCALHOST, babble, run
from tests.bench.generator import Counts, GeneratedStream, Generator, GeneratorError, generating

PACKETS = MediaSource.of_pcm(babble(2, seed=3)).payloads


@pytest.fixture
def generator(tmp_path: Path) -> Iterator[Generator]:
    with generating(tmp_path, PACKETS) as made:
        yield made


def plan(
    remote: tuple[str, int], send: bytes, receive: bytes, suite: SRTPSuite = SRTPSuite.AEAD_AES_256_GCM
) -> MediaPlan:
    return MediaPlan(
        remote=remote,
        encoding="PCMU/8000",
        payload_type=0,
        event_payload_type=None,
        suite=suite,
        send_key=send,
        receive_key=receive,
        sends=True,
        receives=True,
    )


def keys(suite: SRTPSuite = SRTPSuite.AEAD_AES_256_GCM) -> tuple[bytes, bytes]:
    size = suite.key_bytes + suite.salt_bytes
    return secrets.token_bytes(size), secrets.token_bytes(size)


async def until(stream: GeneratedStream, condition: Callable[[Counts], bool]) -> Counts:
    """The counts once the condition holds; they can only be asked for."""
    async with asyncio.timeout(15):
        while not condition(counts := stream.counts()):  # noqa: ASYNC110 - C tells nobody what it counts
            await asyncio.sleep(0.02)
    return counts


@pytest.mark.parametrize("suite", [SRTPSuite.AEAD_AES_256_GCM, SRTPSuite.AEAD_AES_128_GCM])
def test_it_speaks_with_another_implementation(generator: Generator, suite: SRTPSuite) -> None:
    async def scenario() -> None:
        ours, theirs = keys(suite)
        stream = GeneratedStream(generator, LOCALHOST)
        with MediaPump() as pump:
            other = MediaStream(pump, LOCALHOST, keep_audio=False)
            await other.start(
                plan(stream.local, theirs, ours, suite), MediaSource(payloads=PACKETS, repeat=True)
            )
            await stream.start(plan(other.local, ours, theirs, suite))
            counts = await until(stream, lambda c: c.received >= 50)
            await other.wait_heard(1.0, timeout_s=15)
            heard = await other.stats()
        assert heard.auth_failures == heard.replays == heard.malformed == heard.lost == 0
        assert counts.expected == counts.received
        assert counts.voiced > counts.received / 2
        assert counts.refused == counts.send_errors == 0
        await stream.close()
        assert stream.counts().received >= counts.received

    run(scenario())


def test_silence_is_not_voice(generator: Generator) -> None:
    async def scenario() -> None:
        ours, theirs = keys()
        stream = GeneratedStream(generator, LOCALHOST)
        with MediaPump() as pump:
            other = MediaStream(pump, LOCALHOST, keep_audio=False)
            await other.start(plan(stream.local, theirs, ours))
            await stream.start(plan(other.local, ours, theirs))
            counts = await until(stream, lambda c: c.received >= 30)
        assert counts.voiced == 0
        await stream.close()

    run(scenario())


def test_packets_that_the_network_loses_are_missed(generator: Generator) -> None:
    async def scenario() -> None:
        ours, theirs = keys()
        sender, receiver = GeneratedStream(generator, LOCALHOST), GeneratedStream(generator, LOCALHOST)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
            relay.bind((LOCALHOST, 0))
            relay.setblocking(False)
            await receiver.start(plan((LOCALHOST, 9), theirs, ours))
            await sender.start(plan(relay.getsockname(), ours, theirs))
            for number in range(60):
                packet = await asyncio.wait_for(loop.sock_recv(relay, 2048), 10)
                if number % 10 != 5:
                    relay.sendto(packet, receiver.local)
            counts = await until(receiver, lambda c: c.received >= 54)
        assert (counts.received, counts.expected) == (54, 60)
        await sender.close()
        await receiver.close()

    run(scenario())


def test_a_packet_under_another_key_is_refused(generator: Generator) -> None:
    async def scenario() -> None:
        ours, theirs = keys()
        stream = GeneratedStream(generator, LOCALHOST)
        stranger = GeneratedStream(generator, LOCALHOST)
        await stream.start(plan(stranger.local, ours, theirs))
        await stranger.start(plan(stream.local, ours, theirs))
        counts = await until(stream, lambda c: c.refused >= 5)
        assert counts.received == 0
        await stream.close()
        await stranger.close()

    run(scenario())


def test_the_far_end_s_report_is_read(generator: Generator) -> None:
    async def scenario() -> None:
        ours, theirs = keys()
        stream = GeneratedStream(generator, LOCALHOST)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.bind((LOCALHOST, 0))
            far.setblocking(False)
            await stream.start(plan(far.getsockname(), ours, theirs))
            loop = asyncio.get_running_loop()
            first = await asyncio.wait_for(loop.sock_recv(far, 2048), 10)
            sequence, ssrc = struct.unpack_from("!2xH4xI", first)
            report = struct.pack("!BBHIIIIIII", 0x81, 201, 7, 7, ssrc, 12 << 24 | 3, sequence + 99, 0, 0, 0)
            protector = Session(
                Policy(
                    key=theirs,
                    ssrc_type=Policy.SSRC_ANY_OUTBOUND,
                    srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
                )
            )
            far.sendto(protector.protect_rtcp(report), (stream.local[0], stream.local[1] + 1))
            counts = await until(stream, lambda c: c.reports > 0)
        assert (counts.reports, counts.far_lost, counts.far_expected) == (1, 3, 100)
        await stream.close()

    run(scenario())


@pytest.mark.alone
def test_legs_keep_their_pace(generator: Generator) -> None:
    async def scenario() -> None:
        ours, theirs = keys()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.bind((LOCALHOST, 0))
            streams = [GeneratedStream(generator, LOCALHOST) for _ in range(40)]
            for stream in streams:
                await stream.start(plan(far.getsockname(), ours, theirs))
            began, before = time.monotonic(), sum(stream.counts().sent for stream in streams)
            await asyncio.sleep(1.0)
            sent = sum(stream.counts().sent for stream in streams) - before
            due = 40 * 50 * (time.monotonic() - began)
            for stream in streams:
                await stream.close()
        assert sent == pytest.approx(due, rel=0.1)

    run(scenario())


def test_a_running_stream_takes_no_other_plan(generator: Generator) -> None:
    async def scenario() -> None:
        ours, theirs = keys()
        stream = GeneratedStream(generator, LOCALHOST)
        first = plan((LOCALHOST, 9), ours, theirs)
        await stream.start(first)
        await stream.start(first)
        with pytest.raises(GeneratorError, match="cannot be changed"):
            await stream.start(plan((LOCALHOST, 9), theirs, ours))
        await stream.close()

    run(scenario())
