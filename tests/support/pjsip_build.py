"""The pjsip prefixes that tests run against: the product's, and one with its defects left in."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BUILD = Path(__file__).resolve().parents[2] / "packaging/pjsip/build.py"


def _build(*arguments: str) -> Path:
    command = [sys.executable, str(BUILD), *arguments]
    return Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


@functools.cache
def prefix() -> Path:
    """The prefix the product runs on; built here if the cache lacks it."""
    return _build()


@functools.cache
def unpatched_prefix() -> Path:
    """The same sources without the mending patches: shows that an attack works where its patch is missing."""
    return _build("--unpatched")


def build_info(folder: Path) -> dict[str, Any]:
    """What the build wrote about a prefix: versions, patches, defines, libraries, wheel."""
    info: dict[str, Any] = json.loads((folder / "sealtrunk-build.json").read_text())
    return info
