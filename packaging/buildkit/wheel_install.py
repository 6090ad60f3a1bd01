"""Install a local wheel by its path and hash, without asking any index."""

import tempfile
from pathlib import Path

from buildkit.digest import sha256_file
from buildkit.errors import BuildError
from buildkit.progress import capture


def install_wheel(wheel: Path, *, sha256: str, python: str) -> None:
    """Install the wheel for an interpreter; pip checks the hash again.

    Raises:
        BuildError: The file has another hash, or pip refused it.
    """
    actual = sha256_file(wheel)
    if actual != sha256:
        raise BuildError(
            f"{wheel} has SHA-256 {actual}, recorded was {sha256}; remove its folder and build again"
        )
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"pjsua2 @ {wheel.as_uri()} --hash=sha256:{sha256}\n")
        flags = ("--quiet", "--no-index", "--no-deps", "--force-reinstall", "--no-warn-script-location")
        capture([python, "-m", "pip", "install", *flags, "--require-hashes", "-r", str(requirements)])
