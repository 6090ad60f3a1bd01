"""The segments of one recording in a row: what is missing, wrongly linked, overlapping or apart is named.

Source: docs/recording-format.md, Several segments.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

from recording.errors import RecordingError
from recording.format.content import FinalInfo, RecordingMeta
from recording.reader import RecordingReader

Opener: TypeAlias = Callable[[], AbstractContextManager[RecordingReader]]
"""Opens one segment, as often as it is called: a recording of many is never open as a whole."""


class ChainFaultKind(enum.Enum):
    """What is wrong between segments."""

    MISSING = "missing"
    LINK = "wrong link"
    OVERLAP = "overlap"
    HOLE = "hole"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFault:
    """One fault. `segment`: the number of the segment at which it shows; `detail` names ids and positions."""

    kind: ChainFaultKind
    segment: int
    detail: str

    def __str__(self) -> str:
        return f"{self.kind.value} at segment {self.segment}: {self.detail}"


class ChainError(RecordingError):
    """Segments that do not make one whole recording: one is missing, foreign, wrongly linked, or out of place."""

    exit_code = 108

    def __init__(self, faults: Sequence[ChainFault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class _Place:
    """What is kept of a segment to judge the next one by."""

    number: int
    file_id: bytes
    meta: RecordingMeta
    end: int | None = None
    final: FinalInfo | None = None


class ChainCheck:
    """Goes along with whoever reads the segments in order: `begin` and `end` for each, `finish` after the last."""

    def __init__(self, *, is_whole: bool, is_live: bool = False) -> None:
        """Nothing yet.

        Args:
            is_whole: from the first to the last segment, not a part of them.
            is_live: the recording goes on, in a segment that is not given.
        """
        self._is_whole = is_whole
        self._is_live = is_live
        self._first: RecordingMeta | None = None
        self._last: _Place | None = None

    def begin(self, reader: RecordingReader) -> list[ChainFault]:
        """Compare a segment with the one before it. Raises as `RecordingReader.meta`."""
        place = _Place(reader.head.core.segment_no, reader.file_id, reader.meta)
        faults = []
        if place.meta.segment not in {None, place.number}:
            detail = f"META says that it is segment {place.meta.segment}"
            faults.append(ChainFault(kind=ChainFaultKind.LINK, segment=place.number, detail=detail))
        if self._first is None or self._last is None:
            self._first = place.meta
            faults += self._at_start(place)
        else:
            faults += _differences(self._first, place)
            faults += _between(self._last, place, reader.first_position)
        self._last = place
        return faults

    def end(self, position: int, final: FinalInfo | None) -> None:
        """Where the segment ended; `final` None: without a FINAL record, or it was not read so far."""
        assert self._last is not None, "a segment begins before it ends"
        self._last = _Place(self._last.number, self._last.file_id, self._last.meta, position, final)

    def finish(self) -> list[ChainFault]:
        """What is known to follow the last segment and was not given."""
        last = self._last
        if (
            last is None
            or last.final is None
            or last.final.next is None
            or not self._is_whole
            or self._is_live
        ):
            return []
        return [_missing(last.number + 1, last.number + 1, last.final.next, None)]

    def _at_start(self, place: _Place) -> list[ChainFault]:
        if self._is_whole and place.number > 0:
            return [_missing(0, place.number - 1, None, place.meta.previous)]
        if place.number == 0 and place.meta.previous is not None:
            detail = f"the first segment names {place.meta.previous.hex()} as the one before it"
            return [ChainFault(kind=ChainFaultKind.LINK, segment=0, detail=detail)]
        return []


def _differences(first: RecordingMeta, place: _Place) -> list[ChainFault]:
    meta = place.meta
    pairs = (
        (meta.recording != first.recording, "it belongs to another recording"),
        (meta.kind is not first.kind, "it holds something of another kind"),
        (
            (meta.rate_hz, meta.channels, meta.sample_format)
            != (first.rate_hz, first.channels, first.sample_format),
            "it has another rate, number of channels or sample format",
        ),
        (meta.sha256 != first.sha256 or meta.parent != first.parent, "it belongs to another document"),
    )
    return [
        ChainFault(
            kind=ChainFaultKind.FOREIGN, segment=place.number, detail=f"{text} (file {place.file_id.hex()})"
        )
        for is_wrong, text in pairs
        if is_wrong
    ]


def _between(last: _Place, place: _Place, position: int) -> list[ChainFault]:
    number, expected = place.number, last.number + 1
    faults = []
    if number < expected:
        detail = f"it comes after segment {last.number}, and number {number} was there already"
        faults.append(ChainFault(kind=ChainFaultKind.LINK, segment=number, detail=detail))
    elif number > expected:
        following = None if last.final is None else last.final.next
        faults.append(_missing(expected, number - 1, following, place.meta.previous))
    else:
        faults += _links(last, place)
    if last.end is None:
        return faults
    if position < last.end:
        detail = f"it starts {last.end - position} frames before the last one ends"
        faults.append(ChainFault(kind=ChainFaultKind.OVERLAP, segment=number, detail=detail))
    elif position > last.end and number == expected:
        detail = f"it starts {position - last.end} frames after the last one ends"
        faults.append(ChainFault(kind=ChainFaultKind.HOLE, segment=number, detail=detail))
    return faults


def _links(last: _Place, place: _Place) -> list[ChainFault]:
    """Both ends of the link between neighbours; a segment without FINAL has none of its own."""
    pairs = [(place.meta.previous, last.file_id, f"META of segment {place.number} names", "before")]
    if last.final is not None:
        pairs.append((last.final.next, place.file_id, f"FINAL of segment {last.number} names", "after"))
    return [
        ChainFault(
            kind=ChainFaultKind.LINK,
            segment=place.number,
            detail=f"{who} {_name(named)} as the one {side} it, which is {found.hex()}",
        )
        for named, found, who, side in pairs
        if named != found
    ]


def _missing(first: int, last: int, following: bytes | None, previous: bytes | None) -> ChainFault:
    which = f"segment {first}" if first == last else f"segments {first} to {last}"
    names = [
        f"{place} is file {file_id.hex()}"
        for place, file_id in (("the first of them", following), ("the last of them", previous))
        if file_id is not None
    ]
    detail = f"{which} is not there" if first == last else f"{which} are not there"
    if names and first == last:
        detail += f" (file {(following or previous or b'').hex()})"
    elif names:
        detail += f" ({', '.join(names)})"
    return ChainFault(kind=ChainFaultKind.MISSING, segment=first, detail=detail)


def _name(file_id: bytes | None) -> str:
    return "none" if file_id is None else file_id.hex()
