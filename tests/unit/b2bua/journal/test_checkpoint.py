"""Signed heads of a log: what they say, and everything that is none."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from b2bua.errors import JournalError
from b2bua.journal.chain import ChainHead
from b2bua.journal.checkpoint import CHECKPOINT_TYPE, Checkpoint, append_checkpoint, latest, read_checkpoints
from recording.errors import MalformedContentError
from recording.signing import SigningKey, Verifier

KEY = SigningKey(ec.generate_private_key(ec.SECP256R1()))
VERIFIER = Verifier([KEY.public])


def checkpoint(sequence: int) -> Checkpoint:
    return Checkpoint(
        log_id=b"L" * 16,
        chain=ChainHead(sequence=sequence, hash=bytes([sequence]) * 32),
        files=2,
        at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    )


def test_checkpoints_are_appended_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jws"
    assert read_checkpoints(path, VERIFIER).anchors == ()
    for sequence in (3, 7):
        append_checkpoint(path, checkpoint(sequence), KEY)
    found = read_checkpoints(path, VERIFIER)
    assert [anchor.chain for anchor in found.anchors] == [checkpoint(3).chain, checkpoint(7).chain]
    assert {anchor.log_id for anchor in found.anchors} == {b"L" * 16}
    assert found.problems == ()
    assert latest(found.anchors) == 7
    assert latest(()) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_crash_cut_off_is_no_problem_and_what_was_altered_is(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jws"
    for sequence in (3, 7):
        append_checkpoint(path, checkpoint(sequence), KEY)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    found = read_checkpoints(path, VERIFIER)
    assert (latest(found.anchors), found.problems) == (3, ())
    path.write_bytes(whole.replace(b".", b",", 1))
    found = read_checkpoints(path, VERIFIER)
    assert latest(found.anchors) == 7
    (problem,) = found.problems
    assert problem.startswith("checkpoint 1 of checkpoints.jws: ")


def test_a_manifests_signature_or_another_keys_is_none(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jws"
    other = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    lines = [
        KEY.sign(checkpoint(3).build(), typ="crec-manifest"),
        other.sign(checkpoint(3).build(), typ=CHECKPOINT_TYPE),
        KEY.sign(b"{}", typ=CHECKPOINT_TYPE),
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    found = read_checkpoints(path, VERIFIER)
    assert found.anchors == ()
    assert [problem.partition(": ")[2] for problem in found.problems] == [
        "it is signed for something else than a crec-checkpoint",
        "it is signed by a key that is not configured",
        "a checkpoint that can't be read",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"log": "00"},
        {"sequence": -1},
        {"sequence": "3"},
        {"hash": "00"},
        {"files": None},
        {"at": "noon"},
    ],
)
def test_another_value_is_refused(change: dict[str, Any]) -> None:
    good = json.loads(checkpoint(3).build())
    assert Checkpoint.parse(json.dumps(good).encode()) == checkpoint(3)
    with pytest.raises(MalformedContentError):
        Checkpoint.parse(json.dumps(good | change).encode())


def test_a_file_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        read_checkpoints(tmp_path, VERIFIER)
