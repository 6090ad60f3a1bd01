"""A good configuration on disk to spoil one line at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from b2bua.config import load
from b2bua.errors import ConfigurationError, ConfigurationProblem
from b2bua.initialise import InitOptions, InitResult, initialise
from b2bua.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationFile:
    """`b2bua init`'s result, with edits that must hit something."""

    made: InitResult

    @property
    def path(self) -> Path:
        return self.made.configuration

    @property
    def text(self) -> str:
        return self.path.read_text()

    def replace(self, old: str, new: str) -> None:
        text = self.text
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the configuration"
        self.path.write_text(text.replace(old, new))

    def append(self, text: str) -> None:
        self.path.write_text(f"{self.text}\n{text}\n")

    def line(self, needle: str, occurrence: int = 1) -> int:
        """The 1-based line of the `occurrence`-th line that contains `needle`."""
        found = [number for number, line in enumerate(self.text.splitlines(), 1) if needle in line]
        return found[occurrence - 1]

    def load(self) -> Settings:
        return load(self.path)

    def problems(self) -> tuple[ConfigurationProblem, ...]:
        with pytest.raises(ConfigurationError) as caught:
            self.load()
        return caught.value.problems

    def problem(self) -> ConfigurationProblem:
        (problem,) = self.problems()
        return problem


def make_configuration(directory: Path, options: InitOptions | None = None) -> ConfigurationFile:
    return ConfigurationFile(made=initialise(directory, options or InitOptions()))
