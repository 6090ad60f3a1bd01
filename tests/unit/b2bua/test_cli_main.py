"""The frame of the command line: errors become lines and exit codes, every command explains itself."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

import recording
from b2bua.cli import output
from b2bua.cli.main import INTERRUPTED, OUTPUT_CLOSED, build_parser, main, run_command
from b2bua.errors import B2BUAError
from recording.errors import RecordingError
from support.configuration import make_configuration
from tls.errors import TLSError


def parsers(
    parser: argparse.ArgumentParser, name: str = "b2bua"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command and group of commands, by what is typed."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                yield from parsers(child, f"{name} {word}")


@pytest.mark.parametrize(("name", "parser"), list(parsers(build_parser())), ids=lambda value: str(value)[:40])
def test_every_help_has_a_summary_and_an_example(name: str, parser: argparse.ArgumentParser) -> None:
    text = parser.format_help()
    assert "example:\n" in text
    assert f"\n  {name} " in text, "the example calls this command"
    assert parser.description


def test_no_command_is_an_error_that_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_the_version_is_that_of_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"sealtrunk {importlib.metadata.version('sealtrunk')}\n"


def test_what_peers_wrote_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """A Call-ID is shown to operators; an escape sequence in one could rewrite what they see."""
    said = "id\x1b[2J\x9b1A\u202e@h"
    output.print_table(["what"], [[said]])
    output.print_line(said)
    output.print_error(f"{said}\nz\u00fcrich \U0001f512")
    printed = capsys.readouterr()
    assert printed.out.count("id\\u001b[2J\\u009b1A\\u202e@h") == 2
    assert printed.err == "b2bua: id\\u001b[2J\\u009b1A\\u202e@h\nb2bua: z\u00fcrich \U0001f512\n"


def all_errors(root: type[Exception]) -> set[type[Exception]]:
    return {root}.union(*(all_errors(child) for child in root.__subclasses__()))


def test_exit_codes_are_unique_and_in_the_range_of_their_package() -> None:
    for module in pkgutil.walk_packages([str(Path(recording.__file__).parent)], "recording."):
        importlib.import_module(module.name)
    ranges: dict[type[Exception], Collection[int]] = {
        RecordingError: {*range(20, 50), *range(100, 120)},
        TLSError: range(50, 70),
        B2BUAError: range(70, 100),
    }
    found: dict[int, type[Exception]] = {}
    for root, codes in ranges.items():
        for error in all_errors(root):
            if "exit_code" not in vars(error):
                continue  # told apart by who catches it, not by its exit code
            code = vars(error)["exit_code"]
            assert code in codes, error
            assert code not in found, f"{error.__name__} and {found[code].__name__} share {code}"
            found[code] = error


def run_with(action: Callable[[argparse.Namespace], int]) -> int:
    return run_command(argparse.Namespace(run=action))


@pytest.mark.parametrize("root", [B2BUAError, RecordingError, TLSError])
def test_an_error_of_the_product_is_lines_and_its_exit_code(
    root: type[B2BUAError], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise root("one thing is wrong; mend it\nand another")

    assert run_with(fail) == root.exit_code
    assert capsys.readouterr().err == "b2bua: one thing is wrong; mend it\nb2bua: and another\n"


def test_a_command_returns_its_own_code() -> None:
    assert run_with(lambda _: 0) == 0
    assert run_with(lambda _: 3) == 3


def test_a_defect_of_ours_is_not_hidden() -> None:
    def fail(_: argparse.Namespace) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_with(fail)


def test_an_interrupt_is_no_traceback() -> None:
    def interrupt(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    assert run_with(interrupt) == INTERRUPTED


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path) -> None:
    path = make_configuration(tmp_path / "lab").path
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "b2bua", "check", str(path)], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == OUTPUT_CLOSED


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "b2bua", "check", "/nonexistent.toml"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 71
    assert done.stdout == ""
    assert done.stderr.startswith("b2bua: /nonexistent.toml: ")
