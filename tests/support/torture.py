"""Malformed and merely odd SIP messages in the spirit of RFC 4475, all our own, each with a number and a key in it.

`MESSAGES` maps a name to what is sent and what may come of it: a status, "closed" (the connection ends), or "silence"
(nothing may come back and the connection stays: a response or an ACK that belongs nowhere).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

NUMBER: Final = "4915112345678"
KEY: Final = "dG9ydHVyZS1rZXktb2YtZm9ydHktZm91ci1ieXRlcy1mb3ItQUVBRC0yNTY"
CLOSED, SILENCE = "closed", "silence"
AWAY: Final = "503"
"""It began a call, and the callee is away. A body that pjsip can make nothing of is none: a call without an offer."""

Build = Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class Torture:
    """A message and the outcomes that are right; more than one where the RFC leaves the choice."""

    build: Build
    outcomes: tuple[str, ...]


def message(
    method: str = "OPTIONS",
    *,
    start: str | None = None,
    drop: tuple[str, ...] = (),
    extra: str = "",
    body: bytes = b"",
    content_type: str = "",
    end: str = "\r\n",
    **replaced: str,
) -> bytes:
    """A good request with header lines replaced by name (`call_id="Call-ID: x"`), dropped, or added."""
    lines = {
        "via": f"Via: SIP/2.0/TLS 127.0.0.1:5061;branch=z9hG4bK{uuid.uuid4().hex};rport",
        "max_forwards": "Max-Forwards: 70",
        "from_": f'From: "{NUMBER}" <sips:+{NUMBER}@127.0.0.1>;tag={uuid.uuid4().hex[:8]}',
        "to": f"To: <sips:+{NUMBER}@edge.example.test>",
        "call_id": f"Call-ID: {uuid.uuid4().hex}",
        "cseq": f"CSeq: 1 {method}",
        "contact": f"Contact: <sips:+{NUMBER}@127.0.0.1:5061>",
    }
    lines.update(replaced)
    kept = [line for name, line in lines.items() if name not in drop]
    if content_type:
        kept.append(f"Content-Type: {content_type}")
    if "content_length" not in replaced and "content_length" not in drop:
        kept.append(f"Content-Length: {len(body)}")
    first = start or f"{method} sips:+{NUMBER}@edge.example.test SIP/2.0"
    return (end.join([first, *kept]) + end + extra + end).encode("utf-8", "surrogateescape") + body


def sdp(*lines: str) -> bytes:
    """A description: a good one, or these lines after the session's own."""
    crypto = f"a=crypto:1 AEAD_AES_256_GCM inline:{KEY}"
    head = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
    return "\r\n".join([*head, *(lines or ("m=audio 4000 RTP/SAVP 0", crypto)), ""]).encode()


def invite(body: bytes, **more: str) -> bytes:
    """An INVITE with this body as its description."""
    return message("INVITE", body=body, content_type="application/sdp", **more)  # type: ignore[arg-type]


def _t(build: Build, *outcomes: str) -> Torture:
    return Torture(build=build, outcomes=outcomes)


ODD: Final[dict[str, Torture]] = {
    "folded lines, odd case and blanks": _t(
        lambda: message(
            to=f"tO \t:\r\n  <sips:+{NUMBER}@edge.example.test>\r\n\t;x=y", max_forwards="MAX-forwards\t:  70"
        ),
        "200",
    ),
    "compact names": _t(
        lambda: message(
            via=f"v: SIP/2.0/TLS 127.0.0.1;branch=z9hG4bK{uuid.uuid4().hex}",
            from_=f"f: <sips:+{NUMBER}@127.0.0.1>;tag=1",
            to=f"t: <sips:+{NUMBER}@edge.example.test>",
            call_id=f"i: {uuid.uuid4().hex}",
            contact=f"m: <sips:+{NUMBER}@127.0.0.1>",
            content_length="l: 0",
        ),
        "200",
    ),
    "blanks in the Via": _t(
        lambda: message(via=f"Via: SIP / 2.0\r\n / TLS  127.0.0.1 ; branch = z9hG4bK{uuid.uuid4().hex}"),
        "200",
    ),
    "escapes in the request URI": _t(
        lambda: message(start=f"OPTIONS sips:%2B{NUMBER}%40%00%0d%0a@edge.example.test SIP/2.0"), "200", "400"
    ),
    "UTF-8 in a display name": _t(
        lambda: message(from_=f'From: "M\u00fcller \u65e5\u672c {NUMBER}" <sips:1@127.0.0.1>;tag=1'), "200"
    ),
    "a long display name": _t(
        lambda: message(from_=f'From: "{NUMBER}{"x" * 5000}" <sips:1@127.0.0.1>;tag=1'), "200"
    ),
    "seventy Via": _t(
        lambda: message(
            extra="".join(f"Via: SIP/2.0/TLS h{n}.example.test;branch=z9hG4bK{n}\r\n" for n in range(70))
        ),
        "200",
    ),
    "unknown headers, empty and full": _t(
        lambda: message(extra="X-Empty:\r\nX-!%*_+`'~: <>;,=@\r\n" + "X-Many: y\r\n" * 300), "200"
    ),
    "a method nobody knows": _t(lambda: message("Z" * 60), "501", CLOSED),
    "a method in small letters": _t(lambda: message("options"), "501"),
    "an extension nobody has": _t(
        lambda: invite(
            sdp(), extra="Require: nothing-has-this, nor-this\r\n", max_forwards="Max-Forwards: 1"
        ),
        "420",
    ),
    "a From without a tag": _t(lambda: invite(sdp(), from_=f"From: <sips:+{NUMBER}@127.0.0.1>"), AWAY),
    "a BYE of no dialogue": _t(
        lambda: message("BYE", to=f"To: <sips:+{NUMBER}@edge.example.test>;tag=none"), "481"
    ),
    "a CANCEL of nothing": _t(lambda: message("CANCEL"), "481"),
    "an ACK of nothing": _t(lambda: message("ACK"), SILENCE),
    "a response to nothing": _t(
        lambda: message(start="SIP/2.0 200 OK", cseq="CSeq: 1 INVITE"), SILENCE, CLOSED
    ),
    "a ringing that nobody asked for, without a reason": _t(
        lambda: message(start="SIP/2.0 180 ", cseq="CSeq: 1 INVITE"), SILENCE, CLOSED
    ),
}

