"""`b2bua audit export`: lines of the audit log as JSON lines, sealed to who collects them."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from b2bua.audit import AuditEvent
from b2bua.cli import output
from b2bua.cli.access import read_recipient
from b2bua.cli.audit_reading import SealedAudit, add_directory, open_audit, print_findings
from b2bua.cli.audit_show import Filter, add_selection, selection
from b2bua.cli.parser import add_command, add_configuration, add_json
from b2bua.errors import CommandError
from b2bua.journal.chain import ChainedLine
from b2bua.journal.verify import LogReport
from recording.cms import CMSSealer, Recipient
from recording.private_file import private_file

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "export",
        summary="Write lines of the audit log as JSON lines that only the recipient can read (CMS).",
        example="""
            b2bua audit export -c lab/b2bua.toml --recipient siem.pem --reason siem -o audit.p7m
            openssl cms -decrypt -inform DER -in audit.p7m -recip siem.pem -inkey siem.key
        """,
        run=run,
    )
    add_configuration(parser)
    parser.add_argument(
        "--recipient",
        dest="recipients",
        metavar="CERT",
        type=Path,
        action="append",
        required=True,
        help="certificate of who may read it (PEM); may be given several times",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="made with mode 0600; must not exist"
    )
    add_selection(parser)
    add_directory(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export what was asked for, in bounded memory. What is wrong with the log is told too, and makes the exit code."""
    wanted = selection(arguments)
    recipients = [read_recipient(path) for path in arguments.recipients]
    destination: Path = arguments.output
    if os.path.lexists(destination):
        raise CommandError(f"{destination} exists and is not replaced; name another file")
    audit = open_audit(arguments)
    for recipient in recipients:
        audit.note(AuditEvent.AUDIT_EXPORTED, reason=arguments.reason, fingerprint=recipient.fingerprint)
    try:
        with private_file(destination) as file:
            count, report = _export(audit, wanted, recipients, file)
    except OSError as error:
        raise CommandError(f"{destination}: {error.strerror}; name a file that can be written") from error
    if arguments.json:
        output.print_json({"path": str(destination.absolute()), "lines": count, "whole": report.is_whole})
    else:
        output.print_line(f"{destination}: {count} lines, sealed to {len(recipients)} recipients")
    return print_findings(report)


def _export(
    audit: SealedAudit, wanted: Filter, recipients: list[Recipient], file: BinaryIO
) -> tuple[int, LogReport]:
    sealer = CMSSealer(recipients)
    count = 0

    def take(line: ChainedLine) -> None:
        nonlocal count
        if wanted.takes(line.values):
            count += 1
            text = {"seq": line.sequence, **line.values, "hash": line.hash.hex()}
            file.write(sealer.update(json.dumps(text, separators=(",", ":")).encode() + b"\n"))

    file.write(sealer.begin())
    report = audit.read(take, doing="exporting")
    file.write(sealer.finish())
    return count, report
