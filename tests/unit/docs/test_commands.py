"""Every command that a page shows can be typed: it exists, takes these options, and parses where it is shown whole."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from b2bua.cli.main import COMMANDS, build_parser
from b2bua.metrics import Metrics

ROOT = Path(__file__).parents[3]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SOURCES = "\n".join(
    path.read_text() for package in ("b2bua", "recording", "tls") for path in (ROOT / package).rglob("*.py")
)
_STARTS = re.compile(r"^(?:\.venv/bin/)?b2bua ")
_OPERATOR = re.compile(r"\|\|?|&&|;|[0-9]*[<>].*")


def pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return build_parser(COMMANDS)


def whole_commands(text: str) -> Iterator[list[str]]:
    """Commands on a line of their own, in an indented or fenced block: the words of each, up to a shell operator."""
    for line in text.splitlines():
        stripped = line.strip()
        if line.startswith("    ") and _STARTS.match(stripped):
            for part in re.split(r"\s(?:&&|\|)\s", stripped):
                if _STARTS.match(part):
                    yield words_of(part)


def mentioned_commands(text: str) -> Iterator[list[str]]:
    """Commands in running text, as code; they may leave arguments out."""
    for code in re.findall(r"`([^`\n]+)`", text):
        if _STARTS.match(code):
            yield words_of(code)


def words_of(command: str) -> list[str]:
    words = shlex.split(command, comments=True)[1:]
    end = next((at for at, word in enumerate(words) if _OPERATOR.fullmatch(word)), len(words))
    return words[:end]


def resolve(parser: argparse.ArgumentParser, words: list[str]) -> str | None:
    """What is wrong with a command whose arguments may be missing; None if nothing is."""
    for word in words:
        groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
        if word.startswith("-") and word != "-":  # which alone is standard input
            if word.partition("=")[0] not in parser._option_string_actions:
                return f"{parser.prog} has no option {word}"
        elif groups:
            for name in word.split("|"):  # a page may name several at once
                if name not in groups[0].choices:
                    return f"{parser.prog} has no command {name}"
            parser = groups[0].choices[name]
    return None


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_shown_whole_parse(page: Path, parser: argparse.ArgumentParser) -> None:
    for words in whole_commands(page.read_text()):
        try:
            parser.parse_args(words)
        except SystemExit:
            pytest.fail(f"{page.name}: b2bua {' '.join(words)}")


def examples(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    """The commands that the help of `parser` and of all below it shows."""
    shown = (parser.epilog or "").replace("\\\n", " ")
    for line in shown.splitlines():
        for part in line.strip().split(" && "):
            if _STARTS.match(part):
                yield words_of(part)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from examples(child)


def test_the_examples_of_every_help_parse(parser: argparse.ArgumentParser) -> None:
    shown = list(examples(parser))
    assert len(shown) > 60
    for words in shown:
        try:
            parser.parse_args(words)
        except SystemExit:
            pytest.fail(f"b2bua {' '.join(words)}")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_mentioned_exist(page: Path, parser: argparse.ArgumentParser) -> None:
    wrong = [
        f"`b2bua {' '.join(words)}`: {problem}"
        for words in mentioned_commands(page.read_text())
        if (problem := resolve(parser, words)) is not None
    ]
    assert wrong == []


def test_a_wrong_command_would_be_found(parser: argparse.ArgumentParser) -> None:
    assert resolve(parser, ["recordings", "recover"]) is None
    assert resolve(parser, ["recordings", "bake"]) == "b2bua recordings has no command bake"
    assert resolve(parser, ["posture", "x.toml", "--xml"]) == "b2bua posture has no option --xml"
    assert resolve(parser, ["recordings", "list|bake"]) == "b2bua recordings has no command bake"
    assert resolve(parser, ["recordings", "find", "--number", "-"]) is None
    assert list(mentioned_commands("see `b2bua bake --hot`")) == [["bake", "--hot"]]
    (shown,) = whole_commands("x\n\n    b2bua posture a.toml > b.json  # note\n")
    assert shown == ["posture", "a.toml"]
    with pytest.raises(SystemExit):
        parser.parse_args(["recordings", "verify", "--every"])


def test_operations_shows_commands() -> None:
    """The two tests above would pass on a page without any."""
    assert len(list(whole_commands(OPERATIONS))) > 8
    assert len(list(mentioned_commands(OPERATIONS))) > 15


def test_the_metrics_of_the_alert_rules_exist() -> None:
    suffix = {"counter": "_total", "histogram": "_bucket", "gauge": ""}
    known = {metric.name + suffix[metric.type] for metric in Metrics().registry.collect()}
    used = set(re.findall(r"\bsealtrunk_[a-z_]+", OPERATIONS))
    assert len(used) > 10
    assert used <= known


def test_the_labels_of_the_alert_rules_exist() -> None:
    """A rule on a label that no series has never fires."""
    labels = {metric._name: set(metric._labelnames) for metric in collectors()}
    used = re.findall(r"\b(sealtrunk_[a-z_]+?)(?:_total|_bucket)?\{([a-z]+)[!=~]+\"([a-z_]+)\"\}", OPERATIONS)
    grouped = re.findall(
        r"by \(([a-z]+)\) \((?:increase\()?(sealtrunk_[a-z_]+?)(?:_total)?[{\[)]", OPERATIONS
    )
    assert len(used) > 3
    assert len(grouped) > 2
    for name, label, value in used:
        assert label in labels[name], (name, label)
        assert f'"{value}"' in SOURCES, value
    for label, name in grouped:
        assert label in labels[name], (name, label)


def collectors() -> set[MetricWrapperBase]:
    return {each for each in vars(Metrics()).values() if isinstance(each, MetricWrapperBase)}


def test_every_name_that_the_page_shows_as_code_is_one_of_ours() -> None:
    """Audit events, reasons, findings, keys of the configuration: what nobody writes nobody finds."""
    names = {
        part
        for code in re.findall(r"`([a-z]+(?:[._][a-z]+)+)`", OPERATIONS)
        for part in code.split(".")
        if not code.endswith((".toml", ".md", ".cnf"))
    }
    assert len(names) > 20
    assert {name for name in names if re.search(rf"\b{name}\b", SOURCES) is None} == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_anchors_of_a_page_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    anchors = {
        re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([a-z0-9_-]+)\)", text)) <= anchors


def test_the_long_pages_link_within_themselves() -> None:
    """The test above would pass on pages without a link."""
    assert "](#backup-and-restore)" in OPERATIONS
