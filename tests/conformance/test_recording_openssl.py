"""The reader that docs/recording-format.md builds from the openssl command alone, over the vectors."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from recording.format.record import RecordType
from recording.reader import open_with_dek

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "data" / "crec"
SCRIPT = (ROOT / "docs" / "recording-format.md").read_text().split("```bash\n")[1].split("```")[0]

GOOD = ("seed", "chunk-8192", "core-longer", "segment-1", "artefact-0", "type-unknown")
BAD = (
    "behind-final-byte",
    "dek-wrong",
    "dropped",
    "duplicated",
    "final-bit-on-audio",
    "final-count-high",
    "final-missing",
    "final-without-bit",
    "first-not-meta",
    "flip-first-record",
    "flip-salt",
    "payload-too-long",
    "reordered",
)


def read(directory: Path, name: str) -> tuple[subprocess.CompletedProcess[bytes], bytes, bytes]:
    """The script's run over a vector, the recording and the data key."""
    head, _, recording = (VECTORS / f"{name}.vector").read_bytes().partition(b"\n\n")
    values = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    assert (values["expect"] == "complete") == (name in GOOD)
    path = directory / "x.crec"
    path.write_bytes(recording)
    done = subprocess.run(
        ["bash", "-c", SCRIPT, "reader", str(path), values["dek"]], capture_output=True, timeout=60
    )
    return done, recording, bytes.fromhex(values["dek"])


@pytest.mark.parametrize("name", GOOD)
def test_what_is_complete_is_read_whole(tmp_path: Path, name: str) -> None:
    done, recording, dek = read(tmp_path, name)
    assert done.returncode == 0, done.stderr
    with open_with_dek(io.BytesIO(recording), dek) as reader:
        kept = (record for record in reader.records() if record.type in {RecordType.AUDIO, RecordType.DATA})
        assert done.stdout == b"".join(bytes(record.payload) for record in kept)


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_complete_is_no_success(tmp_path: Path, name: str) -> None:
    done, _, _ = read(tmp_path, name)
    assert done.returncode == 1
    assert b"what came before is good" in done.stderr or b"another key" in done.stderr
