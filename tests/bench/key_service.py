"""`python -m tests.bench.key_service CERTIFICATE KEY MILLISECONDS`: answers as transit does, each time after so long.

A key service on another machine, as far as its client's time goes: TLS 1.3 on loopback, HTTP/1.1, connections kept. It
holds no key and protects nothing: what it answers to `rewrap` is what it was asked with, said to be of version 2.
Prints its port. Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recording.settings import TransitSettings, VaultTransitKeySettings
from support.kms import issue_server_files

KEY_FACTS = {"derived": True, "keys": {"1": 1_700_000_000, "2": 1_700_000_001}}


@contextmanager
def key_service(directory: Path, *, answer_ms: float) -> Iterator[VaultTransitKeySettings]:
    """A service in a process of its own, and settings for its one key."""
    files = issue_server_files(directory / "key-service")
    token = directory / "key-service" / "token"
    token.touch(mode=0o600)
    token.write_text("bench\n")
    command = [sys.executable, "-m", __name__, files.certificate_path, files.key_path, str(answer_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = f"https://127.0.0.1:{int(process.stdout.readline())}"
        server = TransitSettings(address=address, token_path=token, ca_path=files.ca_path, timeout_s=10)
        yield VaultTransitKeySettings(key="bench", server=server)
        assert process.stdin is not None
        process.stdin.close()


async def _serve(certificate: str, key: str, answer_s: float) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                await asyncio.sleep(answer_s)
                content = json.dumps({"data": _data(body)}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def _length(head: bytes) -> int:
    return next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )


def _data(body: bytes) -> dict[str, Any]:
    if not body:
        return KEY_FACTS
    return {"ciphertext": json.loads(body)["ciphertext"].replace(":v1:", ":v2:", 1)}


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000))
