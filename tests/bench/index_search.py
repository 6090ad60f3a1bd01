"""Search by number in an SQLite index of a million rows, as `b2bua recordings find --number` asks it."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from recording.index import IndexEntry, IndexState, RecordingIndex, SealedParties
from recording.index.search_key import SearchKey, create_search_key

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TENANT = b"T" * 16
BATCH = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """`rows` entries of `numbers` parties; each of `searches` looks for one number and for nothing else."""

    rows: int = 1_000_000
    numbers: int = 200_000
    searches: int = 300


def measure_search(plan: SearchPlan, directory: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds from a number to the entries, the blind index included; and that they are the right ones."""
    directory.mkdir(parents=True)
    create_search_key(directory / "search.key")
    key = SearchKey(directory / "search.key")
    with closing(RecordingIndex(directory / "index.sqlite")) as index:
        say(f"index: filling {plan.rows} rows")
        began = time.monotonic()
        for first in range(0, plan.rows, BATCH):
            index.put([_entry(key, plan, row) for row in range(first, min(first + BATCH, plan.rows))])
        filled_s = time.monotonic() - began
        say(f"index: {plan.searches} searches")
        times, wrong = [], 0
        for _ in range(plan.searches):
            number = secrets.randbelow(plan.numbers)
            began_ns = time.perf_counter_ns()
            blind = key.blind(TENANT, _number(number))
            assert blind is not None
            found = index.find(blind=[blind])
            times.append((time.perf_counter_ns() - began_ns) / 1e6)
            wrong += {entry.records for entry in found} != _rows_of(plan, number)
    return {
        "plan": asdict(plan),
        "rows_per_second": round(plan.rows / filled_s),
        "median_ms": round(statistics.median(times), 3),
        "search_ms": round(statistics.quantiles(times, n=100)[98], 3),
        "wrong": wrong,
    }


def _number(party: int) -> str:
    return f"+4930{party:09d}"


def _entry(key: SearchKey, plan: SearchPlan, row: int) -> IndexEntry:
    """`records` is the row's number, by which a search is judged."""
    return IndexEntry(
        file_id=secrets.token_bytes(16),
        recording=secrets.token_bytes(16),
        segment=0,
        call_uid=secrets.token_hex(16),
        tenant_handle=TENANT,
        state=IndexState.COMPLETE,
        provider=1,
        key_id="0123456789abcdef",
        started_hour=BEGAN + timedelta(hours=row % 8760),
        records=row,
        size_bytes=500_000,
        object_key=f"{TENANT.hex()}/2026/01/{secrets.token_hex(16)}.crec",
        trunk_a="pbx",
        trunk_b="carrier",
        parties=SealedParties(
            sealed=secrets.token_bytes(109),
            blind_from=key.blind(TENANT, _number(row % plan.numbers)),
            blind_to=key.blind(TENANT, "+49301"),
        ),
    )


def _rows_of(plan: SearchPlan, number: int) -> set[int]:
    return set(range(number, plan.rows, plan.numbers))
