"""A real S3 server for tests: Ceph's object gateway over TLS 1.3, with a monitor and one store in memory behind it.

Everything lies in one directory, listens on loopback only, and is ended by its own process ids. The daemons run as
children of the test, not as services of the machine; nothing of the machine's own Ceph set-up is read.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
from botocore.config import Config

from recording.settings import PART_MIN_BYTES
from support.kms import ServerFiles, issue_server_files
from support.ports import Ports
from support.server import Server

REGION: Final = "default"
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
OWNER: Final = "owner"
UPLOADER: Final = "uploader"
START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 10.0
LOCKED_BUCKET: Final = "recordings-locked"
PLAIN_BUCKET: Final = "recordings-plain"

# Both daemons would find other directories of the machine by their defaults: each path is named.
CONFIGURATION = r"""
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv4 = true
ms bind ipv6 = false
ms type = async+posix
ms async op threads = 1
# With no authentication in this throw-away cluster the monitor's default of encrypted messages hangs the gateway.
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
keyring = {directory}/keyring
run dir = {directory}/run
admin socket =
pid file =
log file = {directory}/log/$name.log
mon cluster log file = {directory}/log/cluster.log
crash dir = {directory}/crash
log to stderr = false
err to stderr = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon max pg per osd = 1000
mon pg warn min per osd = 0
mon warn on pool no redundancy = false

[mon]
mon data = {directory}/mon
mon data avail crit = 1
mon data avail warn = 2
mon tick interval = 1
paxos propose interval = 0.02
paxos min wait = 0.01
mon initial members = a

[osd]
osd data = {directory}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd max object name len = 1024
osd heartbeat interval = 3
osd class load list = *
osd class default list = *
osd op num shards = 2
osd op num threads per shard = 1

