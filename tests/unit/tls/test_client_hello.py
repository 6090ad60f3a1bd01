"""Reading a ClientHello: against OpenSSL's own, and against every way to cut one short."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tls.client_hello import ClientHello, parse_client_hello


def first_flight(version: ssl.TLSVersion, ciphers: str = "DEFAULT") -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    context.set_ecdh_curve("prime256v1")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="a.example").do_handshake()
    return outgoing.read()


FLIGHT = first_flight(ssl.TLSVersion.TLSv1_3)


def test_openssl_tls_1_3() -> None:
    hello = parse_client_hello(FLIGHT)
    assert set(hello.cipher_suites) == {0x1301, 0x1302, 0x1303}
    assert hello.groups == (0x0017,)
    assert 0x0403 in hello.signature_schemes


def test_openssl_tls_1_2() -> None:
    hello = parse_client_hello(first_flight(ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256"))
    assert hello.cipher_suites == (0xC02F,)


def record(message: bytes, split: int | None = None) -> bytes:
    pieces = [message] if split is None else [message[:split], message[split:]]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def message_of(suites: bytes, extensions: bytes | None) -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\0" + len(suites).to_bytes(2, "big") + suites + b"\x01\0"
    if extensions is not None:
        body += len(extensions).to_bytes(2, "big") + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def test_values_that_only_keep_peers_tolerant_are_left_out() -> None:
    groups = bytes.fromhex("000a 0006 0004 8a8a 001d")
    flight = record(message_of(bytes.fromhex("0a0a 1301 00ff"), groups))
    assert parse_client_hello(flight) == ClientHello(
        cipher_suites=(0x1301,), groups=(0x001D,), signature_schemes=()
    )


def test_no_extensions_at_all() -> None:
    assert parse_client_hello(record(message_of(b"\x13\x01", None))).groups == ()


@settings(deadline=None)
@given(split=st.integers(1, len(FLIGHT) - 6))
def test_a_message_may_span_records(split: int) -> None:
    assert parse_client_hello(record(FLIGHT[5:], split)) == parse_client_hello(FLIGHT)


@settings(deadline=None)
@given(length=st.integers(0, len(FLIGHT) - 1))
def test_a_cut_flight_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="ends within a field"):
        parse_client_hello(FLIGHT[:length])


def test_other_messages_are_refused() -> None:
    with pytest.raises(ValueError, match="not a ClientHello"):
        parse_client_hello(record(b"\x02" + FLIGHT[6:]))
    with pytest.raises(ValueError, match="odd length"):
        parse_client_hello(record(message_of(b"\x13\x01\x13", b"")))
    with pytest.raises(ValueError, match="ends within a field"):
        parse_client_hello(b"\x17" + FLIGHT[1:])
