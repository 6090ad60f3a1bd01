"""How an endpoint process reports to its parent: JSON with optional audio, in frames, over an inherited pipe.

Audio travels through pipes only; it is plaintext and may not touch a disk.
"""

from __future__ import annotations

import json
import struct
from asyncio import IncompleteReadError, StreamReader
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import numpy as np

from b2bua.demo.errors import DemoProcessError
from b2bua.demo.g711 import PCM16

_HEAD: Final = struct.Struct("!HII")
_MAGIC: Final = 0x5354
_MAX_TEXT_BYTES: Final = 1 << 20
_MAX_AUDIO_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One frame: what happened, its facts, and audio if the event has some."""

    event: str
    facts: Mapping[str, Any]
    audio: tuple[PCM16, ...] = field(default=(), repr=False)


def write_report(stream: BinaryIO, report: Report) -> None:
    """Write one frame and flush it."""
    lengths = [len(pcm) for pcm in report.audio]
    text = json.dumps({"event": report.event, "lengths": lengths, "facts": dict(report.facts)}).encode()
    audio = b"".join(pcm.astype("<i2").tobytes() for pcm in report.audio)
    stream.write(_HEAD.pack(_MAGIC, len(text), len(audio)) + text + audio)
    stream.flush()


async def read_report(stream: StreamReader) -> Report | None:
    """The next frame, or None at the end of the stream.

    Raises:
        DemoProcessError: what came is no frame, or it is cut.
    """
    try:
        head = await stream.readexactly(_HEAD.size)
        magic, text_bytes, audio_bytes = _HEAD.unpack(head)
        if magic != _MAGIC or text_bytes > _MAX_TEXT_BYTES or audio_bytes > _MAX_AUDIO_BYTES:
            raise DemoProcessError("an endpoint process wrote something that is no report")
        text = await stream.readexactly(text_bytes)
        audio = np.frombuffer(await stream.readexactly(audio_bytes), dtype="<i2").astype(np.int16)
    except IncompleteReadError as error:
        if error.partial or error.expected != _HEAD.size:
            raise DemoProcessError("an endpoint process ended in the middle of a report") from error
        return None
    content = json.loads(text)
    ends = np.cumsum(content["lengths"])
    return Report(
        event=content["event"],
        facts=content["facts"],
        audio=tuple(np.split(audio, ends[:-1]) if len(ends) else ()),
    )
