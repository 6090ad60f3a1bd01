"""`b2bua serve`: run the B2BUA until a signal drains it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from b2bua import config
from b2bua.cli import output
from b2bua.cli.parser import add_command, add_configuration, configuration_path
from tls.openssl_conf import openssl_configuration, verify_openssl_configuration_in_effect

if TYPE_CHECKING:
    from b2bua.app import Ready
    from b2bua.cli.parser import Subparsers

_NOT_GIVEN: Final = -1


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "serve",
        summary="Serve calls. SIGTERM drains and stops, a second one stops at once; SIGHUP reloads certificates.",
        example="""
            b2bua serve /etc/sealtrunk/b2bua.toml
            b2bua serve lab/b2bua.toml --ready-fd 3 3>ready.json
        """,
        run=run,
    )
    add_configuration(parser, positional=True)
    parser.add_argument(
        "--ready-fd",
        type=int,
        default=_NOT_GIVEN,
        metavar="FD",
        help="write one JSON line to this descriptor, and close it, when calls are served",
    )
    parser.add_argument("--openssl-fd", type=int, default=_NOT_GIVEN, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Check the configuration, start again under our own OpenSSL defaults, then serve."""
    path = configuration_path(arguments)
    settings = config.load(path)
    if arguments.openssl_fd == _NOT_GIVEN:
        _start_again(path, arguments.ready_fd)
    verify_openssl_configuration_in_effect()
    os.close(arguments.openssl_fd)
    # Only now: pjsua2 and the extension load libssl, which reads its configuration once.
    from b2bua.app import Application  # noqa: PLC0415

    Application(settings).run(lambda ready: _announce(ready, arguments.ready_fd))
    return 0


def _start_again(path: Path, ready_fd: int) -> None:
    """OpenSSL reads OPENSSL_CONF before any of our code runs: put the floor in memory, name it, and exec ourselves.

    It is the second line of defence; every context sets its own floor as well. Nothing is written to a disk.
    """
    descriptor = os.memfd_create("openssl.cnf", flags=0)
    os.write(descriptor, openssl_configuration().encode())
    environment = {**os.environ, "OPENSSL_CONF": f"/proc/self/fd/{descriptor}"}
    command = [sys.executable, "-P", "-m", "b2bua", "serve", str(path), "--openssl-fd", str(descriptor)]
    if ready_fd != _NOT_GIVEN:
        os.set_inheritable(ready_fd, True)
        command += ["--ready-fd", str(ready_fd)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter and module


def _announce(ready: Ready, ready_fd: int) -> None:
    line = json.dumps(
        {
            "event": "ready",
            "sip": f"{ready.sip_address}:{ready.sip_port}",
            "metrics_port": ready.metrics_port,
            "pid": os.getpid(),
        }
    )
    if ready_fd == _NOT_GIVEN:
        output.print_line(line)
        sys.stdout.flush()
        return
    with os.fdopen(ready_fd, "w") as stream:
        stream.write(line + "\n")
