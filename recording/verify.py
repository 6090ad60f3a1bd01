"""The verdict over one segment. Source: docs/recording-format.md, Crash, truncation, tampering."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from recording.errors import CorruptRecordingError, TruncatedRecordingError
from recording.format.record import RecordType
from recording.reader import RecordingReader


class RecordingState(enum.Enum):
    """`incomplete`: what a crash leaves. `corrupt`: what no crash leaves."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`records` leading records are authentic, `audio_bytes` of PCM in them.

    `detail` says why it is not complete.
    """

    state: RecordingState
    records: int
    audio_bytes: int
    detail: str

    @property
    def is_complete(self) -> bool:
        return self.state is RecordingState.COMPLETE

    def __str__(self) -> str:
        return "complete" if self.is_complete else f"{self.state.value}({self.records})"


def verify(reader: RecordingReader) -> Verdict:
    """Read every record of the segment and judge it. Raises OSError only: damage is a verdict, not an error."""
    records = audio_bytes = 0
    try:
        for record in reader.records():
            records += 1
            if record.type == RecordType.AUDIO:
                audio_bytes += len(record.payload)
    except TruncatedRecordingError as error:
        state, detail = RecordingState.INCOMPLETE, error.what
    except CorruptRecordingError as error:
        state, detail = RecordingState.CORRUPT, error.what
    else:
        state, detail = RecordingState.COMPLETE, ""
    return Verdict(state=state, records=records, audio_bytes=audio_bytes, detail=detail)
