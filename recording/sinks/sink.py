"""What a sink is: the durable store that finished recordings go to, and the errors it may raise.

    SinkError                41  root
      SinkUnavailableError   42  try again later; nothing is lost, the spool keeps the file
      SinkRefusedError       43  trying again changes nothing, an operator must act; the spool keeps the file
      ObjectConflictError    44  another object has this name; nothing was overwritten
      ObjectMissingError     45  asked to read what is not there

Sinks hold ciphertext only and never need a key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from recording.errors import RecordingError

EXTENSION: Final = ".crec"
_KEY: Final = re.compile(
    r"(?P<tenant>[0-9a-f]{32})/(?P<month>\d{4}/(?:0[1-9]|1[0-2]))/(?P<file>[0-9a-f]{32})\.crec"
)


class SinkError(RecordingError):
    """Root of what a sink raises."""

    exit_code = 41


class SinkUnavailableError(SinkError):
    """The store cannot take or give the object now: full, unreachable or failing."""

    exit_code = 42


class SinkRefusedError(SinkError):
    """The store will not do this until its operator changes something: permissions, a missing directory."""

    exit_code = 43


class ObjectConflictError(SinkError):
    """An object of this name exists with other content. File ids are random, so this is damage or tampering."""

    exit_code = 44


class ObjectMissingError(SinkError):
    """No object of this name."""

    exit_code = 45


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectName:
    """Where a segment lies in a sink: `tenant_handle/yyyy/mm/file_id.crec`, random ids and the month only."""

    tenant_handle: bytes
    file_id: bytes
    started_hour: datetime

    @property
    def key(self) -> str:
        month = self.started_hour.astimezone(UTC)
        return f"{self.tenant_handle.hex()}/{month:%Y/%m}/{self.file_id.hex()}{EXTENSION}"


def check_key(key: str) -> str:
    """`key`, if it is one that `ObjectName` makes; so no key can name anything outside the store.

    Raises:
        ObjectMissingError: any other string.
    """
    if _KEY.fullmatch(key) is None:
        raise ObjectMissingError("an object key is tenant/yyyy/mm/file_id.crec, ids in lower-case hex")
    return key


class Sink(Protocol):
    """A store that may block and may fail. The recorder calls it from the uploader thread only.

    Create-only: what is there is never replaced. Idempotent: `put` of what is already there with the same
    content succeeds, so a caller that does not know how its last attempt ended just tries again.
    """

    name: str

    def put(self, source: Path, name: ObjectName) -> int:
        """Store the file; on return the object is durable and was found with the size of `source`, which is returned.

        The sink may take `source` away (move it); if it is still there the caller removes it. A missing
        `source` with the object in place is success: that is how an interrupted move looks.

        Raises:
            SinkUnavailableError, SinkRefusedError, ObjectConflictError: `source` is where it was, whole.
            ObjectMissingError: neither `source` nor the object is there.
        """
        ...

    def size(self, key: str) -> int | None:
        """Size in bytes of an object, None where there is none."""
        ...

    def open(self, key: str) -> BinaryIO:
        """The object for reading, seekable; the caller closes it. Raises ObjectMissingError."""
        ...

    def health(self) -> None:
        """Return if objects can be stored; raise what stands in the way."""
        ...
