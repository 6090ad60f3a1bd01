"""Libraries beside SIPp that are not the locked ones are named, and a broken lock is refused."""

from pathlib import Path

import pytest

from buildkit.errors import BuildError
from buildkit.sipp import read_library_lock, unlocked

LOCK = Path(__file__).resolve().parents[3] / "packaging/sipp/lock.toml"


def test_every_package_asked_for_is_locked() -> None:
    lock = read_library_lock(LOCK)
    assert set(lock.packages) <= {entry.file.split("_")[0] for entry in lock.accepted}


def test_a_successor_is_named_with_what_the_lock_knows() -> None:
    lock = read_library_lock(LOCK)
    known = next(entry.version for entry in lock.accepted if entry.file.startswith("libc6_"))
    (said,) = unlocked(["libc6_9.99-1_amd64.deb"], lock)
    assert "libc6_9.99-1_amd64.deb" in said
    assert known in said


def test_a_new_library_is_named() -> None:
    (said,) = unlocked(["libnew1_1_amd64.deb"], read_library_lock(LOCK))
    assert "no such package" in said


def test_a_broken_lock_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "lock.toml"
    broken.write_text(LOCK.read_text().replace('suite = "trixie"', ""))
    with pytest.raises(BuildError, match="not a valid lock"):
        read_library_lock(broken)
