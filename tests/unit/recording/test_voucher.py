"""Manifests: hashed while written, stored beside the object, and worth something to whoever reads."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.format.manifest import MANIFEST_MAX, MANIFEST_TYPE, Manifest, ManifestState
from recording.keys.errors import KeyConfigurationError
from recording.settings import RecordingSettings
from recording.signing import SigningKey, Standing, Verifier, create_signing_key, public_path
from recording.sinks.sink import SinkUnavailableError
from recording.voucher import Voucher, build_verifier, hash_file, judge
from support import spooled
from support.memory_sink import MemorySink

CONTENT = bytes(range(256)) * 50


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    path = tmp_path_factory.mktemp("keys") / "signing.pem"
    create_signing_key(path)
    return SigningKey.load(path)


def token(key: SigningKey, content: bytes = CONTENT, **changes: object) -> bytes:
    manifest = Manifest(
        file_id=b"F" * 16,
        tenant_handle=b"T" * 16,
        recording=b"R" * 16,
        segment=0,
        previous=None,
        sha256=hashlib.sha256(content).digest(),
        size_bytes=len(content),
        records=3,
        state=ManifestState.COMPLETE,
    )
    return key.sign(replace(manifest, **changes).build(), typ=MANIFEST_TYPE)  # type: ignore[arg-type]


def worth(found: bytes | None, verifier: Verifier, content: bytes = CONTENT) -> tuple[Standing, str, bool]:
    vouching = judge(
        found,
        verifier,
        file_id=b"F" * 16,
        sha256=hashlib.sha256(content).digest(),
        size_bytes=len(content),
    )
    return vouching.standing, vouching.detail, vouching.is_cut


def test_a_manifest_of_just_this_file_is_signed(key: SigningKey) -> None:
    assert worth(token(key), Verifier([key.public])) == (Standing.SIGNED, "", False)


def test_without_one_or_without_a_key_it_is_unsigned(key: SigningKey) -> None:
    assert worth(None, Verifier([key.public]))[0] is Standing.UNSIGNED
    standing, detail, _ = worth(token(key), Verifier([]))
    assert standing is Standing.UNSIGNED
    assert "no key" in detail


def test_a_cut_in_storage_is_told_from_a_crash(key: SigningKey) -> None:
    verifier = Verifier([key.public])
    standing, detail, is_cut = worth(token(key), verifier, CONTENT[:-4112])
    assert (standing, is_cut) == (Standing.WRONG, True)
    assert detail == (
        f"cut in storage: {len(CONTENT) - 4112} of {len(CONTENT)} bytes are there; "
        "its recorder left it complete with 3 records"
    )
    crashed = token(key, CONTENT[:-4112], state=ManifestState.INCOMPLETE)
    assert worth(crashed, verifier, CONTENT[:-4112])[0] is Standing.SIGNED


@given(st.data())
def test_whatever_is_done_to_the_file_is_wrong(data: st.DataObject) -> None:
    mine = data.draw(st.just(SIGNING))
    verifier = Verifier([mine.public])
    kind = data.draw(st.sampled_from(["cut", "flip", "longer"]))
    at = data.draw(st.integers(0, len(CONTENT) - 1))
    changed = bytearray(CONTENT)
    if kind == "cut":
        del changed[at:]
    elif kind == "flip":
        changed[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        changed += bytes(at + 1)
    standing, _, is_cut = worth(token(mine), verifier, bytes(changed))
    assert standing is Standing.WRONG
    assert is_cut is (kind == "cut")


def test_manifests_that_prove_nothing(key: SigningKey) -> None:
    verifier = Verifier([key.public])
    for found, why in (
        (token(key, file_id=b"G" * 16), "another file's"),
        (token(key)[:-4] + b"AAAA", "does not verify"),
        (key.sign(b"{}", typ=MANIFEST_TYPE), "can't be read"),
        (key.sign(b"{}", typ="crec-checkpoint"), "something else"),
        (b"x" * (MANIFEST_MAX + 1), "longer"),
        (b"", "no compact JWS"),
    ):
        standing, detail, _ = worth(found, verifier)
        assert standing is Standing.WRONG
        assert why in detail


def test_a_voucher_keeps_a_manifest_until_it_is_stored(key: SigningKey) -> None:
    sink = MemorySink()
    voucher = Voucher(sink, key)
    segment = spooled.make_segment()
    state = replace(segment.state(), previous=b"P" * 16)
    manifest = voucher.sign(state, sha256=b"S" * 32, size_bytes=7, records=1, is_complete=False)
    assert manifest is not None
    assert (manifest.file_id, manifest.previous) == (state.file_id, b"P" * 16)
    assert manifest.state is ManifestState.INCOMPLETE
    sink.failures.append(SinkUnavailableError("away"))
    with pytest.raises(SinkUnavailableError):
        voucher.store(state.object_name)
    voucher.store(state.object_name)
    found = sink.manifest(state.object_name.key)
    assert found is not None
    payload, kid = Verifier([key.public]).verify(found, typ=MANIFEST_TYPE)
    assert (payload, kid) == (manifest.build(), key.kid)
    del sink.manifests[state.object_name.key]
    voucher.store(state.object_name)
    assert sink.manifest(state.object_name.key) is None, "it is stored once"


def test_a_file_is_hashed_by_reading(key: SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT * 200)
    with path.open("rb") as file:
        file.read(5)
        assert hash_file(file) == (hashlib.sha256(CONTENT * 200).digest(), len(CONTENT) * 200)
        state = spooled.make_segment().state()
        manifest = Voucher(MemorySink(), key).sign_file(state, file, records=2, is_complete=True)
    assert manifest is not None
    assert (manifest.sha256, manifest.state) == (
        hashlib.sha256(CONTENT * 200).digest(),
        ManifestState.COMPLETE,
    )


def test_without_a_key_nothing_is_signed() -> None:
    sink = MemorySink()
    voucher = Voucher(sink, None)
    state = spooled.make_segment().state()
    assert voucher.sign(state, sha256=b"S" * 32, size_bytes=7, records=1, is_complete=True) is None
    voucher.store(state.object_name)
    assert sink.manifests == {}
    assert not voucher.signs


def test_the_keys_that_verify_are_those_named_and_our_own(tmp_path: Path) -> None:
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    create_signing_key(old)
    create_signing_key(new)
    settings = RecordingSettings(
        directory=tmp_path,
        spool_directory=tmp_path,
        index_path=tmp_path,
        keys={},
        signing_key_path=new,
        verification_key_paths=(public_path(old),),
    )
    for path in (old, new):
        token_ = SigningKey.load(path).sign(b"{}", typ=MANIFEST_TYPE)
        assert build_verifier(settings).verify(token_, typ=MANIFEST_TYPE)[0] == b"{}"
    public_path(old).write_text("nothing")
    with pytest.raises(KeyConfigurationError, match=r"old\.pem\.pub"):
        build_verifier(settings)


def _signing_key() -> SigningKey:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    return SigningKey(ec.generate_private_key(ec.SECP256R1()))


SIGNING = _signing_key()
