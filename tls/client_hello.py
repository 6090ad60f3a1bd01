"""Reading what a client offers in its first flight. Pure bytes.

Source: RFC 8446 sections 4.1.2 (ClientHello), 4.2.7 (supported_groups), 4.2.3 (signature_algorithms) and 5.1 (records).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_RECORD_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_RANDOM_AND_VERSION_BYTES: Final = 34
_SUPPORTED_GROUPS: Final = 10
_SIGNATURE_ALGORITHMS: Final = 13
_GREASE_MASK: Final = 0x0F0F
_GREASE_SHAPE: Final = 0x0A0A
_SIGNALLING_SUITE: Final = 0x00FF
"""TLS_EMPTY_RENEGOTIATION_INFO_SCSV is a signal in the clothes of a suite. Source: RFC 5746 section 3.3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientHello:
    """The code points a client offers, in its order of preference."""

    cipher_suites: tuple[int, ...]
    groups: tuple[int, ...]
    signature_schemes: tuple[int, ...]


class _Cursor:
    """Takes fields off the front of a byte string; a field that runs past the end is a ValueError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise ValueError("the message ends within a field")
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def number(self, octets: int) -> int:
        return int.from_bytes(self.take(octets), "big")

    def vector(self, length_octets: int) -> bytes:
        return self.take(self.number(length_octets))

    @property
    def at_end(self) -> bool:
        return self._position == len(self._data)


def parse_client_hello(flight: bytes) -> ClientHello:
    """What a first flight of TLS records offers.

    Raises:
        ValueError: it is not a whole ClientHello.
    """
    message = _Cursor(_handshake_bytes(flight))
    if message.number(1) != _CLIENT_HELLO:
        raise ValueError("the first message is not a ClientHello")
    body = _Cursor(message.vector(3))
    body.take(_RANDOM_AND_VERSION_BYTES)
    body.vector(1)
    suites = _code_points(body.vector(2))
    body.vector(1)
    extensions = _extensions(body.vector(2)) if not body.at_end else {}
    return ClientHello(
        cipher_suites=tuple(suite for suite in suites if suite != _SIGNALLING_SUITE),
        groups=_listed(extensions.get(_SUPPORTED_GROUPS)),
        signature_schemes=_listed(extensions.get(_SIGNATURE_ALGORITHMS)),
    )


def _handshake_bytes(flight: bytes) -> bytes:
    """The content of the leading handshake records; a ClientHello may span several."""
    cursor = _Cursor(flight)
    content = b""
    while not cursor.at_end:
        kind = cursor.number(1)
        cursor.take(2)
        fragment = cursor.vector(2)
        if kind != _RECORD_HANDSHAKE:
            break
        content += fragment
    return content


def _extensions(block: bytes) -> dict[int, bytes]:
    cursor = _Cursor(block)
    found: dict[int, bytes] = {}
    while not cursor.at_end:
        kind = cursor.number(2)
        found[kind] = cursor.vector(2)
    return found


def _listed(content: bytes | None) -> tuple[int, ...]:
    return () if content is None else _code_points(_Cursor(content).vector(2))


def _code_points(content: bytes) -> tuple[int, ...]:
    """Two-octet values, without those that RFC 8701 reserves to keep peers tolerant."""
    if len(content) % 2:
        raise ValueError("a list of two-octet values has an odd length")
    values = (int.from_bytes(content[index : index + 2], "big") for index in range(0, len(content), 2))
    return tuple(value for value in values if value & _GREASE_MASK != _GREASE_SHAPE)
