"""Which keys open a file, read from the file itself: whatever an index says, these decide who can read it.

Slots of keys that were retired stay where they were, in the head and in older sidecars, and open the file for as long
as their key exists. No key service is asked and nothing is decrypted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from recording.errors import FormatError, TruncatedRecordingError, UnsupportedVersionError
from recording.format.slots import KeySlot, parse_area, parse_sidecar
from recording.keys.provider import KeyProvider
from recording.reader import read_head, sidecars_beside
from recording.sinks.sink import EXTENSION, ObjectMissingError, Sink, file_id_of, sidecars

CONCURRENCY: Final = 8
"""Objects asked for at once."""
_AT_ONCE: Final = 1000  # object keys handed to the threads, which bounds memory

Opener = tuple[int, bytes]
"""A key-encryption key as slots name it: provider and key id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    """A file and what opens it. `tenant_handle` is what its head says, which nobody has proven.

    `is_locked`: the store keeps it from deletion, as read back.
    """

    place: str
    file_id: bytes
    tenant_handle: bytes
    openers: frozenset[Opener]
    is_locked: bool = False


def opener_of(provider: KeyProvider) -> Opener:
    """As the slots of a provider name it."""
    return provider.slot_provider, provider.slot_key_id


def files_in(directory: Path) -> Iterator[SealedFile]:
    """The containers of a directory, those that are being written too; nothing where there is no directory.

    One that vanishes meanwhile is passed over: whoever took it away has it stored or deleted.

    Raises:
        UnsupportedVersionError: one that another version of this program may open.
        OSError: one that cannot be read.
    """
    if not directory.is_dir():
        return
    # Not by glob, which passes over what it may not read.
    for path in sorted(path for path in directory.iterdir() if EXTENSION in path.suffixes):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and (found := _file_at(path)) is not None:
                yield found


def stored_files(sink: Sink, keys: Iterable[str], *, now: datetime) -> Iterator[SealedFile | None]:
    """The objects of these keys, in their order; None for one that no key opens, or that is gone.

    Raises:
        SinkError: the store cannot be read now, or not with these rights.
        UnsupportedVersionError: as `files_in`.
    """
    waiting = iter(keys)
    with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="openers") as pool:
        while batch := list(islice(waiting, _AT_ONCE)):
            yield from pool.map(lambda key: _stored_file(sink, key, now), batch)


def _stored_file(sink: Sink, key: str, now: datetime) -> SealedFile | None:
    try:
        with sink.open(key) as file:
            found = _sealed_file(file, f"{sink.name}:{key}", lambda _: sidecars(sink, key))
        if found is None or found.file_id != file_id_of(key):
            return None
        return replace(found, is_locked=sink.locks and sink.retention(key).keeps_at(now))
    except ObjectMissingError:
        return None


def _file_at(path: Path) -> SealedFile | None:
    with path.open("rb") as file:
        return _sealed_file(file, str(path), lambda file_id: sidecars_beside(path, file_id))


def _sealed_file(
    file: BinaryIO, place: str, sidecars_of: Callable[[bytes], Iterable[bytes]]
) -> SealedFile | None:
    try:
        head = read_head(file)
    except UnsupportedVersionError:
        raise  # another version of this program can open it
    except (FormatError, TruncatedRecordingError):
        return None
    slots: list[KeySlot] = []
    with contextlib.suppress(FormatError):
        slots += parse_area(head.slots_area)
    for data in sidecars_of(head.core.file_id):
        with contextlib.suppress(FormatError):
            slots += parse_sidecar(data, file_id=head.core.file_id).slots
    return SealedFile(
        place=place,
        file_id=head.core.file_id,
        tenant_handle=head.core.tenant_handle,
        openers=frozenset((slot.provider, slot.key_id) for slot in slots),
    )
