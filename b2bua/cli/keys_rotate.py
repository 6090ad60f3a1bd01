"""`b2bua keys rotate`: a new version of a key-encryption key, at its key service."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from b2bua.audit import AuditEvent
from b2bua.cli import output
from b2bua.cli.custody import add_reason, open_custody
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from recording.keys.administration import build_administration

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "rotate",
        summary="Give a key a new version at its service. Older recordings still open: see retire for a leaked key.",
        example="b2bua keys rotate clinic -c /etc/sealtrunk/administrator.toml --reason yearly-rotation",
        run=run,
    )
    parser.add_argument("name", metavar="NAME", help="of [keys.NAME]")
    add_configuration(parser)
    add_reason(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Rotate one key, with the administrator's credentials."""
    name: str = arguments.name
    with open_custody(configuration_path(arguments), action="rotate", reason=arguments.reason) as custody:
        key = custody.key(name)
        with custody.noting_refusal(name):
            administration = build_administration(name, key)
            custody.note(AuditEvent.KEY_CHANGE_STARTED, key=name)
            done = administration.rotate()
        custody.note(AuditEvent.KEY_ROTATED, key=name)
    if arguments.json:
        output.print_json({"key": name, "rotated": True, "detail": done})
    else:
        output.print_line(f"keys.{name}: {done}")
    return 0
