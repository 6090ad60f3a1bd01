"""`b2bua log show`: decrypt the sealed log file, with a reason, and print the lines that were asked for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b2bua import config
from b2bua.audit import AuditEvent, AuditLine
from b2bua.cli import output
from b2bua.cli.audit_show import parse_time
from b2bua.cli.auditing import note_now
from b2bua.cli.parser import add_command, add_configuration, add_group, add_json, configuration_path
from b2bua.errors import CommandError
from b2bua.journal.read import SealedFile, read_files
from b2bua.settings import LogLevel, LogSettings
from recording.errors import CorruptRecordingError
from recording.format.content import RecordingKind
from recording.keys.build import build_provider, slot_keys
from recording.verify import RecordingState

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

_LEVELS = [level.value for level in LogLevel]


def register(subparsers: Subparsers) -> None:
    """Add the group and its command."""
    group = add_group(
        subparsers,
        "log",
        summary="Read the sealed log file.",
        example="b2bua log show -c lab/b2bua.toml --reason incident-review",
    )
    parser = add_command(
        group,
        "show",
        summary="Decrypt lines of the log file. The audit log says that it was read, and why.",
        example="""
            b2bua log show -c lab/b2bua.toml --reason incident-review
            b2bua log show -c lab/b2bua.toml --reason incident-review --since 2026-03-01 --level error --json
        """,
        run=run_show,
    )
    add_configuration(parser)
    parser.add_argument(
        "--reason", metavar="WORD", required=True, help="why, as one word: it goes into the audit log"
    )
    parser.add_argument("--since", metavar="TIME", type=parse_time, help="from then on, RFC 3339")
    parser.add_argument("--until", metavar="TIME", type=parse_time, help="before then")
    parser.add_argument("--event", metavar="EVENT", help="only this event")
    parser.add_argument("--level", choices=_LEVELS, default=_LEVELS[0], help="only this severe or more")
    add_json(parser)


def run_show(arguments: argparse.Namespace) -> int:
    """Print what was asked for, in the order of writing. A damaged file is told, and makes the exit code."""
    settings = config.load(configuration_path(arguments))
    directory = settings.log.directory
    if directory is None:
        raise CommandError("this configuration has no sealed log file; add directory and key to [log]")
    if not directory.is_dir():
        raise CommandError(f"{directory}: there is no log yet")
    note_now(settings.audit, AuditLine(event=AuditEvent.LOG_READ, reason=arguments.reason))
    found: list[Mapping[str, Any]] = []
    damaged: list[SealedFile] = []
    for file in _in_order(settings.log, directory):
        if file.state is None or file.state is RecordingState.CORRUPT:
            damaged.append(file)
        found += [line for line in _lines(file) if _is_wanted(line, arguments)]
    if arguments.json:
        output.print_json({"lines": found, "damaged": [file.name.path.name for file in damaged]})
    else:
        output.print_table(["at", "level", "event", "about"], [_row(line) for line in found])
    for file in damaged:
        output.print_error(f"{file.name.path}: {file.problem}")
    return CorruptRecordingError.exit_code if damaged else 0


def _in_order(log: LogSettings, directory: Path) -> Iterator[SealedFile]:
    assert log.key is not None
    assert log.key_name is not None
    keys = slot_keys([build_provider(log.key_name, log.key)])
    return read_files(directory, keys=keys, kind=RecordingKind.LOG)


def _lines(file: SealedFile) -> Iterator[Mapping[str, Any]]:
    for stored in file.lines:
        text = stored.decode("utf-8", "replace").rstrip("\n")
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        yield line if isinstance(line, dict) else {"event": text}


def _is_wanted(line: Mapping[str, Any], arguments: argparse.Namespace) -> bool:
    if arguments.event is not None and line.get("event") != arguments.event:
        return False
    level = line.get("level")
    if level in _LEVELS and _LEVELS.index(level) < _LEVELS.index(arguments.level):
        return False
    try:
        at = datetime.fromisoformat(str(line.get("at")))
    except ValueError:
        return arguments.since is None and arguments.until is None
    return (arguments.since is None or at >= arguments.since) and (
        arguments.until is None or at < arguments.until
    )


def _row(line: Mapping[str, Any]) -> list[object]:
    known = ("at", "level", "event")
    about = " ".join(f"{name}={value}" for name, value in line.items() if name not in known)
    return [*(line.get(name) for name in known), about]
