#!/usr/bin/env python3
"""Prepare everything a target of the Makefile needs; quick when nothing is to do."""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from buildkit import system_packages  # noqa: E402 - the path above must be set first
from buildkit.environment import ensure_environment  # noqa: E402 - as above
from buildkit.errors import BuildError  # noqa: E402 - as above
from buildkit.pjsip_prefix import ensure_prefix  # noqa: E402 - as above
from buildkit.pjsip_recipe import read_recipe  # noqa: E402 - as above
from buildkit.progress import say  # noqa: E402 - as above
from buildkit.sipp import ensure_sipp  # noqa: E402 - as above
from buildkit.speech import ensure_speech  # noqa: E402 - as above


def prepare(purpose: system_packages.Purpose) -> None:
    """Bring system packages, the pjsip prefix, recorded speech and the virtual environment up to date.

    Tests also need SIPp, and a pjsip prefix that still has its defects, to show that each attack works there.
    """
    absent = system_packages.missing(system_packages.required(purpose))
    if absent:
        system_packages.install(absent)
    prefix = ensure_prefix(read_recipe(HERE / "pjsip", mended=True))
    if purpose is system_packages.Purpose.TEST:
        ensure_prefix(read_recipe(HERE / "pjsip", mended=False))
        ensure_sipp(HERE / "sipp/lock.toml")
    ensure_speech(HERE / "speech/lock.toml")
    ensure_environment(HERE.parent, prefix, development=purpose is system_packages.Purpose.TEST)


def main() -> int:
    """Run the command line; 0 means that all is ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    purposes = [purpose.value for purpose in system_packages.Purpose]
    parser.add_argument("--for", dest="purpose", choices=purposes, default="run")
    try:
        prepare(system_packages.Purpose(parser.parse_args().purpose))
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say("ready")
    return 0


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where the reader of the README learns it
        sys.exit("error: Python 3.11 or newer is needed")
    sys.exit(main())
