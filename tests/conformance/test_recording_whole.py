"""Recordings and documents of several segments: two implementations read the same and name the same faults."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recording.chain import ChainCheck
from recording.data_writer import DataWriter
from recording.format.content import RecordingKind, RecordingMeta
from recording.format.slots import build_area
from recording.verify import verify
from support import node
from support.crec import DEK, TENANT, ramp, reader, segment_id, segmented

VECTORS = Path(__file__).parents[1] / "data" / "crec"
PCM = ramp(12_000)
WHOLE = segmented(PCM, [3000, 4000, 5000])


def by_node(directory: Path, segments: list[bytes]) -> dict[str, Any]:
    """What the second reader says; it is given the files in the wrong order."""
    paths = []
    for number, data in enumerate(segments):
        path = directory / f"{len(segments) - number}.crec"
        path.write_bytes(data)
        paths.append(str(path))
    found: dict[str, Any] = node.run("crec_reader.mjs", "whole", DEK.hex(), *reversed(paths))
    return found


def by_python(segments: list[bytes]) -> list[tuple[str, int]]:
    check, faults = ChainCheck(is_whole=True), []
    for data in segments:
        with reader(data) as opened:
            faults += check.begin(opened)
            verdict = verify(opened)
            check.end(verdict.end, verdict.final)
    return [(fault.kind.value, fault.segment) for fault in faults + check.finish()]


def test_node_reads_a_recording_of_several_segments(tmp_path: Path) -> None:
    found = by_node(tmp_path, WHOLE)
    assert (found["kind"], found["states"], found["faults"]) == ("audio", ["complete"] * 3, [])
    assert base64.b64decode(found["content"]) == PCM


@pytest.mark.parametrize(
    "damage",
    [
        lambda: [WHOLE[0], WHOLE[2]],
        lambda: WHOLE[1:],
        lambda: WHOLE[:2],
        lambda: [WHOLE[0][: -2 * 4112], *WHOLE[1:]],
        lambda: [WHOLE[0], segmented(PCM, [3000, 4000, 5000], meta=OTHER)[1], WHOLE[2]],
        lambda: [WHOLE[0], segmented(PCM, [2999, 4000, 5000])[1], WHOLE[2]],
        lambda: [WHOLE[0], segmented(PCM, [3001, 3999, 5000])[1], WHOLE[2]],
        lambda: [*WHOLE[:2], segmented(PCM, [3000, 4000, 2000, 3000])[2]],
    ],
    ids=["middle", "first", "last", "cut", "foreign", "overlap", "hole", "more follows"],
)
def test_both_readers_name_the_same_faults(tmp_path: Path, damage: Callable[[], list[bytes]]) -> None:
    segments = damage()
    told = by_python(segments)
    assert told
    assert sorted(
        (fault["kind"], fault["segment"]) for fault in by_node(tmp_path, segments)["faults"]
    ) == sorted(told)


OTHER = RecordingMeta(recording=b"o" * 16, rate_hz=8000, channels=1)


def test_node_reads_a_document(tmp_path: Path) -> None:
    content = os.urandom(20_000)
    segments = _document(content, hashlib.sha256(content).digest())
    found = by_node(tmp_path, segments)
    assert (found["kind"], found["parent"], found["media_type"]) == ("artefact", "72" * 16, "text/plain")
    assert (found["faults"], found["sha256_matches"]) == ([], True)
    assert base64.b64decode(found["content"]) == content
    assert by_node(tmp_path, _document(content, bytes(32)))["sha256_matches"] is False


def test_node_alone_reads_the_vectors_of_several_segments() -> None:
    names = [str(VECTORS / f"segment-{number}.vector") for number in (2, 0, 1)]
    found = node.run("crec_reader.mjs", "whole-vectors", *names)
    pcm = b"".join((frame * 7 % 30011).to_bytes(2, "little") for frame in range(5000))
    assert (found["faults"], base64.b64decode(found["content"])) == ([], pcm)
    names = [str(VECTORS / f"artefact-{number}.vector") for number in range(2)]
    found = node.run("crec_reader.mjs", "whole-vectors", *names)
    assert (found["faults"], found["sha256_matches"]) == ([], True)
    assert base64.b64decode(found["content"]) == b"The caller asked for a new appointment. " * 150


def _document(content: bytes, digest: bytes) -> list[bytes]:
    segments, step = [], 3 * 4080
    for number, start in enumerate(range(0, len(content), step)):
        is_last = start + step >= len(content)
        writer = DataWriter(
            file_id=segment_id(number),
            tenant_handle=TENANT,
            dek=bytearray(DEK),
            slots_area=build_area([]),
            meta=RecordingMeta(
                kind=RecordingKind.ARTEFACT, recording=b"a" * 16, segment=number, sample_format=None,
                previous=segment_id(number - 1) if number else None,
                parent=b"r" * 16, media_type="text/plain", sha256=digest,
            ),
            chunk_size=4096,
            first_position=start,
        )  # fmt: skip
        data = writer.begin()
        for at in range(start, min(start + step, len(content)), 4080):
            data += writer.append(content[at : min(at + 4080, start + step)])
        following = None if is_last else segment_id(number + 1)
        segments.append(data + writer.finish(ended_by="x", reason="y", next_file_id=following))
    return segments
