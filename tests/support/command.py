"""The command line in a process of its own, as a user beside a serving process types it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def b2bua(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of a command that knows --json."""
    done = subprocess.run(
        [sys.executable, "-m", "b2bua", *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)
