"""`b2bua recordings verify`: read every record of every segment asked for, and say what each is worth."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from b2bua.cli import output
from b2bua.cli.access import Access, access_of, add_access
from b2bua.cli.archive import Archive, Segment, Selection, open_archive
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.errors import B2BUAError, CommandError
from recording.chain import ChainCheck, ChainError
from recording.errors import (
    CorruptRecordingError,
    MalformedContentError,
    RecordingError,
    TruncatedRecordingError,
)
from recording.format.content import RecordingMeta
from recording.index import IndexState
from recording.signing import Standing
from recording.verify import RecordingState, Verdict, verify
from recording.voucher import Vouching

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

EXIT_CODES = {
    RecordingState.COMPLETE: 0,
    RecordingState.INCOMPLETE: TruncatedRecordingError.exit_code,
    RecordingState.CORRUPT: CorruptRecordingError.exit_code,
}
_INDEX_STATES = {
    RecordingState.COMPLETE: IndexState.COMPLETE,
    RecordingState.INCOMPLETE: IndexState.INCOMPLETE,
    RecordingState.CORRUPT: IndexState.CORRUPT,
}
_NO_FILE = frozenset({IndexState.RECORDING, IndexState.FAILED})
"""Still being written, or nothing of it kept: there is nothing to judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """What came of one file: a verdict, or the error that kept it from being opened. `known`: what the index had."""

    name: str
    where: str | None
    verdict: Verdict | None = None
    vouching: Vouching | None = None
    known: str = ""
    error: B2BUAError | RecordingError | None = None

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return self.error.exit_code
        assert self.verdict is not None
        is_wrong = self.vouching is not None and self.vouching.standing is Standing.WRONG
        return CorruptRecordingError.exit_code if is_wrong else EXIT_CODES[self.verdict.state]

    @property
    def words(self) -> str:
        return str(self.verdict) if self.verdict is not None else "unreadable"

    @property
    def detail(self) -> str:
        """What the manifest says against the file comes first: it tells a cut in storage from a crash."""
        if self.error is not None:
            return str(self.error)
        wrong = self.vouching if self.vouching and self.vouching.standing is Standing.WRONG else None
        told = (wrong.detail if wrong else "", self.known, self.verdict.detail if self.verdict else "")
        return "; ".join(each for each in told if each)

    @property
    def standing(self) -> str | None:
        return None if self.vouching is None else self.vouching.standing.value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """A recording: what came of each file, and what is wrong between them or with the document they make."""

    recording: str | None
    judgements: tuple[_Judgement, ...]
    faults: tuple[str, ...] = ()
    is_live: bool = False

    @property
    def exit_code(self) -> int:
        worst = next((each.exit_code for each in self.judgements if each.exit_code), 0)
        return worst or (ChainError.exit_code if self.faults else 0)


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "verify",
        summary="Authenticate every record of recordings. The exit code is 0 only if all are complete.",
        example="""
            b2bua recordings verify -c lab/b2bua.toml 5f0c… --reason integrity_check
            b2bua recordings verify -c lab/b2bua.toml --all --reason integrity_check --json
        """,
        run=run,
    )
    add_configuration(parser)
    parser.add_argument("names", metavar="ID", nargs="*", help="file id, recording id, call uid, or a path")
    parser.add_argument("--all", action="store_true", help="everything in the index")
    add_access(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Judge each file, those after a bad one too. The exit code is that of the first that isn't complete."""
    if bool(arguments.names) == arguments.all:
        raise CommandError("name recordings, or say --all")
    access = access_of(arguments, "verify")
    with open_archive(configuration_path(arguments)) as archive:
        found = _judge_all(archive, arguments, access)
    judgements = [each for whole in found for each in whole.judgements]
    if arguments.json:
        wholes = [_whole_json(whole) for whole in found if whole.recording is not None]
        output.print_json({"recordings": [_as_json(each) for each in judgements], "wholes": wholes})
    else:
        output.print_table(
            ["file", "state", "manifest", "records", "why"],
            [
                [
                    each.name,
                    each.words,
                    each.standing,
                    each.verdict.records if each.verdict else None,
                    each.detail or None,
                ]
                for each in judgements
            ],
        )
    for each in judgements:
        if each.exit_code:
            output.print_error(f"{each.where or each.name}: {each.words}: {each.detail}")
    for whole in found:
        for fault in whole.faults:
            output.print_error(f"{whole.recording or 'recording'}: {fault}")
    return next((whole.exit_code for whole in found if whole.exit_code), 0)


def _judge_all(archive: Archive, arguments: argparse.Namespace, access: Access) -> list[_Whole]:
    found: list[_Whole] = []
    selections: list[Selection] = archive.all_selections() if arguments.all else []
    for name in arguments.names:
        try:
            selections += [archive.settled(each, access) for each in archive.select(name)]
        except (CommandError, RecordingError) as error:
            found.append(_Whole(recording=None, judgements=(_Judgement(name=name, where=None, error=error),)))
    with output.progress_bar() as progress:
        found += [
            _judge(archive, each, access) for each in progress.track(selections, description="verifying")
        ]
    return found


def _judge(archive: Archive, selection: Selection, access: Access) -> _Whole:
    written = [each for each in selection.segments if each.entry is None or each.entry.state not in _NO_FILE]
    is_live = selection.is_live or selection.is_running
    check = ChainCheck(is_whole=selection.is_whole, is_live=is_live)
    digest = hashlib.sha256()
    expected: bytes | None = None
    judgements, faults = [], []
    for segment in written:
        name, where, is_begun = segment.file_id.hex(), archive.where(segment), False
        try:
            with archive.reading(segment, access) as reader:
                # What cannot be read of META is the verdict's matter, which follows.
                with contextlib.suppress(CorruptRecordingError, MalformedContentError):
                    faults += [str(fault) for fault in check.begin(reader)]
                    faults += _misplaced(segment, reader.meta)
                    expected, is_begun = reader.meta.sha256, True
                verdict = verify(reader, on_data=digest.update)
            vouching = archive.vouching(segment)
        except (CommandError, RecordingError) as error:
            judgements.append(_Judgement(name=name, where=where, error=error))
            continue
        if is_begun:
            check.end(verdict.end, verdict.final)
        known = _known(segment, verdict)
        _note(archive, segment, verdict)
        judgements.append(_Judgement(name=name, where=where, verdict=verdict, vouching=vouching, known=known))
    faults += [str(fault) for fault in check.finish()]
    is_sound = not faults and all(each.exit_code == 0 for each in judgements)
    if is_sound and selection.is_whole and expected is not None and digest.digest() != expected:
        faults.append("the document is not the one whose SHA-256 META names")
    entry = selection.entry
    return _Whole(
        recording=None if entry is None else entry.recording.hex(),
        judgements=tuple(judgements),
        faults=tuple(faults),
        is_live=is_live,
    )


def _known(segment: Segment, verdict: Verdict) -> str:
    """What the index had of a file that is less now: it tells a cut from a crash where the manifest is gone too."""
    entry = segment.entry
    if entry is None or verdict.records >= entry.records:
        return ""
    return f"the index has it with {entry.records} records"


def _misplaced(segment: Segment, meta: RecordingMeta) -> list[str]:
    """What the index says that a file belongs to, against what was sealed in it."""
    entry = segment.entry
    if entry is None or (meta.recording, meta.parent) == (entry.recording, entry.parent):
        return []
    return [f"file {segment.file_id.hex()} is of another recording or call than the index says"]


def _note(archive: Archive, segment: Segment, verdict: Verdict) -> None:
    """A verdict with the key is worth more than what the index was told without one."""
    state = _INDEX_STATES[verdict.state]
    if archive.index is not None and segment.entry is not None and segment.entry.state is not state:
        # What it had once stays on record: a cut is told from a crash by it.
        archive.index.set_state(segment.file_id, state, records=max(verdict.records, segment.entry.records))


def _as_json(judgement: _Judgement) -> dict[str, object]:
    verdict = judgement.verdict
    return {
        "file_id": judgement.name,
        "where": judgement.where,
        "state": "unreadable" if verdict is None else verdict.state.value,
        "records": None if verdict is None else verdict.records,
        "audio_bytes": None if verdict is None else verdict.audio_bytes,
        "data_bytes": None if verdict is None else verdict.data_bytes,
        "manifest": judgement.standing,
        "detail": judgement.detail or None,
        "exit_code": judgement.exit_code,
    }


def _whole_json(whole: _Whole) -> dict[str, object]:
    return {
        "recording": whole.recording,
        "segments": len(whole.judgements),
        "faults": list(whole.faults),
        "live": whole.is_live,
        "exit_code": whole.exit_code,
    }
