"""Recorded speech, unpacked into the cache; no package is installed."""

from pathlib import Path

from buildkit.cache import cache_root, exclusive, publish, workspace
from buildkit.errors import BuildError
from buildkit.lock import read_source_lock
from buildkit.progress import phase
from buildkit.source import obtain, unpack


def ensure_speech(lock_file: Path) -> Path:
    """Return the folder of WAV files (8 kHz, 16 bit, mono), fetching it first where needed.

    Raises:
        BuildError: It cannot be had, or holds no WAV file.
    """
    lock = read_source_lock(lock_file, "speech")
    kept = cache_root() / f"speech-{lock.content_sha256[:24]}"
    if not kept.is_dir():
        with exclusive("speech"), phase("fetching recorded speech"), workspace("speech") as folder:
            if not kept.is_dir():
                unpack(obtain(lock), folder / "speech")
                publish(folder / "speech", kept)
    found = sorted(kept.glob("usr/share/asterisk/sounds/*/*.wav"))
    if not found:
        raise BuildError(f"{kept} holds no speech; remove it and run the set-up again")
    return found[0].parent