MALFORMED: Final[dict[str, Torture]] = {
    "no version": _t(lambda: message(start=f"OPTIONS sips:+{NUMBER}@edge.example.test"), CLOSED),
    "another version": _t(
        lambda: message(start=f"OPTIONS sips:+{NUMBER}@edge.example.test SIP/7.0"), CLOSED, "505"
    ),
    "a blank in the request URI": _t(
        lambda: message(start=f"OPTIONS sips:+{NUMBER}@edge.example.test; lr SIP/2.0"), CLOSED, "400"
    ),
    "the request URI in brackets": _t(
        lambda: message(start=f"OPTIONS <sips:+{NUMBER}@edge.example.test> SIP/2.0"), CLOSED, "400", "416"
    ),
    "an unknown scheme": _t(
        lambda: invite(sdp(), start=f"INVITE nobodyknows:+{NUMBER} SIP/2.0"), CLOSED, "400", "416"
    ),
    "a tel URI": _t(lambda: invite(sdp(), start=f"INVITE tel:+{NUMBER} SIP/2.0"), CLOSED, "400", "416"),
    "an address that never ends": _t(
        lambda: message(start=f"OPTIONS sips:+{NUMBER}@[::1 SIP/2.0"), CLOSED, "400"
    ),
    "a port beyond all ports": _t(
        lambda: message(start=f"OPTIONS sips:+{NUMBER}@edge.example.test:99999999999 SIP/2.0"), CLOSED, "400"
    ),
    "no From": _t(lambda: message(drop=("from_",)), CLOSED),
    "a quote that never ends": _t(
        lambda: message(from_=f'From: "{NUMBER} <sips:1@127.0.0.1>;tag=1'), CLOSED, "400"
    ),
    "a bracket that never ends": _t(
        lambda: message(to=f"To: <sips:+{NUMBER}@edge.example.test"), CLOSED, "400"
    ),
    "a CSeq beyond 32 bits": _t(lambda: message(cseq="CSeq: 36893488147419103232 OPTIONS"), CLOSED, "400"),
    "a CSeq of another method": _t(lambda: message(cseq="CSeq: 1 INVITE"), "400"),
    "a negative Max-Forwards": _t(lambda: invite(sdp(), max_forwards="Max-Forwards: -1"), CLOSED, "400"),
    "a Max-Forwards beyond all": _t(
        lambda: invite(sdp(), max_forwards="Max-Forwards: 4294967297"), CLOSED, "400"
    ),
    "a negative Content-Length": _t(lambda: message(content_length="Content-Length: -1"), CLOSED),
    "line feeds only": _t(lambda: message(end="\n"), CLOSED),
    "carriage returns only": _t(lambda: message(end="\r") + b"\r\n\r\n", CLOSED),
    "a NUL in a header": _t(lambda: message(call_id=f"Call-ID: a\0{NUMBER}"), CLOSED, "200", "400"),
    "bytes of no language": _t(lambda: bytes(range(256)) * 3 + NUMBER.encode() + b"\r\n\r\n", CLOSED),
    "a Contact of everything": _t(lambda: invite(sdp(), contact="Contact: *"), "400", CLOSED),
    "a Session-Expires of nothing": _t(
        lambda: invite(sdp(), extra="Session-Expires: 0\r\nMin-SE: 99999999999\r\n"), "422", "400", CLOSED
    ),
    "a Route of nothing": _t(
        lambda: message(extra=f"Route: <sip:;{NUMBER}>,,\r\nRecord-Route: @\r\n"), CLOSED, "400"
    ),
    "a body of no type": _t(lambda: message("INVITE", body=sdp()), "400"),
    "a type of no body": _t(lambda: message("INVITE", content_type="application/sdp"), AWAY),
    "a type that is none": _t(lambda: message("INVITE", body=sdp(), content_type="application;sdp"), AWAY),
    "a description without an end": _t(lambda: invite(sdp("m=audio 4000 RTP/SAVP")), "488"),
    "a description of a hundred media": _t(
        lambda: invite(sdp(*["m=audio 4000 RTP/SAVP 0", f"a=crypto:1 AEAD_AES_256_GCM inline:{KEY}"] * 60)),
        "488",
    ),
    "a description of zeros": _t(lambda: invite(b"\0" * 400), "488"),
    "two Call-IDs": _t(lambda: message(extra=f"Call-ID: {NUMBER}\r\n"), "200", "400", CLOSED),
    "two different To": _t(
        lambda: invite(sdp(), extra=f"To: <sips:{NUMBER}@elsewhere>;tag=x\r\n"), "481", "400", CLOSED
    ),
}

MESSAGES: Final = {**ODD, **MALFORMED}
