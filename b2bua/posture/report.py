"""The posture report as data: safeguards, the rules they serve, and rows of findings. Pure; no probe, no clock.

The words that only an assessor may use of a product are not used here, nor anywhere in a report.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


class Level(enum.Enum):
    """How a finding stands. `unknown` counts as attention: what could not be shown is not there."""

    OK = "ok"
    UNKNOWN = "unknown"
    ATTENTION = "attention"
    ALARM = "alarm"


_SEVERITY = (Level.OK, Level.UNKNOWN, Level.ATTENTION, Level.ALARM)


class Safeguard(enum.Enum):
    """What the product undertakes to do: need, and the rules that ask for it."""

    TLS = (
        "TLS 1.3 on every endpoint and internal hop",
        "45 CFR 164.312(e)(1), (e)(2)(ii); NIST SP 800-52 rev. 2",
    )
    MEDIA = (
        "SRTP for all media, SIP over TLS for trunks",
        "45 CFR 164.312(e)(1), (e)(2)(ii)",
    )
    AT_REST = (
        "AES-256-GCM at rest; nothing readable touches a disk",
        "45 CFR 164.312(a)(2)(iv); NIST SP 800-111",
    )
    KEYS_APART = (
        "Keys from a FIPS 140 HSM or cloud KMS, outside the data's trust boundary",
        "74 FR 19006 (HHS guidance on unsecured PHI); NIST SP 800-57 part 1",
    )
    KEY_AGE = (
        "Data keys at most 90 days old, key-encryption keys renewed yearly, revocable",
        "NIST SP 800-57 part 1, section 5.3",
    )
    TENANTS = (
        "Keys per tenant, the same posture for every tenant",
        "45 CFR 164.312(a)(1)",
    )
    AUDIT = (
        "Audit controls: every access and refusal, hash-chained and sealed",
        "45 CFR 164.312(b)",
    )
    INTEGRITY = (
        "Recordings are whole, kept as long as they must be and no longer",
        "45 CFR 164.312(c)(1), (c)(2); 164.310(d)(2)(i)",
    )
    EXPORTS = (
        "Exports and logs leave sealed",
        "45 CFR 164.312(e)(2)(ii), 164.312(a)(2)(iv)",
    )
    TOKENS = (
        "Short-lived tokens under rotating asymmetric keys",
        "45 CFR 164.312(d)",
    )
    EVIDENCE = (
        "Evidence for a security risk analysis",
        "45 CFR 164.308(a)(1)(ii)(A)",
    )

    @property
    def need(self) -> str:
        """What is undertaken."""
        return self.value[0]

    @property
    def rule(self) -> str:
        """Where it is asked for."""
        return self.value[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finding.

    `key` is stable, for monitoring and for `posture.accepted`; `evidence` is the probe that showed the finding.
    """

    key: str
    safeguard: Safeguard
    subject: str
    finding: str
    evidence: str
    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All rows of one run. `limits` are the things that no probe of ours can know; `at` is aware UTC.

    `accepted` are keys of rows whose `attention` the operator has taken note of: shown, but not in `verdict`.
    """

    at: datetime
    took_s: float
    program: str
    environment: str
    rows: tuple[Row, ...]
    limits: tuple[str, ...]
    accepted: frozenset[str] = frozenset()

    @property
    def verdict(self) -> Level:
        """The worst level that counts: ok, attention or alarm."""
        counting = [row.level for row in self.rows if not self.is_accepted(row)]
        found = worst(counting)
        return Level.ATTENTION if found is Level.UNKNOWN else found

    @property
    def counts(self) -> Mapping[Level, int]:
        """Rows by level; every level has an entry."""
        found = Counter(row.level for row in self.rows)
        return {level: found[level] for level in Level}

    def is_accepted(self, row: Row) -> bool:
        """Whether the operator took note of this. An alarm can't be accepted."""
        return row.key in self.accepted and row.level is not Level.ALARM

    def by_safeguard(self) -> Sequence[tuple[Safeguard, tuple[Row, ...]]]:
        """Every safeguard in its order, with its rows, worst first."""
        return [
            (
                safeguard,
                tuple(
                    sorted(
                        (row for row in self.rows if row.safeguard is safeguard),
                        key=lambda row: -_SEVERITY.index(row.level),
                    )
                ),
            )
            for safeguard in Safeguard
        ]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON has it; keys and words of `Level` are stable."""
        return {
            "at": self.at.astimezone(UTC).isoformat(timespec="seconds"),
            "took_s": round(self.took_s, 1),
            "program": self.program,
            "environment": self.environment,
            "verdict": self.verdict.value,
            "counts": {level.value: count for level, count in self.counts.items()},
            "safeguards": [
                {
                    "safeguard": safeguard.name.lower(),
                    "need": safeguard.need,
                    "rule": safeguard.rule,
                    "level": worst(row.level for row in rows).value if rows else Level.UNKNOWN.value,
                    "findings": [
                        {
                            "key": row.key,
                            "subject": row.subject,
                            "finding": row.finding,
                            "evidence": row.evidence,
                            "level": row.level.value,
                            "accepted": self.is_accepted(row),
                        }
                        for row in rows
                    ],
                }
                for safeguard, rows in self.by_safeguard()
            ],
            "cannot_know": list(self.limits),
        }


def worst(levels: Collection[Level] | Any) -> Level:
    """The most severe of `levels`; ok where there is none."""
    return max(levels, key=_SEVERITY.index, default=Level.OK)
