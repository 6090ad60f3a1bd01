"""The entry point: finds the command's module, runs it, and turns the product's errors into lines and exit codes."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from b2bua import log
from b2bua.cli import output
from b2bua.core_dump import forbid_dumping
from b2bua.errors import B2BUAError
from b2bua.settings import LogLevel, LogSettings
from recording.errors import RecordingError
from tls.errors import TLSError

COMMANDS = (
    "init",
    "check",
    "serve",
    "calls",
    "demo",
    "recordings",
    "index",
    "keys",
    "tls",
    "audit",
    "log",
    "posture",
)
"""Each is the module of that name in this package."""

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
OUTPUT_CLOSED = 141
"""128 + SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments without the program's name; None: those of the process.

    Returns:
        What `run_command` returns. Bad arguments end the process with 2, as argparse does.
    """
    words = sys.argv[1:] if argv is None else argv
    log.set_up(LogSettings(level=LogLevel.WARNING))
    return run_command(build_parser(_modules(words)).parse_args(words))


def run_command(arguments: argparse.Namespace) -> int:
    """Call `arguments.run` and make lines of the product's errors. A defect of ours comes through as it is.

    Returns:
        0, or the `exit_code` of the error that ended the command; docs/errors.md lists them.
    """
    try:
        forbid_dumping()  # most commands hold a key or plaintext sooner or later
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except (B2BUAError, RecordingError, TLSError) as error:
        output.print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who read the output has gone; the interpreter must not try to flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    return code


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **settings)

    def __call__(self, *_: Any) -> NoReturn:
        import importlib.metadata  # noqa: PLC0415 - of use to this alone, and slow to load

        output.print_line(f"sealtrunk {importlib.metadata.version('sealtrunk')}")
        sys.exit(0)


def build_parser(names: Iterable[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser with the commands `names`. Loading only the one that is asked for keeps the others' libraries out."""
    parser = argparse.ArgumentParser(
        prog="b2bua",
        description="Secure SIP back-to-back user agent: TLS 1.3 and SRTP only, recorded encrypted as it runs.",
        epilog="example:\n  b2bua init lab && b2bua check lab/b2bua.toml && b2bua serve lab/b2bua.toml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in names:
        module = f"{__package__}.{name}"
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module).register(subparsers)
    return parser


def _modules(words: Sequence[str]) -> Sequence[str]:
    command = next((word for word in words if not word.startswith("-")), None)
    return (command,) if command in COMMANDS else COMMANDS
