"""`b2bua recordings recover`: what a crash left in the spool, made whole again and stored. Needs no key."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from b2bua import config
from b2bua.cli import output
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.cli.recordings_list import entry_json
from b2bua.errors import CommandError
from recording.recorder import recover
from recording.settings import RecordingSettings
from recording.spool_recovery import RecoveredFile, RecoveryReport

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "recover",
        summary="Trim, list and store what a crash left in the spool. Needs no key; leaves a running process alone.",
        example="b2bua recordings recover -c lab/b2bua.toml",
        run=run,
    )
    add_configuration(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Recover, and fail if anything could not be stored."""
    report = _recover(config.load(configuration_path(arguments)).recording)
    if arguments.json:
        output.print_json(
            {"files": [{**entry_json(each.entry), "problem": each.problem} for each in report.files]}
        )
    else:
        output.print_table(
            ["file", "state", "records", "bytes", "in", "problem"],
            [
                [
                    each.entry.file_id.hex(),
                    each.entry.state.value,
                    each.entry.records,
                    each.entry.size_bytes,
                    "store" if each.is_stored else "spool",
                    each.problem,
                ]
                for each in report.files
            ],
        )
    problems = [each for each in report.files if each.problem is not None]
    if problems:
        raise CommandError(
            "\n".join(
                f"{each.entry.file_id.hex()}: {each.problem}; what is whole was kept" for each in problems
            )
        )
    return 0


def _recover(settings: RecordingSettings) -> RecoveryReport:
    with output.progress_bar() as progress:
        task = progress.add_task("recovering", total=None)

        def report(done: int, total: int, _: RecoveredFile) -> None:
            progress.update(task, completed=done, total=total)

        return recover(settings, on_progress=report)
