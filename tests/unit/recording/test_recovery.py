"""Keyless recovery: what it cuts, what it leaves, and that it can be done again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recording.errors import FormatError, NotARecordingError, TruncatedRecordingError
from recording.recovery import RecoveryOutcome, recover_file
from recording.verify import verify
from support.crec import BODY, RECORD, ramp, reader, recording

OPEN_ENDED = recording(ramp(4500), ended=False)  # META and three AUDIO records
COMPLETE = recording(ramp(4500))


def recovered(path: Path, data: bytes) -> RecoveryOutcome:
    path.write_bytes(data)
    return recover_file(path)


@pytest.mark.parametrize(
    ("tail", "ragged", "zero_records"),
    [
        (b"", 0, 0),
        (b"\x55", 1, 0),
        (b"\x55" * (RECORD - 1), RECORD - 1, 0),
        (bytes(RECORD), 0, 1),
        (bytes(3 * RECORD), 0, 3),
        (bytes(2 * RECORD) + b"\x55" * 100, 100, 2),
        (bytes(2 * RECORD + 1), 1, 2),
    ],
)
def test_what_a_crash_leaves_is_cut_and_the_records_stay(
    tmp_path: Path, tail: bytes, ragged: int, zero_records: int
) -> None:
    path = tmp_path / "a.crec"
    outcome = recovered(path, OPEN_ENDED + tail)
    assert path.read_bytes() == OPEN_ENDED
    assert outcome == RecoveryOutcome(
        size_before=len(OPEN_ENDED) + len(tail),
        size_after=len(OPEN_ENDED),
        records=4,
        ragged_bytes=ragged,
        zero_records=zero_records,
    )
    assert outcome.is_changed == bool(tail)
    again = recover_file(path)
    assert (again.is_changed, again.records) == (False, 4)
    assert str(verify(reader(path.read_bytes()))) == "incomplete(4)"


def test_zeros_before_a_record_are_not_a_tail(tmp_path: Path) -> None:
    path = tmp_path / "a.crec"
    data = OPEN_ENDED + bytes(RECORD) + b"\x55" * RECORD
    assert not recovered(path, data).is_changed
    assert path.read_bytes() == data


def test_a_complete_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.crec"
    assert not recovered(path, COMPLETE).is_changed
    assert path.read_bytes() == COMPLETE


@pytest.mark.parametrize("records", [0, 1])
def test_a_file_may_have_lost_all_its_records(tmp_path: Path, records: int) -> None:
    outcome = recovered(tmp_path / "a.crec", OPEN_ENDED[:BODY] + bytes(records * RECORD))
    assert (outcome.records, outcome.size_after) == (0, BODY)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotARecordingError),
        (b"RIFF" + bytes(8000), NotARecordingError),
        (bytes(8192), NotARecordingError),
        (OPEN_ENDED[:20], TruncatedRecordingError),
        (OPEN_ENDED[: BODY - 1], TruncatedRecordingError),
        (OPEN_ENDED[:80] + b"\xff" * 4 + OPEN_ENDED[84:] + b"tail", FormatError),
    ],
)
def test_what_is_no_recording_is_left_alone(tmp_path: Path, data: bytes, error: type[Exception]) -> None:
    path = tmp_path / "a.crec"
    path.write_bytes(data)
    with pytest.raises(error):
        recover_file(path)
    assert path.read_bytes() == data


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(OPEN_ENDED + b"tail")
    (tmp_path / "a.crec").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        recover_file(tmp_path / "a.crec")
    assert target.read_bytes() == OPEN_ENDED + b"tail"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.crec")
    with pytest.raises(NotARecordingError, match="not a regular file"):
        recover_file(tmp_path / "a.crec")


@pytest.mark.parametrize("tail", [b"", b"tail"])
def test_the_result_is_synced_even_if_nothing_was_cut(
    tmp_path: Path, tail: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    truncate, sync = os.ftruncate, os.fsync

    def record_truncate(descriptor: int, length: int) -> None:
        truncate(descriptor, length)
        done.append("cut")

    def record_sync(descriptor: int) -> None:
        sync(descriptor)
        done.append("synced")

    monkeypatch.setattr(os, "ftruncate", record_truncate)
    monkeypatch.setattr(os, "fsync", record_sync)
    recovered(tmp_path / "a.crec", OPEN_ENDED + tail)
    assert done == (["cut", "synced"] if tail else ["synced"])
