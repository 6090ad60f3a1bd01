#!/usr/bin/env python3
"""Prepare SIPp in the cache; print the path of its program on stdout."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from buildkit.errors import BuildError  # noqa: E402 - the path above must be set first
from buildkit.sipp import ensure_sipp  # noqa: E402 - as above

if __name__ == "__main__":
    try:
        print(ensure_sipp(HERE / "lock.toml"))
    except BuildError as error:
        sys.exit(f"error: {error}")
