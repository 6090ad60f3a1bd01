"""TLS sockets that keep one deadline over a whole exchange, however slowly the peer trickles its answer.

A time-out of a socket begins anew with each byte that comes; a peer that sends one now and then would never meet it.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

_exchange: Final = threading.local()


@contextlib.contextmanager
def ending_by(deadline: float) -> Iterator[None]:
    """Until it is left, this thread's `TimedSocket`s wait no longer than `deadline`, in `time.monotonic()` seconds."""
    _exchange.deadline = deadline
    try:
        yield
    finally:
        del _exchange.deadline


class TimedSocket(ssl.SSLSocket):
    """For `ssl.SSLContext.sslsocket_class`. Outside `ending_by` it is an ordinary socket."""

    def read(self, *arguments: Any) -> Any:
        self._keep_deadline()
        return super().read(*arguments)

    def send(self, *arguments: Any) -> int:
        self._keep_deadline()
        return super().send(*arguments)

    def _keep_deadline(self) -> None:
        deadline: float | None = getattr(_exchange, "deadline", None)
        if deadline is None:
            return
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("the exchange did not end in time")
        self.settimeout(remaining_s)
