"""The task an endpoint process is given: one JSON line, and what is wrong with a bad one."""

from __future__ import annotations

import pytest

from b2bua.demo.errors import DemoError
from b2bua.demo.process import Task

TASK = Task(
    role="caller", certificate="c", private_key="k", authority="a", speech="s", seconds=12, uri="sips:1@x"
)


def test_a_task_survives_its_line() -> None:
    assert Task.parse(TASK.line().decode()) == TASK
    assert TASK.suites == ("AEAD_AES_256_GCM", "AEAD_AES_128_GCM")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rôle": 1}', '{"role": "caller"}'])
def test_a_bad_task_is_refused(text: str) -> None:
    with pytest.raises(DemoError, match="JSON object of role, certificate"):
        Task.parse(text)
