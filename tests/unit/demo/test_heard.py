"""The sample clock of a stream: loss, reordering, a new source, wrap-around, digits and counts."""

from __future__ import annotations

import pytest

from b2bua.demo.heard import Hearing, looks_plain
from b2bua.demo.rtp import RTPPacket, event_payloads, pack_rtp

MS = 1_000_000
SILENCE = b"\xff" * 160


def hear(
    hearing: Hearing, slot: int, *, fill: int = 0, ssrc: int = 1, timestamp: int | None = None, **fields: int
) -> None:
    """Take the packet of a 20 ms slot, arriving on time unless told otherwise."""
    base = 0xFFFFFFFF - 200 if timestamp is None else timestamp
    packet = RTPPacket(
        payload_type=fields.get("payload_type", 0),
        marker=False,
        sequence=(fields.get("sequence", 65534 + slot)) % 65536,
        timestamp=(base + slot * 160) % 2**32,
        ssrc=ssrc,
        payload=bytes((fill,)) * 160,
    )
    hearing.take(pack_rtp(packet), fields.get("arrived_ms", slot * 20) * MS, 0, 101)


def test_loss_is_silence_of_the_true_length_across_both_wraps() -> None:
    hearing = Hearing()
    for slot in (0, 1, 4):
        hear(hearing, slot, fill=slot)
    assert bytes(hearing.octets) == b"\0" * 160 + b"\1" * 160 + SILENCE * 2 + b"\4" * 160
    assert hearing.stats(sent=0, sent_late=0).lost == 2


def test_a_late_packet_fills_its_own_place() -> None:
    hearing = Hearing()
    for slot in (0, 2, 1):
        hear(hearing, slot, fill=slot)
    assert bytes(hearing.octets) == b"\0" * 160 + b"\1" * 160 + b"\2" * 160
    stats = hearing.stats(sent=0, sent_late=0)
    assert (stats.lost, stats.reordered, stats.received) == (0, 1, 3)


def test_a_new_source_goes_on_where_the_wall_clock_is() -> None:
    hearing = Hearing()
    hear(hearing, 0, fill=1)
    hear(hearing, 3, fill=2, ssrc=9, timestamp=5000, sequence=77)
    assert bytes(hearing.octets) == b"\1" * 160 + SILENCE * 2 + b"\2" * 160
    stats = hearing.stats(sent=0, sent_late=0)
    assert (stats.ssrcs, stats.lost) == ((1, 9), 0)
    assert stats.heard_s == pytest.approx(0.06)


def test_a_sender_that_restarts_its_timestamps_does_not_fill_memory() -> None:
    hearing = Hearing()
    hear(hearing, 0, fill=1)
    hear(hearing, 1, fill=2, timestamp=2**30)
    assert bytes(hearing.octets) == b"\1" * 160 + b"\2" * 160


def test_audio_from_before_the_first_packet_is_cut() -> None:
    hearing = Hearing()
    hear(hearing, 0, fill=1)
    hear(hearing, -1, fill=2, arrived_ms=1)
    assert bytes(hearing.octets) == b"\1" * 160


def test_digits_are_told_once_and_leave_no_audio() -> None:
    hearing = Hearing()
    for index, payload in enumerate(event_payloads("4")):
        packet = RTPPacket(
            payload_type=101, marker=False, sequence=index, timestamp=50, ssrc=1, payload=payload
        )
        hearing.take(pack_rtp(packet), index * 20 * MS, 0, 101)
    assert [event.digit for event in hearing.digits] == ["4"]
    assert (hearing.audio_packets, bytes(hearing.octets)) == (0, b"")


def test_other_payloads_and_broken_packets_are_counted_apart() -> None:
    hearing = Hearing()
    hear(hearing, 0, payload_type=8)
    hearing.take(b"\x80", 0, 0, 101)
    stats = hearing.stats(sent=3, sent_late=1)
    assert (stats.unexpected_payload, stats.malformed, stats.sent, stats.sent_late) == (1, 1, 3, 1)


def test_a_stream_that_keeps_no_audio_still_counts_it() -> None:
    hearing = Hearing(keep_audio=False)
    hear(hearing, 0)
    assert (hearing.audio_packets, len(hearing.octets)) == (1, 0)


@pytest.mark.parametrize(
    ("size", "second", "plain"),
    [(172, 0, True), (188, 0, False), (182, 0, False), (172, 8, False), (11, 0, False)],
)
def test_plain_rtp_is_told_by_its_length_and_payload_type(size: int, second: int, *, plain: bool) -> None:
    datagram = (bytes((0x80, second)) + bytes(size))[:size]
    assert looks_plain(datagram, frozenset({0, 101})) is plain
