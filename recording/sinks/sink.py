"""What a sink is: the durable store that finished recordings go to, and the errors it may raise.

    SinkError                41  root
      SinkUnavailableError   42  try again later; nothing is lost, the spool keeps the file
      SinkRefusedError       43  trying again changes nothing, an operator must act; the spool keeps the file
      ObjectConflictError    44  another object has this name; nothing was overwritten
      ObjectMissingError     45  asked to read what is not there
      ObjectLockedError     105  the store keeps the object until its retention ends or its hold is lifted
      LockNotInForceError   106  the store does not keep what it was told to keep; the spool keeps the file
      EncryptionNotInForceError 110  the store does not encrypt as it was told to; the spool keeps the file

Sinks hold ciphertext only and never need a key.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from recording.errors import RecordingError
from recording.format import limits
from recording.format.manifest import MANIFEST_SUFFIX
from recording.format.slots import SIDECAR_SUFFIX

EXTENSION: Final = ".crec"
_KEY: Final = re.compile(
    r"(?P<tenant>[0-9a-f]{32})/(?P<month>\d{4}/(?:0[1-9]|1[0-2]))/(?P<file>[0-9a-f]{32})\.crec"
)

_SIDECAR_KEY: Final = re.compile(
    r"(?P<stem>[0-9a-f]{32}/\d{4}/(?:0[1-9]|1[0-2])/[0-9a-f]{32})\.(?P<generation>0|[1-9][0-9]{0,9})\.slots"
)


class SinkError(RecordingError):
    """Root of what a sink raises. `reason_label` is a metric label: which kind of failure within the class."""

    exit_code = 41
    reason_label = "sink_failed"

    def __init__(self, what: str, *, reason: str | None = None) -> None:
        super().__init__(what)
        if reason is not None:
            self.reason_label = reason


class SinkUnavailableError(SinkError):
    """The store cannot take or give the object now: full, unreachable or failing."""

    exit_code = 42
    reason_label = "unavailable"


class SinkRefusedError(SinkError):
    """The store will not do this until its operator changes something: permissions, a missing directory."""

    exit_code = 43
    reason_label = "refused"


class ObjectConflictError(SinkError):
    """An object of this name exists with other content. File ids are random, so this is damage or tampering."""

    exit_code = 44
    reason_label = "conflict"


class ObjectMissingError(SinkError):
    """No object of this name."""

    exit_code = 45
    reason_label = "missing"


class ObjectLockedError(SinkError):
    """Retention or a legal hold in the store keeps the object; it was not deleted."""

    exit_code = 105
    reason_label = "locked"


class LockNotInForceError(SinkError):
    """The store was to keep objects from deletion and, as read back, does not. An operator must act."""

    exit_code = 106
    reason_label = "lock_not_in_force"


class EncryptionNotInForceError(SinkError):
    """The store was to encrypt objects once more and, as it answers, does not. An operator must act."""

    exit_code = 110
    reason_label = "encryption_not_in_force"


class LockMode(enum.Enum):
    """How firmly a store keeps an object.

    `governance`: whoever holds a special right may end it; `compliance`: nobody may before its time. The product
    never uses that right. Source: S3 User Guide, Object Lock, retention modes.
    """

    GOVERNANCE = "GOVERNANCE"
    COMPLIANCE = "COMPLIANCE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a store says it keeps an object by, as read back. `until` is aware UTC; None and no hold: nothing."""

    mode: LockMode | None = None
    until: datetime | None = None
    is_held: bool = False

    def keeps_at(self, now: datetime) -> bool:
        """Whether the store refuses to delete the object at `now`."""
        return self.is_held or (self.until is not None and self.until > now)


NO_RETENTION: Final = Retention()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectName:
    """Where a segment lies in a sink: `tenant_handle/yyyy/mm/file_id.crec`, random ids and the month only.

    `retain_until` is no part of the key: until then a store that can lock keeps the object; None: nothing was promised.
    """

    tenant_handle: bytes
    file_id: bytes
    started_hour: datetime
    retain_until: datetime | None = None

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


