"""What a stream heard: packets laid on a sample clock by RTP timestamp, digits, and the counts of everything else.

One `Hearing` belongs to one stream and is touched by the media thread alone; others read frozen `StreamStats`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from b2bua.demo.errors import RTPError
from b2bua.demo.g711 import RATE_HZ, SILENCE_OCTET
from b2bua.demo.rtp import HEADER, RTPPacket, TelephoneEvent, parse_event, parse_rtp

_TIMESTAMP_SPAN: Final = 1 << 32
_SEQUENCE_SPAN: Final = 1 << 16
_MAX_JUMP_SAMPLES: Final = 10 * RATE_HZ
"""A timestamp further than this from the wall clock is a new time line, not a loss (a restarted sender)."""
_PLAIN_PAYLOADS: Final = frozenset({80, 160, 240, 320, 480})
"""G.711 payloads of 10 to 60 ms. A tag of 10 or 16 bytes makes none of these lengths from another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStats:
    """Counts of one stream. Times are `time.monotonic_ns`; None before the first packet."""

    sent: int
    sent_late: int
    received: int
    lost: int
    reordered: int
    auth_failures: int
    replays: int
    plaintext: int
    malformed: int
    unexpected_payload: int
    ssrcs: tuple[int, ...]
    first_arrival_ns: int | None
    last_arrival_ns: int | None

    @property
    def heard_s(self) -> float:
        """Seconds between the first and the last authentic packet."""
        if self.first_arrival_ns is None or self.last_arrival_ns is None:
            return 0.0
        return (self.last_arrival_ns - self.first_arrival_ns) / 1e9


def looks_plain(datagram: bytes, payload_types: frozenset[int]) -> bool:
    """Whether a datagram that failed authentication is readable RTP: plain header, plain length, expected coding."""
    return (
        len(datagram) >= HEADER.size
        and datagram[0] == 0x80
        and datagram[1] & 0x7F in payload_types
        and len(datagram) - HEADER.size in _PLAIN_PAYLOADS
    )


@dataclass(slots=True, kw_only=True)
class Hearing:
    """Mutable record of one stream's received side. Keeps audio as coded octets: one octet is one sample."""

    keep_audio: bool = True
    octets: bytearray = field(default_factory=bytearray)
    encoding: str = "PCMU/8000"
    digits: list[TelephoneEvent] = field(default_factory=list)
    received: int = 0
    audio_packets: int = 0
    reordered: int = 0
    auth_failures: int = 0
    replays: int = 0
    plaintext: int = 0
    malformed: int = 0
    unexpected_payload: int = 0
    ssrcs: list[int] = field(default_factory=list)
    first_arrival_ns: int | None = None
    last_arrival_ns: int | None = None
    lost: int = 0
    _ssrc: int | None = None
    _highest_sequence: int = 0
    _origin: int = 0
    """RTP timestamp of sample 0 on this stream's clock, modulo 2**32."""

    def take(self, plain: bytes, arrived_ns: int, payload_type: int, event_payload_type: int | None) -> None:
        """Record one authentic packet. `arrived_ns` is monotonic."""
        try:
            packet = parse_rtp(plain)
            self._take(packet, arrived_ns, payload_type, event_payload_type)
        except RTPError:
            self.malformed += 1

    def _take(
        self, packet: RTPPacket, arrived_ns: int, payload_type: int, event_payload_type: int | None
    ) -> None:
        self._follow(packet, arrived_ns)
        if packet.payload_type == payload_type:
            self.audio_packets += 1
            if self.keep_audio:
                self._lay(packet)
        elif packet.payload_type == event_payload_type:
            event = parse_event(packet)
            if event is not None and event.timestamp not in {digit.timestamp for digit in self.digits[-4:]}:
                self.digits.append(event)
        else:
            self.unexpected_payload += 1

    def _follow(self, packet: RTPPacket, arrived_ns: int) -> None:
        """Keep sequence, SSRC and the clock's origin; a new source goes on where the wall clock says it began."""
        self.received += 1
        if self.first_arrival_ns is None:
            self.first_arrival_ns = arrived_ns
        elapsed = (arrived_ns - self.first_arrival_ns) * RATE_HZ // 1_000_000_000
        self.last_arrival_ns = arrived_ns
        if packet.ssrc != self._ssrc:
            self._ssrc = packet.ssrc
            self.ssrcs.append(packet.ssrc)
            self._highest_sequence = packet.sequence
            self._origin = (packet.timestamp - elapsed) % _TIMESTAMP_SPAN
            return
        step = _signed(packet.sequence - self._highest_sequence, _SEQUENCE_SPAN)
        if step > 0:
            self.lost += step - 1
            self._highest_sequence = packet.sequence
        else:
            self.reordered += 1
            self.lost -= 1
        if abs(_signed(packet.timestamp - self._origin - elapsed, _TIMESTAMP_SPAN)) > _MAX_JUMP_SAMPLES:
            self._origin = (packet.timestamp - elapsed) % _TIMESTAMP_SPAN

    def _lay(self, packet: RTPPacket) -> None:
        start = _signed(packet.timestamp - self._origin, _TIMESTAMP_SPAN)
        payload = packet.payload[-start:] if start < 0 else packet.payload
        start = max(start, 0)
        missing = start - len(self.octets)
        if missing > 0:
            self.octets += bytes((SILENCE_OCTET[self.encoding],)) * missing
        self.octets[start : start + len(payload)] = payload

    def stats(self, *, sent: int, sent_late: int) -> StreamStats:
        """The counts so far, frozen."""
        return StreamStats(
            sent=sent, sent_late=sent_late, received=self.received, lost=max(self.lost, 0), reordered=self.reordered,
            auth_failures=self.auth_failures, replays=self.replays, plaintext=self.plaintext,
            malformed=self.malformed, unexpected_payload=self.unexpected_payload, ssrcs=tuple(self.ssrcs),
            first_arrival_ns=self.first_arrival_ns, last_arrival_ns=self.last_arrival_ns,
        )  # fmt: skip


def _signed(difference: int, span: int) -> int:
    """A modular difference as the nearest signed number."""
    return (difference + span // 2) % span - span // 2
