"""The lock files of the tree are well formed, and others are refused."""

from pathlib import Path

import pytest

from buildkit.errors import BuildError
from buildkit.lock import read_source_lock

PACKAGING = Path(__file__).resolve().parents[3] / "packaging"
GOOD = f"""
[part]
package = "engine"
release = "1"
file_suffix = ".tar.xz"
suites = ["sid"]
content_sha256 = "{"a" * 64}"

[[part.accepted]]
version = "1-1"
file = "engine_1.tar.xz"
sha256 = "{"b" * 64}"
"""


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("pjsip/lock.toml", "pjproject"),
        ("pjsip/lock.toml", "libsrtp"),
        ("speech/lock.toml", "speech"),
        ("sipp/lock.toml", "sipp"),
    ],
)
def test_the_locks_of_the_tree(file: str, name: str) -> None:
    lock = read_source_lock(PACKAGING / file, name)
    assert lock.suites
    for entry in lock.accepted:
        assert entry.file.startswith(f"{lock.package}_")
        assert entry.file.endswith(lock.file_suffix)
        assert lock.accepts(entry.sha256)


def test_only_the_listed_hash_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "lock.toml").write_text(GOOD)
    lock = read_source_lock(tmp_path / "lock.toml", "part")
    assert lock.accepts("b" * 64)
    assert not lock.accepts("a" * 64)
    assert lock.archive_type == "deb-src"


def test_a_binary_package_is_known_by_its_ending(tmp_path: Path) -> None:
    (tmp_path / "lock.toml").write_text(GOOD.replace(".tar.xz", "_all.deb"))
    assert read_source_lock(tmp_path / "lock.toml", "part").archive_type == "deb"


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("b" * 64, "B" * 64),
        GOOD.replace("b" * 64, "b" * 63),
        GOOD.replace("a" * 64, ""),
        GOOD.replace('package = "engine"\n', ""),
        GOOD.replace("[part]", "[other]"),
        "[part",
    ],
    ids=["upper-case", "short", "empty", "missing-key", "missing-table", "no-toml"],
)
def test_a_broken_lock_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock.toml").write_text(text)
    with pytest.raises(BuildError, match="not a valid lock"):
        read_source_lock(tmp_path / "lock.toml", "part")
