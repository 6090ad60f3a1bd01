"""Set-up repeats a step when its inputs have changed, and only then."""

from pathlib import Path

import pytest

from buildkit.environment import Environment, once_per_key, read_requirements
from buildkit.errors import BuildError

TREE = Path(__file__).resolve().parents[3]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / ".venv").mkdir()
    return Environment(tree=tmp_path, folder=tmp_path / ".venv")


def test_a_step_is_done_once_for_the_same_inputs(environment: Environment) -> None:
    done: list[str] = []
    for key in ("a", "a", "b", "b", "a"):
        once_per_key(environment, "step", key, lambda key=key: done.append(key))
    assert done == ["a", "b", "a"]


def test_steps_do_not_share_their_stamp(environment: Environment) -> None:
    done: list[str] = []
    for name in ("first", "second", "first"):
        once_per_key(environment, name, "key", lambda name=name: done.append(name))
    assert done == ["first", "second"]


def test_a_failed_step_is_tried_again(environment: Environment) -> None:
    def fail() -> None:
        raise BuildError("no network")

    with pytest.raises(BuildError, match="no network"):
        once_per_key(environment, "step", "key", fail)
    done: list[str] = []
    once_per_key(environment, "step", "key", lambda: done.append("again"))
    assert done == ["again"]


def names_of(*extras: str) -> set[str]:
    return {requirement.split()[0] for requirement in read_requirements(TREE / "setup.cfg", extras=extras)}


def test_running_needs_no_development_tool() -> None:
    assert {"cryptography", "pylibsrtp"} <= names_of("demo")
    assert not {"pytest", "mypy", "ruff"} & names_of("demo")


def test_the_extras_of_development_are_read() -> None:
    assert {"cryptography", "pytest", "mypy"} <= names_of("test", "dev")
    assert not [name for name in names_of("test", "dev") if name.startswith("#")]
