"""One served B2BUA for the tests of a module that leave it as they found it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.discreet import assert_discreet
from support.edge import Edge, edge


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A B2BUA under `b2bua init`'s configuration; it must still be alive, and leave with 0, at the end."""
    with edge(tmp_path_factory.mktemp("served"), edit=short_drain) as running:
        yield running
        assert_unharmed(running)


@pytest.fixture(scope="module", params=["sips", "sip"])
def served_to(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """The same, with the targets' scheme as the parameter says."""

    def edit(text: str) -> str:
        if request.param == "sips":
            return short_drain(text)
        return short_drain(re.sub(r'target = "sips:([^"]*)"', r'target = "sip:\1;transport=tls"', text))

    with edge(tmp_path_factory.mktemp("served"), edit=edit) as running:
        yield running
        assert_unharmed(running)


def short_drain(text: str) -> str:
    """Calls that a failed test left behind must not hold the next one up."""
    return text.replace("[limits]\n", "[limits]\ndrain_deadline_s = 1\n")


def assert_unharmed(running: Edge) -> None:
    """Alive to the end, gone when told to, no fault of our own on the way, and nothing told that must not be."""
    log = running.stderr.read_text()[-4000:]
    assert running.process.poll() is None, log
    assert running.stop() == 0, log
    assert [line for line in running.audit() if line["event"] == "fault"] == [], log
    running.assert_audit_whole()
    assert_discreet(running.stderr.read_text() + running.audit_text())
