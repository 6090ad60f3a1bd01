"""SIP messages: bytes off a TLS stream to frozen values, and back.

Written for the test and demo endpoint alone, and on purpose without the engine's parser, so that a mistake in one
is not hidden by the same mistake in the other. The parser is strict: what a lenient stack would mend is an error here.

Source: RFC 3261 sections 7, 18.3 and 25.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from b2bua.demo.errors import SIPParseError

MAX_MESSAGE_BYTES = 65_536
_KEEPALIVE = b"\r\n"
_WORD = r"[A-Za-z0-9\-.!%*_+`'~]+"
_REQUEST_LINE = re.compile(rf"({_WORD}) ([^\s]+) SIP/2\.0")
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6][0-9]{2}) ([^\r\n]*)")
_HEADER_LINE = re.compile(rf"({_WORD})[ \t]*:[ \t]*(.*)", re.DOTALL)
_CSEQ = re.compile(rf"([0-9]{{1,10}})[ \t]+({_WORD})")
_PARAMETER = re.compile(rf";\s*({_WORD})\s*(?:=\s*(\"(?:[^\"\\]|\\.)*\"|[^;,\s]+))?")
_COMPACT_NAMES = {
    "c": "Content-Type", "e": "Content-Encoding", "f": "From", "i": "Call-ID", "k": "Supported",
    "l": "Content-Length", "m": "Contact", "o": "Event", "r": "Refer-To", "s": "Subject", "t": "To",
    "u": "Allow-Events", "v": "Via", "x": "Session-Expires",
}  # fmt: skip
_REQUIRED = ("Via", "From", "To", "Call-ID", "CSeq")


class Header(NamedTuple):
    """One header line, its compact name written out."""

    name: str
    value: str


class CSeq(NamedTuple):
    """The CSeq header's two parts."""

    number: int
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What requests and responses have in common. `Content-Length` is never among the headers: `build` writes it."""

    headers: tuple[Header, ...]
    body: bytes = b""

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a header, in the order of the message; list headers stay joined."""
        wanted = name.lower()
        return tuple(header.value for header in self.headers if header.name.lower() == wanted)

    def first(self, name: str) -> str | None:
        """The topmost value of a header, or None."""
        wanted = name.lower()
        return next((header.value for header in self.headers if header.name.lower() == wanted), None)

    def require(self, name: str) -> str:
        """The topmost value of a header.

        Raises:
            SIPParseError: the header is missing.
        """
        value = self.first(name)
        if value is None:
            raise SIPParseError(f"the message has no {name} header")
        return value

    @property
    def call_id(self) -> str:
        return self.require("Call-ID")

    @property
    def cseq(self) -> CSeq:
        """The parsed CSeq.

        Raises:
            SIPParseError: it is missing or not `number method`.
        """
        match = _CSEQ.fullmatch(self.require("CSeq"))
        if match is None:
            raise SIPParseError("the CSeq header is not a number and a method")
        return CSeq(int(match[1]), match[2])

    @property
    def from_tag(self) -> str | None:
        return parameter(self.require("From"), "tag")

    @property
    def to_tag(self) -> str | None:
        return parameter(self.require("To"), "tag")

    @property
    def branch(self) -> str | None:
        """The branch of the topmost Via: the transaction's key."""
        return parameter(split_list(self.require("Via"))[0], "branch")

    @property
    def contact_uri(self) -> str | None:
        """The URI of the first Contact, without its header parameters."""
        value = self.first("Contact")
        return None if value is None else uri_of(split_list(value)[0])

    def _lines(self, start_line: str) -> bytes:
        lines = [start_line, *(f"{name}: {value}" for name, value in self.headers)]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode("utf-8", "surrogateescape") + self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class SIPRequest(Message):
    """A request."""

    method: str
    uri: str

    def build(self) -> bytes:
        """The request as sent, with the Content-Length of its body."""
        return self._lines(f"{self.method} {self.uri} SIP/2.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SIPResponse(Message):
    """A response."""

    status: int
    reason: str = field(default="")

    def build(self) -> bytes:
        """The response as sent, with the Content-Length of its body."""
        return self._lines(f"SIP/2.0 {self.status} {self.reason}")


SIPMessage: TypeAlias = SIPRequest | SIPResponse


def uri_of(name_addr: str) -> str:
    """The URI inside a From, To, Contact or Route value, with its URI parameters and without the header's own."""
    match = re.search(r"<([^>]*)>", _outside_quotes(name_addr))
    if match is not None:
        return name_addr[match.start(1) : match.end(1)]
    return name_addr.split(";", 1)[0].strip()


def parameter(value: str, name: str) -> str | None:
    """A header parameter (`tag`, `branch`, ...): "" when it has no value, None when it is absent."""
    blanked = _outside_quotes(value)
    start = blanked.rfind(">") + 1
    for match in _PARAMETER.finditer(value, start):
        if match[1].lower() == name.lower():
            return match[2] or ""
    return None


def split_list(value: str) -> list[str]:
    """A comma list split outside quotes and angle brackets.

    Source: RFC 3261 section 7.3.1.
    """
    parts: list[str] = []
    blanked = re.sub(r"<[^>]*>", lambda match: "_" * len(match[0]), _outside_quotes(value))
    start = 0
    for match in re.finditer(",", blanked):
        parts.append(value[start : match.start()].strip())
        start = match.end()
    return [*parts, value[start:].strip()]


def _outside_quotes(value: str) -> str:
    return re.sub(r"\"(?:[^\"\\]|\\.)*\"", lambda match: "_" * len(match[0]), value)


def parse_message(data: bytes) -> SIPMessage:
    """Parse one whole message, head and body.

    Raises:
        SIPParseError: the bytes are not exactly one well-formed message.
    """
    framer = StreamFramer()
    messages = framer.feed(data)
    if len(messages) != 1 or framer.pending_bytes:
        raise SIPParseError(f"{len(data)} bytes hold {len(messages)} whole messages instead of one")
    return messages[0]


class StreamFramer:
    """Cuts a byte stream into messages by Content-Length. One per connection and direction; not shared by threads."""

    def __init__(self, *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes
        self.keepalives = 0
        """Lone CRLFs seen between messages (RFC 5626 section 3.5.1)."""

    @property
    def pending_bytes(self) -> int:
        """Bytes of a message that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[SIPMessage]:
        """Take bytes and return the messages they complete, in order.

        Raises:
            SIPParseError: the stream cannot be framed any more; the caller closes the connection.
        """
        self._buffer += data
        return list(self._complete())

    def _complete(self) -> Iterator[SIPMessage]:
        while True:
            while self._buffer.startswith(_KEEPALIVE):
                del self._buffer[:2]
                self.keepalives += 1
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                self._check_size(len(self._buffer))
                return
            start_line, headers = _parse_head(bytes(self._buffer[:end]))
            length = _content_length(headers)
            self._check_size(end + 4 + length)
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            kept = tuple(header for header in headers if header.name.lower() != "content-length")
            yield _message(start_line, kept, body)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise SIPParseError(f"a message of {size} bytes is over the limit of {self._max_bytes}")


def _parse_head(head: bytes) -> tuple[str, list[Header]]:
    text = head.decode("utf-8", "surrogateescape")
    if re.search(r"\r(?!\n)|(?<!\r)\n|\0", text):
        raise SIPParseError("the head holds a NUL or a line end that is not CRLF")
    start_line, *lines = re.sub(r"\r\n[ \t]+", " ", text).split("\r\n")
    return start_line, [_header(line) for line in lines]


def _header(line: str) -> Header:
    match = _HEADER_LINE.fullmatch(line)
    if match is None:
        raise SIPParseError("a header line is not `name: value`")
    return Header(_COMPACT_NAMES.get(match[1].lower(), match[1]), match[2].rstrip())


def _content_length(headers: Iterable[Header]) -> int:
    """On a stream the header is compulsory (RFC 3261 section 18.3); two that differ would frame two ways."""
    values = {header.value for header in headers if header.name.lower() == "content-length"}
    if len(values) != 1:
        raise SIPParseError(
            "the message has no Content-Length" if not values else "two Content-Lengths differ"
        )
    (value,) = values
    if not (value.isascii() and value.isdigit()):
        raise SIPParseError("the Content-Length is not a number")
    return int(value)


def _message(start_line: str, headers: tuple[Header, ...], body: bytes) -> SIPMessage:
    message: SIPMessage
    if request := _REQUEST_LINE.fullmatch(start_line):
        message = SIPRequest(method=request[1], uri=request[2], headers=headers, body=body)
    elif status := _STATUS_LINE.fullmatch(start_line):
        message = SIPResponse(status=int(status[1]), reason=status[2], headers=headers, body=body)
    else:
        raise SIPParseError("the first line is neither a SIP/2.0 request nor a status line")
    for name in _REQUIRED:
        message.require(name)
    if isinstance(message, SIPRequest) and message.cseq.method != message.method:
        raise SIPParseError("the CSeq method is not the request's")
    return message
