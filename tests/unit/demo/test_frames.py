"""Reports over a pipe: whole, in order, and refused when they are not."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest

from b2bua.demo.errors import DemoProcessError
from b2bua.demo.frames import Report, read_report, write_report

ONE = np.arange(-300, 300, dtype=np.int16)
TWO = np.array([5, -5], dtype=np.int16)


def read_all(data: bytes) -> list[Report]:
    async def scenario() -> list[Report]:
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        stream.feed_eof()
        found = []
        while (report := await read_report(stream)) is not None:
            found.append(report)
        return found

    return asyncio.run(scenario())


def written(*reports: Report) -> bytes:
    stream = io.BytesIO()
    for report in reports:
        write_report(stream, report)
    return stream.getvalue()


def test_reports_come_back_with_their_audio_apart() -> None:
    data = written(
        Report(event="called", facts={"port": 5}), Report(event="result", facts={}, audio=(ONE, TWO, ONE[:0]))
    )
    called, result = read_all(data)
    assert (called.event, called.facts, called.audio) == ("called", {"port": 5}, ())
    assert [pcm.tolist() for pcm in result.audio] == [ONE.tolist(), TWO.tolist(), []]


@pytest.mark.parametrize("cut", [1, 9, 12, -1])
def test_a_cut_report_is_an_error(cut: int) -> None:
    data = written(Report(event="result", facts={}, audio=(ONE,)))
    assert len(read_all(data)) == 1
    with pytest.raises(DemoProcessError, match="in the middle"):
        read_all(data[:cut])


def test_anything_else_is_no_report() -> None:
    with pytest.raises(DemoProcessError, match="no report"):
        read_all(b"Traceback (most recent call last)")


def test_audio_does_not_show_in_a_repr() -> None:
    assert "audio" not in repr(Report(event="x", facts={}, audio=(ONE,)))
