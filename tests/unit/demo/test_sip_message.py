"""The endpoint's own SIP parser: framing on a stream, strictness, and the parts of headers."""

from __future__ import annotations

import pytest

from b2bua.demo.errors import SIPParseError
from b2bua.demo.sip_message import (
    CSeq,
    Header,
    SIPRequest,
    SIPResponse,
    StreamFramer,
    parameter,
    parse_message,
    split_list,
    uri_of,
)

OPTIONS = (
    b"OPTIONS sip:bob@b.example SIP/2.0\r\n"
    b"v: SIP/2.0/TLS a.example;branch=z9hG4bK1;rport\r\n"
    b'From: "A; tag=no <x>" <sip:alice@a.example;transport=tls>;tag=one\r\n'
    b"To: <sip:bob@b.example>\r\n"
    b"i: call-1\r\n"
    b"CSeq: 7 OPTIONS\r\n"
    b"m: <sip:alice@192.0.2.1;transport=tls>;expires=3, <sip:other@a.example>\r\n"
    b"Subject: folded\r\n  over lines\r\n"
    b"l: 4\r\n\r\nbody"
)


def test_a_request_is_taken_apart() -> None:
    message = parse_message(OPTIONS)
    assert isinstance(message, SIPRequest)
    assert (message.method, message.uri, message.body) == ("OPTIONS", "sip:bob@b.example", b"body")
    assert message.cseq == CSeq(7, "OPTIONS")
    assert (message.from_tag, message.to_tag, message.branch) == ("one", None, "z9hG4bK1")
    assert message.contact_uri == "sip:alice@192.0.2.1;transport=tls"
    assert message.first("subject") == "folded over lines"
    assert message.first("Content-Length") is None


def test_what_is_built_parses_to_the_same() -> None:
    message = parse_message(OPTIONS)
    assert parse_message(message.build()) == message
    assert b"\r\nContent-Length: 4\r\n\r\nbody" in message.build()


def test_a_response_keeps_an_odd_reason() -> None:
    response = SIPResponse(
        status=488, reason="Not: here, at all", headers=tuple(parse_message(OPTIONS).headers), body=b""
    )
    assert parse_message(response.build()) == response


def test_a_stream_is_cut_by_content_length_whatever_the_pieces() -> None:
    framer = StreamFramer()
    stream = b"\r\n\r\n" + OPTIONS + b"\r\n" + OPTIONS
    messages = [message for index in range(len(stream)) for message in framer.feed(stream[index : index + 1])]
    assert messages == [parse_message(OPTIONS)] * 2
    assert (framer.keepalives, framer.pending_bytes) == (3, 0)
    assert framer.feed(stream) == messages


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"l: 4\r\n", b"", "no Content-Length"),
        (b"l: 4\r\n", b"l: 4\r\nContent-Length: 5\r\n", "differ"),
        (b"l: 4", b"l: +4", "not a number"),
        (b"SIP/2.0\r\nv", b"SIP/3.0\r\nv", "first line"),
        (b"i: call-1\r\n", b"", "no Call-ID"),
        (b"7 OPTIONS", b"7 INVITE", "not the request's"),
        (b"7 OPTIONS", b"x OPTIONS", "CSeq"),
        (b"Subject: ", b"Sub ject: ", "name: value"),
        (b"Subject: ", b"Subject: a\nb", "not CRLF"),
        (b"Subject: ", b"Subject: \0", "NUL"),
        (b"l: 4", b"l: 65536", "over the limit"),
        (b"body", b"bodybody", "instead of one"),
        (b"body", b"bod", "instead of one"),
    ],
)
def test_a_malformed_message_is_refused(old: bytes, new: bytes, words: str) -> None:
    assert old in OPTIONS
    with pytest.raises(SIPParseError, match=words):
        parse_message(OPTIONS.replace(old, new))


def test_a_head_without_end_is_refused_at_the_limit() -> None:
    framer = StreamFramer(max_bytes=100)
    assert framer.feed(b"A" * 100) == []
    with pytest.raises(SIPParseError, match="over the limit"):
        framer.feed(b"A")


@pytest.mark.parametrize(
    ("value", "uri"),
    [
        ('"<sip:no>" <sip:a@b;transport=tls>;tag=x', "sip:a@b;transport=tls"),
        ("sip:a@b;tag=x", "sip:a@b"),
        ("<sips:a@b>", "sips:a@b"),
    ],
)
def test_the_uri_of_a_name_addr(value: str, uri: str) -> None:
    assert uri_of(value) == uri


def test_a_header_parameter_is_not_one_of_the_uri() -> None:
    assert parameter("<sip:a@b;tag=uri>;x;tag=header", "TAG") == "header"
    assert parameter("<sip:a@b>;lr", "lr") == ""
    assert parameter("<sip:a@b;lr>", "lr") is None


def test_lists_split_outside_quotes_and_brackets() -> None:
    assert split_list('"a, b" <sip:a,b@c>, <sip:d>') == ['"a, b" <sip:a,b@c>', "<sip:d>"]


def test_repeated_headers_stay_in_order() -> None:
    message = parse_message(OPTIONS.replace(b"l: 4", b"Route: <sip:1>\r\nroute: <sip:2>\r\nl: 4"))
    assert message.all("Route") == ("<sip:1>", "<sip:2>")
    assert message.headers[-1] == Header("route", "<sip:2>")
