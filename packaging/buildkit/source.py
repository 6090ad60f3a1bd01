"""Obtain the verified source of a component: from the cache, else from a mirror of this machine."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from buildkit.apt_root import AptRoot, ArchiveFile
from buildkit.apt_sources import Mirror, machine_mirrors
from buildkit.cache import cache_root, workspace
from buildkit.digest import sha256_file, sha256_tree
from buildkit.errors import BuildError, LockMismatchError
from buildkit.lock import SourceLock
from buildkit.progress import capture, say


def obtain(lock: SourceLock) -> Path:
    """Return a tarball that the lock accepts, by its hash or by its content.

    A cached tarball is hashed again on every use. With one there the network is not needed.

    Raises:
        LockMismatchError: The mirrors carry only versions whose content is another.
        BuildError: Nothing could be fetched.
    """
    folder = cache_root() / "sources"
    folder.mkdir(exist_ok=True)
    cached = find_cached(lock, folder)
    if cached is not None:
        return cached
    return fetch(lock, folder, machine_mirrors())


def find_cached(lock: SourceLock, folder: Path) -> Path | None:
    """A tarball in the cache that the lock accepts; others are passed over."""
    for path in sorted(folder.glob(f"{lock.package}_*{lock.file_suffix}")):
        if lock.accepts(sha256_file(path)) or _accepted_by_content(lock, path):
            return path
    return None


def fetch(lock: SourceLock, folder: Path, mirrors: Sequence[Mirror]) -> Path:
    """Look for an accepted file in every suite of the lock, then for one with the same content."""
    refusals: list[str] = []
    candidates: list[tuple[AptRoot, str, ArchiveFile]] = []
    for suite in lock.suites:
        root = AptRoot(
            folder=cache_root() / "apt" / f"{suite}-source", suite=suite, archive_type="deb-src", mirrors=mirrors
        )
        say(f"looking for {lock.package} in {suite}")
        try:
            root.update()
        except BuildError as error:
            refusals.append(str(error))
            continue
        for version in root.versions(lock.package):
            for file in root.source_files(lock.package, version):
                if not file.file.endswith(lock.file_suffix):
                    continue
                if lock.accepts(file.sha256):
                    say(f"fetching {file.file}")
                    return keep(root.download(file, folder), file.sha256)
                candidates.append((root, version, file))
    return _by_content(lock, folder, candidates, refusals)


def _by_content(
    lock: SourceLock, folder: Path, candidates: Sequence[tuple[AptRoot, str, ArchiveFile]], refusals: list[str]
) -> Path:
    for root, version, file in candidates:
        say(
            f"the locked version of {lock.package} is gone; {root.suite} carries {version}: "
            f"comparing its {lock.name} with the lock"
        )
        path = keep(root.download(file, folder), file.sha256)
        if _accepted_by_content(lock, path):
            say(f"{file.file} holds the very same {lock.name} {lock.release}: accepted")
            return path
        path.unlink()
        refusals.append(f"{lock.package} {version} of {root.suite}: its {lock.name} differs from the locked one")
    wanted = ", ".join(entry.version for entry in lock.accepted)
    raise LockMismatchError(
        f"{lock.name} {lock.release}: no mirror of this machine carries {lock.package} {wanted} or a version with "
        f"the same content. Put a tarball with an accepted hash into {folder}, or review the new version and "
        "extend the lock.\n  " + "\n  ".join(refusals)
    )


def keep(path: Path, sha256: str) -> Path:
    """Check a fetched file once more by our own hash.

    Raises:
        LockMismatchError: It differs; the file is removed.
    """
    actual = sha256_file(path)
    if actual != sha256:
        path.unlink()
        raise LockMismatchError(f"{path.name} has SHA-256 {actual}, the signed index says {sha256}")
    return path


def _accepted_by_content(lock: SourceLock, path: Path) -> bool:
    """Whether the unpacked content is the locked one, for files whose own hash is not listed."""
    if lock.accepts(sha256_file(path)):
        return True
    with workspace("content") as folder:
        try:
            unpack(path, folder)
        except BuildError:
            return False
        return sha256_tree(folder) == lock.content_sha256


def unpack(tarball: Path, into: Path) -> None:
    """Unpack a verified tarball without its top folder, with this user's ownership and mask."""
    if shutil.which("tar") is None:
        raise BuildError("tar is not installed")
    into.mkdir(parents=True, exist_ok=True)
    capture(
        ["tar", "--extract", "--no-same-owner", "--strip-components=1", "--directory", str(into), "--file", str(tarball)]
    )
