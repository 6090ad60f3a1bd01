"""The SIPp that tests run: TLS on OpenSSL, prepared in the cache."""

import functools
import subprocess
import sys
from pathlib import Path

FETCH = Path(__file__).resolve().parents[2] / "packaging/sipp/fetch.py"


@functools.cache
def sipp_program() -> Path:
    """The program to start; it brings its own libraries along."""
    done = subprocess.run([sys.executable, str(FETCH)], check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip())
