"""The settings that the rules of the posture report are asked about."""

from __future__ import annotations

from pathlib import Path

import pytest

from b2bua.settings import Settings
from support.configuration import make_configuration


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """What `b2bua init` makes."""
    return make_configuration(tmp_path / "lab").load()
