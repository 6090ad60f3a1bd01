"""The part of `python -m tests` that lives in pytest: it picks the tests of a phase, and counts how they came out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

_COUNTED = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("phases of the suite")
    group.addoption("--phase", choices=("together", "alone"), help="the tests to run")
    group.addoption("--tally", metavar="PATH", help="where the counts go, as JSON")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        is_alone = item.get_closest_marker("alone") is not None
        chosen[is_alone == (config.option.phase == "alone")].append(item)
    config.hook.pytest_deselected(items=chosen[False])
    items[:] = chosen[True]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Only the process that reports has a terminal; the workers have none."""
    counts = {outcome: len(terminalreporter.stats.get(outcome, ())) for outcome in _COUNTED}
    Path(config.option.tally).write_text(json.dumps(counts))
