"""Debian packages the set-up needs: which are missing, and how they get installed."""

import contextlib
import enum
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from buildkit.errors import BuildError
from buildkit.progress import phase, say


class Purpose(enum.Enum):
    """What the environment is prepared for; a later one needs all that an earlier one does."""

    RUN = "run"
    TEST = "test"


POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_MARK = "# sealtrunk: while packages are installed, no service starts"

_BUILD = (
    "build-essential",
    "ca-certificates",
    "debian-archive-keyring",
    "libspeexdsp-dev",
    "libssl-dev",
    "openssl",
    "patch",
    "pkg-config",
    "swig",
    "uuid-dev",
    "xz-utils",
)
# Ceph's gateway is the S3 server of the tests: with what it needs 98 packages, 64 MB to fetch, 290 MB on disk.
_TEST = (
    "ceph-common",
    "ceph-mon",
    "ceph-osd",
    "gpg",
    "gpg-agent",
    "iproute2",
    "libpq5",
    "postgresql-15",
    "radosgw",
    "softhsm2",
)


# Debian makes a cluster of its own when it installs the server; what the tests need they make themselves.
_POSTGRESQL = "postgresql-15"
_NO_CLUSTER = (
    "mkdir -p /etc/postgresql-common/createcluster.d && "
    "echo create_main_cluster = false > /etc/postgresql-common/createcluster.d/sealtrunk.conf"
)


def required(purpose: Purpose) -> tuple[str, ...]:
    """The packages needed, those included that only some interpreters or machines lack."""
    packages = list(_BUILD)
    if importlib.util.find_spec("ensurepip") is None:
        packages.append("python3-venv")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        packages.append("python3-dev")
    if purpose is Purpose.TEST:
        packages.extend(_TEST)
        if shutil.which("node") is None:
            packages.append("nodejs")
    return tuple(packages)


def missing(packages: Iterable[str]) -> tuple[str, ...]:
    """Those of the packages that dpkg does not know as installed.

    Raises:
        BuildError: This machine has no dpkg.
    """
    try:
        shown = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status} ${Provides}\n"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise BuildError("this set-up needs Debian 12: dpkg-query does not work here") from error
    return tuple(package for package in packages if package not in parse_installed(shown))


def parse_installed(shown: str) -> frozenset[str]:
    """Names of installed packages, and of what they provide, from dpkg-query's output."""
    names: set[str] = set()
    for line in shown.splitlines():
        package, status, *provides = line.split()
        if status == "installed":
            names.add(package)
            names.update(name.strip(",") for name in provides)
    return frozenset(names)


def install(packages: tuple[str, ...]) -> None:
    """Install packages with the machine's own apt, as root or through sudo.

    Raises:
        BuildError: Neither is possible, with the one command an administrator must run; or apt failed.
    """
    prefix = _elevation()
    command = f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(packages)}"
    if _POSTGRESQL in packages:
        command = f"{_NO_CLUSTER} && {command}"
    if prefix is None:
        raise BuildError(f"Debian packages are missing; an administrator must run:\n  {command}")
    say(f"about to install with apt-get: {' '.join(packages)}")
    say("no service is started by it")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    flags = ("--yes", "--quiet=2", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0")
    with phase(f"installing {len(packages)} Debian packages"), no_service_starts(prefix):
        if _POSTGRESQL in packages:
            subprocess.run([*prefix, "sh", "-c", _NO_CLUSTER], check=False)
        for step in (["update", "--quiet=2"], ["install", *flags, *packages]):
            done = subprocess.run(
                [*prefix, "apt-get", *step],
                env=quiet,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise BuildError(f"`{command}` failed:\n{(done.stdout + done.stderr).strip()[-4000:]}")


@contextlib.contextmanager
def no_service_starts(prefix: tuple[str, ...]) -> Iterator[None]:
    """Servers among the packages are for tests, which start their own: none may start one on this machine.

    Debian's maintainer scripts ask policy-rc.d (its exit status 101 forbids). One that is there already decides.
    """
    if POLICY.exists() and _POLICY_MARK not in POLICY.read_text(errors="replace"):
        yield
        return
    write = 'printf "#!/bin/sh\\n%s\\nexit 101\\n" "$2" > "$1" && chmod 755 "$1"'
    subprocess.run([*prefix, "sh", "-c", write, "sh", str(POLICY), _POLICY_MARK], check=True)
    try:
        yield
    finally:
        subprocess.run([*prefix, "rm", "-f", str(POLICY)], check=True)


def _elevation() -> tuple[str, ...] | None:
    """What to put before a command that needs root: nothing for root, sudo where it asks nothing."""
    if os.geteuid() == 0:
        return ()
    if shutil.which("sudo") is None:
        return None
    silent = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    return ("sudo", "-n", "DEBIAN_FRONTEND=noninteractive") if silent else None
