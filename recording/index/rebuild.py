"""The index from storage alone: every object's head, META and FINAL, read with the player's rights.

What was entered before stays: holds, deletions, and what the store cannot tell. What the index did not know comes back
on hold where the store itself keeps no holds, for a hold that was lost with the index must not become a deletion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from recording.errors import FormatError, MisplacedRecordingError, RecordingError
from recording.format.content import RecordingKind
from recording.format.header import Head
from recording.format.slots import KeySlot, parse_area, parse_sidecar
from recording.index.entry import NO_PARTIES, IndexEntry, IndexState, SealedParties, utc_hour
from recording.index.parties import PartySealer
from recording.index.store import RecordingIndex
from recording.reader import RecordingReader, open_recording, read_head
from recording.settings import RetentionSettings
from recording.sinks.sink import ObjectMissingError, Sink, file_id_of, month_of, sidecars, tenant_of
from recording.unlock import SlotKey

HELD_AS = "index_rebuilt"
"""Label of the hold on what comes back unknown; lifted with `b2bua recordings release --held-for index_rebuilt`."""
HELD_BY_STORE = "held_by_store"
_FIND_OUT = "find out who put it there, and take it away"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What became of one object. `entry`: what was entered; None: nothing. `is_new`: the index did not know it.

    `problem`: what could not be read of it, or why it may not lie there.
    """

    key: str
    entry: IndexEntry | None
    is_new: bool
    problem: str | None = None


class Rebuilder:
    """Goes through a store once; may be interrupted and done again."""

    def __init__(
        self,
        *,
        index: RecordingIndex,
        sink: Sink,
        keys: Sequence[SlotKey],
        retention: RetentionSettings,
        sealer: PartySealer | None,
        on_read: Callable[[Head], None],
    ) -> None:
        """`on_read` is called with a file's head before anything of it is decrypted."""
        self._index = index
        self._sink = sink
        self._keys = keys
        self._retention = retention
        self._sealer = sealer
        self._on_read = on_read

    def run(self, prefix: str = "") -> Iterator[Rebuilt]:
        """One object after the other, each entered before it is told.

        Raises:
            SinkError: the store cannot be listed or read now.
            IndexUnavailableError: the index cannot be written.
        """
        for key in self._sink.keys(prefix):
            known = self._index.get(file_id_of(key))
            found = self._read(key, known)
            if found.entry is not None:
                self._index.put([found.entry])
            yield found

    def _read(self, key: str, known: IndexEntry | None) -> Rebuilt:
        size = self._sink.size(key) or 0
        with self._sink.open(key) as file:
            try:
                head = read_head(file)
                if head.core.file_id != file_id_of(key):
                    raise MisplacedRecordingError(f"file {head.core.file_id.hex()} lies there; {_FIND_OUT}")
            except RecordingError as error:
                return self._unreadable(key, size, known, str(error))
            if (copy := self._copy(key, head, known)) is not None:
                return Rebuilt(key=key, entry=None, is_new=False, problem=copy)
            self._on_read(head)
            try:
                with open_recording(file, keys=self._keys, sidecars=sidecars(self._sink, key)) as reader:
                    entry = self._entry(key, size, reader, known)
            except RecordingError as error:
                return self._unreadable(key, size, known, str(error), head)
        return Rebuilt(key=key, entry=self._with_hold(key, entry, known), is_new=known is None)

    def _copy(self, key: str, head: Head, known: IndexEntry | None) -> str | None:
        """What is wrong with the place of a file that has the right name; None: nothing.

        Entered in the place of the right one it would be read for it, and deleted for it.
        """
        if head.core.tenant_handle != tenant_of(key):
            return f"it is of tenant {head.core.tenant_handle.hex()}; {_FIND_OUT}"
        elsewhere = None if known is None else known.object_key
        if elsewhere is not None and elsewhere != key and self._sink.size(elsewhere) is not None:
            return f"it is a second copy of {elsewhere}; {_FIND_OUT}"
        return None

    def _entry(self, key: str, size: int, reader: RecordingReader, known: IndexEntry | None) -> IndexEntry:
        head, meta = reader.head, reader.meta
        started_hour = month_of(key) if meta.started_at is None else utc_hour(meta.started_at)
        trunks = (meta.trunk_a, meta.trunk_b)
        tenant, file_id = head.core.tenant_handle, head.core.file_id
        slot = self._newest_slot(key, head)
        parties: SealedParties = NO_PARTIES
        if self._sealer is not None:
            parties = self._sealer.seal(tenant_handle=tenant, file_id=file_id, from_=meta.from_, to=meta.to)
        return IndexEntry(
            file_id=file_id,
            recording=meta.recording or file_id,
            segment=meta.segment or 0,
            call_uid=meta.call_uid or "",
            tenant_handle=tenant,
            state=_state(reader, known),
            provider=0 if slot is None else slot.provider,
            key_id="" if slot is None else slot.key_id.decode("ascii", "backslashreplace"),
            started_hour=started_hour,
            records=max(0, size - head.body_offset) // head.core.record_len,
            size_bytes=size,
            object_key=key,
            kind=meta.kind or RecordingKind.AUDIO,
            parent=meta.parent,
            trunk_a=meta.trunk_a,
            trunk_b=meta.trunk_b,
            retain_until=self._retention.until(started_hour, tenant_handle=tenant, trunks=trunks),
            parties=parties,
        )

    def _newest_slot(self, key: str, head: Head) -> KeySlot | None:
        """Which key it is under: that of the newest slots, wherever they lie."""
        for data in sidecars(self._sink, key):
            try:
                newest = parse_sidecar(data, file_id=head.core.file_id).slots
            except FormatError:
                continue
            if newest:
                return newest[0]
        try:
            return next(iter(parse_area(head.slots_area)), None)
        except FormatError:
            return None

    def _unreadable(
        self, key: str, size: int, known: IndexEntry | None, problem: str, head: Head | None = None
    ) -> Rebuilt:
        """What is known stays as it is; what is not gets an entry, so that it is not forgotten."""
        if known is not None:
            return Rebuilt(key=key, entry=None, is_new=False, problem=problem)
        file_id = file_id_of(key)
        slot = None if head is None else self._newest_slot(key, head)
        entry = IndexEntry(
            file_id=file_id,
            recording=file_id,
            segment=0 if head is None else head.core.segment_no,
            call_uid="",
            tenant_handle=tenant_of(key),
            state=IndexState.CORRUPT if head is None else IndexState.INCOMPLETE,
            provider=0 if slot is None else slot.provider,
            key_id="" if slot is None else slot.key_id.decode("ascii", "backslashreplace"),
            started_hour=month_of(key),
            size_bytes=size,
            object_key=key,
        )
        return Rebuilt(key=key, entry=self._with_hold(key, entry, None), is_new=True, problem=problem)

    def _with_hold(self, key: str, entry: IndexEntry, known: IndexEntry | None) -> IndexEntry:
        """`put` keeps the hold of what is known; this is for what is not."""
        retain_until = entry.retain_until
        if known is not None and known.retain_until is not None:
            # What was promised once is never shortened by what is configured now.
            retain_until = max(known.retain_until, retain_until or known.retain_until)
        return replace(entry, hold=hold_of_unknown(self._sink, key, HELD_AS), retain_until=retain_until)


