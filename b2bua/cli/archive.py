"""Recordings as the command line finds them: by id or path, in sink or spool, opened with the configured keys."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from b2bua import config
from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.errors import CommandError
from b2bua.settings import Settings
from recording.index import IndexEntry, RecordingIndex
from recording.keys.build import build_providers, slot_keys
from recording.reader import RecordingReader, open_recording, read_head
from recording.sinks.local import LocalSink
from recording.spool_state import segment_path
from recording.unlock import SlotKey

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file; `entry` is None where the index knows nothing of it."""

    path: Path
    file_id: bytes
    entry: IndexEntry | None


class Archive:
    """What `recordings` works on. Made by `open_archive`."""

    def __init__(self, settings: Settings, index: RecordingIndex | None, audit: AuditLog) -> None:
        self.settings = settings
        self._index = index
        self._audit = audit
        self._keys: Sequence[SlotKey] | None = None

    @property
    def index(self) -> RecordingIndex | None:
        """None where nothing was ever recorded."""
        return self._index

    def segments(self, name: str) -> list[Segment]:
        """The files that `name` means: a path, a file id, a recording's id or a call's uid.

        Raises:
            CommandError: nothing is known by that name.
        """
        path = Path(name)
        if path.is_file():
            return [self._segment_at(path)]
        entries = self._entries(name)
        if not entries:
            raise CommandError(
                f"{name}: no such file, and the index knows no such id; see: b2bua recordings list"
            )
        return [Segment(path=self.path_of(entry), file_id=entry.file_id, entry=entry) for entry in entries]

    def all_segments(self) -> list[Segment]:
        """Every file in the index, oldest hour first."""
        entries = [] if self._index is None else self._index.find(limit=10_000_000)
        return [
            Segment(path=self.path_of(entry), file_id=entry.file_id, entry=entry)
            for entry in reversed(entries)
        ]

    def path_of(self, entry: IndexEntry) -> Path:
        """Where the file is: in the sink, or still in the spool."""
        recording = self.settings.recording
        if entry.object_key is None:
            return segment_path(recording.spool_directory, entry.file_id)
        return LocalSink(recording.directory).path(entry.object_key)

    @contextlib.contextmanager
    def reading(self, segment: Segment, *, purpose: str) -> Iterator[RecordingReader]:
        """The segment, opened with whichever configured key fits. The audit log says so, before anything is read.

        Raises:
            AuditError: the audit log can't be written; nothing was read.
            RecordingError: as `recording.reader.open_recording`.
            CommandError: the file can't be read.
        """
        if self._keys is None:
            self._keys = slot_keys(build_providers(self.settings.recording.keys).values())
        self._audit.write(
            AuditLine(
                event=AuditEvent.RECORDING_READ,
                file_id=segment.file_id.hex(),
                call_uid=None if segment.entry is None else segment.entry.call_uid,
                tenant_handle=None if segment.entry is None else segment.entry.tenant_handle.hex(),
                reason=purpose,
            )
        )
        self._audit.flush()
        try:
            with open_recording(segment.path, keys=self._keys) as reader:
                yield reader
        except OSError as error:
            raise _unreadable(segment.path, error) from error

    def _entries(self, name: str) -> list[IndexEntry]:
        if self._index is None or _ID.fullmatch(name) is None:
            return []
        entry = self._index.get(bytes.fromhex(name))
        if entry is not None:
            return [entry]
        return self._index.find(recording=bytes.fromhex(name)) or self._index.find(call_uid=name)

    def _segment_at(self, path: Path) -> Segment:
        try:
            with path.open("rb") as file:
                file_id = read_head(file).core.file_id
        except OSError as error:
            raise _unreadable(path, error) from error
        entry = None if self._index is None else self._index.get(file_id)
        return Segment(path=path, file_id=file_id, entry=entry)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The recordings of a configuration file. Makes no index where there is none.

    Raises:
        ConfigurationError, IndexUnavailableError, AuditError: on the way in.
    """
    settings = config.load(path)
    with contextlib.ExitStack() as stack:
        audit = AuditLog(settings.audit)
        stack.callback(audit.close)
        audit.start()
        index = None
        place = settings.recording.index_place
        if not isinstance(place, Path) or place.exists():
            index = RecordingIndex(place)
            stack.callback(index.close)
        yield Archive(settings, index, audit)


def _unreadable(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{path}: {error.strerror}; it may have moved from the spool a moment ago: try again")
