"""Segments of a recording: each way in which they can fail to be a whole is named, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from recording.chain import ChainCheck, ChainError, ChainFault, ChainFaultKind
from recording.verify import verify
from support.crec import META, ramp, reader, recording, segment_id, segmented

PCM = ramp(12_000)
WHOLE = segmented(PCM, [3000, 4000, 5000])
MISSING, LINK = ChainFaultKind.MISSING, ChainFaultKind.LINK


def faults_of(segments: list[bytes], *, is_whole: bool = True, is_live: bool = False) -> list[ChainFault]:
    check = ChainCheck(is_whole=is_whole, is_live=is_live)
    found = []
    for data in segments:
        with reader(data) as opened:
            found += check.begin(opened)
            verdict = verify(opened)
            check.end(verdict.end, verdict.final)
    return found + check.finish()


def made(number: int, position: int, **changes: object) -> bytes:
    """Segment `number` of WHOLE, but for the changes."""
    meta = replace(META, segment=number, previous=segment_id(number - 1))
    arguments = {
        "file_id": segment_id(number), "meta": meta, "first_position": position,
        "next_file_id": None if number == 2 else segment_id(number + 1),
    }  # fmt: skip
    return recording(ramp(4000), **(arguments | changes))  # type: ignore[arg-type]


def test_a_whole_recording_has_no_fault() -> None:
    assert faults_of(WHOLE) == []
    assert faults_of(segmented(PCM, [12_000])) == []


@pytest.mark.parametrize(
    ("segments", "kind", "segment", "words"),
    [
        (lambda: [WHOLE[0], WHOLE[2]], MISSING, 1, f"segment 1 is not there (file {segment_id(1).hex()})"),
        (lambda: WHOLE[1:], MISSING, 0, f"segment 0 is not there (file {segment_id(0).hex()})"),
        (lambda: WHOLE[2:], MISSING, 0, "segments 0 to 1 are not there"),
        (lambda: WHOLE[:2], MISSING, 2, f"segment 2 is not there (file {segment_id(2).hex()})"),
        (lambda: [WHOLE[0], made(1, 2999), made(2, 6999)], ChainFaultKind.OVERLAP, 1, "1 frames before"),
        (lambda: [WHOLE[0], made(1, 3001), made(2, 7001)], ChainFaultKind.HOLE, 1, "1 frames after"),
        (
            lambda: [WHOLE[0], made(1, 3000, meta=replace(META, segment=1, previous=b"x" * 16)), WHOLE[2]],
            LINK, 1, "META of segment 1 names 7878",
        ),
        (
            lambda: [WHOLE[0], made(1, 3000, meta=replace(META, segment=1)), WHOLE[2]],
            LINK, 1, "META of segment 1 names none",
        ),
        (lambda: [WHOLE[0], made(1, 3000, next_file_id=b"y" * 16), WHOLE[2]], LINK, 2, "FINAL of segment 1 names 7979"),
        (lambda: [WHOLE[0], made(1, 3000, next_file_id=None), WHOLE[2]], LINK, 2, "FINAL of segment 1 names none"),
        (
            lambda: [recording(PCM, meta=replace(META, previous=b"x" * 16))],
            LINK, 0, "the first segment names 7878",
        ),
        (
            lambda: [
                WHOLE[0],
                made(1, 3000, meta=replace(META, segment=1, previous=segment_id(0), recording=b"o" * 16)),
                WHOLE[2],
            ],
            ChainFaultKind.FOREIGN, 1, "another recording",
        ),
    ],
)  # fmt: skip
def test_each_fault_is_named(
    segments: Callable[[], list[bytes]], kind: ChainFaultKind, segment: int, words: str
) -> None:
    (fault,) = faults_of(segments())
    assert (fault.kind, fault.segment) == (kind, segment)
    assert words in str(ChainError([fault]))


def test_a_segment_twice_is_named() -> None:
    kinds = {fault.kind for fault in faults_of([WHOLE[0], WHOLE[1], WHOLE[1], WHOLE[2]])}
    assert kinds == {ChainFaultKind.LINK, ChainFaultKind.OVERLAP}


def test_a_part_has_no_missing_ends_but_a_missing_middle() -> None:
    assert faults_of(WHOLE[1:], is_whole=False) == []
    assert faults_of(WHOLE[:2], is_whole=False) == []
    assert [fault.kind for fault in faults_of([WHOLE[0], WHOLE[2]], is_whole=False)] == [MISSING]


def test_a_live_recording_misses_only_what_is_being_recorded() -> None:
    assert faults_of(WHOLE[:2], is_live=True) == []
    assert [fault.kind for fault in faults_of(WHOLE[1:2], is_live=True)] == [MISSING]


def test_a_segment_cut_off_in_the_middle_leaves_a_hole() -> None:
    cut = WHOLE[0][: -4112 - 4112]  # without FINAL and the last AUDIO record
    (fault,) = faults_of([cut, *WHOLE[1:]])
    assert fault.kind is ChainFaultKind.HOLE
