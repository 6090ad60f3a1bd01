"""Ports of 127.0.0.1 for servers that must be told one, none of which any other test can be given meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator


class Ports:
    """Ports chosen by the kernel, and kept from everybody who does not ask for one by its number, until `close`."""

    def __init__(self, count: int) -> None:
        with contextlib.ExitStack() as stack:
            self._sockets = [stack.enter_context(_keeper(0)) for _ in range(count)]
            self._kept = stack.pop_all()
        self.numbers = [int(keeper.getsockname()[1]) for keeper in self._sockets]

    def close(self) -> None:
        self._kept.close()


@contextlib.contextmanager
def kept(*ports: int) -> Iterator[None]:
    """Nobody else is given these ports while the block runs, whether or not their server is up."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(_keeper(port))
        yield


def share(whole: range) -> range:
    """The part of these ports that is for this process alone, among the workers of a run of `python -m tests`."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % count
    size = len(whole) // count // 2 * 2  # an even first port of the whole is even in each share
    return whole[number * size : (number + 1) * size]


def _keeper(port: int) -> socket.socket:
    """Bound and not listening: a server that sets SO_REUSEADDR, as all do, may listen there; bind(0) passes by."""
    keeper = socket.socket()
    try:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", port))
    except BaseException:
        keeper.close()
        raise
    return keeper
