"""Whether an audit log is whole: no line cut, changed, moved, added or missing, and no file either.

What a directory alone can prove ends where somebody may write all of it: who rolls files and head back together
leaves a shorter log that is whole in itself. Signed checkpoints that were kept elsewhere show that too.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from b2bua.journal.chain import ChainedLine, ChainHead, genesis, read_line
from b2bua.journal.expiry import EXPIRED_EVENT, Expired, Expiry
from b2bua.journal.head import Head
from b2bua.journal.read import SealedFile
from recording.errors import MalformedContentError
from recording.verify import RecordingState


class FindingKind(enum.Enum):
    """What is wrong."""

    UNREADABLE = "unreadable"
    ALTERED = "altered"
    CUT = "cut"
    MISSING_FILE = "missing_file"
    MISSING_LINES = "missing_lines"
    REPEATED_LINE = "repeated_line"
    BROKEN_CHAIN = "broken_chain"
    ROLLED_BACK = "rolled_back"
    FOREIGN_FILE = "foreign_file"
    NO_HEAD = "no_head"
    BAD_CHECKPOINT = "bad_checkpoint"
    BAD_EXPIRY = "bad_expiry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. `file`: the file's name, `sequence`: the line's number, where it is about one."""

    kind: FindingKind
    what: str
    file: str | None = None
    sequence: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A file without an end that a line of the log accounts for: a writer died, nothing was taken away."""

    file: str
    marked_by: int | None


@dataclass(slots=True, kw_only=True)
class LogReport:
    """What was found. `head`: the last line that follows from the first without a break in between.

    `expired`: what a good statement says is gone from the front.
    """

    files: int = 0
    lines: int = 0
    head: ChainHead | None = None
    findings: list[Finding] = field(default_factory=list)
    crashes: list[Crash] = field(default_factory=list)
    checkpoints: int = 0
    expired: Expiry | None = None
    log_id: bytes | None = None

    @property
    def is_whole(self) -> bool:
        return not self.findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A head of the chain that is known from elsewhere, and where from."""

    log_id: bytes
    chain: ChainHead
    source: str


def verify_log(
    files: Iterable[SealedFile],
    *,
    head: Head | None,
    head_after: Callable[[], Head | None],
    anchors: Sequence[Anchor] = (),
    expired: Expired | None = None,
    on_line: Callable[[ChainedLine], None] | None = None,
) -> LogReport:
    """Judge a whole log, which may be growing: lines past `head` are newer than this verification and not judged.

    Args:
        files: all files of the directory, in order, as `read_files` gives them.
        head: the head file's content from before the first file was read, None where there is none. Lines that its
            claim names and that are not there were never written.
        head_after: reads the head again, after the last file.
        anchors: heads known from signed checkpoints.
        expired: the signed statement of what is gone from the front.
        on_line: called with each authentic line that has its place in the chain, in order.
    """
    return _Verification(head, head_after, anchors, expired, on_line).run(files)


