"""What somebody with a shell but no key can do to a sealed log, and that each of it is found and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b2bua.journal.chain import ChainHead
from b2bua.journal.head import read_head_file
from b2bua.journal.verify import Anchor, FindingKind
from support.journals import Log, text

RECORD = 4096 + 16


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Three files with two lines each, in a record each."""
    made = Log(tmp_path)
    for start in (1, 3, 5):
        made.write([text(start)], [text(start + 1)])
    report = made.verify()
    assert (report.is_whole, report.files, report.lines) == (True, 3, 6)
    assert report.head is not None
    assert report.head.sequence == 6
    return made


def cut(path: Path, records: int) -> None:
    """Take records off the end; the last is FINAL."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - records * RECORD])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2 * RECORD - 100] ^= 1
    path.write_bytes(data)


def swap(log: Log) -> None:
    one, other = log.files()[:2]
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def renumber(log: Log) -> None:
    first, second = log.files()[:2]
    place = first.with_name("00000009" + first.name[8:])
    first.rename(place)
    second.rename(second.with_name("00000000" + second.name[8:]))
    place.rename(first.with_name("00000001" + first.name[8:]))


def double(log: Log) -> None:
    first = log.files()[0]
    shutil.copy(first, first.with_name(f"00000003-{'ab' * 16}.crec"))


def double_beside(log: Log) -> None:
    first = log.files()[0]
    shutil.copy(first, first.with_name(f"00000000-{'ab' * 16}.crec"))


def swap_records(log: Log) -> None:
    path = log.files()[1]
    data = path.read_bytes()
    one, other = data[-3 * RECORD : -2 * RECORD], data[-2 * RECORD : -RECORD]
    path.write_bytes(data[: -3 * RECORD] + other + one + data[-RECORD:])


def older_head(log: Log) -> None:
    """The head of before a file was written, put back after it."""
    saved = (log.directory / "head").read_bytes()
    log.write([text(7)])
    (log.directory / "head").write_bytes(saved)


def older_head_and_on(log: Log) -> None:
    older_head(log)
    log.write([text(8)])


def foreign(log: Log, *, is_renamed: bool = True) -> None:
    (log.root / "other").mkdir()
    shutil.copy(log.root / "log.kek", log.root / "other" / "log.kek")
    other = Log(log.root / "other")
    other.write([text(1), text(2)])
    path = log.files()[2]
    path.unlink()
    stranger = other.files()[0]
    shutil.copy(stranger, path if is_renamed else path.with_name(f"00000002-{stranger.name[9:]}"))


ATTACKS: dict[str, tuple[Callable[[Log], object], set[FindingKind]]] = {
    "first file gone": (
        lambda log: log.files()[0].unlink(),
        {FindingKind.MISSING_FILE, FindingKind.MISSING_LINES},
    ),
    "middle file gone": (
        lambda log: log.files()[1].unlink(),
        {FindingKind.MISSING_FILE, FindingKind.MISSING_LINES},
    ),
    "last file gone": (lambda log: log.files()[2].unlink(), {FindingKind.ROLLED_BACK}),
    "last two files gone": (
        lambda log: [path.unlink() for path in log.files()[1:]],
        {FindingKind.ROLLED_BACK},
    ),
    "all files gone": (lambda log: [path.unlink() for path in log.files()], {FindingKind.ROLLED_BACK}),
    "head gone": (lambda log: (log.directory / "head").unlink(), {FindingKind.NO_HEAD}),
    "end of a middle file": (lambda log: cut(log.files()[1], 1), {FindingKind.CUT}),
    "last line of a middle file": (
        lambda log: cut(log.files()[1], 2),
        {FindingKind.CUT, FindingKind.MISSING_LINES},
    ),
    "both lines of a middle file": (
        lambda log: cut(log.files()[1], 3),
        {FindingKind.CUT, FindingKind.MISSING_LINES},
    ),
    "last line of the last file": (
        lambda log: cut(log.files()[2], 2),
        {FindingKind.CUT, FindingKind.ROLLED_BACK},
    ),
    "a bit": (lambda log: flip(log.files()[1]), {FindingKind.ALTERED, FindingKind.MISSING_LINES}),
    "a file emptied": (
        lambda log: log.files()[1].write_bytes(b""),
        {FindingKind.UNREADABLE, FindingKind.MISSING_LINES},
    ),
    "two files swapped": (
        swap,
        {FindingKind.UNREADABLE, FindingKind.MISSING_LINES},
    ),
    "two files renumbered": (renumber, {FindingKind.FOREIGN_FILE, FindingKind.MISSING_FILE}),
    "records swapped": (swap_records, {FindingKind.ALTERED, FindingKind.MISSING_LINES}),
    "a file doubled at the end": (double, {FindingKind.FOREIGN_FILE}),
    "a file doubled beside itself": (
        double_beside,
        {FindingKind.UNREADABLE, FindingKind.FOREIGN_FILE, FindingKind.MISSING_FILE},
    ),
    "an older head": (older_head, {FindingKind.ROLLED_BACK, FindingKind.FOREIGN_FILE}),
    "an older head, and a writer that went on from it": (
        older_head_and_on,
        {FindingKind.FOREIGN_FILE, FindingKind.REPEATED_LINE, FindingKind.MISSING_FILE},
    ),
    "a file of another log": (foreign, {FindingKind.UNREADABLE, FindingKind.ROLLED_BACK}),
    "a file of another log under its own name": (
        lambda log: foreign(log, is_renamed=False),
        {FindingKind.FOREIGN_FILE, FindingKind.REPEATED_LINE, FindingKind.ROLLED_BACK},
    ),
}


BY_CHANCE = {"an older head, and a writer that went on from it": {FindingKind.BROKEN_CHAIN}}
"""Of two files with one number the one with the smaller random id is read first; it may not be the head's."""


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_found_and_named(log: Log, name: str) -> None:
    attack, kinds = ATTACKS[name]
    attack(log)
    report = log.verify()
    assert not report.is_whole
    found = {finding.kind for finding in report.findings}
    assert kinds <= found <= kinds | BY_CHANCE.get(name, set()), report.findings


