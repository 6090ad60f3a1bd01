"""The one boundary between pjsua2's directors and our code.

An exception that leaves a void callback vanishes, one that leaves a value-returning callback kills the process:
so none leaves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import structlog

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Guarded")

_log = structlog.get_logger(__name__)


class Guarded(Protocol):
    """Whoever owns callbacks says what a failure in one means."""

    def callback_failed(self, callback: str) -> None:
        """Count it and fail what depends on it; must not raise."""


def guarded(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R | None]:
    """Catch everything, report it once with its traceback, tell the owner, return None."""

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(self, *args, **kwargs)
        except Exception:  # noqa: BLE001 - the one boundary: nothing may unwind into C frames
            _log.exception("sip_callback_failed", callback=method.__name__)
            self.callback_failed(method.__name__)
            return None

    return call


def guarded_function(
    name: str, on_failure: Callable[[], R]
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """The same boundary for a plain function handed to the native extension.

    `on_failure` gives the refusal to return.
    """

    def wrap(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def call(*args: Any) -> R:
            try:
                return function(*args)
            except Exception:  # noqa: BLE001 - see above
                _log.exception("sip_callback_failed", callback=name)
                return on_failure()

        return call

    return wrap
