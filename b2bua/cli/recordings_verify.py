"""`b2bua recordings verify`: read every record of every segment asked for, and say what each is worth."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from b2bua.cli import output
from b2bua.cli.archive import Archive, Segment, open_archive
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.errors import B2BUAError, CommandError
from recording.errors import CorruptRecordingError, RecordingError, TruncatedRecordingError
from recording.index import IndexState
from recording.verify import RecordingState, Verdict, verify

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
    """What came of one file: a verdict, or the error that kept it from being opened."""

    name: str
    path: Path | None
    verdict: Verdict | None = None
    error: B2BUAError | RecordingError | None = None

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return self.error.exit_code
        assert self.verdict is not None
        return EXIT_CODES[self.verdict.state]

    @property
    def words(self) -> str:
        return str(self.verdict) if self.verdict is not None else "unreadable"

    @property
    def detail(self) -> str:
        return str(self.error) if self.error is not None else (self.verdict.detail if self.verdict else "")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "verify",
        summary="Authenticate every record of recordings. The exit code is 0 only if all are complete.",
        example="""
            b2bua recordings verify -c lab/b2bua.toml 5f0c…
            b2bua recordings verify -c lab/b2bua.toml --all --json
        """,
        run=run,
    )
    add_configuration(parser)
    parser.add_argument("names", metavar="ID", nargs="*", help="file id, recording id, call uid, or a path")
    parser.add_argument("--all", action="store_true", help="everything in the index")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Judge each file, those after a bad one too. The exit code is that of the first that isn't complete."""
    if bool(arguments.names) == arguments.all:
        raise CommandError("name recordings, or say --all")
    with open_archive(configuration_path(arguments)) as archive:
        judgements = _judge_all(archive, arguments)
    if arguments.json:
        output.print_json({"recordings": [_as_json(each) for each in judgements]})
    else:
        output.print_table(
            ["file", "state", "records", "why"],
            [
                [each.name, each.words, each.verdict.records if each.verdict else None, each.detail or None]
                for each in judgements
            ],
        )
    for each in judgements:
        if each.exit_code:
            output.print_error(f"{each.path or each.name}: {each.words}: {each.detail}")
    return next((each.exit_code for each in judgements if each.exit_code), 0)


def _judge_all(archive: Archive, arguments: argparse.Namespace) -> list[_Judgement]:
    judgements: list[_Judgement] = []
    segments: list[Segment] = archive.all_segments() if arguments.all else []
    for name in arguments.names:
        try:
            segments += archive.segments(name)
        except (CommandError, RecordingError) as error:
            judgements.append(_Judgement(name=name, path=None, error=error))
    with output.progress_bar() as progress:
        written = [
            segment for segment in segments if segment.entry is None or segment.entry.state not in _NO_FILE
        ]
        judgements += [
            _judge(archive, segment) for segment in progress.track(written, description="verifying")
        ]
    return judgements


def _judge(archive: Archive, segment: Segment) -> _Judgement:
    name = segment.file_id.hex()
    try:
        with archive.reading(segment, purpose="verify") as reader:
            verdict = verify(reader)
    except (CommandError, RecordingError) as error:
        return _Judgement(name=name, path=segment.path, error=error)
    _note(archive, segment, verdict)
    return _Judgement(name=name, path=segment.path, verdict=verdict)


def _note(archive: Archive, segment: Segment, verdict: Verdict) -> None:
    """A verdict with the key is worth more than what the index was told without one."""
    state = _INDEX_STATES[verdict.state]
    if archive.index is not None and segment.entry is not None and segment.entry.state is not state:
        archive.index.put([replace(segment.entry, state=state, records=verdict.records)])


def _as_json(judgement: _Judgement) -> dict[str, object]:
    verdict = judgement.verdict
    return {
        "file_id": judgement.name,
        "path": None if judgement.path is None else str(judgement.path),
        "state": "unreadable" if verdict is None else verdict.state.value,
        "records": None if verdict is None else verdict.records,
        "audio_bytes": None if verdict is None else verdict.audio_bytes,
        "detail": judgement.detail or None,
        "exit_code": judgement.exit_code,
    }
