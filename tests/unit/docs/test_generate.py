"""Pages that follow from code are current, and a page that is not is found out."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"


def run(docs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(docs / "generate.py"), *arguments]
    return subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    shutil.copy(DOCS / "generate.py", folder)
    assert run(folder).returncode == 0
    return folder


@pytest.fixture
def docs(tmp_path: Path, written: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "docs"))


def test_written_pages_are_current(docs: Path) -> None:
    assert run(docs, "--check").returncode == 0


def test_a_changed_page_and_a_missing_page_are_named(docs: Path) -> None:
    changed = docs / "configuration.md"
    changed.write_text(changed.read_text() + "\n")
    (docs / "errors.md").unlink()
    done = run(docs, "--check")
    assert done.returncode == 1
    assert "docs/configuration.md" in done.stderr
    assert "docs/errors.md" in done.stderr


def test_one_changed_page_is_enough(docs: Path) -> None:
    changed = docs / "errors.md"
    changed.write_text(changed.read_text() + "\n")
    done = run(docs, "--check")
    assert done.returncode == 1
    assert "configuration.md" not in done.stderr


def test_keys_stand_with_default_bounds_and_example(written: Path) -> None:
    page = (written / "configuration.md").read_text()
    assert (
        "| `max_calls_per_s` | New calls in a second. (at least 1, at most 10000) | `100` | `100` |" in page
    )
    assert "| `from` | Trunk the call comes from. | required |" in page
    assert '["AEAD_AES_256_GCM", "AEAD_AES_128_GCM"]' in page


def test_errors_stand_by_their_code(written: Path) -> None:
    rows = [line for line in (written / "errors.md").read_text().splitlines() if line[2:4].strip().isdigit()]
    codes = [int(row.split("|")[1]) for row in rows]
    assert codes == sorted(set(codes))
    assert {20, 50, 70} <= set(codes)
