"""Where host names are.

Looked up off the SIP thread, handed to pjsip as a table, so that no look-up ever stalls a call.

TLS checks the host's certificate on every connection, so a forged answer leads nowhere (RFC 5922 section 7.3).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable

import structlog

from b2bua.settings import TrunkSettings

_log = structlog.get_logger(__name__)

REFRESH_S = 60.0
"""getaddrinfo gives no TTL; a minute is the shortest that carriers use for fail-over."""

Hosts = dict[str, tuple[str, ...]]


class HostTable:
    """Keeps the addresses of all trunk targets. `publish` gets each new table, on the resolver's own thread."""

    def __init__(self, trunks: Iterable[TrunkSettings], publish: Callable[[Hosts], None]) -> None:
        targets = [trunk for trunk in trunks if trunk.target is not None]
        self._fixed: Hosts = {t.target.host: t.addresses for t in targets if t.target and t.addresses}
        names = {t.target.host for t in targets if t.target} - set(self._fixed)
        self._names = sorted(name for name in names if not _is_address(name))
        self._found: Hosts = {}
        self._publish = publish
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resolver", daemon=True)

    def first(self) -> Hosts:
        """Look everything up once, blocking: before the SIP thread serves."""
        self._refresh()
        return self._table()

    def start(self) -> None:
        """Refresh in the background, where there is anything to look up."""
        if self._names:
            self._thread.start()

    def stop(self) -> None:
        """End the refreshing; a look-up under way is left to its own time-out."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(REFRESH_S):
            before = self._table()
            self._refresh()
            if self._table() != before:
                self._publish(self._table())

    def _refresh(self) -> None:
        for name in self._names:
            try:
                answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            except OSError as error:
                _log.warning("host_not_resolved", host=name, error=type(error).__name__)
                continue  # a failed refresh leaves the last known addresses
            self._found[name] = tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))

    def _table(self) -> Hosts:
        return {**self._found, **self._fixed}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
