"""`b2bua recordings export`: the audio as a file, sealed to whom it is for unless plain text is asked for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from b2bua.cli import output
from b2bua.cli.access import access_of, add_access, add_sealing, check_new, recipients_of
from b2bua.cli.archive import open_archive
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.cli.recordings_verify import EXIT_CODES
from b2bua.errors import CommandError
from recording.chain import ChainError, Opener
from recording.export import ExportChannels, ExportForm, ExportPlan, ExportResult, export, form_of
from recording.moment import Moment, Stretch, parse_moment
from recording.private_file import in_place_of

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

STANDARD_OUTPUT = Path("-")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "export",
        summary="Decrypt a recording into an audio file of mode 0600, sealed to a certificate unless told otherwise.",
        example="""
            b2bua recordings export -c lab/b2bua.toml 5f0c… -o call.flac.p7m --recipient doctor.pem --reason treatment
            openssl cms -decrypt -inform DER -in call.flac.p7m -recip doctor.pem -inkey doctor.key -out call.flac
            b2bua recordings export -c lab/b2bua.toml 5f0c… -o part.wav --from 00:01:30 --to 00:02:00 \\
                --channel caller --plaintext --reason complaint --ticket QA-1234
        """,
        run=run,
    )
    add_configuration(parser)
    parser.add_argument("name", metavar="ID", help="recording id, call uid, file id, or a path")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="where to; - is standard output"
    )
    add_sealing(parser)
    add_access(parser)
    parser.add_argument(
        "--format",
        choices=[form.value for form in ExportForm],
        help="default: what the file's name says, else wav",
    )
    parser.add_argument(
        "--channel",
        choices=[choice.value for choice in ExportChannels],
        default=ExportChannels.AS_RECORDED.value,
        help="one party, both on two channels, or both in one (default: as recorded)",
    )
    parser.add_argument(
        "--from", dest="start", metavar="TIME", type=_moment,
        help="where to begin: 00:01:30 since the start, or 2026-03-01T12:00:30Z",
    )  # fmt: skip
    parser.add_argument("--to", dest="end", metavar="TIME", type=_moment, help="where to end, likewise")
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
    recipients = recipients_of(arguments)
    check_new(destination, is_forced=arguments.force)
    access = access_of(arguments, "export")
    with open_archive(configuration_path(arguments)) as archive:
        named = archive.select_one(arguments.name)
        selection = archive.settled(named, access)
        if arguments.allow_partial and not selection.segments:
            selection = named
        if not selection.segments:
            raise CommandError(
                f"{arguments.name}: nothing of it is finished; the call goes on, or a crash left it: "
                "b2bua recordings recover"
            )
        plan = ExportPlan(
            form=form_of(destination) if arguments.format is None else ExportForm(arguments.format),
            channels=ExportChannels(arguments.channel),
            stretch=Stretch(start=arguments.start, end=arguments.end),
            recipients=recipients,
            is_whole=selection.is_whole,
            is_live=selection.is_live,
            allow_partial=arguments.allow_partial,
        )
        archive.tell_export(selection, access, recipients)
        result = _export(archive.openers(selection, access), destination, plan, force=arguments.force)
    return _report(arguments, destination, plan, result)


def _report(arguments: argparse.Namespace, destination: Path, plan: ExportPlan, result: ExportResult) -> int:
    facts = _as_json(plan, result)
    if arguments.json:
        output.print_json({"path": str(destination.absolute()), **facts})
    elif destination != STANDARD_OUTPUT:
        seconds = result.frames / result.rate_hz
        sealed = f", sealed to {len(plan.recipients)} certificates" if plan.recipients else ""
        output.print_line(
            f"{destination}: {seconds:.2f} s, {result.channels} channels, {result.rate_hz} Hz{sealed}"
        )
    if plan.is_live:
        output.print_error("the call goes on: what is finished of it was exported")
    worst = max((EXIT_CODES[state] for state in result.states), default=0)
    if worst:
        output.print_error(
            f"the recording is damaged: {facts['states']}; only what is authentic was exported"
        )
    for fault in result.faults:
        output.print_error(str(fault))
    return worst or (ChainError.exit_code if result.faults else 0)


def _export(segments: list[Opener], destination: Path, plan: ExportPlan, *, force: bool) -> ExportResult:
    with output.progress_bar() as progress:
        task = progress.add_task("exporting", total=None)

        def report(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        if destination == STANDARD_OUTPUT:
            return export(segments, sys.stdout.buffer, plan, progress=report)
        try:
            with in_place_of(destination, is_forced=force) as target:
                return export(segments, target, plan, progress=report)
        except OSError as error:
            raise CommandError(f"{destination}: {error.strerror}; name a file that can be written") from error


def _moment(text: str) -> Moment:
    try:
        return parse_moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _as_json(plan: ExportPlan, result: ExportResult) -> dict[str, object]:
    return {
        "format": plan.form.value,
        "sealed_to": [recipient.fingerprint for recipient in plan.recipients],
        "frames": result.frames,
        "rate_hz": result.rate_hz,
        "channels": result.channels,
        "silence_frames": result.silence_frames,
        "states": [state.value for state in result.states],
        "faults": [str(fault) for fault in result.faults],
        "live": plan.is_live,
        "complete": result.is_complete,
    }
