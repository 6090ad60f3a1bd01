"""The pjsua2 wheel is installed by its hash, without an index, and no requirement names it."""

import configparser
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from buildkit.digest import sha256_file
from buildkit.errors import BuildError
from buildkit.pjsua2_module import write_wheel
from buildkit.wheel_install import install_wheel

TREE = Path(__file__).resolve().parents[3]
FILES = {"pjsua2.py": b"answer = 42\n"}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return str(folder / "bin/python")


def test_a_wheel_is_installed_by_its_hash(tmp_path: Path, python: str) -> None:
    wheel = write_wheel(tmp_path / "wheels", version="2.17+sealtrunk.test", files=FILES)
    install_wheel(wheel, sha256=sha256_file(wheel), python=python)
    command = [
        python,
        "-c",
        "import pjsua2, importlib.metadata as m; print(pjsua2.answer, m.version('pjsua2'))",
    ]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        == "42 2.17+sealtrunk.test\n"
    )


def test_a_changed_wheel_is_refused(tmp_path: Path, python: str) -> None:
    wheel = write_wheel(tmp_path / "wheels", version="2.17+sealtrunk.test", files=FILES)
    recorded = sha256_file(wheel)
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(BuildError, match="recorded was"):
        install_wheel(wheel, sha256=recorded, python=python)


def test_the_same_content_makes_the_same_wheel(tmp_path: Path) -> None:
    first = write_wheel(tmp_path / "one", version="1", files=FILES).read_bytes()
    second = write_wheel(tmp_path / "two", version="1", files=FILES).read_bytes()
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()


def test_the_record_lists_every_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_wheel(tmp_path / "w", version="1", files=FILES)) as archive:
        record = archive.read("pjsua2-1.dist-info/RECORD").decode().splitlines()
        assert sorted(line.split(",")[0] for line in record) == sorted(archive.namelist())


def test_no_requirement_names_pjsua2() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(TREE / "setup.cfg")
    texts = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    requirements = "\n".join(line for text in texts for line in text.splitlines() if not line.startswith("#"))
    assert "cryptography" in requirements
    assert "pjsua2" not in requirements.lower()
