"""`b2bua posture`: what each safeguard was found to be just now, for people, scripts, monitoring and paper."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from b2bua import config
from b2bua.cli import output
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.errors import CommandError, PostureAlarmError, PostureAttentionError
from b2bua.posture.html import build_page
from b2bua.posture.report import Level, Report
from b2bua.posture.run import make_report
from b2bua.posture.running import MonitorSettings
from b2bua.posture.text import head_lines, sections
from b2bua.settings import Settings

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

_FILE_MODE = 0o600


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "posture",
        summary="Probe every safeguard now and say what was found; exit code 0, or 98 for attention, 99 for alarm.",
        example="""
            b2bua posture lab/b2bua.toml
            b2bua posture lab/b2bua.toml --json
            b2bua posture lab/b2bua.toml --html posture.html
        """,
        run=run,
    )
    add_configuration(parser, positional=True)
    add_json(parser)
    parser.add_argument(
        "--monitor-certificate",
        metavar="FILE",
        type=Path,
        help="certificate of a client that metrics.clients names: reads the running service's metrics too",
    )
    parser.add_argument("--monitor-key", metavar="FILE", type=Path, help="its private key")
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="write one self-contained page too (mode 0600)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Probe, print, write, and end with the verdict."""
    settings = config.load(configuration_path(arguments))
    report = make_report(settings, _monitor(arguments, settings))
    if arguments.html is not None:
        write_page(arguments.html, build_page(report))
    if arguments.json:
        output.print_json(report.as_json())
    else:
        _print(report)
    return _end(report)


def _monitor(arguments: argparse.Namespace, settings: Settings) -> MonitorSettings | None:
    certificate, key = arguments.monitor_certificate, arguments.monitor_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise CommandError("--monitor-certificate and --monitor-key go together")
    if settings.metrics is None:
        raise CommandError("this configuration has no [metrics] table, so there is nothing to read")
    return MonitorSettings(certificate_path=certificate, private_key_path=key)


def write_page(path: Path, page: str) -> None:
    """Replace `path` by the page in one step; nobody finds half of it.

    Raises:
        CommandError: it can't be written there.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                os.fchmod(stream.fileno(), _FILE_MODE)
                stream.write(page)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}; name a file that can be written") from error


def _print(report: Report) -> None:
    for line in head_lines(report):
        output.print_line(line)
    for need, rule, cells in sections(report):
        output.print_line()
        output.print_line(need)
        output.print_line(f"  {rule}")
        output.print_table(["level", "what", "finding", "evidence"], cells)
    output.print_line()
    output.print_line("What this report cannot know:")
    for limit in report.limits:
        output.print_line(f"- {limit}")


def _end(report: Report) -> int:
    counting = [row for row in report.rows if row.level is not Level.OK and not report.is_accepted(row)]
    if report.verdict is Level.ALARM:
        alarms = [row for row in counting if row.level is Level.ALARM]
        raise PostureAlarmError("\n".join(f"alarm: {row.key}: {row.finding}" for row in alarms))
    if report.verdict is Level.ATTENTION:
        raise PostureAttentionError(
            "\n".join(f"{row.level.value}: {row.key}: {row.finding}" for row in counting)
        )
    return 0
