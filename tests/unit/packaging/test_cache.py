"""The cache shows whole folders or none, and one builder at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from buildkit.cache import cache_root, exclusive, publish, workspace

PACKAGING = Path(__file__).resolve().parents[3] / "packaging"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEALTRUNK_CACHE", str(folder))
    return folder


def test_the_variable_names_the_cache(root: Path) -> None:
    assert cache_root() == root
    assert root.is_dir()


def test_a_workspace_is_gone_after_a_failure() -> None:
    seen: list[Path] = []

    def fail() -> None:
        with workspace("w") as folder:
            (folder / "half").write_text("x")
            seen.append(folder)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert len(seen) == 1
    assert not seen[0].exists()


def test_publishing_replaces_what_was_there(root: Path) -> None:
    final = root / "result"
    for content in ("old", "new"):
        with workspace("w") as folder:
            (folder / "built").mkdir()
            (folder / "built" / content).write_text(content)
            publish(folder / "built", final)
    assert [path.name for path in final.iterdir()] == ["new"]


def test_a_second_process_waits_for_the_lock(capfd: pytest.CaptureFixture[str]) -> None:
    code = "from buildkit.cache import exclusive\nwith exclusive('x'): print('in', flush=True)"
    command = [sys.executable, "-c", code]
    with exclusive("x"):
        second = subprocess.Popen(
            command, cwd=PACKAGING, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert second.stderr is not None
        assert "waiting" in second.stderr.readline()
        assert second.poll() is None
    out, _ = second.communicate(timeout=30)
    assert out == "in\n"
