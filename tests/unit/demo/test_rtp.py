"""RTP packets, telephone events, and SRTP contexts checked against an implementation written from the RFCs here."""

from __future__ import annotations

import hmac
import struct

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pylibsrtp import Error

from b2bua.demo.errors import RTPError
from b2bua.demo.rtp import (
    RTPPacket,
    event_payloads,
    pack_rtp,
    parse_event,
    parse_rtp,
    srtp_receiver,
    srtp_sender,
)
from b2bua.demo.sdp import SRTPSuite

PACKET = RTPPacket(
    payload_type=0, marker=True, sequence=0xFFFF, timestamp=0xFFFFFF60, ssrc=0x11223344, payload=b"voice" * 32
)


def test_a_packet_has_rfc_3550_bytes_and_comes_back() -> None:
    data = pack_rtp(PACKET)
    assert data[:12].hex() == "8080ffffffffff6011223344"
    assert parse_rtp(data) == PACKET


def test_sources_extension_and_padding_are_taken_off() -> None:
    head = struct.pack("!BBHII", 0x80 | 0x30 | 2, 0, 1, 2, 3) + b"c" * 8
    data = head + bytes.fromhex("bede0001") + b"extn" + b"payload" + b"\0\0\3"
    assert parse_rtp(data).payload == b"payload"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80" * 11,
        b"\x40" + b"\0" * 20,
        b"\x8f" + b"\0" * 20,
        b"\x90" + b"\0" * 12,
        b"\xa0" + b"\0" * 11 + b"\xff",
    ],
)
def test_what_is_no_rtp_is_refused(data: bytes) -> None:
    with pytest.raises(RTPError):
        parse_rtp(data)


def test_a_digit_grows_and_ends_three_times() -> None:
    payloads = list(event_payloads("#", duration_ms=100))
    assert [payload.hex() for payload in payloads] == [
        "0b0a00a0", "0b0a0140", "0b0a01e0", "0b0a0280", "0b8a0320", "0b8a0320", "0b8a0320",
    ]  # fmt: skip


def test_only_the_end_of_an_event_is_a_digit() -> None:
    def event(payload: str) -> RTPPacket:
        return RTPPacket(
            payload_type=101, marker=False, sequence=1, timestamp=7, ssrc=1, payload=bytes.fromhex(payload)
        )

    assert parse_event(event("050a0140")) is None
    digit = parse_event(event("058a0320"))
    assert digit is not None
    assert (digit.digit, digit.samples, digit.timestamp) == ("5", 800, 7)
    for bad in ("", "058a03", "108a0320"):
        with pytest.raises(RTPError, match="telephone event"):
            parse_event(event(bad))


@pytest.mark.parametrize("digit", ["E", "", "12", "é"])
def test_what_is_no_digit_is_refused(digit: str) -> None:
    with pytest.raises(RTPError, match="not a DTMF digit"):
        list(event_payloads(digit))


def _derive(key: bytes, salt: bytes, label: int, length: int) -> bytes:
    """RFC 3711 section 4.3.1 with derivation rate 0; a 96-bit AEAD salt is padded on the right (RFC 7714)."""
    padded = int.from_bytes(salt.ljust(14, b"\0"), "big") ^ (label << 48)
    counter = (padded << 16).to_bytes(16, "big")
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(length))


def _protected(suite: SRTPSuite, master: bytes, packet: RTPPacket) -> bytes:
    """The SRTP packet at roll-over counter 0."""
    key, salt = master[: suite.key_bytes], master[suite.key_bytes :]
    header, payload = pack_rtp(packet)[:12], packet.payload
    cipher_key = _derive(key, salt, 0, suite.key_bytes)
    session_salt = _derive(key, salt, 2, suite.salt_bytes)
    if suite.salt_bytes == 12:
        block = packet.ssrc << 48 | packet.sequence
        nonce = (int.from_bytes(session_salt, "big") ^ block).to_bytes(12, "big")
        return header + AESGCM(cipher_key).encrypt(nonce, payload, header)
    block = (int.from_bytes(session_salt, "big") << 16) ^ (packet.ssrc << 64) ^ (packet.sequence << 16)
    sealed = header + Cipher(
        algorithms.AES(cipher_key), modes.CTR(block.to_bytes(16, "big"))
    ).encryptor().update(payload)
    tag = hmac.digest(_derive(key, salt, 1, 20), sealed + bytes(4), "sha1")[:10]
    return sealed + tag


@pytest.mark.parametrize("suite", list(SRTPSuite), ids=lambda suite: suite.sdp_name)
def test_srtp_packets_are_those_of_the_rfcs(suite: SRTPSuite) -> None:
    master = bytes(range(suite.key_bytes + suite.salt_bytes))
    packet = RTPPacket(
        payload_type=0, marker=False, sequence=0x1234, timestamp=1, ssrc=0xCAFEBABE, payload=b"\x55" * 160
    )
    expected = _protected(suite, master, packet)
    assert srtp_sender(suite, master).protect(pack_rtp(packet)) == expected
    assert srtp_receiver(suite, master).unprotect(expected) == pack_rtp(packet)
    flipped = expected[:50] + bytes((expected[50] ^ 1,)) + expected[51:]
    with pytest.raises(Error, match="authentication"):
        srtp_receiver(suite, master).unprotect(flipped)
