"""Memory of the patched pjproject: printing stays inside its buffer, option values outlive their maker."""

from __future__ import annotations

import subprocess

import pytest

from support.pj_attack import SUPPORT, compiled, environment, run_check

HEAD = [
    "INVITE sip:victim@127.0.0.1;transport=tls;x=y SIP/2.0",
    "Via: SIP/2.0/TLS [::1]:5061;branch=z9hG4bKx;rport=1;received=1.2.3.4;x=y",
    "Max-Forwards: 70",
    'From: "A" <sip:a@b;p=q>;tag=1;x=y',
    "To: <sip:b@c>",
    "Call-ID: 1",
    "CSeq: 1 INVITE",
    "Contact: <sip:a@b:5061;transport=tls;x=y?h=v>;q=0.5;expires=3",
]
PARTS = [
    "--b\r\nContent-Type: application/sdp\r\nX: y\r\n\r\nv=0\r\n\r\n",
    "--b\r\nContent-Type: text/plain;a=b\r\nContent-ID: <a@b>\r\n\r\nhello\r\n",
    "--b\r\n\r\nplain\r\n--b--\r\n",
]


def print_at_every_size(
    how: str, headers: list[str], content_type: str, body: str
) -> subprocess.CompletedProcess[str]:
    head = [*HEAD, *headers, f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return subprocess.run(
        [compiled(SUPPORT / "pj_checks" / "print.c"), how],
        input="\r\n".join(head) + "\r\n\r\n" + body,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("headers", "content_type", "body"),
    [
        ([], "text/plain", "hello"),
        ([], "text/plain", ""),
        ([], 'text/plain;a=b;c="d"', "hello"),
        (["Allow: INVITE, ACK, BYE", "Supported: a, b", "Require: c", "Accept: x/y"], "text/plain", "hello"),
        (
            ["X-A: b", "Min-SE: 90", "Retry-After: 3 (x);d=1", "Expires: 3", 'Warning: 399 a "b"'],
            "text/plain",
            "",
        ),
        (["Record-Route: <sip:x;lr;a=b>;c=d", "Route: <sip:y;lr>", "Subject: x"], "text/plain", "hello"),
        ([], "multipart/mixed;boundary=b", "".join(PARTS)),
    ],
    ids=["body", "no body", "type parameters", "arrays", "numbers", "routes", "multipart"],
)
def test_printing_stays_inside_a_buffer_of_any_size(headers: list[str], content_type: str, body: str) -> None:
    run = print_at_every_size("message", headers, content_type, body)
    assert run.returncode == 0
    assert int(run.stdout) > 500


def test_multipart_body_without_a_part_is_an_error() -> None:
    run = print_at_every_size("empty", [], "multipart/mixed;boundary=b", "".join(PARTS))
    assert (run.returncode, run.stdout) == (0, "0\n")


def test_option_values_reach_the_library_after_their_maker_is_gone() -> None:
    run = run_check("sockopt.cpp")
    assert run.returncode == 0, run
    assert run.stdout.split() == ["1001", "1002", "1003"]
