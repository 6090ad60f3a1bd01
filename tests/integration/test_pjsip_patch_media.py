"""Media transports of the patched pjproject: packets that are under way while the transport changes hands."""

from __future__ import annotations

import pytest

from support.pj_attack import run_check


@pytest.mark.parametrize(("case", "expected"), [("switch", "1 0"), ("stay", "0 1")])
def test_source_address_of_a_packet_outlives_a_new_attach(case: str, expected: str) -> None:
    run = run_check("rtp.c", case)
    assert run.returncode == 0, run
    assert run.stdout.strip() == expected


@pytest.mark.parametrize("case", ["new", "active"])
def test_port_of_the_bridge_is_freed_by_its_clock(case: str) -> None:
    run = run_check("conf.c", case)
    assert run.returncode == 0, run
    assert run.stdout.split() == ["0", "1", "1"]


def test_packet_leaves_through_its_own_socket_while_the_transport_is_closed() -> None:
    run = run_check("close.c")
    assert run.returncode == 0, run
    assert run.stdout.split() == ["own", "none"]


def test_packet_that_waits_for_the_start_does_not_make_the_transport_deaf() -> None:
    run = run_check("early.c")
    assert run.returncode == 0, run
    assert run.stdout.split() == ["1", "1"]


def test_socket_that_is_read_on_stays_armed_and_one_that_is_not_lets_the_poll_rest() -> None:
    run = run_check("armed.c")
    assert run.returncode == 0, run
    assert run.stdout.split() == ["0", "1", "1"]


def test_packets_of_many_streams_are_taken_with_one_wake_up() -> None:
    run = run_check("together.c")
    assert run.returncode == 0, run
    assert run.stdout.split() == ["1", "10"]
