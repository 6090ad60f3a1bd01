"""SIP as text, for peers that a test plays itself: requests and responses with every part open to change."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field

from support.pj_attack import Peer, header_of, offer

__all__ = ["Dialog", "answer", "request"]


def request(
    method: str,
    port: int,
    *,
    contact: str | None = None,
    body: str | bytes = "",
    content_type: str = "application/sdp",
    headers: str = "",
    call_id: str | None = None,
    branch: str | None = None,
    cseq: int = 1,
    to_tag: str = "",
    content_length: str | None = None,
) -> bytes:
    """A request from 127.0.0.1:`port`; `headers` are whole lines with their line ends; `contact` "" leaves it out."""
    payload = body.encode() if isinstance(body, str) else body
    reach = f"<sip:peer@127.0.0.1:{port};transport=tls>" if contact is None else contact
    lines = [
        f"{method} sip:b2bua@127.0.0.1;transport=tls SIP/2.0",
        f"Via: SIP/2.0/TLS 127.0.0.1:{port};branch={branch or 'z9hG4bK' + uuid.uuid4().hex};rport",
        "Max-Forwards: 70",
        "From: <sip:peer@127.0.0.1>;tag=peer",
        "To: <sip:b2bua@127.0.0.1>" + (f";tag={to_tag}" if to_tag else ""),
        f"Call-ID: {call_id or uuid.uuid4().hex}",
        f"CSeq: {cseq} {method}",
    ]
    lines += [f"Contact: {reach}"] if reach else []
    lines += [f"Content-Type: {content_type}"] if payload else []
    length = str(len(payload)) if content_length is None else content_length
    return ("\r\n".join(lines) + f"\r\n{headers}Content-Length: {length}\r\n\r\n").encode() + payload


def answer(
    received: str, status: str, *, contact: str = "", body: str = "", headers: str = "", tag: str = "callee"
) -> bytes:
    """A response to a request that was received."""
    via = re.findall(r"(?im)^(?:via|v)\s*:.*?(?=\r?$)", received)
    to = header_of(received, "To")
    lines = [
        f"SIP/2.0 {status}",
        *via,
        f"From: {header_of(received, 'From')}",
        f"To: {to}" + ("" if ";tag=" in to else f";tag={tag}"),
        f"Call-ID: {header_of(received, 'Call-ID')}",
        f"CSeq: {header_of(received, 'CSeq')}",
    ]
    lines += [f"Contact: {contact}"] if contact else []
    lines += ["Content-Type: application/sdp"] if body else []
    return ("\r\n".join(lines) + f"\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}").encode()


@dataclass
class Dialog:
    """A call that the test starts on one connection."""

    peer: Peer
    contact: str | None = None
    headers: str = ""
    body: str = field(default_factory=offer)
    call_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    branch: str = field(default_factory=lambda: "z9hG4bK" + uuid.uuid4().hex)

    def invite(self) -> str:
        """Send INVITE; the final response."""
        self.peer.send(
            request(
                "INVITE",
                self.peer.local_port,
                contact=self.contact,
                headers=self.headers,
                body=self.body,
                call_id=self.call_id,
                branch=self.branch,
            )
        )
        return self.peer.final()

    def acknowledge(self, final: str) -> None:
        """ACK a final response: within its transaction when it refuses, in one of its own when it accepts."""
        tag = re.search(r";tag=([^\s;]+)", header_of(final, "To"))
        accepted = final.startswith("SIP/2.0 2")
        self.peer.send(
            request(
                "ACK",
                self.peer.local_port,
                call_id=self.call_id,
                to_tag=tag.group(1) if tag else "",
                branch=None if accepted else self.branch,
            )
        )
