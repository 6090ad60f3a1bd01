"""A stretch of a recording as people name it: by time since its start, or by the clock in UTC. Source: RFC 3339."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from recording.errors import ExportError

Moment: TypeAlias = timedelta | datetime
"""Since the recording's first frame, or an aware time."""

_OFFSET: Final = re.compile(r"(?:(?:(?P<h>\d{1,3}):)?(?P<m>\d{1,2}):)?(?P<s>\d{1,6}(?:\.\d{1,6})?)")


def parse_moment(text: str) -> Moment:
    """`00:01:30`, `1:30`, `90`, `90.5`, or a time with its zone: `2026-03-01T12:00:30Z`.

    Raises:
        ValueError: says what is wanted.
    """
    if match := _OFFSET.fullmatch(text):
        hours, minutes, seconds = int(match["h"] or 0), int(match["m"] or 0), float(match["s"])
        if (match["m"] and seconds >= 60) or (match["h"] and minutes >= 60):
            raise ValueError(f"{text} has more than 59 minutes or seconds")
        return timedelta(hours=hours, minutes=minutes, seconds=seconds)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text} is no time; write 00:01:30, 90.5, or 2026-03-01T12:00:30Z") from None
    if at.tzinfo is None:
        raise ValueError(f"{text} does not say its zone; write it in UTC, with Z at its end")
    return at.astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """From `start` to before `end`; None: from the beginning, to the end."""

    start: Moment | None = None
    end: Moment | None = None

    @property
    def is_everything(self) -> bool:
        return self.start is None and self.end is None

    def frames(self, *, rate_hz: int, started_at: datetime | None) -> tuple[int | None, int | None]:
        """Sample frames of the recording; a moment before its start is its start.

        Raises:
            ExportError: nothing lies between the two, or the clock is asked for where META gives no start.
        """
        start = _frame(self.start, rate_hz, started_at)
        end = _frame(self.end, rate_hz, started_at)
        if end is not None and end <= (start or 0):
            raise ExportError("the stretch is empty: its end is not after its start and the recording's own")
        return start, end


WHOLE: Final = Stretch()


def _frame(moment: Moment | None, rate_hz: int, started_at: datetime | None) -> int | None:
    if moment is None:
        return None
    if isinstance(moment, datetime):
        if started_at is None:
            raise ExportError("the recording does not say when it started; give times since its start")
        moment -= started_at
    return max(0, moment // timedelta(microseconds=1) * rate_hz // 1_000_000)
