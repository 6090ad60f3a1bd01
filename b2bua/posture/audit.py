"""The audit log and exports, as this configuration has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from b2bua.errors import JournalError
from b2bua.journal.head import read_head_file
from b2bua.journal.segment import segment_names
from b2bua.posture.report import Level, Row, Safeguard
from b2bua.settings import Settings
from recording.errors import RecordingError
from recording.reader import read_head


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
        judge_form() if audit.directory is None else judge_sealed(audit.directory, audit.key_name),
        Row(
            key="exports.sealed",
            safeguard=Safeguard.EXPORTS,
            subject="exports",
            finding="sealed to a recipient's certificate (CMS, AES-256-GCM) by default; in clear only with a "
            "reason, mode 0600; each is audited",
            evidence="the program's own parts; what was exported stands in the audit log",
            level=Level.OK,
        ),
    ]


def judge_form() -> Row:
    """Lines in clear, which the configuration allows for development."""
    return _form(
        "lines in clear, not chained; none has a field for a number or a name",
        "the configuration, as the program itself reads it",
        Level.ATTENTION,
    )


def judge_sealed(directory: Path, key_name: str | None) -> Row:
    """Whether what lies in the directory is what it should be; to open it takes a key that a report has no use for."""
    if not directory.is_dir():
        return _form(f"sealed under the key {key_name}; nothing was written yet", str(directory), Level.OK)
    names = segment_names(directory)
    foreign = [name.path.name for name in names if not _is_container(name.path)]
    missing = _missing_numbers([name.number for name in names])
    evidence = f"the heads of {len(names)} files in {directory}"
    if foreign:
        return _form(
            f"{len(foreign)} files are no sealed containers, {foreign[0]} first", evidence, Level.ALARM
        )
    if missing:
        return _form(f"{missing} files are missing in between", evidence, Level.ALARM)
    try:
        has_head = read_head_file(directory) is not None
    except JournalError as error:
        return _form(str(error), evidence, Level.ALARM)
    if names and not has_head:
        return _form("the file that says where the chain stands is missing", evidence, Level.ALARM)
    return _form(
        f"sealed under the key {key_name} and chained, {len(names)} files; whether it is whole: b2bua audit verify",
        evidence,
        Level.OK,
    )


def _missing_numbers(numbers: Sequence[int]) -> int:
    """How many there are not between the first, which may have expired, and the last."""
    return len(set(range(min(numbers), max(numbers))) - set(numbers)) if numbers else 0


def _is_container(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            read_head(file)
    except RecordingError:
        return False
    return True


def _form(finding: str, evidence: str, level: Level) -> Row:
    return Row(
        key="audit.sealed",
        safeguard=Safeguard.AUDIT,
        subject="form of the audit log",
        finding=finding,
        evidence=evidence,
        level=level,
    )
