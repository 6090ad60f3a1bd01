"""The locked archives hold the content that the locks name, so that the rule by content can hold too."""

from pathlib import Path

import pytest

from buildkit.digest import sha256_tree
from buildkit.lock import read_source_lock
from buildkit.source import obtain, unpack

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("pjsip/lock.toml", "pjproject"),
        ("pjsip/lock.toml", "libsrtp"),
        ("sipp/lock.toml", "sipp"),
        ("speech/lock.toml", "speech"),
    ],
)
def test_the_content_of_a_locked_archive(tmp_path: Path, file: str, name: str) -> None:
    lock = read_source_lock(PACKAGING / file, name)
    unpack(obtain(lock), tmp_path)
    assert sha256_tree(tmp_path) == lock.content_sha256
