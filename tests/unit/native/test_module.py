"""The module without a pjsua: its surface is the contract's, and what needs the library says so."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from b2bua.native import _native

CONTRACT = Path(_native.__file__).with_name("_native.pyi")
LISTENER = {
    "address": "127.0.0.1",
    "port": 0,
    "public_host": "127.0.0.1",
    "public_port": 0,
    "certificate_path": "cert.pem",
    "private_key_path": "key.pem",
    "trust_path": "ca.pem",
    "ciphers": [0x1302],
    "handshake_timeout_ms": 5000,
}


def install(*, methods: object = ("INVITE",), limit: int = 12000, gate: object = print) -> None:
    _native.guard_install(
        on_connected=print,  # type: ignore[arg-type]
        on_disconnected=print,
        gate=gate,  # type: ignore[arg-type]
        on_refused=print,
        may_send=print,  # type: ignore[arg-type]
        methods=methods,  # type: ignore[arg-type]
        max_message_bytes=limit,
    )


def test_the_module_has_what_the_contract_names_and_nothing_else() -> None:
    names = set()
    for node in ast.parse(CONTRACT.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            assert isinstance(node.target, ast.Name)
            names.add(node.target.id)
    assert names == {name for name in dir(_native) if not name.startswith("__")}


def test_refusal_reasons_are_those_of_the_contract() -> None:
    named = [line.strip() for line in CONTRACT.read_text().splitlines() if line.strip().startswith('#   "')]
    assert tuple(word.strip('"') for line in named for word in line[1:].split()) == _native.REFUSAL_REASONS


def test_a_native_error_carries_its_status() -> None:
    with pytest.raises(_native.NativeError, match="libInit has not run") as raised:
        _native.tap_new(rate_hz=8000, ptime_ms=20, ring_ms=5000, layout=_native.MIXED)
    assert raised.value.status == 70013


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: _native.hosts_set({}), "libInit has not run"),
        (lambda: _native.listener_create(**LISTENER), "guard_install comes first"),  # type: ignore[arg-type]
        (install, "after libInit"),
    ],
)
def test_what_needs_the_library_says_so(call: Callable[[], object], text: str) -> None:
    with pytest.raises(_native.NativeError, match=text):
        call()


@pytest.mark.parametrize("limit", [0, 1023, 16385])
def test_a_message_limit_outside_the_read_buffer_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"max_message_bytes {limit}: 1024 to 16384"):
        install(limit=limit)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rate_hz": 4000}, "rate_hz 4000"),
        ({"rate_hz": 96000}, "rate_hz 96000"),
        ({"ptime_ms": 0}, "ptime_ms 0"),
        ({"rate_hz": 11025, "ptime_ms": 25}, "whole frames"),
        ({"ring_ms": 4999}, "ring_ms 4999"),
        ({"ring_ms": 60001}, "ring_ms 60001"),
        ({"layout": 7}, "layout 7"),
    ],
)
def test_a_tap_with_wrong_measures_is_refused(arguments: dict[str, int], text: str) -> None:
    given = {"rate_hz": 8000, "ptime_ms": 20, "ring_ms": 5000, "layout": _native.SPLIT, **arguments}
    with pytest.raises(ValueError, match=text):
        _native.tap_new(**given)


def test_nothing_to_drain_is_an_empty_list() -> None:
    assert _native.tap_drain_all(bytearray(16)) == []
    with pytest.raises(BufferError):
        _native.tap_drain_all(b"read-only")  # type: ignore[arg-type]


def test_unknown_ids_are_named() -> None:
    for call in (_native.tap_stats, _native.tap_free):
        with pytest.raises(KeyError, match="no tap 17"):
            call(17)
    for call in (_native.listener_port, _native.listener_restart):
        with pytest.raises(KeyError, match="no listener 3"):
            call(3)
    with pytest.raises(_native.NativeError, match="no such transport"):
        _native.transport_shutdown(64)
    with pytest.raises(ValueError, match="no such call or medium"):
        _native.srtp_state(0, 0)
    assert _native.transport_token(64) == 0
