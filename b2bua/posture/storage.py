"""Recordings at rest: states in the index, what waits in the spool, the store, file modes, and the audit log."""

from __future__ import annotations

import contextlib
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from b2bua.posture.report import Level, Row, Safeguard
from b2bua.settings import Settings
from recording.index import IndexState, RecordingIndex
from recording.settings import (
    AWSKMSKeySettings,
    KeySettings,
    LocalKeySettings,
    LocalSinkSettings,
    PKCS11KeySettings,
    RecordingSettings,
    RSAKeySettings,
    VaultTransitKeySettings,
)

SPOOL_OLD_S = 3600.0
"""A segment that nothing was written to for so long is not under way: it waits for its store, or for recovery."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_TROUBLED = frozenset({IndexState.CORRUPT, IndexState.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A path that must be the owner's alone. `mode` None: it is not there."""

    what: str
    path: Path
    mode: int | None
    is_key: bool


@contextlib.contextmanager
def open_index(recording: RecordingSettings) -> Iterator[RecordingIndex | None]:
    """The index, closed with the block. None where nothing was recorded yet: a report makes no files."""
    if recording.index.postgresql is None and not recording.index_path.exists():
        yield None
        return
    index = RecordingIndex(recording.index_place)
    try:
        yield index
    finally:
        index.close()


def ask_index(recording: RecordingSettings) -> Sequence[Row]:
    """The share of segments in each state."""
    with open_index(recording) as index:
        counts = {} if index is None else index.counts()
    return [judge_states(counts, is_store_empty=bool(counts) or _is_store_empty(recording))]


def _is_store_empty(recording: RecordingSettings) -> bool:
    """Whether the directories of this machine hold no segment; a bucket's objects would take an hour to list."""
    places = [recording.spool_directory]
    if isinstance(recording.sink, LocalSinkSettings):
        places.append(recording.directory)
    return not any(next(place.rglob("*.crec"), None) for place in places)


def judge_states(counts: Mapping[IndexState, int], *, is_store_empty: bool) -> Row:
    """Incomplete ones are what crashes leave; corrupt and failed ones need somebody to look."""
    total = sum(counts.values())
    if not total:
        finding, level = (
            ("nothing was recorded yet", Level.OK)
            if is_store_empty
            else ("there are recordings, and the index has none: see b2bua index restore", Level.ALARM)
        )
    else:
        shares = [
            f"{state.value} {count} ({_percent(count, total)})" for state, count in counts.items() if count
        ]
        troubled = sum(counts.get(state, 0) for state in _TROUBLED)
        incomplete = counts.get(IndexState.INCOMPLETE, 0)
        finding = f"{total} segments: {', '.join(shares)}"
        level = Level.ALARM if troubled else Level.ATTENTION if incomplete else Level.OK
    return Row(
        key="recordings.states",
        safeguard=Safeguard.INTEGRITY,
        subject="segments by state",
        finding=finding,
        evidence="counted in the index; the files themselves: b2bua recordings verify --all --reason integrity_check",
        level=level,
    )


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    return "under 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"


def ask_spool(recording: RecordingSettings) -> Sequence[Row]:
    """What has not reached its store."""
    ages = []
    if recording.spool_directory.is_dir():
        for path in recording.spool_directory.glob("*.crec"):
            try:
                ages.append(time.time() - path.stat().st_mtime)
            except FileNotFoundError:
                continue  # it has reached its store meanwhile
    old = [age for age in ages if age > SPOOL_OLD_S]
    return [
        Row(
            key="recordings.spool",
            safeguard=Safeguard.INTEGRITY,
            subject="segments in the spool",
            finding=f"{len(ages)}; {len(old)} of them unchanged for more than an hour"
            + (f", the oldest for {max(old) / 3600:.0f} h: see b2bua recordings recover" if old else ""),
            evidence=f"files in {recording.spool_directory}",
            level=Level.ATTENTION if old else Level.OK,
        ),
        judge_space(_free_bytes(recording.spool_directory), recording),
    ]


def _free_bytes(directory: Path) -> int:
    """Of the file system that the directory is on, or will be."""
    there = next(path for path in (directory, *directory.parents) if path.exists())
    return shutil.disk_usage(there).free


