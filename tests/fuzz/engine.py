"""One target under atheris, in a process of its own: `python -m tests.fuzz.engine TARGET [libFuzzer options] DIRS`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["b2bua", "recording", "tls"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
