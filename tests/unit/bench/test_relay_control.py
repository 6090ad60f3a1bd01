"""What is said to the relay that the bench compares with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bench.__main__ import main
from tests.bench.relay import Bencoded, RelayError, bdecode, bencode


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        ("", b"0:"),
        ("é", b"2:\xc3\xa9"),
        (-42, b"i-42e"),
        (["a", 1], b"l1:ai1ee"),
        ({"b": [], "a": {}}, b"d1:ade1:blee"),
    ],
)
def test_a_value_is_written_and_read_back(value: Bencoded, octets: bytes) -> None:
    assert bencode(value) == octets
    assert bdecode(octets) == value


@pytest.mark.parametrize(
    "octets", [b"", b"i1", b"5:abc", b"l1:a", b"x", b"i1ei2e", b"d1:ae", b"ie", b"2:\xff\xff"]
)
def test_an_answer_that_is_none_is_an_error(octets: bytes) -> None:
    with pytest.raises(RelayError):
        bdecode(octets)


def test_without_the_relay_nothing_is_measured_and_what_to_install_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ldd = shutil.which("ldd")
    assert ldd is not None
    (tmp_path / "ldd").symlink_to(ldd)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--only", "relay"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "rtpengine-daemon" in printed.err
