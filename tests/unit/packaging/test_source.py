"""Sources come from a signed index, with the locked hash or with the locked content, or not at all."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildkit.apt_sources import Mirror
from buildkit.digest import sha256_tree
from buildkit.errors import BuildError, LockMismatchError
from buildkit.lock import Accepted, SourceLock
from buildkit.source import fetch, find_cached, keep, obtain, unpack
from support.debian_archive import Archive, SigningKey, tarball

FILES = {"configure": b"#!/bin/sh\n", "src/main.c": b"int main(void) { return 0; }\n"}
FILE = "engine_1.0.orig-Xpart.tar.xz"


@pytest.fixture(scope="module")
def key() -> Iterator[SigningKey]:
    with SigningKey() as made:
        yield made


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALTRUNK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sources = tmp_path / "cache" / "sources"
    sources.mkdir(parents=True)
    return sources


@pytest.fixture
def archive(tmp_path: Path, key: SigningKey) -> Archive:
    return Archive(root=tmp_path / "archive", key=key)


def content_hash(tmp_path: Path, files: dict[str, bytes]) -> str:
    plain = tmp_path / "plain"
    for name, data in files.items():
        (plain / name).parent.mkdir(parents=True, exist_ok=True)
        (plain / name).write_bytes(data)
    digest = sha256_tree(plain)
    shutil.rmtree(plain)
    return digest


def lock(tmp_path: Path, *, sha256: str, suites: tuple[str, ...] = ("sid",)) -> SourceLock:
    return SourceLock(
        name="part",
        archive_type="deb-src",
        package="engine",
        release="2.17",
        file_suffix=".orig-Xpart.tar.xz",
        suites=suites,
        content_sha256=content_hash(tmp_path, FILES),
        accepted=(Accepted(version="1.0-1", file=FILE, sha256=sha256),),
    )


def mirrors(archive: Archive) -> tuple[Mirror, ...]:
    return (Mirror(uri=f"file:{archive.root}", signed_by=str(archive.key.path)),)


def publish(
    archive: Archive,
    data: bytes,
    *,
    suite: str = "sid",
    version: str = "1.0-1",
    file: str = FILE,
    signed: bool = True,
) -> str:
    return archive.add_source(
        suite=suite, package="engine", version=version, file=file, data=data, signed=signed
    )


def test_the_locked_file_is_fetched(tmp_path: Path, archive: Archive, folder: Path) -> None:
    digest = publish(archive, tarball(FILES, top="engine-1.0"))
    path = fetch(lock(tmp_path, sha256=digest), folder, mirrors(archive))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_the_next_suite_is_searched_when_the_first_lacks_it(
    tmp_path: Path, archive: Archive, folder: Path
) -> None:
    publish(
        archive,
        tarball({"other": b"x"}, top="x"),
        suite="sid",
        version="2.0-1",
        file="engine_2.0.orig-Xpart.tar.xz",
    )
    digest = publish(archive, tarball(FILES, top="engine-1.0"), suite="forky")
    path = fetch(lock(tmp_path, sha256=digest, suites=("absent", "sid", "forky")), folder, mirrors(archive))
    assert path.name == FILE


def test_a_newer_version_with_the_same_content_is_accepted_and_named(
    tmp_path: Path, archive: Archive, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = "engine_1.1.orig-Xpart.tar.xz"
    publish(archive, tarball(FILES, top="engine-other", mtime=99), version="1.1-1", file=newer)
    path = fetch(lock(tmp_path, sha256="0" * 64), folder, mirrors(archive))
    assert path.name == newer
    said = capsys.readouterr().err
    assert "1.1-1" in said
    assert "accepted" in said


@pytest.mark.parametrize(
    "changed",
    [
        {**FILES, "src/main.c": b"int main(void) { return 1; }\n"},
        {**FILES, "src/more.c": b""},
        {"configure": FILES["configure"]},
    ],
    ids=["byte", "added", "removed"],
)
def test_a_newer_version_with_other_content_is_refused(
    tmp_path: Path, archive: Archive, folder: Path, changed: dict[str, bytes]
) -> None:
    newer = "engine_1.1.orig-Xpart.tar.xz"
    publish(archive, tarball(changed, top="engine-1.1"), version="1.1-1", file=newer)
    with pytest.raises(LockMismatchError, match=r"sid carries engine 1\.1-1"):
        fetch(lock(tmp_path, sha256="0" * 64), folder, mirrors(archive))
    assert not (folder / newer).exists()


def test_an_unsigned_archive_is_refused(tmp_path: Path, archive: Archive, folder: Path) -> None:
    digest = publish(archive, tarball(FILES, top="engine-1.0"), signed=False)
    with pytest.raises(LockMismatchError, match="does not know the key"):
        fetch(lock(tmp_path, sha256=digest), folder, mirrors(archive))
    assert not list(folder.iterdir())


def test_an_archive_signed_by_another_key_is_refused_with_the_cure(
    tmp_path: Path, archive: Archive, folder: Path
) -> None:
    digest = publish(archive, tarball(FILES, top="engine-1.0"))
    with SigningKey() as stranger, pytest.raises(LockMismatchError, match="debian-archive-keyring"):
        fetch(
            lock(tmp_path, sha256=digest),
            folder,
            (Mirror(uri=f"file:{archive.root}", signed_by=str(stranger.path)),),
        )
    assert not list(folder.iterdir())


def test_a_file_that_differs_from_the_signed_index_is_refused(
    tmp_path: Path, archive: Archive, folder: Path
) -> None:
    digest = publish(archive, tarball(FILES, top="engine-1.0"))
    pooled = archive.root / "pool/sid" / FILE
    pooled.write_bytes(pooled.read_bytes()[:-1] + b"?")
    with pytest.raises(BuildError, match="could not fetch"):
        fetch(lock(tmp_path, sha256=digest), folder, mirrors(archive))


def test_a_cached_file_with_the_locked_hash_needs_no_network(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tarball(FILES, top="engine-1.0")
    (folder / FILE).write_bytes(data)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert obtain(lock(tmp_path, sha256=hashlib.sha256(data).hexdigest())) == folder / FILE


def test_a_cached_file_with_the_locked_content_is_used(tmp_path: Path, folder: Path) -> None:
    (folder / FILE).write_bytes(tarball(FILES, top="elsewhere", mtime=5))
    assert find_cached(lock(tmp_path, sha256="0" * 64), folder) == folder / FILE


@pytest.mark.parametrize(
    "data", [tarball({"configure": b"?"}, top="e"), b"no archive at all"], ids=["other", "garbage"]
)
def test_a_cached_file_with_neither_is_passed_over(tmp_path: Path, folder: Path, data: bytes) -> None:
    (folder / FILE).write_bytes(data)
    assert find_cached(lock(tmp_path, sha256="0" * 64), folder) is None


def test_keep_removes_a_file_with_the_wrong_hash(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a")
    with pytest.raises(LockMismatchError, match="the signed index says"):
        keep(path, "0" * 64)
    assert not path.exists()


def test_unpacking_drops_the_top_folder(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(tarball(FILES, top="engine-1.0"))
    unpack(tmp_path / FILE, tmp_path / "out")
    assert (tmp_path / "out/src/main.c").read_bytes() == FILES["src/main.c"]
