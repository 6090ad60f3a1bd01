"""The index sealed into one container under a key of its own, and back.

The container is an ordinary one of kind `log` (docs/recording-format.md) whose data is JSON lines: first what it is,
then index keys (wrapped) and entries, last how many there were.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from recording.data_writer import DataWriter
from recording.errors import MalformedContentError, RecordingError
from recording.format.content import RecordingKind, RecordingMeta
from recording.format.record import RecordType
from recording.format.slots import build_area
from recording.index.entry import IndexEntry, IndexKey, IndexState, SealedParties
from recording.index.rebuild import hold_of_unknown
from recording.index.store import RecordingIndex
from recording.keys.provider import KeyContext, KeyProvider
from recording.reader import open_recording
from recording.sinks.sink import Sink
from recording.spool_state import sync_directory
from recording.unlock import SlotKey

MEDIA_TYPE: Final = "application/vnd.sealtrunk.index+jsonl"
NO_TENANT: Final = bytes(16)
"""A backup belongs to no tenant."""
HELD_AS: Final = "index_restored"
"""Label of the hold on what comes back without one, as `recording.index.rebuild.HELD_AS`."""
_GOING: Final = frozenset({IndexState.DELETING, IndexState.DELETED})
_VERSION: Final = 1
_BATCH: Final = 500
_FILE_MODE: Final = 0o600


class BackupError(RecordingError):
    """The backup cannot be written there, or what is to be restored is not a whole backup. The index is unchanged."""

    exit_code = 116


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackupCounts:
    """What went into a backup, or came out of it. `held`: put on hold because a hold may be missing in it."""

    entries: int
    keys: int
    held: int = 0


def back_up(index: RecordingIndex, path: Path, provider: KeyProvider) -> BackupCounts:
    """Seal all that the index knows into a new file, mode 0600, durable on return. Never overwrites.

    Raises:
        BackupError: the file exists or cannot be written.
        RecordingError: the provider gives no key, or the index cannot be read. No file is left behind.
    """
    file_id = secrets.token_bytes(16)
    made = provider.new_key(KeyContext(file_id=file_id, tenant_handle=NO_TENANT))
    meta = RecordingMeta(
        kind=RecordingKind.LOG,
        recording=file_id,
        started_at=datetime.now(UTC),
        sample_format=None,
        media_type=MEDIA_TYPE,
    )
    writer = DataWriter(
        file_id=file_id,
        tenant_handle=NO_TENANT,
        dek=made.dek,
        slots_area=build_area([made.slot]),
        meta=meta,
        chunk_size=65536,
    )
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    counts = BackupCounts(entries=0, keys=0)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            file.write(writer.begin())
            for block, so_far in _blocks(index):
                counts = so_far
                pieces = (block[at : at + writer.capacity] for at in range(0, len(block), writer.capacity))
                file.writelines(map(writer.append, pieces))
            file.write(writer.finish(ended_by="operator", reason="whole"))
            file.flush()
            os.fsync(fd)
        os.link(temporary, path)
        sync_directory(path.parent)
    except FileExistsError as error:
        raise BackupError(f"{path} exists and is never overwritten; name another file") from error
    except OSError as error:
        raise BackupError(
            f"{path}: {error.strerror}; name a file in a directory that can be written"
        ) from error
    finally:
        writer.abandon()
        temporary.unlink(missing_ok=True)
    return counts


def restore(index: RecordingIndex, path: Path, keys: Sequence[SlotKey], sink: Sink) -> BackupCounts:
    """Enter what the index does not know. What it knows is newer and stays.

    The whole backup is authenticated first: the index gets nothing of one that was cut or altered. What it has on no
    hold may have been put on one since it was made, so it comes back as `rebuild` brings back what it finds.

    Raises:
        BackupError: it is none, or not whole.
        RecordingError: no key opens it, the index cannot be written, or the store cannot be asked for its holds.
    """
    counts = BackupCounts(entries=0, keys=0)
    for _ in _read(path, keys):
        pass
    batch: list[IndexEntry] = []
    known = {key.key_id for key in index.index_keys()}
    for item in _read(path, keys):
        if isinstance(item, IndexKey):
            if item.key_id not in known:
                index.put_key(item)
            counts = dataclasses.replace(counts, keys=counts.keys + 1)
            continue
        counts = dataclasses.replace(counts, entries=counts.entries + 1)
        if index.get(item.file_id) is not None:
            continue
        entry = _held(item, sink)
        counts = dataclasses.replace(counts, held=counts.held + (entry.hold != item.hold))
        batch.append(entry)
        if len(batch) == _BATCH:
            index.add(batch)
            batch = []
    index.add(batch)
    return counts


def _held(entry: IndexEntry, sink: Sink) -> IndexEntry:
    """The entry, on hold."""
    if entry.hold is not None or entry.state in _GOING:
        return entry
    return dataclasses.replace(entry, hold=hold_of_unknown(sink, entry.object_key, HELD_AS))


def _blocks(index: RecordingIndex) -> Iterator[tuple[bytes, BackupCounts]]:
    """Blocks of lines, each with what is in the backup once it is written."""
    entries = 0
    yield _line({"sealtrunk_index": _VERSION}), BackupCounts(entries=0, keys=0)
    keys = index.index_keys()
    yield b"".join(_line({"key": _as_json(key)}) for key in keys), BackupCounts(entries=0, keys=len(keys))
    block = bytearray()
    for entry in index.scan():
        entries += 1
        block += _line({"entry": _as_json(entry)})
        if len(block) > 1 << 20:
            yield bytes(block), BackupCounts(entries=entries, keys=len(keys))
            block.clear()
    block += _line({"entries": entries, "keys": len(keys)})
    yield bytes(block), BackupCounts(entries=entries, keys=len(keys))


def _read(path: Path, keys: Sequence[SlotKey]) -> Iterator[IndexKey | IndexEntry]:
    """Every key and entry of a whole backup. Raises BackupError at whatever is none."""
    counted = {"entries": 0, "keys": 0}
    is_first, end = True, None
    try:
        for line in _text_lines(path, keys):
            found = json.loads(line)
            if end is not None:
                raise BackupError(f"{path}: lines follow the last one")
            if is_first:
                if found != {"sealtrunk_index": _VERSION}:
                    raise BackupError(f"{path} is not a backup that this program knows")
                is_first = False
            elif "key" in found:
                counted["keys"] += 1
                yield _from_json(IndexKey, found["key"])
            elif "entry" in found:
                counted["entries"] += 1
                yield _from_json(IndexEntry, found["entry"])
            else:
                end = found
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}; name the backup") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise BackupError(f"{path}: it holds what no backup of this program does") from error
    if end != counted:
        raise BackupError(f"{path} holds {counted}, and says {end}")


def _text_lines(path: Path, keys: Sequence[SlotKey]) -> Iterator[bytes]:
    rest = b""
    with open_recording(path, keys=keys) as reader:
        if reader.meta.media_type != MEDIA_TYPE:
            raise BackupError(f"{path} is not a backup of an index")
        for record in reader.records():
            if record.type == RecordType.DATA:
                *lines, rest = (rest + bytes(record.payload)).split(b"\n")
                yield from lines
    if rest:
        raise MalformedContentError("the last line of the backup has no end")


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return {name: _as_json(getattr(value, name)) for name in names}
    return value


_BYTES: Final = frozenset(
    {"file_id", "recording", "tenant_handle", "parent", "key_id", "slot_key_id", "wrapped"}
    | {"sealed", "blind_from", "blind_to"}
)
_TIMES: Final = frozenset({"started_hour", "retain_until", "deleted_hour", "created_hour"})


def _from_json(kind: Any, found: dict[str, Any]) -> Any:
    """The reverse of `_as_json`. Raises ValueError, TypeError or LookupError for anything else."""
    values: dict[str, Any] = {}
    for name, value in found.items():
        if value is None:
            values[name] = None
        elif name == "parties":
            values[name] = _from_json(SealedParties, value)
        elif name == "state":
            values[name] = IndexState(value)
        elif name == "kind":
            values[name] = RecordingKind(value)
        elif name in _TIMES:
            values[name] = datetime.fromisoformat(value)
        elif name in _BYTES and not (kind is IndexEntry and name == "key_id"):
            values[name] = bytes.fromhex(value)
        else:
            values[name] = value
    return kind(**values)
