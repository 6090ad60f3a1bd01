"""Finding a pause or resume code among a leg's digits. Pure: the time of a digit comes with it.

Where a trunk's codes are not relayed, digits that may yet become one are withheld until it is clear that they do not.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from b2bua.settings import PauseCodes

DIGIT_GAP_MS = 3_000
"""A code is typed without a longer pause. Hand-dialled digits follow each other within two seconds, and a digit that is
withheld must not come so late that a menu at the far end has given up."""


class CodeMatch(enum.Enum):
    """What a complete code asks for."""

    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Digit:
    """One RFC 4733 event. The digit itself never shows in a log."""

    value: str = field(repr=False)
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """The last digits of a leg as far as they may become a code; `last_at_ms` is when the last one came."""

    digits: tuple[Digit, ...] = ()
    last_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one digit led to. `passed`: digits that can no longer be part of a code, in their order."""

    typed: Typed
    match: CodeMatch | None = None
    passed: tuple[Digit, ...] = ()


def hear(codes: PauseCodes, typed: Typed, digit: Digit, at_ms: int) -> Heard:
    """The next digit of the leg. One that comes later than `DIGIT_GAP_MS` begins anew."""
    late = bool(typed.digits) and at_ms - typed.last_at_ms > DIGIT_GAP_MS
    passed = list(typed.digits) if late else []
    waiting = [digit] if late else [*typed.digits, digit]
    while waiting and not _begins_a_code(codes, waiting):
        passed.append(waiting.pop(0))
    text = "".join(each.value for each in waiting)
    match = {codes.pause: CodeMatch.PAUSE, codes.resume: CodeMatch.RESUME}.get(text)
    rest = () if match is not None else tuple(waiting)
    return Heard(typed=Typed(digits=rest, last_at_ms=at_ms), match=match, passed=tuple(passed))


def _begins_a_code(codes: PauseCodes, digits: list[Digit]) -> bool:
    text = "".join(each.value for each in digits)
    return codes.pause.startswith(text) or codes.resume.startswith(text)
