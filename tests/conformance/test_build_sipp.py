"""SIPp speaks TLS 1.3 with a client certificate on this machine, with libraries of its own."""

import re
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.certificates import Issuer
from support.sipp_build import sipp_program

SCENARIO = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="one OPTIONS">
  <send retrans="500"><![CDATA[
OPTIONS sip:edge@[remote_ip]:[remote_port];transport=tls SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:sipp@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:edge@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 OPTIONS
Max-Forwards: 70
Content-Length: 0

]]></send>
  <recv response="200"/>
</scenario>
"""


def answer_one(listener: socket.socket, context: ssl.SSLContext) -> tuple[str | None, bool, bytes]:
    """Accept one connection and answer one request; returns TLS version, client certificate seen, request."""
    raw, _ = listener.accept()
    raw.settimeout(20)
    with context.wrap_socket(raw, server_side=True) as connection:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65536)
        copied = re.findall(rb"^((?:Via|From|To|Call-ID|CSeq):.*)\r\n", request, re.MULTILINE)
        head = [b"SIP/2.0 200 OK", *copied, b"Content-Length: 0", b"", b""]
        connection.sendall(b"\r\n".join(head))
        return connection.version(), bool(connection.getpeercert()), request


@pytest.mark.sipp
def test_one_request_over_tls_1_3_with_a_client_certificate(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    server, client = issuer.material("edge", "edge.example"), issuer.material("sipp", "sipp.example")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.trust_path))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(server.certificate_path, server.private_key_path)
    scenario = tmp_path / "options.xml"
    scenario.write_text(SCENARIO)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(20)
        answered = pool.submit(answer_one, listener, context)
        command = [
            str(sipp_program()),
            f"127.0.0.1:{listener.getsockname()[1]}",
            *("-sf", str(scenario), "-m", "1", "-t", "l1", "-tls_version", "1.3", "-i", "127.0.0.1"),
            *("-tls_cert", str(client.certificate_path), "-tls_key", str(client.private_key_path)),
            *("-tls_ca", str(client.trust_path), "-timeout", "15", "-timeout_error", "-nostdin"),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        version, certified, request = answered.result(timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert version == "TLSv1.3"
    assert certified
    assert request.startswith(b"OPTIONS sip:edge@127.0.0.1")
    assert b"Via: SIP/2.0/TLS" in request
