"""Waiting for facts instead of sleeping: an object that says it changed, and waits that look again each time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from b2bua.demo.errors import WaitTimeoutError

WAIT_S = 10.0
"""Default patience of every wait: loopback calls answer in milliseconds, so this is only ever reached by a failure."""


class Watched:
    """Base of objects whose state others wait for. Belongs to one event loop."""

    def __init__(self) -> None:
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def changed(self) -> None:
        """Look again at every condition waited for."""
        for condition, future in self._watchers:
            if not future.done() and condition():
                future.set_result(None)

    async def until(self, condition: Callable[[], bool], what: str, *, timeout_s: float = WAIT_S) -> None:
        """Wait until a condition of this object holds.

        Raises:
            WaitTimeoutError: it did not hold in time.
        """
        if condition():
            return
        watcher = (condition, asyncio.get_running_loop().create_future())
        self._watchers.append(watcher)
        try:
            await asyncio.wait_for(watcher[1], timeout_s)
        except TimeoutError as error:
            raise WaitTimeoutError(f"no {what} within {timeout_s} s") from error
        finally:
            self._watchers.remove(watcher)
