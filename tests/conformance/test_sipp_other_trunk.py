"""What a caller left behind goes to nobody else: not even to a trunk that comes from the same address and port."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from b2bua.initialise import identity_of
from support import sipp
from support.edge import Edge, edge
from tls.settings import TLSMaterialSettings

pytestmark = pytest.mark.sipp

LISTEN_S = 5.0
"""An unacknowledged 200 is sent again after at most T2, 4 s (RFC 3261 section 13.3.1.4)."""
SUITES = 'recording = "required"\nsrtp_suites = ["AES_CM_128_HMAC_SHA1_80"]'
ACKNOWLEDGES = '  <xi:include href="part/uac-ack.xml"/>'


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Edge]:
    def edit(text: str) -> str:
        return text.replace('recording = "required"', SUITES).replace(
            "[limits]\n", "[limits]\ndrain_deadline_s = 1\n"
        )

    with edge(tmp_path, edit=edit) as running:
        yield running


@pytest.fixture
def scenarios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scenarios of a basic call whose caller leaves when it is answered."""
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "part").symlink_to(sipp.SCENARIOS / "part")
    text = (sipp.SCENARIOS / "uac-call-expect-media-both-ways.xml").read_text()
    before, _, _ = text.partition(ACKNOWLEDGES)
    assert before != text
    (folder / "leave.xml").write_text(before + '<Reference variables="contact,profile,crypto"/></scenario>\n')
    (folder / "answer.xml").write_text(
        '<scenario name="answers" xmlns:xi="http://www.w3.org/2001/XInclude">\n'
        '<xi:include href="part/uas-invite.xml"/><xi:include href="part/uas-answer.xml"/></scenario>\n'
    )
    monkeypatch.setattr(sipp, "SCENARIOS", folder)
    return folder


def options(served: Edge, port: int) -> bytes:
    return (
        f"OPTIONS {served.uri()} SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:{port};branch=z9hG4bKother\r\n"
        f"From: <sip:other@127.0.0.1>;tag=1\r\nTo: <{served.uri()}>\r\nCall-ID: other\r\nCSeq: 1 OPTIONS\r\n"
        "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def heard_from(served: Edge, material: TLSMaterialSettings, port: int) -> bytes:
    """All that reaches a peer that connects from a port, asks OPTIONS and listens for a while."""
    context = ssl.create_default_context(cafile=str(material.trust_path))
    context.load_cert_chain(material.certificate_path, material.private_key_path)
    heard = b""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.bind(("127.0.0.1", port))
        raw.connect(("127.0.0.1", served.made.sip_port))
        with context.wrap_socket(raw, server_hostname=identity_of("edge")) as connection:
            connection.sendall(options(served, port))
            deadline = time.monotonic() + LISTEN_S
            while (left := deadline - time.monotonic()) > 0:
                connection.settimeout(left)
                try:
                    heard += connection.recv(65536)
                except TimeoutError:
                    break
    return heard


def test_an_unacknowledged_answer_is_not_sent_to_another_trunk(
    served: Edge, scenarios: Path, tmp_path: Path
) -> None:
    lab = sipp.read_lab(served.made.configuration)
    row = sipp.Scenario(name="left", shows="", rfc="", caller="leave", callee="answer")
    sipp.play(lab, row, tmp_path / "played")
    heard = heard_from(served, served.made.callee, lab.caller.port)
    assert b"Call-ID: other\r\n" in heard
    assert heard.count(b"SIP/2.0 200 OK") == 1
    assert b"a=crypto" not in heard
