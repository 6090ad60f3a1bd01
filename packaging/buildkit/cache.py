"""Where built and fetched things are kept: outside the tree, under names made of hashes."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from buildkit.progress import say

CACHE_VARIABLE = "SEALTRUNK_CACHE"


def cache_root() -> Path:
    """The cache folder: `$SEALTRUNK_CACHE`, else `~/.cache/sealtrunk`. Made if it is absent."""
    chosen = os.environ.get(CACHE_VARIABLE)
    root = Path(chosen) if chosen else Path.home() / ".cache" / "sealtrunk"
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve()


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the cache's lock called `name`; a second process waits and says so.

    The kernel drops the lock when its holder dies, so a killed build never blocks the next.
    """
    path = cache_root() / f".{name}.lock"
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is busy with {name}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def workspace(name: str) -> Iterator[Path]:
    """A temporary folder on the cache's file system, removed afterwards, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache_root()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(built: Path, final: Path) -> None:
    """Move a finished folder to its place in one step: readers see all of it or nothing."""
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        shutil.rmtree(final)
    built.rename(final)
