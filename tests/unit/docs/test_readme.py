"""What the README shows works as it stands there: the configuration, and reading a recording with nothing of ours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from b2bua.call.state import markdown
from b2bua.cli.main import COMMANDS, build_parser
from b2bua.config import load
from b2bua.errors import ConfigurationError
from recording.settings import Layout
from support.configuration import make_configuration
from support.recorded import record_call

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_smallest_configuration_is_good(tmp_path: Path) -> None:
    made = make_configuration(tmp_path / "lab").made
    (tmp_path / "lab" / "smallest.toml").write_text(block("toml"))
    settings = load(tmp_path / "lab" / "smallest.toml")
    assert settings.tls == made.edge
    assert set(settings.trunks) == {"pbx", "carrier"}
    assert settings.recording.layout is Layout.MIXED


def test_no_line_of_it_can_be_left_out(tmp_path: Path) -> None:
    """But those that say so: it is the smallest."""
    make_configuration(tmp_path / "lab")
    path = tmp_path / "lab" / "smallest.toml"
    lines = block("toml").splitlines()
    can_go = {"addresses", "target"}
    for number, line in enumerate(lines):
        key = line.partition(" ")[0]
        if not line or line.startswith("[") or key in can_go:
            continue
        path.write_text("\n".join(lines[:number] + lines[number + 1 :]))
        with pytest.raises(ConfigurationError):
            load(path)


def test_a_recording_can_be_read_with_what_the_readme_shows(tmp_path: Path) -> None:
    made = make_configuration(tmp_path / "lab")
    call = record_call(made.load(), seconds=2)
    (path,) = (tmp_path / "lab" / "recordings").rglob("*.crec")
    script = tmp_path / "read.py"
    script.write_text(block("python"))
    command = [sys.executable, "-I", str(script), str(path), str(made.made.kek)]
    done = subprocess.run(command, capture_output=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == call.pcm


def test_and_it_notices_damage(tmp_path: Path) -> None:
    made = make_configuration(tmp_path / "lab")
    call = record_call(made.load(), seconds=2)
    (path,) = (tmp_path / "lab" / "recordings").rglob("*.crec")
    data = bytearray(path.read_bytes())
    data[-8208 - 1] ^= 1
    damaged = tmp_path / "damaged.crec"
    damaged.write_bytes(data)
    script = tmp_path / "read.py"
    script.write_text(block("python"))
    command = [sys.executable, "-I", str(script), str(damaged), str(made.made.kek)]
    done = subprocess.run(command, capture_output=True, timeout=60, cwd=tmp_path)
    assert b"is damaged" in done.stderr
    assert done.stdout
    assert call.pcm.startswith(done.stdout)
    assert len(done.stdout) < len(call.pcm)


def test_it_imports_nothing_of_ours() -> None:
    imported = re.findall(r"^(?:from|import) (\w+)", block("python"), re.MULTILINE)
    assert not {"b2bua", "recording", "tls"} & set(imported)


def pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_pages_name_exist(page: Path) -> None:
    words = set(re.findall(r"`(?:\.venv/bin/)?b2bua ([a-z]+)", page.read_text()))
    assert words <= set(COMMANDS)
    build_parser()


def test_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in pages():
        assert set(re.findall(r"`make ([a-z-]+)", page.read_text())) <= targets, page


def test_the_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 3, 29 June 2007" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "GPL-3.0-or-later" in README


def test_the_states_of_a_call_are_the_programs_own() -> None:
    assert markdown() in (ROOT / "docs" / "architecture.md").read_text()


def test_decisions_have_the_same_parts_and_a_number_of_their_own() -> None:
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [page.name[:4] for page in decisions]
    assert len(set(numbers)) == len(numbers)
    for page in decisions:
        headings = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
        for part in ("Context", "Options", "Decision", "What would reverse it"):
            assert part in headings, f"{page.name} has no {part}"
