"""The audit log and exports, as this configuration has them."""

from __future__ import annotations

from collections.abc import Sequence

from b2bua.posture.report import Level, Row, Safeguard
from b2bua.settings import Settings


def ask_audit(settings: Settings) -> Sequence[Row]:
    """Where audit lines go, and in what form; how recordings are exported."""
    audit = settings.audit
    place = audit.directory or audit.path
    return [
        Row(
            key="audit.place",
            safeguard=Safeguard.AUDIT,
            subject="audit log",
            finding="lines go to standard error: whoever collects them must keep them"
            if place is None
            else f"{place}",
            evidence="the configuration, as the program itself reads it",
            level=Level.ATTENTION if place is None else Level.OK,
        ),
        Row(
            key="audit.sealed",
            safeguard=Safeguard.AUDIT,
            subject="form of the audit log",
            finding="lines in clear, not chained; none has a field for a number or a name"
            if audit.directory is None
            else f"sealed under the key {audit.key_name} and chained; `b2bua audit verify` says whether it is whole",
            evidence="the configuration, as the program itself reads it",
            level=Level.ATTENTION if audit.directory is None else Level.OK,
        ),
        Row(
            key="exports.sealed",
            safeguard=Safeguard.EXPORTS,
            subject="exports",
            finding="plain WAV in this version, each audited",
            evidence="the program's own parts",
            level=Level.ATTENTION,
        ),
    ]
