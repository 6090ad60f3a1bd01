"""The local key file: what it is, who may read it, and where it is refused."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from recording.errors import UnwrapError
from recording.format.slots import SlotProvider
from recording.keys.build import build_provider, build_providers, slot_keys
from recording.keys.errors import KeyConfigurationError
from recording.keys.local import LocalKeyProvider, check_environment, create_kek, key_id, read_kek
from recording.keys.provider import KeyContext
from recording.settings import AWSKMSKeySettings, LocalKeySettings, RecordingSettings
from support.disks import SyncLog

CONTEXT = KeyContext(file_id=b"F" * 16, tenant_handle=b"T" * 16)


def write_kek(path: Path, kek: bytes = bytes(range(32)), mode: int = 0o600) -> Path:
    path.write_bytes(kek)
    path.chmod(mode)
    return path


def test_a_data_key_is_wrapped_as_rfc_3394_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # RFC 3394 section 4.6: 256 bits of key data under a 256-bit key.
    data = bytes.fromhex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
    wrapped = bytes.fromhex(
        "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"
    )
    monkeypatch.setattr("recording.keys.local.secrets.token_bytes", lambda length: data[:length])
    provider = LocalKeyProvider("main", LocalKeySettings(kek_path=write_kek(tmp_path / "kek")))
    key = provider.new_key(CONTEXT)
    assert key.slot.wrapped == wrapped
    assert key.slot.provider == SlotProvider.LOCAL_DEV
    assert provider.unwrap(key.slot, CONTEXT) == data


def test_the_key_id_is_the_start_of_an_hmac() -> None:
    # Worked out with: printf id | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102...1f
    assert key_id(bytes(range(32))) == b"8adc89f941958303"


def test_create_makes_a_private_file_and_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    before = os.umask(0)
    try:
        made = create_kek(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kek = path.read_bytes()
    assert (len(kek), made) == (32, key_id(kek))
    with pytest.raises(KeyConfigurationError, match="exists"):
        create_kek(path)
    assert path.read_bytes() == kek
    assert create_kek(tmp_path / "other") != made


def test_a_new_key_is_durable_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SyncLog(monkeypatch)
    create_kek(tmp_path / "kek")
    assert log.done == [("sync", "kek"), ("sync", tmp_path.name)]


def test_create_says_why_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(KeyConfigurationError, match="No such file"):
        create_kek(tmp_path / "missing" / "kek")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666, 0o644])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = write_kek(tmp_path / "kek", mode=mode)
    with pytest.raises(KeyConfigurationError, match=f"{mode:04o}.*chmod 600"):
        read_kek(path)
    path.chmod(0o600)
    assert len(read_kek(path)) == 32


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_file_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(KeyConfigurationError, match="exactly 32 bytes"):
        read_kek(write_kek(tmp_path / "kek", os.urandom(size)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = write_kek(tmp_path / "kek")
    os.chown(path, 12345, -1)
    with pytest.raises(KeyConfigurationError, match="belongs to user 12345"):
        read_kek(path)
    os.chown(path, os.geteuid(), -1)
    assert len(read_kek(path)) == 32


def test_a_missing_file_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyConfigurationError, match=r"No such file.*b2bua init"):
        read_kek(tmp_path / "kek")
    with pytest.raises(KeyConfigurationError, match="not a regular file"):
        read_kek(tmp_path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(KeyConfigurationError, match="not a regular file"):
        read_kek(tmp_path / "fifo")


def test_health_notices_that_the_file_was_changed(tmp_path: Path) -> None:
    path = write_kek(tmp_path / "kek")
    provider = LocalKeyProvider("main", LocalKeySettings(kek_path=path))
    provider.health()
    path.write_bytes(os.urandom(32))
    with pytest.raises(KeyConfigurationError, match="another key"):
        provider.health()
    path.unlink()
    with pytest.raises(KeyConfigurationError, match="No such file"):
        provider.health()


def test_a_slot_wrapped_by_another_key_does_not_open_under_a_forged_key_id(tmp_path: Path) -> None:
    mine = LocalKeyProvider("a", LocalKeySettings(kek_path=write_kek(tmp_path / "a")))
    other = LocalKeyProvider("b", LocalKeySettings(kek_path=write_kek(tmp_path / "b", os.urandom(32))))
    slot = replace(other.new_key(CONTEXT).slot, key_id=mine.slot_key_id)
    with pytest.raises(UnwrapError):
        mine.unwrap(slot, CONTEXT)


def test_production_refuses_local_keys(tmp_path: Path) -> None:
    local = LocalKeySettings(kek_path=tmp_path / "kek")
    kms = AWSKMSKeySettings(key_id="k", region="r")
    settings = RecordingSettings(
        directory=tmp_path,
        spool_directory=tmp_path,
        index_path=tmp_path / "i",
        keys={"dev": local, "real": kms},
    )
    assert check_environment(settings, production=False) == ()
    (problem,) = check_environment(settings, production=True)
    assert problem.startswith("keys.dev: ")
    assert "aws-kms" in problem
    assert check_environment(replace(settings, keys={"real": kms}), production=True) == ()


def test_providers_are_built_from_their_sections(tmp_path: Path) -> None:
    settings = LocalKeySettings(kek_path=write_kek(tmp_path / "kek"))
    providers = build_providers({"dev": settings})
    assert isinstance(providers["dev"], LocalKeyProvider)
    assert providers["dev"].name == "dev"
    (key,) = slot_keys(providers.values())
    slot = providers["dev"].new_key(CONTEXT).slot
    assert key.fits(slot)
    assert not key.fits(replace(slot, key_id=b"0" * 16))
    with pytest.raises(KeyConfigurationError):
        build_provider("x", LocalKeySettings(kek_path=tmp_path / "none"))