def sidecar_key(key: str, generation: int) -> str:
    """Where the slots of a generation lie: beside the object, `tenant/yyyy/mm/file_id.generation.slots`.

    Raises:
        ObjectMissingError: `key` is no object key, or there is no such generation.
    """
    if not 0 <= generation <= limits.GENERATION_MAX:
        raise ObjectMissingError(f"a generation is 0 to {limits.GENERATION_MAX}, not {generation}")
    return f"{check_key(key).removesuffix(EXTENSION)}.{generation}{SIDECAR_SUFFIX}"


def directory_of(key: str) -> str:
    """What stands before the file id in an object key, with its slash. Raises ObjectMissingError for what is none."""
    return check_key(key).rpartition("/")[0] + "/"


def check_directory(directory: str) -> str:
    """`directory`, if it is one that `directory_of` makes. Raises ObjectMissingError."""
    check_key(f"{directory}{'0' * 32}{EXTENSION}")
    return directory


def by_object(names: Iterable[str]) -> dict[str, list[int]]:
    """From keys of sidecars to object keys with their generations, highest first. What is no sidecar is left out."""
    found: dict[str, list[int]] = {}
    for name in names:
        match = _SIDECAR_KEY.fullmatch(name)
        if match is not None and int(match["generation"]) <= limits.GENERATION_MAX:
            found.setdefault(f"{match['stem']}{EXTENSION}", []).append(int(match["generation"]))
    for generations in found.values():
        generations.sort(reverse=True)
    return found


def manifest_key(key: str) -> str:
    """Where an object's manifest lies: beside it, `tenant/yyyy/mm/file_id.manifest`.

    Raises ObjectMissingError for what is no object key.
    """
    return f"{check_key(key).removesuffix(EXTENSION)}{MANIFEST_SUFFIX}"


def file_id_of(key: str) -> bytes:
    """The file id in an object key. Raises ObjectMissingError for what is none."""
    return bytes.fromhex(check_key(key).rpartition("/")[2].removesuffix(EXTENSION))


def tenant_of(key: str) -> bytes:
    """The tenant's handle in an object key. Raises ObjectMissingError for what is none."""
    return bytes.fromhex(check_key(key).partition("/")[0])


def is_key(text: str) -> bool:
    """Whether `ObjectName` could have made it."""
    return _KEY.fullmatch(text) is not None


