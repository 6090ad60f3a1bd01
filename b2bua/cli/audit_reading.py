"""The audit log as its commands read it: opened with its key, judged as it is read, the reading itself audited."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from b2bua import config
from b2bua.audit import AuditEvent, AuditLine
from b2bua.cli import output
from b2bua.cli.auditing import note_now
from b2bua.cli.parser import configuration_path
from b2bua.errors import AuditFindingsError, CommandError
from b2bua.journal.chain import ChainedLine
from b2bua.journal.checkpoint import Checkpoints, read_checkpoints
from b2bua.journal.expiry import NAME as EXPIRY_NAME
from b2bua.journal.expiry import Expired, read_expired
from b2bua.journal.head import read_head_file
from b2bua.journal.read import SealedFile, read_files
from b2bua.journal.segment import segment_names
from b2bua.journal.verify import Finding, FindingKind, LogReport, verify_log
from b2bua.settings import Settings
from recording.format.content import RecordingKind
from recording.keys.build import build_provider, slot_keys
from recording.signing import Verifier
from recording.unlock import SlotKey
from recording.voucher import build_verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedAudit:
    """A log to read: the configured one, or a copy of it elsewhere."""

    settings: Settings
    directory: Path
    is_copy: bool
    checkpoints: Path | None

    def note(
        self, event: AuditEvent, *, reason: str, fingerprint: str | None = None, count: int | None = None
    ) -> None:
        """A durable line in the log itself that says it is read. Not in a copy.

        Raises:
            AuditError: it can't be written, so nothing is read; or the reason has not the form of one.
        """
        line = AuditLine(event=event, reason=reason, fingerprint=fingerprint, count=count)
        if not self.is_copy:
            note_now(self.settings.audit, line)

    def read(
        self,
        on_line: Callable[[ChainedLine], None] | None,
        *,
        doing: str,
        look: Callable[[Iterable[SealedFile], Expired | None], Iterable[SealedFile]] | None = None,
    ) -> LogReport:
        """Every line in order, with the verdict over the whole log. `look` is given the files as they are read.

        Raises:
            JournalError: the directory can't be read. RecordingError: the key provider did not answer.
        """
        verifier = build_verifier(self.settings.recording)
        kept = self._checkpoints(verifier)
        found = read_expired(self.directory, verifier)
        expired = found if isinstance(found, Expired) else None
        with output.progress_bar() as progress:
            head = read_head_file(self.directory)
            total = len(segment_names(self.directory))
            files: Iterable[SealedFile] = read_files(
                self.directory, keys=self._keys(), kind=RecordingKind.AUDIT
            )
            if look is not None:
                files = look(files, expired)
            report = verify_log(
                progress.track(files, total=total, description=doing),
                head=head,
                head_after=lambda: read_head_file(self.directory),
                anchors=kept.anchors,
                expired=expired,
                on_line=on_line,
            )
        report.findings += [Finding(kind=FindingKind.BAD_CHECKPOINT, what=what) for what in kept.problems]
        if isinstance(found, str):
            what = f"the statement of what expired: {found}"
            report.findings.append(Finding(kind=FindingKind.BAD_EXPIRY, what=what, file=EXPIRY_NAME))
        return report

    def _checkpoints(self, verifier: Verifier) -> Checkpoints:
        """Read before the head: what they vouch for is there by then."""
        if self.checkpoints is None:
            return Checkpoints()
        return read_checkpoints(self.checkpoints, verifier)

    def _keys(self) -> list[SlotKey]:
        audit = self.settings.audit
        assert audit.key is not None
        assert audit.key_name is not None
        return slot_keys([build_provider(audit.key_name, audit.key)])


def add_directory(parser: argparse.ArgumentParser) -> None:
    """`--directory` and `--checkpoints`: other places than the configured ones."""
    parser.add_argument(
        "--directory", metavar="DIR", type=Path, help="a copy of the log; nothing is written to it"
    )
    parser.add_argument(
        "--checkpoints", metavar="FILE", type=Path, help="signed heads of the log that were kept elsewhere"
    )


def finding_text(finding: Finding) -> str:
    """One line about what is wrong."""
    place = "" if finding.file is None else f"{finding.file}: "
    return f"{finding.kind.value}: {place}{finding.what}"


def print_findings(report: LogReport) -> int:
    """Each finding on standard error; the exit code that they amount to."""
    for finding in report.findings:
        output.print_error(finding_text(finding))
    return 0 if report.is_whole else AuditFindingsError.exit_code


def open_audit(arguments: argparse.Namespace) -> SealedAudit:
    """The log that the configuration names, or the copy in `--directory`.

    Raises:
        ConfigurationError: the file. CommandError: its audit log is not sealed, or there is no such directory.
    """
    settings = config.load(configuration_path(arguments))
    if settings.audit.directory is None:
        raise CommandError(
            "the audit log of this configuration is in clear: read it with any tool, it proves nothing"
        )
    copy: Path | None = arguments.directory
    directory = settings.audit.directory if copy is None else copy
    if not directory.is_dir():
        raise CommandError(f"{directory}: there is no audit log; one is made by the first line")
    kept: Path | None = arguments.checkpoints
    if kept is not None and not kept.is_file():
        raise CommandError(f"{kept}: there are no checkpoints")
    return SealedAudit(
        settings=settings,
        directory=directory,
        is_copy=copy is not None,
        checkpoints=kept if kept is not None or copy is not None else settings.audit.checkpoints_path,
    )