def judge_space(free: int, recording: RecordingSettings) -> Row:
    """Below the least no call that must be recorded is taken; at twice that somebody should know."""
    least = recording.min_free_bytes
    return Row(
        key="recordings.space",
        safeguard=Safeguard.INTEGRITY,
        subject="free space for the spool",
        finding=f"{free >> 20} MiB; below {least >> 20} MiB calls that must be recorded are refused",
        evidence=f"the file system of {recording.spool_directory}",
        level=Level.ALARM if free < least else Level.ATTENTION if free < 2 * least else Level.OK,
    )


def private_files(settings: Settings) -> Iterator[tuple[str, Path, bool]]:
    """What must be its owner's alone: name, path, and whether it is key material."""
    recording = settings.recording
    yield "private key of the SIP endpoint", settings.tls.private_key_path, True
    if (
        settings.metrics is not None
        and settings.metrics.tls.private_key_path != settings.tls.private_key_path
    ):
        yield "private key of the metrics endpoint", settings.metrics.tls.private_key_path, True
    for name, key in recording.keys.items():
        yield from _files_of_key(name, key)
    for what, path in (
        ("key that signs manifests", recording.signing_key_path),
        ("key that signs checkpoints", settings.audit.signing_key_path),
    ):
        if path is not None:
            yield what, path, True
    yield from _files_of_index(recording)
    yield "spool", recording.spool_directory, False
    if isinstance(recording.sink, LocalSinkSettings):
        yield "recordings", recording.directory, False
    elif recording.sink.credentials_path is not None:
        yield "credentials of the store", recording.sink.credentials_path, True
    for what, place in (
        ("audit log", settings.audit.directory or settings.audit.path),
        ("log", settings.log.directory),
        ("control socket", None if settings.control is None else settings.control.socket.parent),
    ):
        if place is not None:
            yield what, place, False


def _files_of_key(name: str, key: KeySettings) -> Iterator[tuple[str, Path, bool]]:
    match key:
        case LocalKeySettings():
            yield f"key-encryption key {name}", key.kek_path, True
        case VaultTransitKeySettings():
            yield f"token for key {name}", key.server.token_path, True
        case PKCS11KeySettings():
            yield f"PIN for key {name}", key.pin_path, True
        case RSAKeySettings():
            if key.private_key_path is not None:
                yield f"private part of key {name}", key.private_key_path, True
            if key.transit is not None:
                yield f"token for key {name}", key.transit.server.token_path, True
        case AWSKMSKeySettings():
            pass  # credentials come from boto3's own chain
        case _:
            assert_never(key)


def _files_of_index(recording: RecordingSettings) -> Iterator[tuple[str, Path, bool]]:
    if recording.index.search_key_path is not None:
        yield "key for searching by number", recording.index.search_key_path, True
    shared = recording.index.postgresql
    if shared is None:
        yield "index", recording.index_path, False
        return
    for what, path in (
        ("password file of the index", shared.passfile_path),
        ("private key for the index", shared.private_key_path),
    ):
        if path is not None:
            yield what, path, True


def ask_files(settings: Settings) -> Sequence[Row]:
    """One row for key material, one for the rest."""
    found = [
        FileFacts(what=what, path=path, mode=_mode(path), is_key=is_key)
        for what, path, is_key in private_files(settings)
    ]
    return [
        judge_files(
            "files.keys",
            "file modes of key material",
            Safeguard.KEYS_APART,
            [facts for facts in found if facts.is_key],
        ),
        judge_files(
            "files.data",
            "file modes of recordings, index, logs and control socket",
            Safeguard.AT_REST,
            [facts for facts in found if not facts.is_key],
        ),
    ]


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return None


def judge_files(key: str, subject: str, safeguard: Safeguard, found: Sequence[FileFacts]) -> Row:
    """Group and others have no business there; for keys that is an alarm, for ciphertext it needs attention."""
    there = [facts for facts in found if facts.mode is not None]
    loose = [facts for facts in there if facts.mode is not None and facts.mode & _OTHERS]
    if loose:
        finding = "; ".join(f"{facts.path} has mode {facts.mode:04o}, others may use it" for facts in loose)
        level = Level.ALARM if any(facts.is_key for facts in loose) else Level.ATTENTION
    else:
        finding, level = f"{len(there)} paths are their owner's alone", Level.OK
    return Row(
        key=key,
        safeguard=safeguard,
        subject=subject,
        finding=finding,
        evidence="stat of " + (", ".join(facts.what for facts in there) or "nothing: none exists yet"),
        level=level,
    )