def month_of(key: str) -> datetime:
    """The UTC month in an object key, its first hour. Raises ObjectMissingError for what is none."""
    _, year, month, _ = check_key(key).split("/")
    return datetime(int(year), int(month), 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFile:
    """A sidecar on its way into the store: the object it belongs to, and its bytes."""

    object_key: str
    generation: int
    data: bytes


class Sink(Protocol):
    """A store that may block and may fail. The recorder calls it from the uploader thread only.

    Create-only: what is there is never replaced. Idempotent: `put` of what is already there with the same
    content succeeds, so a caller that does not know how its last attempt ended just tries again.
    """

    name: str

    @property
    def part_bytes(self) -> int | None:
        """How much of a file that still grows can be sent at a time; None: only whole files are taken."""
        ...

    @property
    def locks(self) -> bool:
        """Whether the store itself can keep objects from deletion: retention and legal hold."""
        ...

    def put(self, source: Path, name: ObjectName) -> int:
        """Store the file; on return the object is durable and was found with the size of `source`, which is returned.

        A store that can lock keeps it until `name.retain_until` from then on, as read back.

        The sink may take `source` away (move it); if it is still there the caller removes it. A missing
        `source` with the object in place is success: that is how an interrupted move looks.

        Raises:
            SinkUnavailableError, SinkRefusedError, ObjectConflictError, LockNotInForceError,
                EncryptionNotInForceError: `source` is where it was, whole.
            ObjectMissingError: neither `source` nor the object is there.
        """
        ...

    def advance(self, source: Path, name: ObjectName, durable_bytes: int) -> None:
        """Send whole parts of a file that still grows, out of its first `durable_bytes`; `put` ends what this began.

        Idempotent, and never needed: `put` sends whatever was not sent. Does nothing where `part_bytes` is None.
        Not at the same time as `put` of the same file. Raises as `put`.
        """
        ...

    def size(self, key: str) -> int | None:
        """Size in bytes of an object, None where there is none."""
        ...

    def open(self, key: str) -> BinaryIO:
        """The object for reading, seekable; the caller closes it. Raises ObjectMissingError."""
        ...

    def put_slots(self, key: str, generation: int, data: bytes) -> None:
        """Store a slot sidecar of the object at `key`: whole, durable and create-only, like an object.

        What is there with the same content is success. The object itself is neither read nor needed. Where the store
        can lock, the sidecar is kept as the object is, held if it is held, as read back.

        Raises:
            SinkUnavailableError, SinkRefusedError: nothing was stored.
            LockNotInForceError: it was stored, and the store does not keep it.
            ObjectConflictError: this generation exists with other content, which was left as it is.
            ObjectMissingError: `key` or `generation` is none.
        """
        ...

    def put_all_slots(self, files: Sequence[SlotFile]) -> list[SlotFile]:
        """As `put_slots` of each, made durable together; on return all are but those that are returned.

        Returns:
            Those whose generation exists with other content, which was left as it is.

        Raises:
            SinkUnavailableError, SinkRefusedError: any of them may be stored; storing them again is safe.
            ObjectMissingError: a key or generation is none.
        """
        ...

    def slot_generations(self, key: str) -> list[int]:
        """The generations of the object's sidecars, highest first; empty where there are none.

        Raises ObjectMissingError for what is no object key.
        """
        ...

    def slots_below(self, directory: str) -> dict[str, list[int]]:
        """As `slot_generations`, of all objects of a directory that have sidecars, by object key: one listing for all.

        Args:
            directory: `tenant/yyyy/mm/`, as `directory_of` makes it. ObjectMissingError for anything else.
        """
        ...

    def slots(self, key: str, generation: int) -> bytes:
        """One sidecar as it was stored, at most one byte more than the longest there can be; a reader judges it.

        Raises ObjectMissingError where there is none.
        """
        ...

    def put_manifest(self, key: str, data: bytes) -> None:
        """Store the signed manifest of the object at `key`: whole, durable and create-only, as `put_slots` does.

        One that is there already stays, whatever it says: the first was made when the object was. It gets the object's
        retention; a hold reaches it through `set_hold`. Raises as `put_slots`.
        """
        ...

    def manifest(self, key: str) -> bytes | None:
        """The object's manifest as it was stored, at most one byte more than the longest there can be; None: none."""
        ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys of all objects whose key begins with `prefix`, in ascending order; nothing else that lies there.

        What is put or deleted meanwhile may be among them or not. Bounded memory.
        """
        ...

    def health(self) -> None:
        """Return if objects can be stored; raise what stands in the way."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object and its slots, in all versions; on return the store was asked again and has none of it.

        What is not there is success.

        Raises:
            ObjectLockedError: retention or a hold keeps it, or something beside it; all of it is still there.
            SinkUnavailableError, SinkRefusedError: it may be there, in part or whole; deleting again is safe.
        """
        ...

    def retention(self, key: str) -> Retention:
        """What keeps the object, read from the store; `NO_RETENTION` where nothing does or the store cannot lock.

        Raises ObjectMissingError.
        """
        ...

    def extend_retention(self, key: str, until: datetime) -> Retention:
        """Keep the object, its slots and its manifest at least to `until`, aware and in the future, in all versions.

        Never shortens. Returns what was read back of the object.

        Raises:
            LockNotInForceError: the store took the order and does not keep to it.
            SinkRefusedError: the store cannot lock.
            ObjectMissingError: no such object.
        """
        ...

    def set_hold(self, key: str, *, is_held: bool) -> Retention:
        """Put a legal hold on the object, its slots and its manifest, in all versions, or lift it.

        Returns what was read back of the object. Raises as `extend_retention`.
        """
        ...


def sidecars(sink: Sink, key: str, *, generations: Sequence[int] | None = None) -> Iterator[bytes]:
    """The object's sidecars as a reader tries them: highest generation first, each fetched when it is its turn.

    One that the store will not give is passed over as an empty one, which no reader takes for slots: whoever can
    put a file beside a recording must not be able to keep it from being read.

    `generations`, highest first, are those that somebody has listed already.

    Raises:
        SinkUnavailableError: the store cannot tell now.
    """
    for generation in sink.slot_generations(key) if generations is None else generations:
        try:
            yield sink.slots(key, generation)
        except (SinkRefusedError, ObjectMissingError):
            yield b""
