"""The extension is built against the pjsip prefix, and without one it is declined or refused, never half made."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.pjsip_build import prefix

TREE = Path(__file__).resolve().parents[2]


def build(folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    plain = {
        name: value
        for name, value in os.environ.items()
        if name not in {"SEALTRUNK_PJSIP_PREFIX", "SEALTRUNK_NO_NATIVE"}
    }
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "-f",
        "-b",
        str(folder / "lib"),
        "-t",
        str(folder / "tmp"),
    ]
    return subprocess.run(
        command,
        cwd=TREE,
        env={**plain, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def built(folder: Path) -> list[Path]:
    return sorted(folder.glob("lib/b2bua/native/_native.*.so"))


def test_with_the_prefix_it_is_built_without_a_warning_and_finds_its_libraries_there(tmp_path: Path) -> None:
    done = build(tmp_path, {"SEALTRUNK_PJSIP_PREFIX": str(prefix())})
    assert done.returncode == 0, done.stderr
    assert "warning:" not in done.stderr
    (extension,) = built(tmp_path)
    shown = subprocess.run(
        ["readelf", "-d", str(extension)], capture_output=True, text=True, check=True
    ).stdout
    (searched,) = re.findall(r"\(RUNPATH\).*\[(.+)\]", shown)
    assert f"{prefix()}/lib" in searched.split(":")


def test_without_the_prefix_it_is_refused_with_the_cure(tmp_path: Path) -> None:
    done = build(tmp_path, {})
    assert done.returncode != 0
    assert "make setup" in done.stderr
    assert not built(tmp_path)


def test_it_can_be_declined(tmp_path: Path) -> None:
    done = build(tmp_path, {"SEALTRUNK_NO_NATIVE": "1"})
    assert done.returncode == 0, done.stderr
    assert not built(tmp_path)


@pytest.mark.parametrize("package", ["tls", "recording"])
def test_certificates_and_recordings_import_with_no_pjsip_present(package: str) -> None:
    program = f"""
import importlib, pkgutil, sys
for name in ("pjsua2", "_pjsua2", "b2bua", "b2bua.native._native"):
    sys.modules[name] = None
package = importlib.import_module({package!r})
names = [module.name for module in pkgutil.walk_packages(package.__path__, {package!r} + ".")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TREE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3
