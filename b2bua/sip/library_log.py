"""What pjsip reports, as events of our own log: errors and warnings; nothing above is compiled into it.

Levels 1 and 2 hold why a handshake failed, a socket could not be bound, a file was not read or a message was
dropped, which nothing else tells. Their texts are ours to trust only so far: the patches of the build take a peer's
text out of them, the extension keeps one line of each, and the log's redaction stands behind both. SIP thread only.
"""

from __future__ import annotations

import re
from typing import Final

import structlog

from b2bua.native import _native
from b2bua.sip.loop import SIPLoop

_log = structlog.get_logger(__name__)

INTERVAL_S: Final = 1.0
"""How often lines are taken: at most 32 a second reach the log, whatever peers provoke."""
_ERROR: Final = 1
_POINTER: Final = re.compile(r"0x[0-9a-f]+")
"""Objects of pjsip are named by their address, which tells an attacker where things lie."""


class LibraryLog:
    """Takes the kept lines once a second, and once more at the end."""

    def __init__(self, loop: SIPLoop) -> None:
        self._loop = loop

    def start(self) -> None:
        """From now on until the loop ends."""
        self.take()
        self._loop.call_later(INTERVAL_S, self.start)

    def take(self) -> None:
        """Report what waits."""
        lines, dropped = _native.log_take()
        for level, line in lines:
            module, _, text = _POINTER.sub("", line).strip().partition(" ")
            report = _log.error if level <= _ERROR else _log.warning
            report("pjsip_report", module=module, text=text.strip())
        if dropped:
            _log.warning("pjsip_reports_dropped", count=dropped)
