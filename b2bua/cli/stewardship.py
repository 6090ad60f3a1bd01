"""Index, store, retention and audit log behind one configuration, for the commands that hold, release and delete."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from b2bua import config
from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.cli.auditing import open_audit_log
from b2bua.control.protocol import is_reason
from b2bua.errors import CommandError
from b2bua.settings import Settings
from recording.index import IndexEntry, RecordingIndex
from recording.retention import Retention
from recording.sinks.build import build_sink
from recording.sinks.sink import Sink

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stewardship:
    """What the commands work on. Made by `open_stewardship`."""

    settings: Settings
    index: RecordingIndex
    sink: Sink
    retention: Retention
    audit: AuditLog

    def recording_of(self, name: str) -> bytes:
        """The recording that an id means: its own, that of one of its files or attachments, or of its call.

        Raises:
            CommandError: none, or more than one.
        """
        if _ID.fullmatch(name) is None:
            raise CommandError("an id has 32 hex digits; `b2bua recordings list` shows those there are")
        entry = self.index.get(bytes.fromhex(name))
        if entry is not None:
            return entry.group
        if self.index.group(bytes.fromhex(name)):
            return bytes.fromhex(name)
        groups = {each.group for each in self.index.find(call_uid=name, limit=None)}
        if len(groups) != 1:
            found = "knows no such id" if not groups else f"has {len(groups)} recordings of that call"
            raise CommandError(
                f"{name}: the index {found}; name a recording as `b2bua recordings list` shows it"
            )
        return groups.pop()

    def note(self, event: AuditEvent, entry: IndexEntry, reason: str, *, ticket: str | None = None) -> None:
        """One audit line about one file. What must not happen unaudited comes after `audit.flush()`."""
        self.audit.write(
            AuditLine(
                event=event,
                file_id=entry.file_id.hex(),
                call_uid=entry.call_uid or None,
                tenant_handle=entry.tenant_handle.hex(),
                reason=reason,
                ticket=ticket,
            )
        )


def checked_reason(text: str) -> str:
    """A reason as the audit log and the index take it: a label, with no room for a name or a number.

    Raises:
        CommandError: it is none.
    """
    if not is_reason(text):
        raise CommandError(
            "--reason is a label: a lower-case letter, then letters, digits, _ . or -, and no number of five digits"
        )
    return text


@contextlib.contextmanager
def open_stewardship(path: Path) -> Iterator[Stewardship]:
    """The recordings of a configuration file.

    Raises:
        ConfigurationError, IndexUnavailableError, AuditError, SinkRefusedError: on the way in; AuditError on the way
            out where lines could not be written.
    """
    settings = config.load(path)
    with contextlib.ExitStack() as stack:
        audit = stack.enter_context(open_audit_log(settings.audit))
        index = RecordingIndex(settings.recording.index_place)
        stack.callback(index.close)
        sink = build_sink(settings.recording)
        retention = Retention(
            index=index,
            sink=sink,
            settings=settings.recording.retention,
            spool_directory=settings.recording.spool_directory,
        )
        yield Stewardship(settings=settings, index=index, sink=sink, retention=retention, audit=audit)
