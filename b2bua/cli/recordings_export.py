"""`b2bua recordings export`: a WAV file, readable by everybody who has it."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from b2bua.cli import output
from b2bua.cli.archive import open_archive
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.cli.recordings_verify import EXIT_CODES
from b2bua.errors import CommandError
from recording.export import ExportResult, WAVChannels, export_wav
from recording.reader import RecordingReader
from recording.verify import RecordingState

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

STANDARD_OUTPUT = Path("-")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "export",
        summary="Decrypt a recording into a WAV file of mode 0600. The audit log says that it was read.",
        example="""
            b2bua recordings export -c lab/b2bua.toml 5f0c… -o call.wav
            b2bua recordings export -c lab/b2bua.toml 5f0c… -o - --channels caller | aplay
        """,
        run=run,
    )
    add_configuration(parser)
    parser.add_argument("name", metavar="ID", help="file id, recording id, call uid, or a path")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="where to; - is standard output"
    )
    parser.add_argument(
        "--channels",
        choices=[choice.value for choice in WAVChannels],
        default=WAVChannels.AS_RECORDED.value,
        help="which channels (default: as recorded)",
    )
    parser.add_argument(
        "--allow-partial", action="store_true", help="export what is authentic of a damaged recording"
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export all segments of one recording, in order. A damaged one ends with its exit code, exported or not."""
    destination: Path = arguments.output
    if destination == STANDARD_OUTPUT and arguments.json:
        raise CommandError("--json and the audio can't both go to standard output; name a file")
    with open_archive(configuration_path(arguments)) as archive, contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(archive.reading(segment, purpose="export"))
            for segment in archive.segments(arguments.name)
        ]
        result = _export(readers, destination, arguments)
    if arguments.json:
        output.print_json({"path": str(destination.absolute()), **_as_json(result)})
    elif destination != STANDARD_OUTPUT:
        seconds = result.frames / result.rate_hz
        output.print_line(f"{destination}: {seconds:.2f} s, {result.channels} channels, {result.rate_hz} Hz")
    worst = max((EXIT_CODES[state] for state in result.states), default=0)
    if worst:
        output.print_error(
            f"the recording is damaged: {_as_json(result)['states']}; only what is authentic was exported"
        )
    return worst


def _export(readers: list[RecordingReader], destination: Path, arguments: argparse.Namespace) -> ExportResult:
    channels = WAVChannels(arguments.channels)
    with output.progress_bar() as progress:
        task = progress.add_task("exporting", total=None)

        def report(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        if destination == STANDARD_OUTPUT:
            return export_wav(
                readers,
                sys.stdout.buffer,
                channels=channels,
                allow_partial=arguments.allow_partial,
                progress=report,
            )
        # With --force the old file stays until the new one is whole.
        target = destination
        if arguments.force and destination.exists():
            target = destination.with_name(f".{destination.name}.{secrets.token_hex(8)}")
        try:
            result = export_wav(
                readers, target, channels=channels, allow_partial=arguments.allow_partial, progress=report
            )
            if target != destination:
                target.replace(destination)
        except OSError as error:
            raise CommandError(f"{destination}: {error.strerror}; name a file that can be written") from error
        return result


def _as_json(result: ExportResult) -> dict[str, object]:
    return {
        "frames": result.frames,
        "rate_hz": result.rate_hz,
        "channels": result.channels,
        "silence_frames": result.silence_frames,
        "states": [state.value for state in result.states],
        "complete": all(state is RecordingState.COMPLETE for state in result.states),
    }
