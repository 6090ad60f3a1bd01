#!/usr/bin/env python3
"""Build pjproject, libsrtp and the pjsua2 wheel into the cache; print the prefix on stdout."""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from buildkit.errors import BuildError  # noqa: E402 - the path above must be set first
from buildkit.pjsip_prefix import ensure_prefix, prefix_path  # noqa: E402 - as above
from buildkit.pjsip_recipe import read_recipe  # noqa: E402 - as above
from buildkit.wheel_install import install_wheel  # noqa: E402 - as above


def main() -> int:
    """Run the command line; 0 means the prefix is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--unpatched", action="store_true", help="leave the mending patches out (for tests only)"
    )
    parser.add_argument(
        "--print-prefix", action="store_true", help="print where the prefix lies; build nothing"
    )
    parser.add_argument(
        "--install-into", metavar="PYTHON", help="install the wheel for this interpreter by its hash"
    )
    arguments = parser.parse_args()
    try:
        recipe = read_recipe(HERE, mended=not arguments.unpatched)
        if arguments.print_prefix:
            print(prefix_path(recipe))
            return 0
        prefix = ensure_prefix(recipe)
        if arguments.install_into:
            wheel = prefix.required_wheel
            install_wheel(wheel.path, sha256=wheel.sha256, python=arguments.install_into)
        print(prefix.path)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
