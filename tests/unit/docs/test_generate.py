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


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    shutil.copy(DOCS / "generate.py", tmp_path)
    assert run(tmp_path).returncode == 0
    return tmp_path


def test_written_pages_are_current(docs: Path) -> None:
    assert run(docs, "--check").returncode == 0


@pytest.mark.parametrize("name", ["configuration.md", "errors.md"])
def test_a_changed_page_is_named(docs: Path, name: str) -> None:
    page = docs / name
    page.write_text(page.read_text() + "\n")
    done = run(docs, "--check")
    assert done.returncode == 1
    assert f"docs/{name}" in done.stderr


@pytest.mark.parametrize("name", ["configuration.md", "errors.md"])
def test_a_missing_page_is_named(docs: Path, name: str) -> None:
    (docs / name).unlink()
    assert f"docs/{name}" in run(docs, "--check").stderr


def test_keys_stand_with_default_bounds_and_example(docs: Path) -> None:
    page = (docs / "configuration.md").read_text()
    assert (
        "| `max_calls_per_s` | New calls in a second. (at least 1, at most 10000) | `100` | `100` |" in page
    )
    assert "| `from` | Trunk the call comes from. | required |" in page
    assert '["AEAD_AES_256_GCM", "AEAD_AES_128_GCM"]' in page


def test_errors_stand_by_their_code(docs: Path) -> None:
    rows = [line for line in (docs / "errors.md").read_text().splitlines() if line[2:4].strip().isdigit()]
    codes = [int(row.split("|")[1]) for row in rows]
    assert codes == sorted(set(codes))
    assert {20, 50, 70} <= set(codes)
