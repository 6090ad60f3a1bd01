"""Reading an initial INVITE: what crosses, what never does, what is malformed."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from b2bua.call.headers import NEVER_PASSED, HeaderError, escape_user, read_invite


def invite(*headers: str, uri: str = "sips:2001@edge.example.test:5061", sip: str = "SIP/2.0") -> bytes:
    lines = [
        f"INVITE {uri} {sip}",
        "Via: SIP/2.0/TLS 127.0.0.1:1;branch=z9hG4bKa",
        "Call-ID: c1",
        "CSeq: 1 INVITE",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\nbody: not a header\r\n").encode()


def test_users_scheme_and_call_id() -> None:
    read = read_invite(invite('From: "A" <sips:1001@pbx.example.test>;tag=x', "Max-Forwards: 12"), ())
    assert (read.scheme, read.called_user, read.calling_user) == ("sips", "2001", "1001")
    assert (read.max_forwards, read.sip_call_id, read.replaces) == (12, "c1", False)


def test_compact_and_folded_headers() -> None:
    read = read_invite(invite("f: <sip:1002@x>\r\n ;tag=y", "Replaces: a;to-tag=b;from-tag=c"), ())
    assert read.calling_user == "1002"
    assert read.replaces


@pytest.mark.parametrize(
    ("value", "user"),
    [
        ("<sips:1001@a>;tag=1", "1001"),
        ("sips:1001:word@a;tag=1", "1001"),
        ("<sips:10\x0001@a>", None),
        ("<sips:a`b@a>", None),
        ("<tel:1001>", None),
    ],
)
def test_a_calling_user_is_taken_only_when_it_is_one(value: str, user: str | None) -> None:
    """It goes into the From of the other leg."""
    assert read_invite(invite(f"From: {value}"), ()).calling_user == user


@pytest.mark.parametrize(
    ("user", "escaped"),
    [
        ("1001", "1001"),
        ("+49.(30)-1_2!~*'&=$,?/", "+49.(30)-1_2!~*'&=$,?/"),
        ("#31#1001", "%2331%231001"),
        ("a%20b%2f", "a%20b%2f"),
        ("50%", "50%25"),
        ("%2", "%252"),
        ("%zz%%41", "%25zz%25%41"),
    ],
)
def test_a_user_part_of_ours_is_in_the_grammar_and_means_the_same(user: str, escaped: str) -> None:
    assert read_invite(invite(f"From: <sips:{user}@a>;tag=1"), ()).calling_user == user
    assert escape_user(user) == escaped
    assert unquote(escape_user(escaped)) == unquote(user)
    assert escape_user(escaped) == escaped


def test_absent_max_forwards_counts_as_70() -> None:
    assert read_invite(invite(), ()).max_forwards == 70


def test_a_uri_without_user_has_no_called_user() -> None:
    assert read_invite(invite(uri="sip:edge.example.test"), ()).called_user is None


@pytest.mark.parametrize("value", ["-1", "256", "x", "", "1 2", "\u0661"])
def test_bad_max_forwards(value: str) -> None:
    with pytest.raises(HeaderError):
        read_invite(invite(f"Max-Forwards: {value}"), ())


@pytest.mark.parametrize("uri", ["tel:+123", "sip:a b@x", "sips:%00\x01@x"])
def test_bad_request_uri(uri: str) -> None:
    with pytest.raises(HeaderError):
        read_invite(invite(uri=uri), ())


def test_a_header_line_without_colon_is_malformed() -> None:
    with pytest.raises(HeaderError):
        read_invite(invite("no colon here"), ())


def test_only_listed_headers_cross_and_only_clean_values() -> None:
    message = invite("X-Ward: 7", "X-Other: 8", "X-Ward: " + "y" * 300, "X-Ward: a\x07b")
    assert read_invite(message, {"x-ward"}).passed == (("x-ward", "7"),)
    assert read_invite(message, ()).passed == ()


@pytest.mark.parametrize("name", sorted(NEVER_PASSED))
def test_headers_of_one_leg_never_cross_even_if_listed(name: str) -> None:
    message = invite(f"{name}: 1") if name not in ("via", "call-id", "cseq") else invite()
    assert all(passed != name for passed, _ in read_invite(message, {name}).passed)


def test_passed_headers_are_bounded() -> None:
    assert len(read_invite(invite(*["X-Ward: 1"] * 40), {"x-ward"}).passed) == 16