def test_another_key_opens_nothing(log: Log, tmp_path: Path) -> None:
    (tmp_path / "log.kek").unlink()
    report = Log(tmp_path).verify()
    assert {finding.kind for finding in report.findings} == {FindingKind.UNREADABLE, FindingKind.ROLLED_BACK}


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_cut_of_a_finished_file_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    for start in (1, 3):
        log.write([text(start)], [text(start + 1)])
    path = log.files()[data.draw(st.integers(0, 1))]
    size = data.draw(st.integers(0, path.stat().st_size - 1))
    path.write_bytes(path.read_bytes()[:size])
    assert not log.verify().is_whole


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_flipped_bit_of_a_record_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    for start in (1, 3):
        log.write([text(start)], [text(start + 1)])
    path = log.files()[data.draw(st.integers(0, 1))]
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(len(content) - 4 * RECORD, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert not log.verify().is_whole


def test_a_file_that_is_being_begun_is_not_judged(log: Log) -> None:
    """Another process has made it and not written to it yet."""
    (log.directory / f"00000003-{'ab' * 16}.crec.open").touch(mode=0o600)
    assert log.verify().is_whole


# --- heads that are known from elsewhere


def anchor(log: Log) -> Anchor:
    head = read_head_file(log.directory)
    assert head is not None
    return Anchor(log_id=head.log_id, chain=head.chain, source="checkpoint")


def test_a_whole_tail_rolled_back_shows_against_a_checkpoint_alone(log: Log, tmp_path: Path) -> None:
    shutil.copytree(log.directory, tmp_path / "saved")
    log.write([text(7)])
    kept = anchor(log)
    assert log.verify(kept).is_whole
    shutil.rmtree(log.directory)
    (tmp_path / "saved").rename(log.directory)
    assert log.verify().is_whole, "what is in the directory hangs together"
    (finding,) = log.verify(kept).findings
    assert finding.kind is FindingKind.ROLLED_BACK
    assert "line 7" in finding.what


def test_a_line_that_a_checkpoint_vouches_for_is_told_as_missing_where_it_is(log: Log) -> None:
    kept = anchor(log)
    log.write([text(7)])
    log.files()[2].unlink()
    found = [each for each in log.verify(kept).findings if "checkpoint" in each.what]
    assert [(each.kind, each.sequence) for each in found] == [
        (FindingKind.MISSING_LINES, kept.chain.sequence)
    ]


def test_another_line_than_the_checkpoints_shows(log: Log) -> None:
    kept = anchor(log)
    other = Anchor(log_id=kept.log_id, chain=ChainHead(sequence=4, hash=b"x" * 32), source="checkpoint")
    (finding,) = log.verify(kept, other).findings
    assert finding.kind is FindingKind.BROKEN_CHAIN
    strange = Anchor(log_id=b"x" * 16, chain=kept.chain, source="checkpoint")
    (finding,) = log.verify(strange).findings
    assert finding.kind is FindingKind.BAD_CHECKPOINT
