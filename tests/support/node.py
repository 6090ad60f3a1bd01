"""Runs the JavaScript of tests/support/js. Node must be there: without it the second implementation is untested."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "js"
_TIMEOUT_S = 60


def run(script: str, *arguments: str) -> Any:
    """What the script prints, parsed as JSON; None if it prints nothing. A missing node is a failure, not a skip."""
    try:
        done = subprocess.run(
            ["node", str(SCRIPTS / script), *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except FileNotFoundError as error:
        raise AssertionError("node (18 or later) is needed to run the second reader; install it") from error
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None
