"""Hostile input for the patched pjproject: a victim process, a certificate authority and a SIP peer on Python's ssl.

The victim (``pj_victim.c``) is compiled against the prefix under test, so that a crash ends that process and not
the test run. ``SEALTRUNK_PJSIP_PREFIX`` names another prefix, for example one without the patches.
"""

from __future__ import annotations

import atexit
import datetime as dt
import functools
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

REPOSITORY = Path(__file__).resolve().parents[2]
SUPPORT = Path(__file__).resolve().parent
LIBRARIES = [
    "pjsua2",
    "pjsua",
    "pjsip-ua",
    "pjsip-simple",
    "pjsip",
    "pjmedia-codec",
    "pjmedia",
    "pjmedia-audiodev",
]
LIBRARIES += ["pjnath", "pjlib-util", "pj"]
CRYPTO_GCM_256 = "1 AEAD_AES_256_GCM inline:" + "QUFB" * 14 + "QUE="


@functools.cache
def prefix() -> Path:
    """The pjproject prefix under test."""
    named = os.environ.get("SEALTRUNK_PJSIP_PREFIX")
    if named:
        return Path(named)
    script = REPOSITORY / "packaging" / "pjsip" / "build.py"
    run = subprocess.run(
        [sys.executable, script, "--print-prefix"], check=True, capture_output=True, text=True, timeout=60
    )
    return Path(run.stdout.strip())


