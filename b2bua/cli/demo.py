"""`b2bua demo`: one real secure call, recorded, verified, exported and scored; then once more in two channels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from b2bua.cli import output
from b2bua.cli.parser import add_command, add_json

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "demo",
        summary="Place a recorded call between two endpoints on this machine and score what was heard and recorded.",
        example="""
            b2bua demo
            b2bua demo --directory lab --json
        """,
        run=run,
    )
    parser.add_argument(
        "--directory",
        metavar="DIR",
        type=Path,
        default=Path("demo"),
        help="CA, keys, configuration and recordings; made if missing (default: demo)",
    )
    parser.add_argument(
        "--speech",
        metavar="DIR",
        type=Path,
        help="folder of 8 kHz speech prompts (default: fetched from Debian)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 0 only if everything is as promised."""
    # Only now: numpy and the endpoint are an extra that the other commands do without.
    from b2bua.demo.errors import ScoreError  # noqa: PLC0415
    from b2bua.demo.report import print_table  # noqa: PLC0415
    from b2bua.demo.run import DemoSettings, run_demo  # noqa: PLC0415

    progress = output.console()
    report = run_demo(
        DemoSettings(directory=arguments.directory, speech=arguments.speech),
        lambda text: progress.print(f"b2bua demo: {text}"),
    )
    if arguments.json:
        output.print_json(report.as_json())
    else:
        print_table(report, output.console(stderr=False))
    return 0 if report.passed else ScoreError.exit_code
