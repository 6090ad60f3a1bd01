"""From a file's slots to its keys: which wrapped key to try, in which order, and what to say if none fits.

Source: docs/recording-format.md, Key slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from recording.errors import FormatError, MissingSlotError, RecordingError, UnwrapError, WrongKeyError
from recording.format.header import Head
from recording.format.slots import KeySlot, parse_area, parse_sidecar
from recording.format.suites import DEK_LEN, SegmentKeys, derive_keys, wipe
from recording.keys.provider import KeyContext


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotKey:
    """A key that this configuration may read with.

    Only slots that name this very provider and key id reach `unwrap`: a slot that somebody else put into a
    file never makes a reader call a stranger's key service.

    `unwrap` may block. It returns the 32-byte data key, which the caller wipes, and raises `UnwrapError` for
    a slot
    that this key does not open, another `RecordingError` where it could not tell (service down, not
    permitted).
    """

    provider: int
    key_id: bytes
    unwrap: Callable[[KeySlot, KeyContext], bytearray] = field(repr=False)

    def fits(self, slot: KeySlot) -> bool:
        return slot.provider == self.provider and slot.key_id == self.key_id


def keys_from_dek(head: Head, dek: bytes | bytearray) -> SegmentKeys:
    """The segment's keys, if `dek` is the one that the file commits to. Borrows `dek`.

    Raises:
        WrongKeyError: it is another, or the head was altered. Nothing was decrypted.
    """
    keys = derive_keys(dek, salt=head.core.salt, core=head.core_bytes)
    if not keys.match(head.commitment):
        raise WrongKeyError(f"{_name(head)}: the data key does not match the file's commitment")
    return keys


def unlock(head: Head, *, keys: Sequence[SlotKey], sidecars: Iterable[bytes] = ()) -> SegmentKeys:
    """Try slot after slot until a data key matches the commitment: those of `sidecars`, then the embedded ones.

    The caller orders the sidecars, highest generation first. One that cannot be read is passed over.

    Raises:
        MissingSlotError: no slot names one of `keys`.
        WrongKeyError: all that could be tried were, and none matches.
        RecordingError: none matched, and at least one key could not tell; what it said.
    """
    context = KeyContext(file_id=head.core.file_id, tenant_handle=head.core.tenant_handle)
    notes: list[str] = []
    undecided: RecordingError | None = None
    tried: set[tuple[int, bytes, bytes]] = set()
    for slot in _candidates(head, sidecars, notes):
        mark = (slot.provider, slot.key_id, slot.wrapped)
        if mark in tried:
            continue
        for key in (key for key in keys if key.fits(slot)):
            tried.add(mark)
            try:
                return _keys_from_slot(head, key, slot, context)
            except (UnwrapError, WrongKeyError) as error:
                notes.append(str(error))
            except RecordingError as error:
                undecided = undecided or error
    if undecided is not None:
        raise undecided
    told = "".join(f"; {note}" for note in notes)
    if not tried:
        raise MissingSlotError(f"{_name(head)}: no slot names a configured key{told}")
    raise WrongKeyError(f"{_name(head)}: none of {len(tried)} tried slots opens it{told}")


def _candidates(head: Head, sidecars: Iterable[bytes], notes: list[str]) -> Iterator[KeySlot]:
    for data in sidecars:
        try:
            yield from parse_sidecar(data, file_id=head.core.file_id).slots
        except FormatError as error:
            notes.append(f"sidecar passed over: {error}")
    try:
        yield from parse_area(head.slots_area)
    except FormatError as error:
        notes.append(f"slots area passed over: {error}")


def _keys_from_slot(head: Head, key: SlotKey, slot: KeySlot, context: KeyContext) -> SegmentKeys:
    dek = key.unwrap(slot, context)
    try:
        if len(dek) != DEK_LEN:
            raise UnwrapError(f"a slot holds {len(dek)} bytes where a data key has {DEK_LEN}")
        return keys_from_dek(head, dek)
    finally:
        wipe(dek)


def _name(head: Head) -> str:
    return f"recording {head.core.file_id.hex()}"
