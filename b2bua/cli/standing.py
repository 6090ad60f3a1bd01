"""The manifest of a file that was named by its path."""

from __future__ import annotations

from pathlib import Path

from recording.format.manifest import MANIFEST_MAX, MANIFEST_SUFFIX


def manifest_beside(path: Path) -> bytes | None:
    """What lies beside the file, as `recording.sinks.sink.Sink.manifest` gives it. Raises OSError."""
    beside = path.with_suffix(MANIFEST_SUFFIX)
    if not beside.exists():
        return None
    with beside.open("rb") as file:
        return file.read(MANIFEST_MAX + 1)
