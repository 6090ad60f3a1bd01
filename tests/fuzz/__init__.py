"""Fuzzing of everything that reads untrusted bytes. `python -m tests.fuzz SECONDS`; `make fuzz` calls it.

`targets` says what is fed and what must hold, `engine` runs one target under atheris, `__main__` runs all of them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, where `support` lies
