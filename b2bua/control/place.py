"""Where the control socket lies: a name in a directory that is opened first, so that its path may be of any length.

The kernel takes 107 bytes of an address (unix(7)), and a deployment's directory may well be deeper than that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[int]:
    """The directory, to make addresses in; not through a link in its place. OSError where it can't be opened."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def address(directory: int, name: str) -> str:
    """What to bind or connect to, as long as `directory` is open."""
    return f"/proc/self/fd/{directory}/{name}"
