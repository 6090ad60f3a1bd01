"""The verdict over one segment. Source: docs/recording-format.md, Crash, truncation, tampering."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from recording.errors import CorruptRecordingError, MalformedContentError, TruncatedRecordingError
from recording.format.content import FinalInfo, parse_final
from recording.format.record import Record, RecordType
from recording.reader import RecordingReader

_TELL_RECORDS: Final = 512


class RecordingState(enum.Enum):
    """`incomplete`: what a crash leaves. `corrupt`: what no crash leaves."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`records` leading records are authentic, with `audio_bytes` of PCM and `data_bytes` of anything else in them.

    `end`: one past the last position. `final`: None where there is none. `detail` says why it is not complete.
    """

    state: RecordingState
    records: int
    audio_bytes: int
    detail: str
    data_bytes: int = 0
    end: int = 0
    final: FinalInfo | None = None

    @property
    def is_complete(self) -> bool:
        return self.state is RecordingState.COMPLETE

    def __str__(self) -> str:
        return "complete" if self.is_complete else f"{self.state.value}({self.records})"


def verify(
    reader: RecordingReader,
    *,
    on_data: Callable[[memoryview], None] | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Verdict:
    """Read every record of the segment and judge it. Raises OSError only: damage is a verdict, not an error.

    Args:
        reader: opened; it stays open.
        on_data: gets the payload of each DATA record, in order.
        on_bytes: told from time to time how many bytes of the file were read since the last time.
    """
    records = audio_bytes = data_bytes = end = told = frame_bytes = 0
    final: FinalInfo | None = None
    try:
        for record in reader.records():
            records += 1
            end = record.position
            if record.type == RecordType.AUDIO:
                audio_bytes += len(record.payload)
                frame_bytes = frame_bytes or _frame_bytes(reader)
                end += len(record.payload) // frame_bytes
            elif record.type == RecordType.DATA:
                data_bytes += len(record.payload)
                end += len(record.payload)
                if on_data is not None:
                    on_data(record.payload)
            elif record.is_final:
                final = _final(record)
            if on_bytes is not None and records % _TELL_RECORDS == 0:
                on_bytes(reader.head.record_offset(records) - told)
                told = reader.head.record_offset(records)
    except TruncatedRecordingError as error:
        state, detail = RecordingState.INCOMPLETE, error.what
    except CorruptRecordingError as error:
        state, detail, final = RecordingState.CORRUPT, error.what, None
    else:
        state, detail = RecordingState.COMPLETE, ""
    return Verdict(
        state=state,
        records=records,
        audio_bytes=audio_bytes,
        data_bytes=data_bytes,
        end=end,
        final=final,
        detail=detail,
    )


def _frame_bytes(reader: RecordingReader) -> int:
    """What META says; the least where it says nothing that can be read, which is no matter of this verdict."""
    try:
        return max(2, reader.frame_bytes)
    except MalformedContentError:
        return 2


def _final(record: Record) -> FinalInfo | None:
    with contextlib.suppress(MalformedContentError):
        return parse_final(record.payload)
    return None
