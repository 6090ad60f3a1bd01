#!/usr/bin/env python3
"""Write what the scenarios play beside this file: caller.ulaw, callee.ulaw, digits.events.

The first two are ten seconds of recorded speech as G.711 mu-law, each party saying something different, so that a
recording shows who was heard where. The third is the digits 5 and 9 as telephone-events in frames of 50 octets, the
one size that SIPp sends under a dynamic payload type; a receiver reads the first event of each and the rest repeats
it. Run it after `make setup` or `make test`, which put the recorded speech in place.

Source: RFC 4733 section 2.3 (telephone-event payload).
"""

import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from b2bua.demo.g711 import encode  # noqa: E402 - the path above must be set first
from b2bua.demo.speech import Side, programme  # noqa: E402 - as above

SECONDS = 10.0
DIGITS = (5, 9)
FRAME_BYTES, FRAME_TICKS = 50, 240
GROWING, ENDING = 5, 3
END_BIT, VOLUME = 0x80, 10


def speech_folder() -> Path:
    """Where set-up put the recorded speech."""
    fetch = [sys.executable, str(ROOT / "packaging/speech/fetch.py")]
    return Path(subprocess.run(fetch, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


def digit_frames(digit: int) -> bytes:
    """One digit: its duration grows, then its end comes three times."""
    frames = b""
    for number in range(1, GROWING + ENDING + 1):
        end = END_BIT if number > GROWING else 0
        event = struct.pack("!BBH", digit, end | VOLUME, FRAME_TICKS * min(number, GROWING + 1))
        frames += (event * FRAME_BYTES)[:FRAME_BYTES]
    return frames


def make_media(folder: Path) -> None:
    """Write the three files into a folder; each appears whole or not at all."""
    sounds = speech_folder()
    made = {f"{side.name.lower()}.ulaw": encode(programme(sounds, side, seconds=SECONDS)) for side in Side}
    made["digits.events"] = b"".join(digit_frames(digit) for digit in DIGITS)
    for name, content in made.items():
        partial = folder / f".{name}.new"
        partial.write_bytes(content)
        partial.replace(folder / name)


if __name__ == "__main__":
    make_media(Path(__file__).resolve().parent)
