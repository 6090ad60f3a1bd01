"""How every command's arguments are declared: one line of help, an example, and where the configuration comes from."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from b2bua import config
from b2bua.errors import CommandError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_LIMIT_MAX = 10_000_000
Run = Callable[[argparse.Namespace], int]


def add_command(
    subparsers: Subparsers, name: str, *, summary: str, example: str, run: Run
) -> argparse.ArgumentParser:
    """A parser for one command; `run` becomes `arguments.run`.

    Args:
        subparsers: where the command belongs.
        name: as typed.
        summary: one sentence, for this command's help and its parent's list.
        example: command lines a reader can copy, one a line.
        run: does the work and returns the exit code; errors of the product's roots are the caller's business.
    """
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n{textwrap.indent(textwrap.dedent(example).strip(), '  ')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_group(subparsers: Subparsers, name: str, *, summary: str, example: str) -> Subparsers:
    """A command that only has sub-commands; naming none of them is an error that lists them."""
    parser = add_command(subparsers, name, summary=summary, example=example, run=_no_command)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _no_command(arguments: argparse.Namespace) -> int:
    raise AssertionError(f"argparse let a group run: {arguments}")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`: one JSON object on standard output, for scripts."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def add_limit(parser: argparse.ArgumentParser) -> None:
    """`--limit`: how many entries at most."""
    parser.add_argument(
        "--limit", metavar="N", type=_limit, default=100, help="at most so many (default: 100)"
    )


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= _LIMIT_MAX:
        raise argparse.ArgumentTypeError(f"give a number from 1 to {_LIMIT_MAX}")
    return int(text)


def add_configuration(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """The configuration file, as an argument or as `--config`; the environment may name it instead."""
    help_text = f"configuration file (default: ${config.PATH_VARIABLE})"
    if positional:
        parser.add_argument("config", metavar="CONFIG", type=Path, nargs="?", help=help_text)
    else:
        parser.add_argument("-c", "--config", metavar="FILE", type=Path, help=help_text)


def configuration_path(arguments: argparse.Namespace) -> Path:
    """The file that `add_configuration` found.

    Raises:
        CommandError: none was named.
    """
    path: Path | None = arguments.config or config.default_path()
    if path is None:
        raise CommandError(f"no configuration was named; give its path or set {config.PATH_VARIABLE}")
    return path
