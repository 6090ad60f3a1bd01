"""Which sample frames of a recording a pause takes away: from the frame where it took effect to the frame of its end.

Pure, by position alone; the recording that owns it says where its audio stands. Source: docs/recording-format.md,
Records.
"""

from __future__ import annotations

from typing import Final

RESUME_GUARD_MS: Final = 500
"""Silence kept after a pause was ended. What is played out by then was said before: the jitter buffer holds 240 ms at
most, a tap 200 ms of a channel whose other one is late, and the rest is for the network."""


class Pause:
    """At most one pause at a time. One thread."""

    def __init__(self) -> None:
        self._since: int | None = None
        self._until: int | None = None

    @property
    def is_active(self) -> bool:
        """Whether the next frame is silenced."""
        return self._since is not None

    def begin(self, position: int) -> bool:
        """Silence frames from `position` on.

        Returns:
            False if they are silenced already: a pause whose end was under way goes on instead of ending.
        """
        self._until = None
        if self._since is not None:
            return False
        self._since = position
        return True

    def end(self, position: int) -> bool:
        """Let frames from `position` on through again. Returns False if there is nothing to end."""
        if self._since is None or self._until is not None:
            return False
        self._until = position
        return True

    def silenced(self, position: int, frames: int) -> int:
        """How many of `frames` frames from `position` on, the first ones, are to be silence."""
        if self._since is None:
            return 0
        return frames if self._until is None else min(frames, max(0, self._until - position))

    def completed(self, position: int) -> int | None:
        """The length of the pause in frames, once, when the audio has reached its end; None before and without one."""
        if self._since is None or self._until is None or position < self._until:
            return None
        length = self._until - self._since
        self._since = self._until = None
        return length
