"""`b2bua audit expire`: take away the front of the audit log whose time is over, and leave a signed statement of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from b2bua.audit import AuditEvent
from b2bua.cli import output
from b2bua.cli.audit_reading import SealedAudit, finding_text, open_audit
from b2bua.cli.parser import add_command, add_configuration, add_json
from b2bua.cli.stewardship import checked_reason
from b2bua.errors import AuditFindingsError, AuditKeptError, CommandError
from b2bua.journal.expiry import Expired, Expiry, Front, Statement, remove_expired
from b2bua.journal.read import SealedFile
from recording.index import RecordingIndex
from recording.signing import SigningKey

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "expire",
        summary="Remove whole files from the front of the audit log whose time is over; a signed statement stays.",
        example="""
            b2bua audit expire -c lab/b2bua.toml --reason six-years-over --dry-run
            b2bua audit expire -c lab/b2bua.toml --reason six-years-over
        """,
        run=run,
    )
    add_configuration(parser)
    parser.add_argument("--reason", metavar="LABEL", required=True, help="why, for the audit log: a label")
    parser.add_argument("--dry-run", action="store_true", help="say what would go; remove nothing")
    add_json(parser)
    parser.set_defaults(directory=None, checkpoints=None)


def run(arguments: argparse.Namespace) -> int:
    """Verify, state, remove. Nothing goes from a log that is not whole, or while anything is on hold."""
    reason = checked_reason(arguments.reason)
    audit = open_audit(arguments)
    _require_no_hold(audit)
    key = _signing_key(audit)
    expiry, in_force = _expirable(audit, datetime.now(UTC))
    removed = 0
    if in_force is not None and not arguments.dry_run:
        removed = remove_expired(audit.directory, in_force.expiry)  # an earlier run was interrupted
    if expiry is not None and not arguments.dry_run:
        statement = Statement.sign(expiry, key)
        # The line first: a statement without it would be taken for a forged one, a line without it says what was meant.
        audit.note(
            AuditEvent.AUDIT_EXPIRED,
            reason=reason,
            fingerprint=statement.fingerprint,
            count=expiry.chain.sequence,
        )
        removed += statement.put_in_force(audit.directory)
    _print(arguments, expiry, removed)
    return 0


def _require_no_hold(audit: SealedAudit) -> None:
    place = audit.settings.recording.index_place
    if isinstance(place, Path) and not place.exists():
        return
    index = RecordingIndex(place)
    try:
        held = index.find(is_held=True, limit=1)
    finally:
        index.close()
    if held:
        audit.note(AuditEvent.AUDIT_EXPIRY_REFUSED, reason="on_hold")
        raise AuditKeptError(
            f"{held[0].file_id.hex()} is on hold, and what the audit log says of it may be needed with it; "
            "release it first (b2bua recordings release)"
        )


def _signing_key(audit: SealedAudit) -> SigningKey:
    path = audit.settings.audit.signing_key_path
    if path is None:
        raise CommandError("what expires is replaced by a signed statement; name recording.signing_key")
    return SigningKey.load(path)


def _expirable(audit: SealedAudit, now: datetime) -> tuple[Expiry | None, Expired | None]:
    """What may go, and the statement in force of what went before.

    Raises AuditFindingsError: something is wrong with the log, and the traces of it stay.
    """
    fronts: list[Front] = []

    def look(files: Iterable[SealedFile], expired: Expired | None) -> Iterable[SealedFile]:
        fronts.append(Front(expired))
        return fronts[0].passing(files)

    report = audit.read(None, doing="verifying", look=look)
    if not report.is_whole:
        audit.note(AuditEvent.AUDIT_EXPIRY_REFUSED, reason="not_whole")
        raise AuditFindingsError("\n".join(map(finding_text, report.findings)))
    before = now - timedelta(days=audit.settings.audit.retain_days)
    assert report.log_id is not None, "a whole log has a head"
    return fronts[0].expiry(log_id=report.log_id, before=before, now=now), fronts[0].expired


def _print(arguments: argparse.Namespace, expiry: Expiry | None, removed: int) -> None:
    if arguments.json:
        found = None if expiry is None else {"files": expiry.files, "lines": expiry.chain.sequence}
        output.print_json({"expired": found, "removed": removed})
    elif expiry is None:
        output.print_line("nothing is old enough")
    else:
        what = "would go" if arguments.dry_run else f"gone, {removed} files removed"
        output.print_line(f"the front up to line {expiry.chain.sequence} of {expiry.until:%Y-%m-%d}: {what}")