class _Verification:
    def __init__(
        self,
        head: Head | None,
        head_after: Callable[[], Head | None],
        anchors: Sequence[Anchor],
        expired: Expired | None,
        on_line: Callable[[ChainedLine], None] | None,
    ) -> None:
        self._head = head
        self._head_after = head_after
        self._newest = 0
        self._uncounted: list[str] = []
        self._anchors = anchors
        self._on_line = on_line
        self._report = LogReport()
        self._log_id: bytes | None = head.log_id if head is not None else None
        self._chain: ChainHead | None = None if self._log_id is None else genesis(self._log_id)
        self._early: dict[int, tuple[ChainedLine, str]] = {}
        self._at: dict[int, bytes] = {}
        self._wanted = {anchor.chain.sequence for anchor in anchors}
        self._marks: dict[str, int] = {}
        self._unended: list[str] = []
        self._number = 0
        self._previous: bytes | None = None
        self._first = 0
        self._expired: Expired | None = None
        self._statements: set[str] = set()
        if expired is not None:
            self._begin_behind(expired)

    def _begin_behind(self, expired: Expired) -> None:
        """Where the statement says that the chain stood. A statement of another log says nothing of this one."""
        expiry = expired.expiry
        if self._log_id is not None and expiry.log_id != self._log_id:
            self._find(FindingKind.BAD_EXPIRY, "the statement of what expired is another log's")
            return
        self._expired, self._report.expired = expired, expiry
        self._log_id, self._chain = expiry.log_id, expiry.chain
        self._first = self._number = expiry.files
        self._previous = expiry.last_file_id
        self._at[expiry.chain.sequence] = expiry.chain.hash

    def run(self, files: Iterable[SealedFile]) -> LogReport:
        if self._head is None:
            self._find(FindingKind.NO_HEAD, "the head file is missing")
        for file in files:
            if file.name.number < self._first:
                continue  # it expired, and whoever removes it was interrupted
            if self._head is not None and file.name.number >= self._head.segments:
                self._note_newer(file)
                continue
            self._report.files += 1
            self._check_order(file)
            self._check_end(file)
            for line in self._lines(file):
                self._place(line, file.name.path.name)
        self._close_gaps()
        self._check_head()
        self._check_crashes()
        self._check_expiry()
        self._check_anchors()
        self._report.head, self._report.log_id = self._chain, self._log_id
        return self._report

    def _find(
        self, kind: FindingKind, what: str, *, file: str | None = None, sequence: int | None = None
    ) -> None:
        self._report.findings.append(Finding(kind=kind, what=what, file=file, sequence=sequence))

    def _note_newer(self, file: SealedFile) -> None:
        """A file begun after the head was read, perhaps this moment: not judged, unless the head stands still."""
        if not file.name.is_open:
            self._uncounted.append(file.name.path.name)
        for stored in file.lines:
            with contextlib.suppress(MalformedContentError):
                self._newest = max(self._newest, read_line(stored).sequence)

    # ---- files ---------------------------------------------------------------------------------------------------

    def _check_order(self, file: SealedFile) -> None:
        """Numbers without a gap, each file naming the one before."""
        name = file.name.path.name
        while self._number < file.name.number:
            self._find(FindingKind.MISSING_FILE, f"file number {self._number} is missing")
            self._number += 1
            self._previous = None
        if file.name.number < self._number:
            self._find(FindingKind.FOREIGN_FILE, "two files have one number", file=name)
        self._number = file.name.number + 1
        if file.meta is not None:
            if self._log_id is None and file.meta.recording is not None:
                self._log_id = file.meta.recording
                self._chain = genesis(self._log_id)
            if file.meta.recording != self._log_id or file.meta.segment != file.name.number:
                self._find(FindingKind.FOREIGN_FILE, "it belongs to another log or place", file=name)
            elif (
                file.name.number == 0 or self._previous is not None
            ) and file.meta.previous != self._previous:
                self._find(FindingKind.MISSING_FILE, "it does not follow the file before it", file=name)
        self._previous = file.name.file_id

    def _check_end(self, file: SealedFile) -> None:
        name = file.name.path.name
        if file.state is None:
            self._find(FindingKind.UNREADABLE, file.problem, file=name)
        elif file.state is RecordingState.CORRUPT:
            self._find(FindingKind.ALTERED, file.problem, file=name)
        elif file.state is RecordingState.INCOMPLETE and not file.name.is_open:
            self._unended.append(name)

    def _lines(self, file: SealedFile) -> Iterator[ChainedLine]:
        name = file.name.path.name
        last = 0
        for stored in file.lines:
            try:
                line = read_line(stored)
            except MalformedContentError as error:
                self._find(FindingKind.ALTERED, str(error), file=name)
                continue
            if line.sequence <= last:
                self._find(
                    FindingKind.BROKEN_CHAIN,
                    "lines of one file are out of order",
                    file=name,
                    sequence=line.sequence,
                )
            last = line.sequence
            yield line

    # ---- lines ---------------------------------------------------------------------------------------------------

    def _place(self, line: ChainedLine, file: str) -> None:
        """Lines of processes that wrote at one time stand in several files: what comes early waits for its turn."""
        self._newest = max(self._newest, line.sequence)
        if self._head is not None and line.sequence > self._head.chain.sequence:
            return
        self._report.lines += 1
        reached = 0 if self._chain is None else self._chain.sequence
        if line.sequence <= reached or line.sequence in self._early:
            self._find(
                FindingKind.REPEATED_LINE, "a line stands in the log twice", file=file, sequence=line.sequence
            )
            return
        self._early[line.sequence] = (line, file)
        self._advance()

    def _advance(self) -> None:
        while self._chain is not None and self._chain.sequence + 1 in self._early:
            line, file = self._early.pop(self._chain.sequence + 1)
            if not line.follows(self._chain):
                self._find(
                    FindingKind.BROKEN_CHAIN,
                    "the hash does not follow from the line before",
                    file=file,
                    sequence=line.sequence,
                )
            self._take(line)

    def _take(self, line: ChainedLine) -> None:
        self._chain = line.head
        if line.sequence in self._wanted:
            self._at[line.sequence] = line.hash
        if line.values.get("event") == RECOVERED_EVENT:
            self._marks[str(line.values.get("file_id"))] = line.sequence
        if line.values.get("event") == EXPIRED_EVENT:
            self._statements.add(str(line.values.get("fingerprint")))
        if self._on_line is not None:
            self._on_line(line)

    def _close_gaps(self) -> None:
        """Go on behind each gap: the lines there still hang together."""
        while self._early:
            first = min(self._early)
            reached = 0 if self._chain is None else self._chain.sequence
            self._find(
                FindingKind.MISSING_LINES,
                f"lines {reached + 1} to {first - 1} are missing",
                sequence=reached + 1,
            )
            line, _ = self._early.pop(first)
            self._take(line)
            self._advance()

    # ---- what the log as a whole must agree with -----------------------------------------------------------------

    def _check_head(self) -> None:
        head, chain = self._head, self._chain
        if head is None or chain is None:
            return
        if head.segments > self._number:
            what = f"{head.segments} files were begun, the last {head.segments - self._number} are missing"
            self._find(FindingKind.ROLLED_BACK, what)
        written = head.chain.sequence if head.claim is None else head.claim.previous.sequence
        if chain.sequence < written:
            self._find(
                FindingKind.ROLLED_BACK,
                f"the log ends with line {chain.sequence}, its head says {head.chain.sequence}",
                sequence=chain.sequence,
            )
        elif chain.sequence == head.chain.sequence and chain.hash != head.chain.hash:
            self._find(FindingKind.BROKEN_CHAIN, "the last line is not the one that the head names")
        is_newer = self._newest > head.chain.sequence
        if (not is_newer and not self._uncounted) or self._head_after() != head:
            return
        if is_newer:
            what = (
                f"there is a line {self._newest}, the head stands at {head.chain.sequence} and does not move"
            )
            self._find(FindingKind.ROLLED_BACK, what)
        for name in self._uncounted:
            self._find(FindingKind.FOREIGN_FILE, "the head does not count it, and does not move", file=name)

    def _check_crashes(self) -> None:
        for name in self._unended:
            file_id = name.partition("-")[2].removesuffix(".crec")
            mark = self._marks.get(file_id)
            if mark is None:
                self._find(FindingKind.CUT, "it has no end, and no line says that its writer died", file=name)
            else:
                self._report.crashes.append(Crash(file=name, marked_by=mark))

    def _check_expiry(self) -> None:
        if self._expired is not None and self._expired.fingerprint not in self._statements:
            self._find(FindingKind.BAD_EXPIRY, "no line tells of the statement that the front has expired")

    def _check_anchors(self) -> None:
        for anchor in self._anchors:
            self._report.checkpoints += 1
            sequence = anchor.chain.sequence
            if anchor.log_id != self._log_id:
                self._find(FindingKind.BAD_CHECKPOINT, f"{anchor.source} is of another log")
            elif self._report.expired is not None and sequence < self._report.expired.chain.sequence:
                continue
            elif self._chain is None or sequence > self._chain.sequence:
                self._find(
                    FindingKind.ROLLED_BACK,
                    f"{anchor.source} vouches for line {sequence}, which is not there",
                    sequence=sequence,
                )
            elif sequence and sequence not in self._at:
                self._find(
                    FindingKind.MISSING_LINES,
                    f"{anchor.source} vouches for line {sequence}, which is missing",
                    sequence=sequence,
                )
            elif sequence and self._at[sequence] != anchor.chain.hash:
                self._find(
                    FindingKind.BROKEN_CHAIN,
                    f"{anchor.source} vouches for another line {sequence}",
                    sequence=sequence,
                )


RECOVERED_EVENT = "audit_recovered"
"""The event of the line that tells of a file without an end."""
