"""The report as data: its verdict, what may be accepted, and the three forms it is shown in."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

import b2bua.posture
from b2bua.posture.html import build_page
from b2bua.posture.report import Level, Report, Row, Safeguard, worst
from b2bua.posture.text import head_lines, sections

FORBIDDEN = re.compile(r"validated|compliant", re.IGNORECASE)


def row(key: str, level: Level, *, safeguard: Safeguard = Safeguard.TLS, finding: str = "found") -> Row:
    return Row(
        key=key,
        safeguard=safeguard,
        subject=f"subject of {key}",
        finding=finding,
        evidence="seen",
        level=level,
    )


def report(*rows: Row, accepted: frozenset[str] = frozenset()) -> Report:
    return Report(
        at=datetime(2026, 11, 24, 10, 30, tzinfo=UTC),
        took_s=1.26,
        program="sealtrunk 0",
        environment="production",
        rows=rows,
        limits=("what <nobody> knows",),
        accepted=accepted,
    )


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ([], Level.OK),
        ([Level.OK, Level.OK], Level.OK),
        ([Level.OK, Level.UNKNOWN], Level.ATTENTION),
        ([Level.ATTENTION, Level.OK], Level.ATTENTION),
        ([Level.ATTENTION, Level.ALARM, Level.UNKNOWN], Level.ALARM),
    ],
)
def test_the_worst_row_decides(levels: list[Level], verdict: Level) -> None:
    assert report(*(row(f"k{n}", level) for n, level in enumerate(levels))).verdict is verdict


def test_unknown_is_worse_than_ok_and_better_than_what_was_seen() -> None:
    assert worst([Level.OK, Level.UNKNOWN]) is Level.UNKNOWN
    assert worst([Level.ATTENTION, Level.UNKNOWN]) is Level.ATTENTION


def test_what_was_accepted_no_longer_counts_and_is_still_shown() -> None:
    made = report(row("a", Level.ATTENTION), row("b", Level.OK), accepted=frozenset({"a"}))
    assert made.verdict is Level.OK
    assert made.counts[Level.ATTENTION] == 1
    assert "attention (accepted)" in str(list(sections(made)))
    assert "(accepted)" in build_page(made)


def test_an_alarm_cannot_be_accepted() -> None:
    made = report(row("a", Level.ALARM), accepted=frozenset({"a"}))
    assert made.verdict is Level.ALARM
    assert "(accepted)" not in build_page(made)


def test_every_safeguard_is_in_every_form() -> None:
    made = report(row("a", Level.OK))
    found = made.as_json()
    assert [each["safeguard"] for each in found["safeguards"]] == [each.name.lower() for each in Safeguard]
    page = build_page(made)
    for safeguard in Safeguard:
        assert safeguard.need.replace("'", "&#x27;") in page
        assert safeguard.rule in page


def test_a_safeguard_that_nothing_was_found_about_is_not_ok() -> None:
    (media,) = [each for each in report().as_json()["safeguards"] if each["safeguard"] == "media"]
    assert media["level"] == "unknown"


def test_rows_stand_under_their_safeguard_the_worst_first() -> None:
    made = report(
        row("a", Level.OK, safeguard=Safeguard.AUDIT),
        row("b", Level.ALARM, safeguard=Safeguard.AUDIT),
        row("c", Level.OK),
    )
    found = dict(made.by_safeguard())
    assert [each.key for each in found[Safeguard.AUDIT]] == ["b", "a"]
    assert [each.key for each in found[Safeguard.TLS]] == ["c"]


def test_json_can_be_read_back() -> None:
    found = json.loads(json.dumps(report(row("a", Level.ATTENTION)).as_json()))
    assert found["verdict"] == "attention"
    assert found["at"] == "2026-11-24T10:30:00+00:00"
    assert found["took_s"] == 1.3
    assert found["counts"] == {"ok": 0, "unknown": 0, "attention": 1, "alarm": 0}
    assert found["safeguards"][0]["findings"] == [
        {
            "key": "a",
            "subject": "subject of a",
            "finding": "found",
            "evidence": "seen",
            "level": "attention",
            "accepted": False,
        }
    ]
    assert found["cannot_know"] == ["what <nobody> knows"]


class _Page(HTMLParser):
    """Collects tags and whatever could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [name for name, _ in attrs if name in {"src", "href", "srcset", "action", "data"}]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_and_runs_nothing() -> None:
    parser = _Page()
    page = build_page(report(row("a", Level.ALARM)))
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert parser.links == []
    assert not {"script", "link", "img", "iframe", "object"} & set(parser.tags)
    assert "@import" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_the_page_knows_the_dark_and_paper() -> None:
    page = build_page(report(row("a", Level.ALARM)))
    assert "@media (prefers-color-scheme: dark)" in page
    assert "@media print" in page
    assert "✗ alarm" in page, "colour alone says nothing on paper"


def test_what_stands_in_the_page_cannot_change_it() -> None:
    page = build_page(report(row("a", Level.OK, finding='<script>alert("1")</script>')))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "what &lt;nobody&gt; knows" in page


def test_the_text_says_when_and_how_it_came_out() -> None:
    first, second = head_lines(report(row("a", Level.OK), row("b", Level.ALARM)))
    assert "2026-11-24 10:30:00Z" in first
    assert second == "verdict: alarm (1 ok, 1 alarm)"


def test_no_word_that_only_an_assessor_may_use_is_in_the_program() -> None:
    for path in Path(b2bua.posture.__file__).parent.glob("*.py"):
        assert FORBIDDEN.search(path.read_text()) is None, path
