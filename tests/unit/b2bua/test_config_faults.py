"""Each fault of tests/data/configuration/faults.toml is refused with the line to blame and the cure."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.configuration import ConfigurationFile, make_configuration

DATA = Path(__file__).parents[2] / "data" / "configuration" / "faults.toml"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One table of the data file, whose head explains the fields."""

    name: str
    old: str
    new: str
    at: str
    key: str
    what: str
    cure: str
    also: tuple[str, ...] = ()


FAULTS = [Fault(**table) for table in tomllib.loads(DATA.read_text())["fault"]]


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    return make_configuration(tmp_path / "etc")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_refused_with_its_line_and_its_cure(file: ConfigurationFile, fault: Fault) -> None:
    file.load()  # without the fault the file is good
    file.replace(fault.old, fault.new)
    problems = file.problems()
    blamed = [problem for problem in problems if problem.key == fault.key and fault.what in problem.what]
    assert len(blamed) == 1, problems
    assert fault.cure in blamed[0].cure
    assert blamed[0].line is not None
    assert fault.at in file.text.splitlines()[blamed[0].line - 1]
    assert str(blamed[0]).startswith(f"{file.path}:{blamed[0].line}: {fault.key}: ")
    assert {problem.key for problem in problems} - {fault.key} == set(fault.also)
