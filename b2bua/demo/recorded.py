"""The demonstration's recordings, reached only through the `b2bua recordings` commands a user has."""

from __future__ import annotations

import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from b2bua.demo.children import command
from b2bua.demo.errors import DemoProcessError, ScoreError
from b2bua.demo.g711 import RATE_HZ

Samples: TypeAlias = npt.NDArray[np.int16]
"""Shape (samples, channels)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One recording as `recordings list` and `recordings verify` tell it."""

    file_id: str
    call_uid: str
    state: str
    records: int
    key_id: str


async def file_ids(configuration: Path) -> frozenset[str]:
    """The recordings there are."""
    return frozenset(str(row["file_id"]) for row in await _rows(configuration))


async def verify_new(configuration: Path, known: frozenset[str]) -> Recorded:
    """Verify the one recording that is not among the known ones.

    Raises:
        ScoreError: there is not exactly one, or it is not complete and authentic.
        DemoProcessError: a command failed.
    """
    new = [row for row in await _rows(configuration) if row["file_id"] not in known]
    if len(new) != 1:
        raise ScoreError(f"the call left {len(new)} recordings instead of one")
    (row,) = new
    verdict = await _verdict(configuration, str(row["file_id"]))
    if verdict["state"] != "complete":
        raise ScoreError(f"the recording {verdict['file_id']} is {verdict['state']}: {verdict['detail']}")
    return Recorded(
        file_id=str(row["file_id"]),
        call_uid=str(row["call_uid"]),
        state=str(verdict["state"]),
        records=int(verdict["records"]),
        key_id=str(row["key_id"]),
    )


async def export(configuration: Path, file_id: str, target: Path) -> Samples:
    """Export a recording to a WAV file and read it back, shape (samples, channels).

    Raises:
        DemoProcessError: the command failed, or what it wrote is no 8 kHz 16 bit WAV.
    """
    target.parent.mkdir(mode=0o700, exist_ok=True)
    await command(
        "recordings", "export", file_id, "--config", str(configuration), "--output", str(target),
        "--plaintext", "--reason", "test", "--json",
    )  # fmt: skip
    return read_wav(target)


def read_wav(path: Path) -> Samples:
    """The samples of a WAV file, shape (samples, channels).

    Raises:
        DemoProcessError: it is no 8 kHz 16 bit WAV.
    """
    try:
        with wave.open(str(path), "rb") as source:
            rate_hz, width, channels = source.getframerate(), source.getsampwidth(), source.getnchannels()
            data = source.readframes(source.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        raise DemoProcessError(f"the export {path} cannot be read: {error}") from error
    if (rate_hz, width) != (RATE_HZ, 2):
        raise DemoProcessError(
            f"the export {path} has {rate_hz} Hz and {width * 8} bits instead of 8000 and 16"
        )
    return np.frombuffer(data, dtype="<i2").astype(np.int16).reshape(-1, channels)


async def _rows(configuration: Path) -> list[Mapping[str, Any]]:
    content = await command("recordings", "list", "--config", str(configuration), "--json")
    return list(content["recordings"])


async def _verdict(configuration: Path, file_id: str) -> Mapping[str, Any]:
    """The verdict is in the object; the exit code only repeats it."""
    words = ("recordings", "verify", file_id, "--config", str(configuration), "--reason", "test", "--json")
    content = await command(*words, accept=None)
    (verdict,) = content["recordings"]
    return dict(verdict)
