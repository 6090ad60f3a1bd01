"""`b2bua init`: a first configuration to try things out with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from b2bua.cli import output
from b2bua.cli.parser import add_command, add_json
from b2bua.initialise import InitOptions, InitResult, identity_of, initialise
from recording.settings import Layout

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

_DEFAULTS = InitOptions()


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "init",
        summary="Make a development CA, certificates, keys and a configuration in a directory.",
        example="""
            b2bua init lab
            b2bua init lab --split --free-ports --json
        """,
        run=run,
    )
    parser.add_argument(
        "directory", metavar="DIR", type=Path, help="made if missing; nothing in it is overwritten"
    )
    parser.add_argument("--split", action="store_true", help="record the two parties on two channels")
    ports = (
        ("--sip-port", "sip_port", "TLS port of the SIP listener"),
        ("--caller-port", "caller_port", "port of the example peer `caller`"),
        ("--callee-port", "callee_port", "port of the example peer `callee`"),
        ("--metrics-port", "metrics_port", "https port of the metrics"),
        ("--rtp-port", "rtp_port_first", "first media port, even"),
    )
    for option, name, text in ports:
        default = getattr(_DEFAULTS, name)
        parser.add_argument(
            option, dest=name, metavar="PORT", type=int, default=default, help=f"{text} (default: {default})"
        )
    parser.add_argument(
        "--max-calls",
        metavar="N",
        type=int,
        default=_DEFAULTS.max_calls,
        help=f"calls at once; each takes four media ports (default: {_DEFAULTS.max_calls})",
    )
    parser.add_argument("--free-ports", action="store_true", help="find free ports instead of the ones above")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make it and say what comes next."""
    options = InitOptions(
        layout=Layout.SPLIT if arguments.split else Layout.MIXED,
        sip_port=arguments.sip_port,
        caller_port=arguments.caller_port,
        callee_port=arguments.callee_port,
        metrics_port=arguments.metrics_port,
        rtp_port_first=arguments.rtp_port_first,
        max_calls=arguments.max_calls,
        free_ports=arguments.free_ports,
    )
    result = initialise(arguments.directory, options)
    if arguments.json:
        output.print_json(_as_json(result))
    else:
        _print_next_steps(result)
    return 0


def _as_json(result: InitResult) -> dict[str, object]:
    peers = {"edge": result.edge, "caller": result.caller, "callee": result.callee, "monitor": result.monitor}
    return {
        "configuration": str(result.configuration),
        "authority": str(result.authority),
        "kek": str(result.kek),
        "ports": {
            "sip": result.sip_port,
            "caller": result.caller_port,
            "callee": result.callee_port,
            "metrics": result.metrics_port,
        },
        "certificates": {
            name: {
                "identity": identity_of(name),
                "certificate": str(material.certificate_path),
                "private_key": str(material.private_key_path),
            }
            for name, material in peers.items()
        },
    }


def _print_next_steps(result: InitResult) -> None:
    output.print_table(
        ["made", "where"],
        [
            ["configuration", result.configuration],
            ["development authority", result.authority],
            [
                "certificates",
                f"{result.edge.certificate_path.parent}/{{edge,caller,callee,monitor}}.pem, keys beside them",
            ],
            ["key-encryption key", result.kek],
        ],
    )
    output.print_line()
    output.print_line("Next:")
    output.print_line(f"  b2bua check {result.configuration}")
    output.print_line(f"  b2bua serve {result.configuration}")
    probed = f"127.0.0.1:{result.sip_port} --name {identity_of('edge')} --no-certificate"
    output.print_line(f"  b2bua tls check {probed} -c {result.configuration}")
    output.print_line(
        "For development only: whoever can read this directory can read every recording made with it."
    )
