"""What a serving process denies itself: other OpenSSL defaults than its own, session tickets, core dumps."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from b2bua.initialise import InitOptions, InitResult, initialise
from b2bua.posture.process import read_process
from support.edge import edge, ports_kept, serving
from tls.openssl_conf import openssl_configuration

NO_CORE = r"(?m)^Max core file size +0 +0 "


def serve_under(made: InitResult, configuration: str | None) -> subprocess.CompletedProcess[str]:
    """`b2bua serve` as it starts itself again, but under this OpenSSL configuration or under none."""
    descriptor = os.memfd_create("openssl.cnf", flags=0)
    environment = {name: value for name, value in os.environ.items() if name != "OPENSSL_CONF"}
    if configuration is not None:
        os.write(descriptor, configuration.encode())
        environment["OPENSSL_CONF"] = f"/proc/self/fd/{descriptor}"
    try:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "b2bua",
                "serve",
                str(made.configuration),
                "--openssl-fd",
                str(descriptor),
            ],
            pass_fds=(descriptor,),
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(descriptor)


def without_tickets_line() -> str:
    changed, count = re.subn(r"(?m)^NumTickets\s*=.*\n", "", openssl_configuration())
    assert count == 1
    return changed


@pytest.mark.parametrize("configuration", [None, without_tickets_line()], ids=["none", "tickets left on"])
def test_serve_under_other_openssl_defaults_does_not_start(tmp_path: Path, configuration: str | None) -> None:
    made = initialise(tmp_path / "lab", InitOptions(free_ports=True))
    with ports_kept(made):
        done = serve_under(made, configuration)
    assert done.returncode != 0
    assert "ticket" in done.stderr
    assert "Traceback" not in done.stderr
    assert '"ready"' not in done.stdout
    with serving(made) as served:
        assert served.stop() == 0


def test_a_serving_process_is_under_its_own_openssl_configuration(tmp_path: Path) -> None:
    with edge(tmp_path, env={"OPENSSL_CONF": "/dev/null"}) as served:
        environment = Path(f"/proc/{served.pid}/environ").read_text().split("\0")
        named = [value for value in environment if value.startswith("OPENSSL_CONF=")]
        assert len(named) == 1
        assert re.fullmatch(r"OPENSSL_CONF=/proc/self/fd/\d+", named[0])
        assert served.stop() == 0


DUMPABLE = "ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)"
"""PR_GET_DUMPABLE of the process that runs it."""
SERVES = f"""
import ctypes, os, pathlib, signal, sys
from b2bua import config
from b2bua.app import Application

def ready(_):
    print({DUMPABLE})
    os.kill(os.getpid(), signal.SIGTERM)

print({DUMPABLE})
Application(config.load(pathlib.Path(sys.argv[1]))).run(ready)
"""
RUNS = f"""
import ctypes, sys
from b2bua.cli.main import main

print({DUMPABLE})
code = main(sys.argv[1:])
print({DUMPABLE})
sys.exit(code)
"""


def run_python(program: str, *arguments: str) -> list[str]:
    descriptor = os.memfd_create("openssl.cnf", flags=0)
    os.write(descriptor, openssl_configuration().encode())
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            pass_fds=(descriptor,),
            env={**os.environ, "OPENSSL_CONF": f"/proc/self/fd/{descriptor}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    finally:
        os.close(descriptor)
    return done.stdout.splitlines()


def test_a_serving_process_is_not_dumpable_whatever_core_pattern_says(tmp_path: Path) -> None:
    made = initialise(tmp_path / "lab", InitOptions(free_ports=True))
    assert run_python(SERVES, str(made.configuration)) == ["1", "0"]


@pytest.mark.parametrize("command", [["check"], ["recordings", "list", "--config"]])
def test_nor_is_a_command(tmp_path: Path, command: list[str]) -> None:
    made = initialise(tmp_path / "lab", InitOptions(free_ports=True))
    printed = run_python(RUNS, *command, str(made.configuration))
    assert (printed[0], printed[-1]) == ("1", "0")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else and root")
def test_the_report_sees_from_the_owner_that_a_process_is_not_dumpable() -> None:
    program = (
        "import ctypes, os, sys; os.setuid(65534); ctypes.CDLL(None).prctl(4, int(sys.argv[1]), 0, 0, 0);"
    )
    program += "print(flush=True); sys.stdin.read()"
    seen = {}
    for dumpable in (0, 1):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(dumpable)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            seen[dumpable] = read_process(process.pid).is_dumpable
            process.communicate()
    assert seen == {0: False, 1: True}
    assert read_process(os.getpid()).is_dumpable is None


@pytest.fixture
def core_dumps_allowed() -> Iterator[None]:
    """What is started from here may dump core, unless it forbids that to itself."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    if before[1] == 0:
        pytest.skip("core dumps are forbidden here already")
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.usefixtures("core_dumps_allowed")
def test_a_serving_process_leaves_no_core_dump(tmp_path: Path) -> None:
    ours = Path("/proc/self/limits").read_text()
    assert not re.search(NO_CORE, ours)
    with edge(tmp_path) as served:
        assert re.search(NO_CORE, Path(f"/proc/{served.pid}/limits").read_text())
        assert served.stop() == 0
