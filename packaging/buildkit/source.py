"""Obtain the verified source of a component: from the cache, else from a mirror of this machine."""

from collections.abc import Sequence
from pathlib import Path

from buildkit.apt_root import AptRoot, Candidate
from buildkit.apt_sources import Mirror, machine_mirrors
from buildkit.cache import cache_root, workspace
from buildkit.digest import sha256_file, sha256_tree
from buildkit.errors import BuildError, LockMismatchError
from buildkit.lock import SourceLock
from buildkit.progress import capture, say


def obtain(lock: SourceLock) -> Path:
    """Return an archive that the lock accepts, by its hash or by its content.

    A cached archive is hashed again on every use. With one there the network is not needed.

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
    """An archive in the cache that the lock accepts; others are passed over."""
    for path in sorted(folder.glob(f"{lock.package}_*{lock.file_suffix}")):
        if lock.accepts(sha256_file(path)) or accepted_by_content(lock, path):
            return path
    return None


def fetch(lock: SourceLock, folder: Path, mirrors: Sequence[Mirror]) -> Path:
    """Look for an accepted file in every suite of the lock, then for one with the same content."""
    refusals: list[str] = []
    others: list[tuple[AptRoot, Candidate]] = []
    for suite in lock.suites:
        root = AptRoot(
            folder=cache_root() / "apt" / f"{suite}-{lock.archive_type}",
            suite=suite,
            archive_type=lock.archive_type,
            mirrors=mirrors,
        )
        say(f"looking for {lock.package} in {suite}")
        try:
            root.update()
        except BuildError as error:
            refusals.append(str(error))
            continue
        for candidate in root.candidates(lock.package):
            if not candidate.file.file.endswith(lock.file_suffix):
                continue
            if lock.accepts(candidate.file.sha256):
                return _download(root, candidate, folder)
            others.append((root, candidate))
    return _by_content(lock, folder, others, refusals)


def _download(root: AptRoot, candidate: Candidate, folder: Path) -> Path:
    say(f"fetching {candidate.file.file}")
    return keep(root.download(candidate.file, folder), candidate.file.sha256)


def _by_content(
    lock: SourceLock, folder: Path, others: Sequence[tuple[AptRoot, Candidate]], refusals: list[str]
) -> Path:
    for root, candidate in others:
        say(
            f"{lock.package}: the locked version is gone, {candidate.suite} carries {candidate.version}; "
            f"comparing its {lock.name} with the lock"
        )
        path = _download(root, candidate, folder)
        if accepted_by_content(lock, path):
            say(f"{path.name} holds the very same {lock.name} {lock.release}: accepted")
            return path
        path.unlink()
        refusals.append(
            f"{candidate.suite} carries {lock.package} {candidate.version}, whose {lock.name} is another"
        )
    wanted = ", ".join(entry.version for entry in lock.accepted)
    raise LockMismatchError(
        f"{lock.name} {lock.release}: no mirror of this machine carries {lock.package} {wanted} or a version "
        f"with the same content. Put a file with an accepted hash into {folder}, or review the new version "
        "and extend the lock.\n  " + "\n  ".join(refusals)
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


def accepted_by_content(lock: SourceLock, path: Path) -> bool:
    """Whether the unpacked content is the locked one, for files whose own hash is not listed."""
    if lock.accepts(sha256_file(path)):
        return True
    with workspace("content") as folder:
        try:
            unpack(path, folder)
        except BuildError:
            return False
        return sha256_tree(folder) == lock.content_sha256


def unpack(archive: Path, into: Path) -> None:
    """Unpack a verified archive with this user's ownership and mask; a tarball loses its top folder."""
    into.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".deb":
        capture(["dpkg-deb", "--extract", str(archive), str(into)])
        return
    flags = ("--extract", "--no-same-owner", "--strip-components=1")
    capture(["tar", *flags, "--directory", str(into), "--file", str(archive)])
