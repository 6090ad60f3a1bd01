"""A manifest says all of one object, and nothing that is not of its form is one."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.errors import MalformedContentError
from recording.format.manifest import Manifest, ManifestState

MANIFEST = Manifest(
    file_id=b"F" * 16,
    tenant_handle=b"T" * 16,
    recording=b"R" * 16,
    segment=2,
    previous=b"P" * 16,
    sha256=b"S" * 32,
    size_bytes=16432,
    records=3,
    state=ManifestState.COMPLETE,
)
ids = st.binary(min_size=16, max_size=16)


@given(
    st.builds(
        Manifest,
        file_id=ids,
        tenant_handle=ids,
        recording=ids,
        segment=st.integers(0, 1 << 32),
        previous=st.none() | ids,
        sha256=st.binary(min_size=32, max_size=32),
        size_bytes=st.integers(0, 1 << 40),
        records=st.integers(0, 1 << 40),
        state=st.sampled_from(ManifestState),
    )
)
def test_what_is_built_is_parsed(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.build()) == manifest


def test_its_keys_are_those_of_the_format() -> None:
    found = json.loads(MANIFEST.build())
    assert list(found) == [
        "v", "file_id", "tenant", "recording", "segment", "previous", "sha256", "size", "records", "state",
    ]  # fmt: skip
    assert len(found) == len(fields(MANIFEST)) + 1
    assert Manifest.parse(json.dumps(found | {"later": 1}).encode()) == MANIFEST
    assert json.loads(replace(MANIFEST, previous=None).build())["previous"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"file_id": "46" * 15},
        {"file_id": "AB" * 16},
        {"file_id": 7},
        {"tenant": None},
        {"sha256": "00" * 31},
        {"segment": -1},
        {"segment": True},
        {"size": 1.5},
        {"records": "3"},
        {"state": "whole"},
    ],
)
def test_another_value_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedContentError):
        Manifest.parse(json.dumps(json.loads(MANIFEST.build()) | change).encode())


@pytest.mark.parametrize("name", list(json.loads(MANIFEST.build())))
def test_no_key_may_be_absent(name: str) -> None:
    found = json.loads(MANIFEST.build())
    del found[name]
    with pytest.raises(MalformedContentError):
        Manifest.parse(json.dumps(found).encode())


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 20000])
def test_what_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedContentError):
        Manifest.parse(payload)
