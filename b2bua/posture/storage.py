"""Recordings at rest: states in the index, what waits in the spool, the store, file modes, and the audit log."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from b2bua.posture.report import Level, Row, Safeguard
from b2bua.settings import Settings
from recording.index import IndexState, RecordingIndex
from recording.settings import LocalKeySettings, RecordingSettings
from recording.sinks.local import LocalSink

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


def ask_index(recording: RecordingSettings) -> Sequence[Row]:
    """The share of segments in each state."""
    if not recording.index_path.exists():
        return [judge_states({})]
    index = RecordingIndex(recording.index_path)
    try:
        return [judge_states(index.counts())]
    finally:
        index.close()


def judge_states(counts: Mapping[IndexState, int]) -> Row:
    """Incomplete ones are what crashes leave; corrupt and failed ones need somebody to look."""
    total = sum(counts.values())
    if not total:
        finding, level = "nothing was recorded yet", Level.OK
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
        evidence="counted in the index; the files themselves: b2bua recordings verify --all",
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
        )
    ]


def ask_local_sink(recording: RecordingSettings) -> Sequence[Row]:
    """A local directory has no Object Lock and no server-side encryption to be read back."""
    if recording.directory.exists():
        LocalSink(recording.directory).health()
    return [
        Row(
            key="sink.lock",
            safeguard=Safeguard.INTEGRITY,
            subject="Object Lock of the store",
            finding=f"{recording.directory} is a local directory: nothing keeps its owner from deleting",
            evidence="the kind of the store",
            level=Level.ATTENTION,
        ),
        Row(
            key="sink.encryption",
            safeguard=Safeguard.AT_REST,
            subject="encryption of the store beneath the recordings",
            finding="a local directory: what lies in it is sealed by this program; whether the disk is encrypted as "
            "well is not known",
            evidence="the kind of the store",
            level=Level.OK,
        ),
    ]


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
        if isinstance(key, LocalKeySettings):
            yield f"key-encryption key {name}", key.kek_path, True
    yield "spool", recording.spool_directory, False
    yield "recordings", recording.directory, False
    yield "index", recording.index_path, False
    if (audit := settings.audit.directory or settings.audit.path) is not None:
        yield "audit log", audit, False


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
            "file modes of recordings, index and audit log",
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
