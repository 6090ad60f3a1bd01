"""The media thread itself: jobs, their exceptions, pacing, and its end."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import numpy as np
import pytest

from b2bua.demo.errors import DemoError, WaitTimeoutError
from b2bua.demo.pump import MediaPump
from b2bua.demo.rtp import parse_rtp, srtp_receiver
from b2bua.demo.sdp import MediaPlan, SRTPSuite
from b2bua.demo.stream import MediaSource, MediaStream

KEY = bytes(44)


def plan_to(port: int) -> MediaPlan:
    return MediaPlan(
        remote=("127.0.0.1", port),
        encoding="PCMU/8000",
        payload_type=0,
        event_payload_type=None,
        suite=SRTPSuite.AEAD_AES_256_GCM,
        send_key=KEY,
        receive_key=KEY,
        sends=True,
        receives=True,
    )


def test_a_job_runs_on_the_pumps_thread_and_its_exception_comes_back() -> None:
    async def scenario(pump: MediaPump) -> None:
        assert await pump.call(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await pump.call(lambda: 1 // 0)

    with MediaPump() as pump:
        asyncio.run(scenario(pump))
    with pytest.raises(DemoError, match="stopped"):
        asyncio.run(scenario(pump))


@pytest.mark.alone
def test_packets_leave_every_20_ms_in_sequence_and_the_source_ends_in_silence() -> None:
    async def scenario(pump: MediaPump) -> list[tuple[int, bytes]]:
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        far.bind(("127.0.0.1", 0))
        far.settimeout(2)
        stream = MediaStream(pump, "127.0.0.1", keep_audio=True)
        source = MediaSource(payloads=(b"a" * 160, b"b" * 160))
        await stream.start(plan_to(far.getsockname()[1]), source)
        packets = [(time.monotonic_ns(), far.recv(2048)) for _ in range(20)]
        await stream.wait_spoken(timeout_s=2)
        assert (await stream.spoken_pcm())[:160].tolist() == (await stream.spoken_pcm())[:1].tolist() * 160
        far.close()
        return packets

    with MediaPump() as pump:
        packets = asyncio.run(scenario(pump))
    receiver = srtp_receiver(SRTPSuite.AEAD_AES_256_GCM, KEY)
    plain = [parse_rtp(receiver.unprotect(packet)) for _, packet in packets]
    first = plain[0]
    assert [packet.sequence - first.sequence for packet in plain] == list(range(20))
    assert [packet.timestamp - first.timestamp for packet in plain] == [160 * index for index in range(20)]
    assert [packet.marker for packet in plain] == [True] + [False] * 19
    assert [packet.payload[:1] for packet in plain] == [b"a", b"b"] + [b"\xff"] * 18
    span_ms = (packets[-1][0] - packets[0][0]) / 1e6
    assert 340 < span_ms < 480


def test_a_stream_has_an_even_port_and_keeps_the_next_for_rtcp() -> None:
    async def scenario(pump: MediaPump) -> None:
        streams = [MediaStream(pump, "127.0.0.1", keep_audio=False) for _ in range(30)]
        for stream in streams:
            host, port = stream.local
            assert port % 2 == 0
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
                pytest.raises(OSError, match="in use"),
            ):
                other.bind((host, port + 1))
            await stream.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((streams[0].local[0], streams[0].local[1] + 1))

    with MediaPump() as pump:
        asyncio.run(scenario(pump))


def test_digits_need_an_agreed_payload_type_and_a_wait_has_an_end() -> None:
    async def scenario(pump: MediaPump) -> None:
        stream = MediaStream(pump, "127.0.0.1", keep_audio=True)
        with pytest.raises(DemoError, match="not been started"):
            await stream.send_raw(b"x")
        await stream.start(plan_to(9), None)
        with pytest.raises(DemoError, match="telephone-event"):
            await stream.send_digits("1")
        with pytest.raises(WaitTimeoutError, match=r"1 s of audio within 0\.05 s"):
            await stream.wait_heard(1, timeout_s=0.05)
        await stream.close()

    with MediaPump() as pump:
        asyncio.run(scenario(pump))


def test_a_source_codes_whole_packets_and_may_repeat() -> None:
    source = MediaSource.of_pcm(np.zeros(200, dtype=np.int16), repeat=True)
    assert [len(payload) for payload in source.payloads] == [160, 160]
    assert source.repeat
