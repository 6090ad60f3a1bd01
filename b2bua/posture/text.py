"""The report for a terminal, as rows of tables; `b2bua.cli.posture` prints them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from b2bua.posture.report import Report, Row
from tls.certificate import utc_text


def head_lines(report: Report) -> Sequence[str]:
    """What the report is about and how it came out."""
    counts = ", ".join(f"{count} {level.value}" for level, count in report.counts.items() if count)
    return (
        f"{report.program}, environment {report.environment}, probed {utc_text(report.at)} in {report.took_s:.1f} s",
        f"verdict: {report.verdict.value} ({counts})",
    )


def sections(report: Report) -> Iterator[tuple[str, str, Sequence[Sequence[str]]]]:
    """For each safeguard: its need, its rules, and cells of level, subject, finding and evidence."""
    for safeguard, rows in report.by_safeguard():
        if rows:
            yield safeguard.need, safeguard.rule, [_cells(report, row) for row in rows]


def _cells(report: Report, row: Row) -> Sequence[str]:
    level = f"{row.level.value} (accepted)" if report.is_accepted(row) else row.level.value
    return (level, row.key, row.finding, row.evidence)
