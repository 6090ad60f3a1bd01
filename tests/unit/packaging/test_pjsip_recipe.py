"""The prefix is named by everything that goes into it, and the patch queue is complete."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from buildkit.errors import BuildError
from buildkit.pjsip_recipe import Recipe, patch_number, read_recipe, read_series

PJSIP = Path(__file__).resolve().parents[3] / "packaging/pjsip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = tmp_path / "pjsip"
    shutil.copytree(PJSIP, copy)
    return copy


def recipe(folder: Path, *, mended: bool = True) -> Recipe:
    return read_recipe(folder, mended=mended)


def test_the_same_inputs_have_the_same_hash(folder: Path) -> None:
    assert recipe(folder).digest == recipe(PJSIP).digest


def test_a_patch_counts(folder: Path) -> None:
    before = recipe(folder).digest
    patch = recipe(folder).patches[0]
    patch.write_text(patch.read_text() + "\n")
    assert recipe(folder).digest != before


def test_a_compile_time_setting_counts(folder: Path) -> None:
    before = recipe(folder).digest
    site = folder / "config_site.h"
    site.write_text(site.read_text().replace("PJ_LOG_MAX_LEVEL", "PJ_LOG_LEVEL_MAX"))
    assert recipe(folder).digest != before


def test_the_content_of_a_source_counts(folder: Path) -> None:
    made = recipe(folder)
    other = dataclasses.replace(made, libsrtp=dataclasses.replace(made.libsrtp, content_sha256="0" * 64))
    assert other.digest != made.digest


def test_the_build_with_the_defects_keeps_the_build_fixes_only(folder: Path) -> None:
    (folder / "patches/0099-mend.patch").write_text("")
    series = folder / "patches/series"
    series.write_text(series.read_text() + "0099-mend.patch\n")
    mended = [path.name for path in recipe(folder).patches]
    bare = [path.name for path in recipe(folder, mended=False).patches]
    assert "0099-mend.patch" in mended
    assert bare == [name for name in mended if patch_number(name) < 10]
    assert recipe(folder).digest != recipe(folder, mended=False).digest


def test_a_patch_outside_the_series_is_refused(folder: Path) -> None:
    (folder / "patches/0098-forgotten.patch").write_text("")
    with pytest.raises(BuildError, match="0098-forgotten"):
        read_series(folder / "patches", mended=True)


def test_a_named_patch_that_is_missing_is_refused(folder: Path) -> None:
    series = folder / "patches/series"
    series.write_text(series.read_text() + "0097-absent.patch\n")
    with pytest.raises(BuildError, match="0097-absent"):
        read_series(folder / "patches", mended=True)


def test_a_patch_without_a_number_is_refused() -> None:
    with pytest.raises(BuildError, match="four digits"):
        patch_number("mend.patch")