def hold_of_unknown(sink: Sink, key: str | None, label: str) -> str | None:
    """The hold on what an index did not know: the store's own where it keeps holds, otherwise one named `label`.

    A hold that was lost with an index must not become a deletion. Raises SinkError.
    """
    if not sink.locks or key is None:
        return label
    try:
        return HELD_BY_STORE if sink.retention(key).is_held else None
    except ObjectMissingError:
        return label


def _state(reader: RecordingReader, known: IndexEntry | None) -> IndexState:
    """By its end alone; altered records, which only reading all of it finds, are found once and not forgotten."""
    if known is not None and known.state is IndexState.CORRUPT:
        return IndexState.CORRUPT
    return IndexState.INCOMPLETE if reader.final() is None else IndexState.COMPLETE


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Between index and store.

    `lost`: entries whose object is missing; `unknown`: objects without an entry; `returned`: objects of entries that
    say they were deleted.
    """

    lost: tuple[str, ...]
    unknown: tuple[str, ...]
    returned: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.lost or self.unknown or self.returned)


def compare(index: RecordingIndex, sink: Sink) -> Differences:
    """What index and store do not agree on. Needs no key; reads names only.

    Raises SinkError, IndexUnavailableError.
    """
    entries: dict[str, IndexState] = {}
    for entry in index.scan():
        if entry.object_key is not None:
            entries[entry.object_key] = entry.state
    unknown, returned = [], []
    for key in sink.keys(""):
        state = entries.pop(key, None)
        if state is None:
            unknown.append(key)
        elif state is IndexState.DELETED:
            returned.append(key)
    ended = (IndexState.DELETED, IndexState.DELETING)
    lost = [key for key, state in entries.items() if state not in ended]
    return Differences(lost=tuple(sorted(lost)), unknown=tuple(unknown), returned=tuple(returned))
