"""What a command prints: results on standard output, everything about its progress on standard error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 240
"""Columns where the output is no terminal: wide enough that a path or fingerprint isn't folded."""


_UNSHOWABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, or turns the order of what stands there; a Call-ID of a peer's may hold any."""


def showable(text: str) -> str:
    """The text with what a terminal would act on written out."""
    return _UNSHOWABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_json(value: Mapping[str, object]) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(f"{json.dumps(value, indent=2)}\n")


def print_line(text: str = "") -> None:
    """A line of a result."""
    sys.stdout.write(f"{showable(text)}\n")


def print_error(text: str) -> None:
    """Each line of an error, on standard error."""
    for line in text.splitlines():
        sys.stderr.write(f"b2bua: {showable(line)}\n")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> None:
    """A table of a result. Cells are no markup, and nothing in them reaches the terminal but characters."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else showable(str(cell))) for cell in row))
    target = console(stderr=False)
    with target.capture() as captured:
        target.print(table)
    sys.stdout.write(captured.get())


class _Console(Console):
    """rich ends the process with 1 where the reader has gone; what that means is `main`'s to say."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - called while BrokenPipeError is being handled


def console(*, stderr: bool = True) -> Console:
    """A console that folds at the terminal's width, or late where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return _Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def progress_bar() -> Progress:
    """A progress bar on standard error; it draws nothing where that is no terminal."""
    target = console()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=target,
        disable=not target.is_terminal,
        transient=True,
    )
