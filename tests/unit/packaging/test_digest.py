"""A tree's hash follows its content, and nothing else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from buildkit.digest import sha256_fields, sha256_file, sha256_tree


def make(root: Path) -> Path:
    (root / "a").mkdir(parents=True)
    (root / "a/run").write_text("x")
    (root / "a/run").chmod(0o755)
    (root / "b").write_text("y")
    (root / "link").symlink_to("b")
    return root


def test_the_same_content_elsewhere_and_at_another_time_is_the_same(tmp_path: Path) -> None:
    first, second = make(tmp_path / "one"), make(tmp_path / "two")
    os.utime(second / "b", (0, 0))
    assert sha256_tree(first) == sha256_tree(second)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "b").write_text("z"),
        lambda root: (root / "b").rename(root / "c"),
        lambda root: (root / "a/run").chmod(0o644),
        lambda root: (root / "empty").mkdir(),
        lambda root: (root / "a/run").unlink(),
        lambda root: ((root / "link").unlink(), (root / "link").symlink_to("a")),
        lambda root: ((root / "link").unlink(), (root / "link").write_text("b")),
    ],
    ids=["content", "name", "executable", "added", "removed", "target", "kind"],
)
def test_any_change_is_another_hash(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = make(tmp_path / "tree")
    before = sha256_tree(root)
    change(root)
    assert sha256_tree(root) != before


def test_fields_do_not_run_together() -> None:
    assert sha256_fields("ab", "c") != sha256_fields("a", "bc")


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-4, the example of one block.
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
