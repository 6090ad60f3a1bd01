"""The log file, where one is configured: a sealed container, never lines in clear on a disk.

Whoever logs never waits: lines are queued, a thread named `log` writes them, what does not fit is dropped and counted.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import deque
from datetime import UTC, datetime
from typing import Final

from b2bua.audit_store import new_key
from b2bua.errors import JournalError
from b2bua.journal.lines import LineJournal
from b2bua.settings import LogSettings
from recording.errors import RecordingError
from recording.keys.build import build_provider

QUEUE_LINES: Final = 10_000
LINE_BYTES: Final = 4000
"""A longer line is cut: a record holds 4,080 bytes."""
COMMIT_S: Final = 1.0
"""How long a line may wait for others to be written with it: what kill -9 may cost of the log."""
RETRY_S: Final = 5.0


class LogFile:
    """Takes lines from any thread. What fails to be written is dropped and counted, as what does not fit is."""

    def __init__(self, settings: LogSettings) -> None:
        """Make the directory; no key is asked for yet.

        Raises:
            JournalError: the directory can't be used. KeyConfigurationError: the key section can't.
        """
        assert settings.directory is not None
        assert settings.key is not None
        assert settings.key_name is not None
        provider = build_provider(settings.key_name, settings.key)
        self._journal = LineJournal(
            settings.directory,
            log_id=secrets.token_bytes(16),
            take_key=lambda log_id: new_key(provider, log_id),
            segment_seconds=settings.segment_seconds,
        )
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._untold = 0
        self._is_closing = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def write(self, text: str) -> None:
        """Queue one line; returns at once. Newlines within are kept apart from the end of the line."""
        line = text.replace("\n", "\\n").encode("utf-8", "replace")[:LINE_BYTES] + b"\n"
        with self._changed:
            if len(self._lines) >= QUEUE_LINES:
                self._drop(1)
                return
            self._lines.append(line)
            self._changed.notify()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, as far as that goes, and end the file. Does nothing twice."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._journal.close()

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._untold += count

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closing)
                if not self._lines:
                    return
                self._changed.wait_for(
                    lambda: self._is_closing or len(self._lines) * 2 > QUEUE_LINES, COMMIT_S
                )
                batch = [*self._told(), *self._lines]
                self._lines.clear()
            try:
                self._journal.append(batch)
            except (JournalError, RecordingError):
                with self._changed:
                    self._drop(len(batch))
                    self._changed.wait_for(lambda: self._is_closing, RETRY_S)

    def _told(self) -> list[bytes]:
        """A line about lines that were dropped."""
        if not self._untold:
            return []
        told = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": "warning",
            "event": "log_lines_dropped",
            "count": self._untold,
        }
        self._untold = 0
        return [json.dumps(told).encode() + b"\n"]