@functools.cache
def compiled(source: Path) -> Path:
    """The program made of one C or C++ file and the libraries of the prefix."""
    directory = Path(tempfile.mkdtemp(prefix="pj-attack-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    program = directory / source.stem
    libraries = prefix() / "lib"
    compiler = ["g++", "-std=c++17"] if source.suffix == ".cpp" else ["gcc"]
    command = [
        *compiler, "-g", "-O1", "-DPJ_AUTOCONF=1", *os.environ.get("SEALTRUNK_PJSIP_CFLAGS", "").split(),
        f"-I{prefix() / 'include'}", str(source), "-o", str(program), f"-L{libraries}", f"-Wl,-rpath-link,{libraries}",
        *(f"-l{name}" for name in LIBRARIES), "-lssl", "-lcrypto",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=300)
    return program


def environment(openssl_conf: object = "/dev/null") -> dict[str, str]:
    """The environment of a program of the prefix: its libraries, and this OpenSSL configuration (none)."""
    own = {
        "LD_LIBRARY_PATH": str(prefix() / "lib"),
        "PATH": os.environ["PATH"],
        "OPENSSL_CONF": str(openssl_conf),
    }
    return own | {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")}


def run_check(name: str, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Compile and run a check program of tests/support/pj_checks; a crash is a negative return code."""
    program = compiled(SUPPORT / "pj_checks" / name)
    return subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=timeout_s,
        check=False,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """PEM files of one certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority on P-256 keys in one directory."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = self._builder(self.subject, self.key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.add_extension(usage, critical=True).sign(self.key, hashes.SHA256())
        self.path = directory / "ca.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.subject).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(hours=1))
        return builder.not_valid_after(now + dt.timedelta(days=1))

    def issue(
        self, name: str, *, sans: Iterable[x509.GeneralName] = (), common_name: str | None = None
    ) -> Identity:
        """A certificate with these subject alternative names (none: no such extension)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or name)])
        builder = self._builder(subject, key.public_key())
        names = list(sans)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        identity = Identity(cert=self.directory / f"{name}.pem", key=self.directory / f"{name}.key")
        certificate = builder.sign(self.key, hashes.SHA256())
        identity.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        identity.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return identity


class Victim:
    """The victim process. Its output is read by a thread and awaited with :meth:`wait_for`."""

    def __init__(self, *, openssl_conf: object = "/dev/null", **options: object) -> None:
        program = compiled(SUPPORT / "pj_victim.c")
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [str(program), *(f"{name}={value}" for name, value in options.items())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, errors="backslashreplace",
            env=environment(openssl_conf),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = 0

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def __enter__(self) -> Self:
        self.port = int(self.wait_for(r"READY (\d+)").group(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        self.process.stdin.close()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def wait_for(self, pattern: str, *, timeout_s: float = 10, start: int = 0) -> re.Match[str]:
        """The first match in the output lines from number `start` on; fails when the process ends without one."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for line in self.lines[start:]:
                    found = re.search(pattern, line)
                    if found:
                        return found
                ended = not self._reader.is_alive()
                left = deadline - time.monotonic()
                if ended or left <= 0:
                    why = f"victim ended with {self.process.poll()}" if ended else "timeout"
                    raise AssertionError(f"{why} waiting for {pattern!r}; output: {self.lines[-20:]}")
                self._changed.wait(min(left, 0.2))

    def command(self, line: str) -> int:
        """Give a command; the victim's status of it."""
        assert self.process.stdin is not None
        start = len(self.lines)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.wait_for(rf"DONE {line.split(maxsplit=1)[0]} (-?\d+)", start=start).group(1))

    def finish(self) -> int:
        """End it in order; the exit status, negative after a signal."""
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.stdin.write("quit\n")
            self.process.stdin.flush()
        return self.process.wait(20)


def client_context(authority: Authority, identity: Identity | None) -> ssl.SSLContext:
    """A TLS 1.3 client that trusts the authority whatever the name, and shows the identity's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(authority.path)
    if identity is not None:
        context.load_cert_chain(identity.cert, identity.key)
    return context


class Peer:
    """A SIP peer on one TLS connection."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.socket = connection
        self.local_port = int(connection.getsockname()[1])
        self._buffer = b""

    @classmethod
    def connect(cls, context: ssl.SSLContext, port: int, *, session: ssl.SSLSession | None = None) -> Self:
        """A connection to the victim."""
        raw = socket.create_connection(("127.0.0.1", port), timeout=5)
        return cls(context.wrap_socket(raw, server_hostname="127.0.0.1", session=session))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, message: str | bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(message.encode() if isinstance(message, str) else message)

    def receive(self, *, timeout_s: float = 10) -> str:
        """The next whole message, keep-alives left out; empty when the connection is closed."""
        self.socket.settimeout(timeout_s)
        while True:
            self._buffer = self._buffer.lstrip(b"\r\n")
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if found:
                length = re.search(rb"(?im)^(?:content-length|l)\s*:\s*(\d+)", head)
                size = int(length.group(1)) if length else 0
                if len(rest) >= size:
                    self._buffer = rest[size:]
                    return (head + found + rest[:size]).decode("utf-8", "surrogateescape")
            try:
                chunk = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError):
                return ""
            if not chunk:
                return ""
            self._buffer += chunk

    def final(self, *, timeout_s: float = 15) -> str:
        """The next message that is not a provisional response; empty when the connection is closed."""
        while True:
            message = self.receive(timeout_s=timeout_s)
            if not re.match(r"SIP/2\.0 1\d\d ", message):
                return message

    def options(self) -> str:
        """Ask with OPTIONS: the status line's code, or empty when the connection is closed."""
        self.send(request("OPTIONS", self.local_port))
        return status_of(self.final())


class Target:
    """A TLS server that the victim calls."""

    def __init__(self, authority: Authority, identity: Identity) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_verify_locations(authority.path)
        self.context.load_cert_chain(identity.cert, identity.key)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def accept(self, *, timeout_s: float = 10) -> Peer:
        """The next connection, its handshake done."""
        self.socket.settimeout(timeout_s)
        raw, _ = self.socket.accept()
        raw.settimeout(timeout_s)
        return Peer(self.context.wrap_socket(raw, server_side=True))


def status_of(message: str) -> str:
    """The code of a response; empty for no message."""
    return message.split(" ", 2)[1] if message else ""


def header_of(message: str, name: str) -> str:
    """The first value of a header, or empty."""
    found = re.search(rf"(?im)^{name}\s*:\s*(.*?)\r?$", message)
    return found.group(1) if found else ""


def request(
    method: str,
    local_port: int,
    *,
    body: str | bytes = "",
    content_type: str = "application/sdp",
    call_id: str | None = None,
    cseq: int = 1,
    to_tag: str = "",
    headers: str = "",
    branch: str | None = None,
) -> bytes:
    """A request of a well-behaved peer with this body; `headers` are whole lines, each with its line end."""
    payload = body.encode() if isinstance(body, str) else body
    tag = f";tag={to_tag}" if to_tag else ""
    lines = [
        f"{method} sip:victim@127.0.0.1;transport=tls SIP/2.0",
        f"Via: SIP/2.0/TLS 127.0.0.1:{local_port};branch={branch or 'z9hG4bK' + uuid.uuid4().hex};rport",
        "Max-Forwards: 70",
        f"From: <sip:attacker@127.0.0.1>;tag={call_id or 'a'}",
        f"To: <sip:victim@127.0.0.1>{tag}",
        f"Call-ID: {call_id or uuid.uuid4().hex}",
        f"CSeq: {cseq} {method}",
        f"Contact: <sip:attacker@127.0.0.1:{local_port};transport=tls>",
    ]
    if payload:
        lines.append(f"Content-Type: {content_type}")
    head = "\r\n".join(lines) + "\r\n" + headers + f"Content-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


def response(message: str, code: int) -> str:
    """A response without a body to a request of the victim."""
    echoed = re.findall(r"(?im)^(?:via|from|call-id|cseq)\s*:.*$", message)
    to = header_of(message, "to")
    lines = [line.rstrip("\r") for line in echoed] + [f"To: {to}" + ("" if ";tag=" in to else ";tag=target")]
    return f"SIP/2.0 {code} Test\r\n" + "\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n"


def offer(*media: str, port: int = 40000, extra: str = "") -> str:
    """An SDP offer: by default one good secure audio line; `extra` are more lines of it."""
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
    if media:
        lines += media
    else:
        lines += [
            f"m=audio {port} RTP/SAVP 0 101",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:101 telephone-event/8000",
        ]
        lines += [f"a=crypto:{CRYPTO_GCM_256}"]
    return "\r\n".join(lines) + "\r\n" + extra


def invite(peer: Peer, body: str | bytes, **more: str) -> str:
    """Send INVITE and give the final response, acknowledged; empty when the connection is closed."""
    call_id = uuid.uuid4().hex
    peer.send(request("INVITE", peer.local_port, body=body, call_id=call_id, **more))  # type: ignore[arg-type]
    answer = peer.final()
    if answer:
        to = re.search(r"(?im)^(?:to|t)\s*:.*;tag=([^\s;]+)", answer)
        peer.send(request("ACK", peer.local_port, call_id=call_id, to_tag=to.group(1) if to else ""))
    return answer
