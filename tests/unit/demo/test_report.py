"""The report's verdict: each broken promise is a fault with its words, and both outputs tell the same facts."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from b2bua.demo.report import CallReport, DemoReport, LegReport, RecordingReport, print_table
from b2bua.demo.score import Score, SplitScore

GOOD = Score(worst=0.991, mean=0.995, offset_ms=61.0, drift_ms=0.1, covered_s=12.0, windows=21, faults=())
BAD = replace(GOOD, worst=0.2, faults=("a window correlates 0.200, below 0.9",))
LEG = LegReport(
    side="caller",
    tls="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    suite="AEAD_AES_256_GCM",
    sent=650,
    sent_late=2,
    received=640,
    lost=3,
    auth_failures=0,
    plaintext=0,
    heard=GOOD,
)
RECORDING = RecordingReport(
    call_uid="c" * 32,
    file_id="f" * 32,
    records=30,
    state="complete",
    key_id="kek-1",
    wav=Path("/tmp/demo/x.wav"),
    score=GOOD,
)
CALL = CallReport(layout="mixed", caller=LEG, callee=replace(LEG, side="callee"), recording=RECORDING)
SPLIT = replace(
    CALL,
    layout="split",
    recording=replace(RECORDING, score=SplitScore(caller=GOOD, called=GOOD, crosstalk=0.01, faults=())),
)


def test_all_as_promised_passes_and_is_json() -> None:
    report = DemoReport(calls=(CALL, SPLIT))
    assert report.passed
    content = json.loads(json.dumps(report.as_json()))
    assert content["passed"] is True
    assert [call["layout"] for call in content["calls"]] == ["mixed", "split"]
    assert content["calls"][0]["recording"]["wav"] == "/tmp/demo/x.wav"
    assert content["calls"][1]["recording"]["score"]["crosstalk"] == 0.01
    assert content["calls"][0]["callee"]["heard"]["worst"] == 0.991


def test_no_call_is_no_pass() -> None:
    assert not DemoReport(calls=()).passed


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("caller", {"tls": "TLSv1.2"}, "mixed: caller: the TLS version is TLSv1.2"),
        ("callee", {"cipher": "TLS_AES_128_CCM_SHA256"}, "mixed: callee: the cipher is"),
        ("caller", {"suite": "AES_CM_128_HMAC_SHA1_80"}, "the SRTP suite is AES_CM_128"),
        ("callee", {"auth_failures": 2}, "2 packets failed authentication"),
        ("caller", {"plaintext": 1}, "1 packets came in plain text"),
        ("caller", {"heard": BAD}, "caller: a window correlates"),
        ("recording", {"state": "incomplete"}, "recording: its state is incomplete"),
        ("recording", {"score": BAD}, "recording: a window correlates"),
        (
            "recording",
            {"score": SplitScore(caller=GOOD, called=BAD, crosstalk=0.0, faults=())},
            "recording: called channel: a window",
        ),
        (
            "recording",
            {"score": SplitScore(caller=GOOD, called=GOOD, crosstalk=0.3, faults=("crosstalk 0.300",))},
            "recording: crosstalk 0.300",
        ),
    ],
)
def test_each_broken_promise_is_one_fault(part: str, change: dict[str, Any], words: str) -> None:
    changed = replace(getattr(CALL, part), **change)
    report = DemoReport(calls=(replace(CALL, **{part: changed}),))
    assert not report.passed
    (fault,) = report.faults
    assert words in fault
    assert report.as_json()["calls"][0]["faults"] == [fault]


def test_the_table_tells_every_fact_and_fault() -> None:
    stream = io.StringIO()
    broken = replace(SPLIT, caller=replace(LEG, plaintext=1))
    print_table(DemoReport(calls=(CALL, broken)), Console(file=stream, width=200, markup=False))
    text = stream.getvalue()
    for fact in (
        "TLSv1.3", "TLS_AES_256_GCM_SHA384", "AEAD_AES_256_GCM", "c" * 32, "f" * 32, "complete", "kek-1",
        "/tmp/demo/x.wav", "0.991 at worst of 21", "crosstalk 0.010", "3 of 643 packets lost", "650 packets, 2 late",
        "not as promised: split: caller: 1 packets came in plain text",
    ):  # fmt: skip
        assert fact in text
