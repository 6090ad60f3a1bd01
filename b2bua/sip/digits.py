"""Which telephone events of a leg are digits of their own, and whether more come than any keypad sends. Pure."""

from __future__ import annotations

from typing import Final

PAUSE_MS: Final = 40
"""The least there is between two digits, and the least that one takes. Source: ITU-T Q.24, table A-1."""
MOST_PER_S: Final = 1000 / (2 * PAUSE_MS)
BURST: Final = 16
"""What a network may hold up and then deliver at once: a card number."""
IS_UPDATE: Final = 1
"""PJMEDIA_STREAM_DTMF_IS_UPDATE, which pjsua2 does not hand out: the same digit, going on for longer."""


class Digits:
    """One leg's. One thread."""

    def __init__(self) -> None:
        self._next_from_ms = 0
        self._room = float(BURST)
        self._counted_at_ms = 0

    def begins(self, flags: int, timestamp_ms: int, duration_ms: int) -> bool:
        """Whether a packet is the first of its event that came, be it an event's last one.

        The library goes by digit and duration: where the first packets of a repeated digit are lost it sees the digit
        before going on. That other event began after the end of this one, and a pause. There are senders that put the
        time of each packet into it, so that another timestamp alone does not make another event.
        Source: RFC 4733 section 2.5.1.2: the timestamp is that of the event's beginning, in every one of its packets.
        """
        is_new = not flags & IS_UPDATE or timestamp_ms >= self._next_from_ms
        self._next_from_ms = timestamp_ms + duration_ms + PAUSE_MS
        return is_new

    def is_too_fast(self, now_ms: int) -> bool:
        """Count one digit at `now_ms` of a monotonic clock; True if it is more than may be taken."""
        self._room = min(float(BURST), self._room + (now_ms - self._counted_at_ms) * MOST_PER_S / 1000)
        self._counted_at_ms = now_ms
        if self._room < 1:
            return True
        self._room -= 1
        return False
