"""`b2bua audit verify`: whether the audit log is whole, line by line and file by file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from b2bua.audit import AuditEvent
from b2bua.cli import output
from b2bua.cli.audit_reading import add_directory, open_audit, print_findings
from b2bua.cli.parser import add_command, add_configuration, add_json
from b2bua.journal.expiry import Expiry
from b2bua.journal.verify import LogReport

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "verify",
        summary="Find every line of the audit log that was cut, changed, moved or taken out, and every file.",
        example="""
            b2bua audit verify -c lab/b2bua.toml
            b2bua audit verify -c lab/b2bua.toml --checkpoints /mnt/other/audit-checkpoints.jws
            b2bua audit verify -c lab/b2bua.toml --directory copy-of-audit --json
        """,
        run=run,
    )
    add_configuration(parser)
    add_directory(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Judge the whole log. Any finding makes the exit code that of AuditFindingsError."""
    audit = open_audit(arguments)
    audit.note(AuditEvent.AUDIT_VERIFIED, reason="verify")
    report = audit.read(None, doing="verifying")
    if arguments.json:
        output.print_json(_as_json(report))
    else:
        state = "whole" if report.is_whole else f"{len(report.findings)} findings"
        output.print_line(
            f"{audit.directory}: {state}; {report.lines} lines in {report.files} files, "
            f"{report.checkpoints} signed checkpoints"
        )
        if report.expired is not None:
            output.print_line(
                f"{_expired_text(report.expired)} expired; a signed statement and a line say so"
            )
        for crash in report.crashes:
            output.print_line(f"{crash.file}: its writer died; line {crash.marked_by} says so")
    return print_findings(report)


def _expired_text(expired: Expiry) -> str:
    return f"{expired.files} files up to line {expired.chain.sequence}"


def _as_json(report: LogReport) -> dict[str, object]:
    return {
        "whole": report.is_whole,
        "files": report.files,
        "lines": report.lines,
        "head": None if report.head is None else report.head.as_json(),
        "checkpoints": report.checkpoints,
        "expired": None
        if report.expired is None
        else {"files": report.expired.files, "lines": report.expired.chain.sequence},
        "crashes": [{"file": crash.file, "marked_by": crash.marked_by} for crash in report.crashes],
        "findings": [
            {
                "kind": finding.kind.value,
                "file": finding.file,
                "sequence": finding.sequence,
                "what": finding.what,
            }
            for finding in report.findings
        ],
    }
