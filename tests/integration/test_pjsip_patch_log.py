"""What the patched pjproject logs of messages that it cannot use: where they fail, and nothing of what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from support.pj_attack import Authority, Peer, Victim, client_context, invite, offer, request, status_of

NUMBER = "4930987654321"
EVERYTHING = 6
"""The highest log level there is; the build decides what of it is compiled in."""


def without_from(port: int) -> bytes:
    kept = [line for line in request("OPTIONS", port).split(b"\r\n") if not line.startswith(b"From:")]
    return b"\r\n".join(kept).replace(b"sip:victim@", f"sip:{NUMBER}@".encode())


def number_out_of_range(port: int) -> bytes:
    return request("OPTIONS", port, headers=f"Contact: <sip:a@127.0.0.1:{NUMBER}>\r\n")


def header_without_colon(port: int) -> bytes:
    return request("OPTIONS", port, headers=f"{NUMBER}\r\n")


@pytest.mark.parametrize(
    ("build", "logged"),
    [
        (without_from, "Error processing packet"),
        (number_out_of_range, "Error parsing "),
        (header_without_colon, "exception when parsing "),
    ],
)
def test_what_cannot_be_parsed_is_logged_without_its_text(build: object, logged: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    server = authority.issue("server", sans=[x509.DNSName("server.example")])
    client = client_context(authority, authority.issue("client"))
    with Victim(ca=authority.path, cert=server.cert, key=server.key, log=EVERYTHING) as victim:
        with Peer.connect(client, victim.port) as peer:
            assert callable(build)
            peer.send(build(peer.local_port))
            victim.wait_for(logged)
        assert victim.finish() == 0
        assert not [line for line in victim.lines if NUMBER in line]


def test_a_call_is_logged_without_its_parties(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    server = authority.issue("server", sans=[x509.DNSName("server.example")])
    client = client_context(authority, authority.issue("client"))
    with Victim(ca=authority.path, cert=server.cert, key=server.key, log=EVERYTHING) as victim:
        with Peer.connect(client, victim.port) as peer:
            assert status_of(invite(peer, offer())) == "200"
            victim.wait_for("STATE 0 CONFIRMED")
            assert victim.command("bye") == 0
            victim.wait_for("STATE 0 DISCONN")
        assert victim.finish() == 0
        assert not [line for line in victim.lines if "attacker@" in line or "inline:" in line]
