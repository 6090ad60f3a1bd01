"""The report as one HTML page: no script, nothing fetched from anywhere, light and dark, fit for paper."""

from __future__ import annotations

import html

from b2bua.posture.report import Level, Report, Row, Safeguard, worst
from tls.certificate import utc_text

_STYLE = """\
:root { color-scheme: light dark; --ink: #1a1d21; --soft: #555d66; --paper: #fff; --line: #d5dae0; --band: #f4f6f8;
  --ok: #17693b; --unknown: #5b5f66; --attention: #8a5a00; --alarm: #a4161a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a2a9b1; --paper: #14171a; --line: #343a41;
  --band: #1d2125; --ok: #6fcf97; --unknown: #a8adb4; --attention: #f2b84b; --alarm: #ff7b7b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem; max-width: 68rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.5rem; }
h2 { margin: 2rem 0 0; font-size: 1.1rem; }
p { margin: .25rem 0; }
.soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { width: 100%; margin-top: .5rem; border-collapse: collapse; font-size: .9rem; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
th { background: var(--band); font-weight: 600; }
td:first-child, th:first-child { width: 8.5rem; }
.rows td:nth-child(2) { width: 15rem; } .rows td:nth-child(4) { width: 16rem; }
.level { font-weight: 600; white-space: nowrap; }
.ok { color: var(--ok); } .unknown { color: var(--unknown); }
.attention { color: var(--attention); } .alarm { color: var(--alarm); }
@media print { :root { color-scheme: light; --ink: #000; --soft: #333; --paper: #fff; --line: #999; --band: #eee;
  --ok: #000; --unknown: #000; --attention: #000; --alarm: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; } tr { break-inside: avoid; }
  .wide { overflow: visible; } thead { display: table-header-group; } }
"""
_SIGNS = {Level.OK: "✓", Level.UNKNOWN: "?", Level.ATTENTION: "!", Level.ALARM: "✗"}
"""Beside the word, so that paper and eyes without colour tell them apart at a glance."""


def build_page(report: Report) -> str:
    """The page. Every text in it is escaped."""
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>Posture report, {_text(utc_text(report.at))}</title>",
        f"<style>\n{_STYLE}</style>",
        "</head>",
        "<body>",
        *_head(report),
        *_summary(report),
        *(line for safeguard, rows in report.by_safeguard() for line in _section(report, safeguard, rows)),
        "<h2>What this report cannot know</h2>",
        "<ul>",
        *(f"<li>{_text(limit)}</li>" for limit in report.limits),
        "</ul>",
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _head(report: Report) -> list[str]:
    counts = ", ".join(f"{count} {level.value}" for level, count in report.counts.items() if count)
    return [
        "<header>",
        "<h1>Posture report</h1>",
        (
            f'<p class="soft">{_text(report.program)}, environment {_text(report.environment)}, probed '
            f"{_text(utc_text(report.at))} in {report.took_s:.1f} s</p>"
        ),
        f"<p>Verdict: {_level(report.verdict)} ({_text(counts)})</p>",
        "</header>",
    ]


def _summary(report: Report) -> list[str]:
    rows = [
        f'<tr><td class="level">{_level(worst(row.level for row in found) if found else Level.UNKNOWN)}</td>'
        f"<td>{_text(safeguard.need)}</td><td>{_text(safeguard.rule)}</td></tr>"
        for safeguard, found in report.by_safeguard()
    ]
    return ["<h2>Safeguards</h2>", *_table(("level", "safeguard", "rules it serves"), rows)]


def _section(report: Report, safeguard: Safeguard, rows: tuple[Row, ...]) -> list[str]:
    lines = [
        f'<tr><td class="level">{_level(row.level)}{" (accepted)" if report.is_accepted(row) else ""}</td>'
        f'<td>{_text(row.subject)}<br><span class="soft">{_text(row.key)}</span></td>'
        f"<td>{_text(row.finding)}</td><td>{_text(row.evidence)}</td></tr>"
        for row in rows
    ]
    return [
        f"<h2>{_text(safeguard.need)}</h2>",
        f'<p class="soft">{_text(safeguard.rule)}</p>',
        *_table(("level", "what", "finding", "evidence"), lines, kind="rows"),
    ]


def _table(columns: tuple[str, ...], rows: list[str], *, kind: str = "rules") -> list[str]:
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    return [
        f'<div class="wide"><table class="{kind}">',
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody></table></div>",
    ]


def _level(level: Level) -> str:
    return f'<span class="{level.value}">{_SIGNS[level]} {level.value}</span>'


def _text(value: str) -> str:
    return html.escape(value, quote=True)
