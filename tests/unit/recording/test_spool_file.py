"""One file under any pattern of short writes and errors: a prefix of what was sealed, nothing sealed twice."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recording.errors import RecordingError
from recording.spool_file import WRITE_RETRY_S, Disk, SpooledSegment
from recording.spool_state import SpoolError, segment_path
from recording.verify import RecordingState, verify
from support.disks import FaultyDisk, SyncLog
from support.spooled import RECORD_LEN, Segment, make_segment

S = 1_000_000_000


def spooled(
    directory: Path, segment: Segment, disk: FaultyDisk, failures: list[RecordingError]
) -> SpooledSegment:
    made = SpooledSegment(
        directory=directory,
        state=segment.state(),
        record_len=RECORD_LEN,
        on_failure=failures.append,
        disk=disk.disk(),
    )
    made.create(segment.head)
    return made


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    short=st.floats(0, 0.9),
    fail=st.floats(0, 0.6),
    batches=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    patience=st.integers(1, 6),
)
def test_any_faults_leave_a_verifiable_prefix(
    seed: int, short: float, fail: float, batches: list[int], patience: int
) -> None:
    segment = make_segment(10)
    disk = FaultyDisk(seed=seed, short=short, fail=fail)
    failures: list[RecordingError] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        one = spooled(directory, segment, disk, failures)
        now_ns, handed = 0, 0
        try:
            for batch in batches:
                one.add(b"".join(segment.records[handed : handed + batch]))
                handed += batch
                for _ in range(patience):
                    one.write(now_ns)
                    if one.is_drained:
                        break
                    now_ns += S // 2
            if one.is_failing:
                one.write(now_ns)
        except OSError as error:
            one.give_up(SpoolError(str(error)))
        else:
            one.close()
        content = segment_path(directory, segment.file_id).read_bytes()

        for _, offset, data in disk.attempts:
            assert segment.content[offset : offset + len(data)] == data, "another byte at a place once tried"
        if one.is_given_up:
            assert segment.content.startswith(content)
            assert len(content) == one.size_bytes
            assert len(content) in (0, len(segment.head) + one.records * RECORD_LEN)
            assert len(failures) == 1
        else:
            assert failures == []
            assert content[: one.size_bytes] == segment.content[: one.size_bytes]
        if one.records:
            with segment.open(segment_path(directory, segment.file_id)) as reader:
                verdict = verify(reader)
            assert verdict.records >= one.records
            assert verdict.state in (RecordingState.COMPLETE, RecordingState.INCOMPLETE)


def test_a_thousand_faults_on_one_file_change_no_byte(tmp_path: Path) -> None:
    segment = make_segment(400)
    disk = FaultyDisk(seed=7, short=0.5, fail=0.5)
    one = spooled(tmp_path, segment, disk, [])
    for record in segment.records:
        one.add(record)
    while not one.is_drained:
        one.write(0)  # no time passes: patience is another test's subject
    assert disk.failures + disk.shorts > 1000
    one.close()
    assert segment_path(tmp_path, segment.file_id).read_bytes() == segment.content


def test_patience_ends_after_its_time_and_success_renews_it(tmp_path: Path) -> None:
    segment = make_segment(4)
    disk = FaultyDisk()
    one = spooled(tmp_path, segment, disk, [])
    one.write(0)
    disk.is_full = True
    one.add(segment.records[0])
    one.write(10 * S)
    one.write(10 * S + int(WRITE_RETRY_S * S) - 1)
    assert one.is_failing
    disk.is_full = False
    one.write(10 * S + int(WRITE_RETRY_S * S) - 1)
    assert not one.is_failing
    disk.is_full = True
    one.add(segment.records[1])
    one.write(20 * S)
    with pytest.raises(OSError, match="No space"):
        one.write(20 * S + int(WRITE_RETRY_S * S))
    one.give_up(SpoolError("full"))


def test_a_write_of_nothing_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    segment = make_segment(1)
    one = SpooledSegment(
        directory=tmp_path,
        state=segment.state(),
        record_len=RECORD_LEN,
        on_failure=lambda error: None,
        disk=Disk(pwrite=lambda fd, data, offset: 0),
    )
    one.create(segment.head)
    assert one.write(0) == 0
    assert one.is_failing
    one.close()


def test_giving_up_cuts_back_to_whole_records_and_counts_what_is_dropped(tmp_path: Path) -> None:
    segment = make_segment(4)
    disk = FaultyDisk()
    failures: list[RecordingError] = []
    one = spooled(tmp_path, segment, disk, failures)
    one.add(b"".join(segment.records[:2]))
    one.write(0)
    path = segment_path(tmp_path, segment.file_id)
    with path.open("ab") as torn:
        torn.write(segment.records[2][:100])  # what a write that failed half way leaves
    one.add(segment.records[2])
    one.add(segment.records[3])
    error = SpoolError("gone")
    assert one.give_up(error) == 2 * RECORD_LEN
    assert path.read_bytes() == segment.head + b"".join(segment.records[:2])
    assert (one.records, one.size_bytes, failures) == (2, len(segment.head) + 2 * RECORD_LEN, [error])


def test_a_job_that_syncs_outlives_the_file_it_syncs(tmp_path: Path) -> None:
    segment = make_segment(1)
    disk = FaultyDisk()
    one = spooled(tmp_path, segment, disk, [])
    one.write(0)
    job = one.begin_sync()
    one.close()
    job()
    assert disk.syncs == 1
    disk.sync_error = errno.EIO
    two = spooled(tmp_path, make_segment(1), disk, [])
    two.write(0)
    with pytest.raises(OSError, match="Input/output"):
        two.begin_sync()()
    two.close()


def test_the_first_sync_makes_the_state_file_durable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = make_segment(2)
    disk = FaultyDisk()
    log = SyncLog(monkeypatch)
    one = spooled(tmp_path, segment, disk, [])
    one.write(0)
    one.begin_sync()()
    assert ("sync", f"{segment.file_id.hex()}.json") in log.done
    count = len(log.done)
    one.add(segment.records[0])
    one.write(0)
    one.begin_sync()()
    assert (len(log.done), disk.syncs) == (count, 2)
    one.close()


def test_a_file_that_appears_in_the_last_moment_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = make_segment(1)
    segment_path(tmp_path, segment.file_id).write_bytes(b"somebody else's")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda path: False)
        with pytest.raises(FileExistsError):
            spooled(tmp_path, segment, FaultyDisk(), [])
    assert segment_path(tmp_path, segment.file_id).read_bytes() == b"somebody else's"
