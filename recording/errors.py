"""Errors of the recording package, split by what the catcher does next.

    RecordingError                      20  root
      FormatError                       21  bytes that break the container's rules: which field, which offset
        NotARecordingError              22  a foreign file: look elsewhere
        UnsupportedVersionError         23  a newer or unknown form: get a newer reader
      MissingSlotError                  24  no slot names a key of this configuration: configure the key
      WrongKeyError                     25  no slot leads to the file's commitment: other key, altered bytes
      CorruptRecordingError             26  bytes were altered; the records before `records` are good
      MisplacedRecordingError          109  another recording lies in its place: find out who exchanged them
      TruncatedRecordingError           27  the end is missing; the records before `records` are good
      MalformedContentError             28  a record authenticates, its JSON says nothing usable
      WriterClosedError                 29  a segment was written to after its end
      SegmentFullError                  30  a segment was written to past its size
      TimelineError                     31  audio was placed where no sample clock can have it
      ExportError                       32  the recording cannot become the file that was asked for
      UnwrapError                       33  a key opens none of the wrapped keys it was given

Exit codes are unique; 20 to 49 and 100 to 119 belong to this package.
"""

from __future__ import annotations

# ---- container ---------------------------------------------------------------------------------------------


class RecordingError(Exception):
    """Root of everything this package raises on purpose."""

    exit_code = 20


class FormatError(RecordingError):
    """Bytes that break a rule of the container.

    `offset` is a byte offset in what was parsed: file, sidecar or record.
    """

    exit_code = 21

    def __init__(self, what: str, *, field: str, offset: int) -> None:
        super().__init__(f"{field} at byte {offset}: {what}")
        self.field = field
        self.offset = offset


class NotARecordingError(FormatError):
    """The file does not start as a recording does."""

    exit_code = 22


class UnsupportedVersionError(FormatError):
    """A recording, but of a major version, suite or flag that this reader does not know."""

    exit_code = 23


# ---- keys to read with -------------------------------------------------------------------------------------


class MissingSlotError(RecordingError):
    """No slot of the file or of its sidecars names a key that this configuration knows."""

    exit_code = 24


class WrongKeyError(RecordingError):
    """Every slot that could be tried was; no data key gives the file's commitment."""

    exit_code = 25


# ---- reading -----------------------------------------------------------------------------------------------


class CorruptRecordingError(RecordingError):
    """Altered bytes. `records` leading records are authentic, and readable."""

    exit_code = 26

    def __init__(self, records: int, what: str) -> None:
        super().__init__(f"corrupt after {records} good records: {what}")
        self.records = records
        self.what = what


class MisplacedRecordingError(RecordingError):
    """The file opens, and is another recording than the one that should lie there: somebody exchanged them."""

    exit_code = 109


class TruncatedRecordingError(RecordingError):
    """The recording stops before its FINAL record. `records` leading records are authentic, and readable."""

    exit_code = 27

    def __init__(self, records: int, what: str) -> None:
        super().__init__(f"cut off after {records} good records: {what}")
        self.records = records
        self.what = what


class MalformedContentError(RecordingError):
    """An authentic META, EVENT or FINAL record whose JSON is not what the format promises.

    The writer was at fault.
    """

    exit_code = 28


# ---- writing -----------------------------------------------------------------------------------------------


class WriterClosedError(RecordingError):
    """The segment was finished or abandoned; what follows belongs into a new segment with a new data key."""

    exit_code = 29


class SegmentFullError(RecordingError):
    """The segment has reached its greatest size; roll to a new one. Nothing of the call was sealed."""

    exit_code = 30


class TimelineError(RecordingError):
    """Audio that no sample clock can place: part of a frame, or more lost time than audio."""

    exit_code = 31


# ---- export ------------------------------------------------------------------------------------------------


class ExportError(RecordingError):
    """The recording cannot be exported as asked; nothing was left behind."""

    exit_code = 32


# ---- key providers -----------------------------------------------------------------------------------------


class UnwrapError(RecordingError):
    """This key does not open this slot (altered, transplanted, or wrapped by another key).

    Readers try the next slot.
    """

    exit_code = 33
