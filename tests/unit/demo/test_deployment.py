"""The demonstration reads what `b2bua init` really makes, and adds the second layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from b2bua import config
from b2bua.demo.deployment import is_made, read_deployment
from b2bua.demo.errors import DemoError
from b2bua.initialise import InitOptions, InitResult, initialise
from recording.settings import Layout


@pytest.fixture
def made(tmp_path: Path) -> InitResult:
    return initialise(tmp_path / "demo", InitOptions(free_ports=True))


def test_everything_init_made_is_found(made: InitResult) -> None:
    assert is_made(made.directory)
    assert not is_made(made.directory.parent)
    found = read_deployment(made.directory)
    assert (found.sip_port, found.callee_port) == (made.sip_port, made.callee_port)
    assert found.server_name == "edge.example.test"
    assert found.request_uri == f"sips:+12025550199@edge.example.test:{made.sip_port}"
    assert found.caller.certificate == made.caller.certificate_path
    assert found.callee.private_key == made.callee.private_key_path
    assert found.caller.authority == made.authority


def test_the_two_configurations_differ_in_the_layout_alone(made: InitResult) -> None:
    found = read_deployment(made.directory)
    mixed, split = (config.load(found.configurations[layout]) for layout in ("mixed", "split"))
    assert (mixed.recording.layout, split.recording.layout) == (Layout.MIXED, Layout.SPLIT)
    assert mixed.listener == split.listener
    assert mixed.tenants == split.tenants
    again = read_deployment(made.directory)
    assert again == found


def test_a_directory_of_something_else_is_refused(tmp_path: Path, made: InitResult) -> None:
    with pytest.raises(DemoError, match="not a configuration"):
        read_deployment(tmp_path)
    text = made.configuration.read_text()
    for broken in (text.replace("[trunks.callee]", "[trunks.other]"), text.replace('layout = "mixed"', "")):
        made.configuration.write_text(broken)
        with pytest.raises(DemoError, match="start again"):
            read_deployment(made.directory)
