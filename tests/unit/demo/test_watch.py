"""Waiting for conditions: at once, on a change, and not for ever."""

from __future__ import annotations

import asyncio

import pytest

from b2bua.demo.errors import WaitTimeoutError
from b2bua.demo.watch import Watched


def test_a_condition_that_holds_is_not_waited_for() -> None:
    asyncio.run(Watched().until(lambda: True, "nothing", timeout_s=0))


def test_each_wait_ends_at_the_change_that_makes_it_true() -> None:
    async def scenario() -> list[int]:
        watched, facts, order = Watched(), set(), []

        async def wait(number: int) -> None:
            await watched.until(lambda: number in facts, f"fact {number}", timeout_s=5)
            order.append(number)

        waits = [asyncio.ensure_future(wait(number)) for number in range(3)]
        await asyncio.sleep(0)
        for number in (2, 0, 1):
            facts.add(number)
            watched.changed()
            await waits[number]
        assert watched._watchers == []
        return order

    assert asyncio.run(scenario()) == [2, 0, 1]


def test_a_wait_that_ends_without_its_fact_names_it_and_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        watched = Watched()
        with pytest.raises(WaitTimeoutError, match=r"no ringing within 0\.01 s"):
            await watched.until(lambda: False, "ringing", timeout_s=0.01)
        assert watched._watchers == []

    asyncio.run(scenario())
