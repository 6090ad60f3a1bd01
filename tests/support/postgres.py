"""A PostgreSQL 15 for tests: a cluster of its own in a temporary directory, TLS 1.3, loopback, ended by its own pid.

    with PostgreSQL(tmp_path) as server:
        settings = server.new_database()

PostgreSQL refuses to run as root. A root test process therefore starts it as the `postgres` user, which the Debian
package makes.
"""

from __future__ import annotations

import os
import pwd
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from recording.settings import PostgreSQLSettings
from support.kms import ServerFiles, issue_server_files
from support.ports import Ports
from support.server import Server

BINARIES = Path("/usr/lib/postgresql/15/bin")
START_TIMEOUT_S = 60.0
USER = "sealtrunk"


@dataclass(frozen=True, slots=True)
class _Account:
    uid: int
    gid: int

    def demote(self) -> Callable[[], None] | None:
        """What a child does before it becomes the server; nothing where the tests are not root's."""
        if os.geteuid() != 0:
            return None

        def become() -> None:
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)

        return become


def _account() -> _Account:
    if os.geteuid() != 0:
        return _Account(os.geteuid(), os.getegid())
    entry = pwd.getpwnam("postgres")
    return _Account(entry.pw_uid, entry.pw_gid)


class PostgreSQL(Server):
    """One server. `max_tls` makes one that cannot do better, to be refused."""

    def __init__(self, directory: Path, *, max_tls: str = "TLSv1.3") -> None:
        self.files: ServerFiles = issue_server_files(directory / "postgresql-tls")
        self._directory = directory
        self._max_tls = max_tls
        self._account = _account()
        # Outside pytest's directories, which another user may not enter.
        self._home = tempfile.TemporaryDirectory(prefix="sealtrunk-postgresql-")
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        self._password = secrets.token_hex(16)
        self._passfile = directory / "pgpass"

    def close(self) -> None:
        """Stop for good: nothing of it is left."""
        self.stop()
        self._home.cleanup()
        self._ports.close()

    @property
    def settings(self) -> PostgreSQLSettings:
        """The database that every cluster has."""
        return PostgreSQLSettings(
            host="127.0.0.1",
            port=self.port,
            database="postgres",
            user=USER,
            ca_path=self.files.ca_path,
            passfile_path=self._passfile,
        )

    def new_database(self) -> PostgreSQLSettings:
        """An empty database."""
        name = f"index_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        return replace(self.settings, database=name)

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """A statement of the administrator's, by itself."""
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=database,
            user=USER,
            passfile=str(self._passfile),
            sslmode="verify-full",
            sslrootcert=str(self.files.ca_path),
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement.encode())
            return [] if cursor.description is None else cursor.fetchall()

    def start(self) -> None:
        """Returns when it answers; the first time, a cluster is made."""
        if not self._data.exists():
            self._make_cluster()
        self._passfile.write_text(f"127.0.0.1:{self.port}:*:{USER}:{self._password}\n")
        self._passfile.chmod(0o600)
        self._process = subprocess.Popen(
            [
                BINARIES / "postgres",
                "-D",
                self._data,
                *("-c", "listen_addresses=127.0.0.1"),
                *("-c", f"port={self.port}"),
                *("-c", "unix_socket_directories="),
                *("-c", "ssl=on"),
                *("-c", f"ssl_cert_file={self._data}/server.pem"),
                *("-c", f"ssl_key_file={self._data}/server.key"),
                *("-c", f"ssl_max_protocol_version={self._max_tls}"),
                *("-c", f"ssl_min_protocol_version={self._max_tls}"),
                *("-c", "fsync=off"),
                *("-c", "shared_buffers=16MB"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=self._account.demote(),  # noqa: PLW1509  # no other thread of the tests holds a lock then
        )
        self._wait()

    def stop(self) -> None:
        """A fast shutdown: sessions end, nothing is lost."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGINT)
        process.wait(30)

    def _wait(self) -> None:
        """The server says by answering that it is up."""
        assert self._process is not None
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return

    @property
    def _data(self) -> Path:
        return Path(self._home.name) / "data"

    def _make_cluster(self) -> None:
        home = Path(self._home.name)
        os.chown(home, self._account.uid, self._account.gid)
        secret = home / "password"
        secret.write_text(self._password)
        secret.chmod(0o600)
        os.chown(secret, self._account.uid, self._account.gid)
        subprocess.run(
            [
                BINARIES / "initdb",
                "-D",
                self._data,
                f"--username={USER}",
                "--auth=scram-sha-256",
                f"--pwfile={secret}",
                "--no-sync",
                "--locale=C.UTF-8",
            ],
            check=True,
            capture_output=True,
            cwd=home,
            preexec_fn=self._account.demote(),
        )
        (self._data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        for name, source in (
            ("server.pem", self.files.certificate_path),
            ("server.key", self.files.key_path),
        ):
            target = self._data / name
            target.write_bytes(source.read_bytes())
            target.chmod(0o600)
            os.chown(target, self._account.uid, self._account.gid)
