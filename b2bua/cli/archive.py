"""Recordings as the command line finds them: by id or path, in sink or spool, opened with the configured keys."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from b2bua import config
from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.cli.access import Access
from b2bua.cli.auditing import open_audit_log
from b2bua.cli.standing import manifest_beside
from b2bua.errors import CommandError
from b2bua.settings import Settings
from b2bua.signature_line import signature_fields
from recording.chain import Opener
from recording.cms import Recipient
from recording.errors import MisplacedRecordingError, RecordingError
from recording.format.content import RecordingKind
from recording.format.header import Head
from recording.format.manifest import Manifest
from recording.format.suites import SegmentKeys
from recording.index import IndexEntry, IndexState, RecordingIndex
from recording.keys.build import build_providers, slot_keys
from recording.reader import RecordingReader, open_with, read_head, sidecars_beside
from recording.signing import Verifier
from recording.sinks.build import build_sink
from recording.sinks.sink import ObjectMissingError, ObjectName, Sink, sidecars
from recording.spool_state import segment_path
from recording.unlock import SlotKey, unlock
from recording.voucher import Vouching, build_verifier, hash_file, judge

END_WAIT_S: Final = 2.0
"""A call that has ended is in the index as such after one group commit at most (a second by default)."""
_LOOK_INTERVAL_S: Final = 0.05
_ID = re.compile(r"[0-9a-f]{32}")
_DELETED = frozenset({IndexState.DELETING, IndexState.DELETED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file. `entry` is None where the index knows nothing of it, `path` where it is found through the index."""

    file_id: bytes
    entry: IndexEntry | None = None
    path: Path | None = None

    @property
    def is_running(self) -> bool:
        """Whether the index has it as being recorded."""
        return self.entry is not None and self.entry.state is IndexState.RECORDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a name means: segments of one recording, in order. `is_whole`: all that it has, but for lost ones."""

    segments: tuple[Segment, ...]
    is_whole: bool = False
    is_live: bool = False

    @property
    def is_running(self) -> bool:
        """Whether the index had a segment as being recorded."""
        return any(segment.is_running for segment in self.segments)

    @property
    def entry(self) -> IndexEntry | None:
        return next((segment.entry for segment in self.segments if segment.entry is not None), None)


class Archive:
    """What `recordings` works on. Made by `open_archive`."""

    def __init__(self, settings: Settings, index: RecordingIndex | None, audit: AuditLog) -> None:
        self.settings = settings
        self._index = index
        self._audit = audit
        self._keys: Sequence[SlotKey] | None = None
        self._unlocked: dict[bytes, SegmentKeys] = {}
        self._told: set[tuple[bytes, Access]] = set()
        self._sink: Sink | None = None
        self._verifier: Verifier | None = None

    @property
    def index(self) -> RecordingIndex | None:
        """None where nothing was ever recorded."""
        return self._index

    def note(self, line: AuditLine) -> None:
        """Write a line to the audit log; on return it is durable. Raises AuditError where it is not."""
        self._audit.write(line)
        self._audit.flush()

    @property
    def sink(self) -> Sink:
        if self._sink is None:
            self._sink = build_sink(self.settings.recording)
        return self._sink

    # -- finding -----------------------------------

    def select(self, name: str) -> list[Selection]:
        """What `name` means: a path, a file id, the id of a recording or an artefact, or a call's uid.

        One selection for each recording, its segments in order.

        Raises:
            CommandError: nothing is known by that name, or it was deleted.
        """
        path = Path(name)
        if path.is_file():
            return [Selection(segments=(self._segment_at(path),))]
        if self._index is not None and _ID.fullmatch(name) is not None:
            entry = self._index.get(bytes.fromhex(name))
            if entry is not None:
                return _selections([entry], is_whole=False)
            found = self._index.find(recording=bytes.fromhex(name), limit=None)
            found = found or self._index.find(call_uid=name, kind=RecordingKind.AUDIO, limit=None)
            kept = [entry for entry in found if entry.state not in _DELETED]
            if found and not kept:
                raise CommandError(f"{name} was deleted")
            if kept:
                return _selections(kept, is_whole=True)
        raise CommandError(
            f"{name}: no such file, and the index knows no such id; see: b2bua recordings list"
        )

    def select_one(self, name: str) -> Selection:
        """As `select`, where only one recording will do."""
        found = self.select(name)
        if len(found) > 1:
            ids = ", ".join(each.entry.recording.hex() for each in found if each.entry is not None)
            raise CommandError(f"{name} means {len(found)} recordings; name one of them: {ids}")
        return found[0]

    def all_selections(self) -> list[Selection]:
        """Every recording and artefact in the index, oldest hour first."""
        entries = [] if self._index is None else self._index.find(limit=None)
        return self.grouped(entries[::-1])

    def grouped(self, entries: Sequence[IndexEntry]) -> list[Selection]:
        """Entries that were asked of the index, by recording or artefact; deleted ones are left out."""
        return _selections([entry for entry in entries if entry.state not in _DELETED], is_whole=True)

    def settled(self, selection: Selection, access: Access) -> Selection:
        """What there is to read of a recording: a segment that is still being written is left out.

        One whose call ended a moment ago is waited for, for `END_WAIT_S`.
        """
        segments: list[Segment] = []
        waiting = selection.segments
        while waiting:
            segments += [self._settled(segment, access) for segment in waiting]
            waiting = self._begun_since(selection, segments) if selection.is_running else ()
        done = tuple(segment for segment in segments if not segment.is_running)
        kept = tuple(each for each in done if each.entry is None or each.entry.state is not IndexState.FAILED)
        is_live = len(done) < len(segments) or (selection.is_running and self._goes_on(kept[-1:], access))
        return replace(selection, segments=kept, is_live=is_live)

    def _begun_since(self, selection: Selection, known: Sequence[Segment]) -> tuple[Segment, ...]:
        """Segments of a live recording that the index did not have when it was asked for the others."""
        if self._index is None or selection.entry is None or not selection.is_whole:
            return ()
        ids = {segment.file_id for segment in known}
        found = self._index.find(recording=selection.entry.recording, limit=None)
        return tuple(Segment(file_id=each.file_id, entry=each) for each in found if each.file_id not in ids)

    def _goes_on(self, last: Sequence[Segment], access: Access) -> bool:
        """Whether the last segment names a next one, which has just begun and is not in the index yet."""
        for segment in last:
            with contextlib.suppress(CommandError, RecordingError), self.reading(segment, access) as reader:
                final = reader.final()
                return final is not None and final[1].next is not None
        return False

    def _settled(self, segment: Segment, access: Access) -> Segment:
        deadline = time.monotonic() + END_WAIT_S
        while segment.is_running:
            fresh = self._fresh(segment)
            if not fresh.is_running:
                return fresh
            if self._is_finished(segment, access):
                assert segment.entry is not None
                return replace(segment, entry=replace(segment.entry, state=IndexState.COMPLETE))
            if time.monotonic() >= deadline:
                break
            time.sleep(_LOOK_INTERVAL_S)
        return segment

    def _is_finished(self, segment: Segment, access: Access) -> bool:
        """Whether FINAL is there already."""
        try:
            with self.reading(segment, access) as reader:
                return reader.final() is not None
        except (CommandError, RecordingError):
            return False  # not even its head, or a key that does not fit: whoever reads it will say so

    def _fresh(self, segment: Segment) -> Segment:
        entry = None if self._index is None else self._index.get(segment.file_id)
        return segment if entry is None else replace(segment, entry=entry)

    def _segment_at(self, path: Path) -> Segment:
        try:
            with path.open("rb") as file:
                file_id = read_head(file).core.file_id
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from error
        entry = None if self._index is None else self._index.get(file_id)
        return Segment(path=path, file_id=file_id, entry=entry)

    def where(self, segment: Segment) -> str:
        """A place that an operator can find: a path in the spool, or the store's name and the object's key."""
        if segment.path is not None:
            return str(segment.path)
        if segment.entry is None or segment.entry.object_key is None:
            return str(segment_path(self.settings.recording.spool_directory, segment.file_id))
        return f"{self.sink.name}:{segment.entry.object_key}"

    # -- reading -----------------------------------

    @contextlib.contextmanager
    def reading(self, segment: Segment, access: Access) -> Iterator[RecordingReader]:
        """The segment, opened with whichever configured key fits. The audit log says so, before anything is read.

        Raises:
            AuditError: the audit log can't be written; nothing was read.
            MisplacedRecordingError: another recording lies in its place; nothing of it was decrypted.
            RecordingError: as `recording.reader.open_recording`.
            CommandError: the file can't be read.
        """
        self._tell(segment, access)
        try:
            file, slots = self._open(segment)
            with file, open_with(file, lambda head: self._find_keys(segment, head, slots)) as reader:
                yield reader
        except OSError as error:
            raise CommandError(f"{self.where(segment)}: {error.strerror}") from error

    def vouching(self, segment: Segment) -> Vouching:
        """What the segment's manifest says of the file as it is now, which is read whole for it. No key is needed.

        Raises:
            CommandError: the file can't be read. SinkError: the store did not answer.
            KeyConfigurationError: a key to verify by can't be used.
        """
        if self._verifier is None:
            self._verifier = build_verifier(self.settings.recording)
        try:
            file, _ = self._open(segment)
            with file:
                sha256, size_bytes = hash_file(file)
            token = self._manifest(segment)
        except OSError as error:
            raise CommandError(f"{self.where(segment)}: {error.strerror}") from error
        return judge(token, self._verifier, file_id=segment.file_id, sha256=sha256, size_bytes=size_bytes)

    def _manifest(self, segment: Segment) -> bytes | None:
        if segment.path is not None:
            return manifest_beside(segment.path)
        entry = self._fresh(segment).entry
        return None if entry is None or entry.object_key is None else self.sink.manifest(entry.object_key)

    def openers(self, selection: Selection, access: Access) -> list[Opener]:
        """What opens each of the segments, when it is needed and as often as it is."""

        def opener(segment: Segment) -> Opener:
            return lambda: self.reading(segment, access)

        return [opener(segment) for segment in selection.segments]

    def tell_export(self, selection: Selection, access: Access, recipients: Iterable[Recipient]) -> None:
        """Audit who will be able to read what is about to be written: a line for each, or that anybody will."""
        prints: list[str | None] = [recipient.fingerprint for recipient in recipients]
        event = AuditEvent.EXPORT_SEALED if prints else AuditEvent.EXPORT_PLAINTEXT
        for fingerprint in prints or [None]:
            self._write(event, selection.segments[0], access, fingerprint=fingerprint)
        self._audit.flush()

    def tell_attached(self, entry: IndexEntry, file_ids: Iterable[bytes], *, ticket: str | None) -> None:
        """Audit that a document was sealed for a call: a line for each of its files."""
        for file_id in file_ids:
            self._audit.write(
                AuditLine(
                    event=AuditEvent.ARTEFACT_ATTACHED,
                    file_id=file_id.hex(),
                    call_uid=entry.call_uid or None,
                    tenant_handle=entry.tenant_handle.hex(),
                    ticket=ticket,
                )
            )
        self._audit.flush()

    def tell_signed(self, manifest: Manifest, *, call_uid: str) -> None:
        """Audit a manifest, before the file that it is about is stored."""
        fields = signature_fields(manifest, call_uid=call_uid)
        self._audit.write(AuditLine(event=AuditEvent.RECORDING_SIGNED, **fields))
        self._audit.flush()

    def _tell(self, segment: Segment, access: Access) -> None:
        """Once for each file and access, however often it is opened for it."""
        if (segment.file_id, access) not in self._told:
            self._write(AuditEvent.RECORDING_READ, segment, access)
            self._audit.flush()
            self._told.add((segment.file_id, access))

    def _write(
        self, event: AuditEvent, segment: Segment, access: Access, *, fingerprint: str | None = None
    ) -> None:
        entry = segment.entry
        self._audit.write(
            AuditLine(
                event=event,
                file_id=segment.file_id.hex(),
                call_uid=None if entry is None else entry.call_uid or None,
                tenant_handle=None if entry is None else entry.tenant_handle.hex(),
                action=access.action,
                reason=access.reason.value,
                ticket=access.ticket,
                fingerprint=fingerprint,
            )
        )

    def _find_keys(self, segment: Segment, head: Head, slots: Iterable[bytes]) -> SegmentKeys:
        """Each segment's key is unwrapped once, however often the segment is opened.

        What lies there may be authentic and still another call's: then it is not what was asked and audited for.
        """
        tenant = head.core.tenant_handle if segment.entry is None else segment.entry.tenant_handle
        if (head.core.file_id, head.core.tenant_handle) != (segment.file_id, tenant):
            raise MisplacedRecordingError(
                f"{self.where(segment)}: file {head.core.file_id.hex()} of tenant {head.core.tenant_handle.hex()} lies "
                "in its place; find out who exchanged them, and take the right one from a copy"
            )
        mark = head.core_bytes + head.commitment
        if mark not in self._unlocked:
            if self._keys is None:
                self._keys = slot_keys(build_providers(self.settings.recording.keys).values())
            self._unlocked[mark] = unlock(head, keys=self._keys, sidecars=slots)
        return self._unlocked[mark]

    def _open(self, segment: Segment) -> tuple[BinaryIO, Iterable[bytes]]:
        """The file and what slots lie beside it. It goes from spool to sink once, and is always in one of them."""
        if segment.path is not None:
            return _raw(segment.path), sidecars_beside(segment.path, segment.file_id)
        entry = segment.entry
        assert entry is not None, "what has no path was found in the index"
        if entry.object_key is None:
            with contextlib.suppress(FileNotFoundError):
                return _raw(segment_path(self.settings.recording.spool_directory, segment.file_id)), ()
        entry = self._fresh(segment).entry or entry
        if entry.state in _DELETED:
            raise CommandError(f"{entry.file_id.hex()} was deleted")
        name = ObjectName(
            tenant_handle=entry.tenant_handle, file_id=entry.file_id, started_hour=entry.started_hour
        )
        key = entry.object_key or name.key
        try:
            return self.sink.open(key), sidecars(self.sink, key)
        except ObjectMissingError as error:
            raise CommandError(
                f"{self.where(segment)}: it is neither in the store nor in this machine's spool"
            ) from error


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The recordings of a configuration file. Makes no index where there is none.

    Raises:
        ConfigurationError, IndexUnavailableError, AuditError: on the way in.
    """
    settings = config.load(path)
    with contextlib.ExitStack() as stack:
        audit = stack.enter_context(open_audit_log(settings.audit))
        index = None
        place = settings.recording.index_place
        if not isinstance(place, Path) or place.exists():
            index = RecordingIndex(place)
            stack.callback(index.close)
        yield Archive(settings, index, audit)


def _selections(entries: Sequence[IndexEntry], *, is_whole: bool) -> list[Selection]:
    """By recording, in the order in which each is first met."""
    groups: dict[bytes, list[IndexEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.recording, []).append(entry)
    return [
        Selection(
            segments=tuple(
                Segment(file_id=entry.file_id, entry=entry)
                for entry in sorted(group, key=lambda entry: entry.segment)
            ),
            is_whole=is_whole,
        )
        for group in groups.values()
    ]


def _raw(path: Path) -> BinaryIO:
    """Unbuffered: the reader asks for large blocks itself."""
    return path.open("rb", buffering=0)
