"""`b2bua tls`: what a TLS server really accepts, held against the product's policy."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from b2bua import config, config_values
from b2bua.cli import output
from b2bua.cli.parser import add_command, add_configuration, add_group, add_json
from b2bua.errors import CommandError, FindingsError
from tls.material import TLSMaterial, load_material
from tls.policy import PeerVerifier
from tls.probe import ProbeReport, probe

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

DEFAULT_PORT = 5061
"""Source: RFC 3261 section 19.1.2."""


def register(subparsers: Subparsers) -> None:
    """Add the group and its command."""
    group = add_group(
        subparsers,
        "tls",
        summary="Look at TLS endpoints.",
        example="b2bua tls check pbx.example.test:5061 -c lab/b2bua.toml",
    )
    parser = add_command(
        group,
        "check",
        summary="Ask a TLS server what it accepts; the exit code is 0 only if the policy allows all of it.",
        example="""
            b2bua tls check pbx.example.test:5061 -c lab/b2bua.toml
            b2bua tls check 127.0.0.1:5061 --name edge.example.test --no-certificate -c lab/b2bua.toml
        """,
        run=run_check,
    )
    parser.add_argument(
        "server", metavar="HOST:PORT", help=f"IPv6 addresses in brackets; port {DEFAULT_PORT} if left out"
    )
    parser.add_argument("--name", help="the name its certificate must carry (default: HOST)")
    parser.add_argument(
        "--no-certificate", action="store_true", help="show none of ours (to a server that is not a trunk's)"
    )
    add_configuration(parser)
    add_json(parser)


def run_check(arguments: argparse.Namespace) -> int:
    """Probe, print, and raise what was found."""
    try:
        target = config_values.read_host_port(arguments.server)
    except PydanticCustomError as error:
        context = error.context or {}
        raise CommandError(f"{context['what']}; {context['cure']}") from error
    path: Path | None = arguments.config or config.default_path()
    material = None if path is None else _material(path)
    report = probe(
        target.host,
        target.port or DEFAULT_PORT,
        material=None if arguments.no_certificate else material,
        verifier=None if material is None else PeerVerifier(material.trust),
        server_name=arguments.name,
    )
    if arguments.json:
        output.print_json(_as_json(report))
    else:
        for line in report.lines():
            output.print_line(line)
    if report.findings:
        raise FindingsError("\n".join(map(str, report.findings)))
    return 0


def _material(path: Path) -> TLSMaterial:
    return load_material(config.load(path).tls, now=datetime.now(UTC))


def _as_json(report: ProbeReport) -> dict[str, object]:
    return {
        "host": report.host,
        "port": report.port,
        "versions": {each.version.label: each.answer.value for each in report.versions},
        "cipher_suites": [suite.name for suite in report.cipher_suites],
        "group": report.group,
        "client_certificate": report.client_certificate.value,
        "our_certificate_accepted": report.our_certificate_accepted,
        "tickets": report.tickets,
        "resumed": report.resumed,
        "identities": sorted(identity.host for identity in report.identities),
        "certificate_sha256": report.fingerprint,
        "certificate_not_after": None if report.not_after is None else report.not_after.isoformat(),
        "findings": [{"code": finding.code.value, "what": finding.what} for finding in report.findings],
    }
