"""RTP packets, telephone events, and the SRTP contexts of one stream.

Source: RFC 3550 section 5.1, RFC 4733 section 2.3, RFC 3711, RFC 6188, RFC 7714.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi

from b2bua.demo.errors import RTPError
from b2bua.demo.sdp import SRTPSuite

HEADER = struct.Struct("!BBHII")
VERSION_2: Final = 0x80
MARKER: Final = 0x80
SAMPLES_PER_PACKET: Final = 160
_EVENT = struct.Struct("!BBH")
_EVENT_END: Final = 0x80
_EVENT_VOLUME_DBM0: Final = 10
_EVENT_END_REPEATS: Final = 3
"""RFC 4733 section 2.5.1.4: the final packet is sent three times."""
_EVENT_DIGITS: Final = "0123456789*#ABCD"
_CRYPTO_POLICY = struct.Struct("=IiIiiI")
_AES_ICM_256, _HMAC_SHA1, _CONFIDENTIAL_AND_AUTHENTIC = 5, 3, 3
"""libsrtp's public numbers; pylibsrtp has profiles for the other three suites but none for RFC 6188."""

_PROFILES: Final = {
    SRTPSuite.AEAD_AES_256_GCM: Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
    SRTPSuite.AEAD_AES_128_GCM: Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    SRTPSuite.AES_CM_128_HMAC_SHA1_80: Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    SRTPSuite.AES_256_CM_HMAC_SHA1_80: Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RTPPacket:
    """A parsed packet; contributing sources, extension and padding are taken off."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TelephoneEvent:
    """A digit heard to its end. `samples` is its duration at 8 kHz, `timestamp` the RTP time it began."""

    digit: str
    samples: int
    timestamp: int


def pack_rtp(packet: RTPPacket) -> bytes:
    """The packet's bytes."""
    second = packet.payload_type | (MARKER if packet.marker else 0)
    return HEADER.pack(VERSION_2, second, packet.sequence, packet.timestamp, packet.ssrc) + packet.payload


def parse_rtp(data: bytes) -> RTPPacket:
    """Parse one packet.

    Raises:
        RTPError: not version 2, or shorter than its own header says.
    """
    if len(data) < HEADER.size or data[0] >> 6 != 2:
        raise RTPError("the datagram is not RTP version 2")
    first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
    start = HEADER.size + 4 * (first & 0x0F)
    if first & 0x10:
        if len(data) < start + 4:
            raise RTPError("the header extension is cut")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    end = len(data) - (data[-1] if first & 0x20 else 0)
    if start > end:
        raise RTPError("the packet is shorter than its header says")
    return RTPPacket(
        payload_type=second & 0x7F, marker=bool(second & MARKER), sequence=sequence, timestamp=timestamp,
        ssrc=ssrc, payload=data[start:end],
    )  # fmt: skip


def event_payloads(digit: str, *, duration_ms: int = 100) -> Iterator[bytes]:
    """The event payloads of one digit, one for each 20 ms slot: growing durations, then the end three times.

    Raises:
        RTPError: the digit has no RFC 4733 event code.
    """
    code = _EVENT_DIGITS.find(digit.upper()) if len(digit) == 1 else -1
    if code < 0:
        raise RTPError(f"{digit!r} is not a DTMF digit")
    total = duration_ms * 8
    for duration in range(SAMPLES_PER_PACKET, total, SAMPLES_PER_PACKET):
        yield _EVENT.pack(code, _EVENT_VOLUME_DBM0, duration)
    for _ in range(_EVENT_END_REPEATS):
        yield _EVENT.pack(code, _EVENT_END | _EVENT_VOLUME_DBM0, total)


def parse_event(packet: RTPPacket) -> TelephoneEvent | None:
    """The digit of an event's end packet; None while the event goes on.

    Raises:
        RTPError: the payload is no DTMF event.
    """
    if len(packet.payload) < _EVENT.size or packet.payload[0] >= len(_EVENT_DIGITS):
        raise RTPError("the payload is not a DTMF telephone event")
    code, flags, duration = _EVENT.unpack_from(packet.payload)
    if not flags & _EVENT_END:
        return None
    return TelephoneEvent(digit=_EVENT_DIGITS[code], samples=duration, timestamp=packet.timestamp)


def srtp_sender(suite: SRTPSuite, key: bytes) -> Session:
    """A context that protects what this side sends; used by one thread."""
    return Session(_policy(suite, key, Policy.SSRC_ANY_OUTBOUND))


def srtp_receiver(suite: SRTPSuite, key: bytes) -> Session:
    """A context that opens what the peer sends, whatever its SSRC; used by one thread."""
    return Session(_policy(suite, key, Policy.SSRC_ANY_INBOUND))


def _policy(suite: SRTPSuite, key: bytes, ssrc_type: int) -> Policy:
    policy = Policy(key=key, ssrc_type=ssrc_type, srtp_profile=_PROFILES[suite])
    if suite is SRTPSuite.AES_256_CM_HMAC_SHA1_80:
        words = _CRYPTO_POLICY.pack(_AES_ICM_256, len(key), _HMAC_SHA1, 20, 10, _CONFIDENTIAL_AND_AUTHENTIC)
        for part in (policy._policy.rtp, policy._policy.rtcp):
            ffi.buffer(ffi.addressof(part))[:] = words
    return policy
