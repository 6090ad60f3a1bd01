"""The audit log as a command writes to it: each line names the user who gave the command."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from b2bua.audit import AuditLine, AuditLog
from b2bua.settings import AuditSettings


@contextlib.contextmanager
def open_audit_log(settings: AuditSettings) -> Iterator[AuditLog]:
    """The log, which takes lines until the block ends.

    Raises:
        AuditError, JournalError, KeyConfigurationError: on the way in, as `AuditLog`; AuditError on the way out, where
            lines could not be written.
    """
    audit = AuditLog(settings, uid=os.getuid())
    audit.start()
    try:
        yield audit
    finally:
        audit.close()


def note_now(settings: AuditSettings, line: AuditLine) -> None:
    """One line, durable on return: what it tells of comes after. Raises as `open_audit_log`."""
    with open_audit_log(settings) as audit:
        audit.write(line)
        audit.flush()
