"""What a crash left behind, made a clean prefix again. Needs no key, so that it can run where none may be.

Source: docs/recording-format.md, Crash, truncation, tampering.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recording.errors import NotARecordingError
from recording.format.header import Head
from recording.reader import read_head


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryOutcome:
    """What was found and done.

    `records` whole records remain, META included; whether they are authentic takes a key.
    """

    size_before: int
    size_after: int
    records: int
    ragged_bytes: int
    zero_records: int

    @property
    def is_changed(self) -> bool:
        return self.size_after != self.size_before


def recover_file(path: Path) -> RecoveryOutcome:
    """Cut off the ragged tail and the all-zero records at the end, in one truncation, and sync it to disk.

    Doing it again changes nothing, and a crash in between leaves either the old file or the new one. The
    caller makes
    sure that nobody is writing the file.

    Raises:
        NotARecordingError, UnsupportedVersionError, FormatError: not a file that this may cut; it was left
            alone.
        TruncatedRecordingError: the file ends within its head, so it holds no record; it was left alone.
        OSError: from the file system, a symbolic link included.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotARecordingError("not a regular file", field="file", offset=0)
        outcome = _plan(file, read_head(file))
        if outcome.is_changed:
            os.ftruncate(descriptor, outcome.size_after)
        # Also where nothing had to be cut: the bytes of a crashed process may still be in memory only.
        os.fsync(descriptor)
    return outcome


def _plan(file: BinaryIO, head: Head) -> RecoveryOutcome:
    size = file.seek(0, os.SEEK_END)
    records, ragged = divmod(size - head.body_offset, head.core.record_len)
    zero_records = 0
    while zero_records < records and _is_zero(file, head, records - zero_records - 1):
        zero_records += 1
    records -= zero_records
    return RecoveryOutcome(
        size_before=size,
        size_after=head.record_offset(records),
        records=records,
        ragged_bytes=ragged,
        zero_records=zero_records,
    )


def _is_zero(file: BinaryIO, head: Head, index: int) -> bool:
    file.seek(head.record_offset(index))
    return not any(file.read(head.core.record_len))
