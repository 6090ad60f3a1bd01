"""Trying again while a failure is transient, within one deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from recording.keys.errors import KeyUnavailableError

ATTEMPTS: Final = 3
# Full jitter over a doubling step keeps many recorders from returning in step after an outage.
FIRST_PAUSE_S: Final = 0.1

_Answer = TypeVar("_Answer")


def retried(attempt: Callable[[], _Answer], *, deadline: float) -> _Answer:
    """What `attempt` returns, after at most `ATTEMPTS` tries.

    A service that says how long to stay away is not asked earlier, and not at all if that is after `deadline`
    (`time.monotonic()` seconds).

    Raises:
        KeyUnavailableError: the last one; every other error passes at once.
    """
    pause_s = FIRST_PAUSE_S
    for remaining_attempts in range(ATTEMPTS - 1, -1, -1):
        try:
            return attempt()
        except KeyUnavailableError as error:
            pause = random.uniform(0, pause_s) + error.retry_after_s  # noqa: S311  # spreads load, hides nothing
            if remaining_attempts == 0 or time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause)
        pause_s *= 2
    raise AssertionError("the last attempt returns or raises")