[client.rgw]
rgw frontends = beast ssl_endpoint=127.0.0.1:{port} ssl_certificate={certificate} \
ssl_private_key={key} ssl_options=no_tlsv1:no_tlsv1_1:no_tlsv1_2
rgw multipart min part size = {part_min_bytes}
rgw thread pool size = 32
rgw enable usage log = false
rgw enable ops log = false
rgw enable gc threads = false
rgw enable lc threads = false
rgw cache enabled = true
rgw dynamic resharding = false
rgw override bucket index max shards = 1
rgw run sync thread = false
rgw enable quota threads = false
rgw init timeout = 60
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = {kms_keys}
"""
KMS_KEYS: Final = ("store-key-1", "store-key-2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An S3 user of the server."""

    access_key: str
    secret_key: str = field(repr=False)

    @property
    def environment(self) -> Mapping[str, str]:
        """What boto3's chain finds first."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


class RGW(Server):
    """The gateway and what it needs. `owner` owns the buckets; `uploader` is let in by their policies."""

    def __init__(self, directory: Path, *, part_min_bytes: int = PART_MIN_BYTES) -> None:
        """`part_min_bytes`: S3's own bound, unless a test needs many uploads in parts in little time."""
        self.directory = directory
        self._part_min_bytes = part_min_bytes
        self.files: ServerFiles = issue_server_files(directory / "tls")
        self.owner = _new_credentials()
        self.uploader = _new_credentials()
        self._ports = Ports(2)
        self._port, self._mon_port = self._ports.numbers
        self._configuration = directory / "ceph.conf"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    def close(self) -> None:
        """Stop for good: the ports are anybody's again."""
        self.stop()
        self._ports.close()

    def start(self) -> None:
        """Up and with both users and both buckets, or an error that carries what the daemons said."""
        deadline = time.monotonic() + START_TIMEOUT_S
        self._make_cluster()
        self._run_daemon("mon", "ceph-mon", "-i", "a")
        osd_uuid = str(uuid.uuid4())
        self._ceph(deadline, "osd", "new", osd_uuid)
        self._tool("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_uuid)
        self._run_daemon("osd", "ceph-osd", "-i", "0")
        for user, credentials in ((OWNER, self.owner), (UPLOADER, self.uploader)):
            self.add_user(user, credentials)
        self.start_gateway()
        client = self.client(self.owner)
        client.create_bucket(Bucket=LOCKED_BUCKET, ObjectLockEnabledForBucket=True)
        client.create_bucket(Bucket=PLAIN_BUCKET)

    def start_gateway(self) -> None:
        """The gateway alone, on the same port as before; returns when it answers."""
        self._run_daemon("rgw", "radosgw", "-n", "client.rgw")
        deadline = time.monotonic() + START_TIMEOUT_S
        context = ssl.create_default_context(cafile=str(self.files.ca_path))
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self._port), 5) as raw,
                context.wrap_socket(raw, server_hostname="127.0.0.1"),
            ):
                return
            self._check_alive(deadline, "rgw")

    def stop_gateway(self) -> None:
        """As a gateway that crashes; the objects stay."""
        process = self._processes.pop("rgw")
        process.kill()
        process.wait(STOP_TIMEOUT_S)

    @contextlib.contextmanager
    def gateway_stopped(self) -> Iterator[None]:
        """The gateway hangs: it takes connections and says nothing."""
        process = self._processes["rgw"]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the daemons, each by its own process id, and remove what they wrote."""
        for name in reversed(self._processes):
            self._processes[name].send_signal(signal.SIGCONT)
            self._processes[name].kill()
        for process in self._processes.values():
            process.wait(STOP_TIMEOUT_S)
        self._processes.clear()

    def add_user(self, name: str, credentials: Credentials | None = None) -> Credentials:
        """One more user, who owns nothing and may do nothing until a bucket's policy lets it."""
        made = credentials or _new_credentials()
        self._admin(
            "user", "create", "--uid", name, "--display-name", name,
            "--access-key", made.access_key, "--secret-key", made.secret_key,
        )  # fmt: skip
        return made

    def client(self, credentials: Credentials) -> Any:
        """A plain boto3 client, for what a test does beside the product."""
        return boto3.session.Session(
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret_key,
            region_name=REGION,
        ).client(
            "s3",
            endpoint_url=self.url,
            verify=str(self.files.ca_path),
            config=_client_config(),
        )

    def _make_cluster(self) -> None:
        for name in ("mon", "osd", "log", "run", "crash"):
            (self.directory / name).mkdir(mode=0o700)
        fsid = str(uuid.uuid4())
        self._configuration.write_text(
            CONFIGURATION.format(
                fsid=fsid,
                directory=self.directory,
                mon_port=self._mon_port,
                port=self._port,
                certificate=self.files.certificate_path,
                key=self.files.key_path,
                part_min_bytes=self._part_min_bytes,
                kms_keys=" ".join(
                    f"{name}={base64.b64encode(secrets.token_bytes(32)).decode()}" for name in KMS_KEYS
                ),
            )
        )
        monmap, keyring = self.directory / "monmap", self.directory / "keyring"
        self._tool("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.")
        self._tool(
            "monmaptool", "--create", "--clobber", "--fsid", fsid,
            "--addv", "a", f"[v2:127.0.0.1:{self._mon_port}]", monmap,
        )  # fmt: skip
        self._tool("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)

    def _run_daemon(self, name: str, program: str, *arguments: str) -> None:
        with (self.directory / "log" / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [_program(program), "-f", "-c", self._configuration, *arguments],
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # it calls the kernel and nothing else
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=_environment(),
            )

    def _check_alive(self, deadline: float, *names: str) -> None:
        """Pause a moment before the caller asks again; raise where that is no use."""
        dead = [name for name in names if self._processes[name].poll() is not None]
        if dead or time.monotonic() > deadline:
            raise RuntimeError(f"{dead or names} did not come up:\n{self._said()}")
        time.sleep(0.05)

    def _said(self) -> str:
        logs = sorted((self.directory / "log").iterdir())
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)

    def _ceph(self, deadline: float, *arguments: str) -> str:
        timeout = str(max(1, int(deadline - time.monotonic())))
        return self._tool("ceph", "--connect-timeout", timeout, *arguments)

    def _admin(self, *arguments: str) -> Any:
        return json.loads(self._tool("radosgw-admin", "-n", "client.rgw", *arguments))

    def _tool(self, program: str, *arguments: str | Path) -> str:
        command = [_program(program), *map(str, arguments)]
        if program not in ("ceph-authtool", "monmaptool"):
            command[1:1] = ["-c", str(self._configuration)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False,
            cwd=self.directory, env=_environment(),
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{program} {arguments[0]}: {done.stderr.strip()[-2000:]}\n{self._said()}")
        return done.stdout


@pytest.fixture(scope="session")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RGW]:
    """One server for the whole run: use a prefix of your own, and leave the gateway running."""
    with RGW(tmp_path_factory.mktemp("rgw")) as server:
        yield server


def _die_with_parent() -> None:
    """A test run that is killed ends no fixture: the kernel ends the daemons then."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise RuntimeError(f"{name} is not installed; run: make setup, which installs what tests need")
    return found


def _environment() -> dict[str, str]:
    """Nothing of the machine's Ceph, nor of somebody's AWS account."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("CEPH", "AWS_", "PYTHON"))
    }


def _client_config() -> Config:
    # This gateway does not know the checksums in a trailer that boto3 sends by default: MissingContentLength.
    options: dict[str, Any] = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": "path"},
        "retries": {"total_max_attempts": 1},
    }
    return Config(**options)


def _new_credentials() -> Credentials:
    return Credentials(access_key=secrets.token_hex(10).upper(), secret_key=secrets.token_hex(20))
