"""SIPp with TLS on OpenSSL, unpacked into the cache with the libraries it needs.

Debian 12's SIPp has no TLS, and Debian 13's is built on a TLS library that cannot talk to pjsip. The program
is taken from a later suite by its hash. The C library and the others that it needs come from Debian 13 and are
used by this program alone, through their own dynamic loader.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from buildkit.apt_root import AptRoot
from buildkit.apt_sources import machine_mirrors
from buildkit.cache import cache_root, exclusive, publish, workspace
from buildkit.digest import sha256_fields, sha256_file
from buildkit.errors import BuildError
from buildkit.lock import Accepted, SourceLock, read_source_lock
from buildkit.progress import phase, say
from buildkit.source import keep, obtain, unpack

_LOADER = "ld-linux-x86-64.so.2"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_WRAPPER = f"""#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
exec "$root/{_LIBRARIES}/{_LOADER}" --library-path "$root/{_LIBRARIES}" "$root/usr/bin/sipp" "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryLock:
    """The libraries beside SIPp.

    Attributes:
        suite: The stable suite they come from.
        packages: What SIPp's package asks for by name.
        accepted: Those and all they need, as they were when the lock was written. A stable suite replaces
            some of them at each point release; the archive's signature vouches for the successor.
    """

    suite: str
    packages: tuple[str, ...]
    accepted: tuple[Accepted, ...]


def read_library_lock(path: Path) -> LibraryLock:
    """Read the lock of the libraries.

    Raises:
        BuildError: It is malformed.
    """
    try:
        table = tomllib.loads(path.read_text())["libraries"]
        return LibraryLock(
            suite=table["suite"],
            packages=tuple(table["packages"]),
            accepted=tuple(Accepted(**entry) for entry in table["accepted"]),
        )
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise BuildError(f"{path}: [libraries] is not a valid lock: {error!r}") from error


def ensure_sipp(lock_file: Path) -> Path:
    """Return the path of a runnable `sipp`, preparing it first where needed.

    Raises:
        BuildError: A package cannot be had, or is not what the lock accepts.
    """
    program, libraries = read_source_lock(lock_file, "sipp"), read_library_lock(lock_file)
    key = sha256_fields(program.content_sha256, *libraries.packages, libraries.suite, _WRAPPER)
    prefix = cache_root() / f"sipp-{key[:24]}"
    wrapper = prefix / "sipp"
    if not wrapper.is_file():
        with exclusive("sipp"):
            if not wrapper.is_file():
                _prepare(program, libraries, prefix)
    return wrapper


def _prepare(program: SourceLock, libraries: LibraryLock, prefix: Path) -> None:
    with phase(f"preparing SIPp {program.release} with its libraries"), workspace("sipp") as work:
        built = work / "sipp"
        packages = [obtain(program), *obtain_libraries(libraries)]
        for package in packages:
            unpack(package, built / "root")
        _check_loader(built / "root")
        listing = "".join(f"{sha256_file(package)}  {package.name}\n" for package in packages)
        (built / "packages.txt").write_text(listing)
        wrapper = built / "sipp"
        wrapper.write_text(_WRAPPER)
        wrapper.chmod(0o755)
        publish(built, prefix)


def obtain_libraries(lock: LibraryLock) -> Sequence[Path]:
    """The libraries' packages: from the cache if every locked one is there, else from the suite."""
    folder = cache_root() / "sources"
    folder.mkdir(exist_ok=True)
    cached = [folder / entry.file for entry in lock.accepted]
    if all(
        path.is_file() and sha256_file(path) == entry.sha256
        for path, entry in zip(cached, lock.accepted, strict=True)
    ):
        return cached
    root = AptRoot(
        folder=cache_root() / "apt" / f"{lock.suite}-deb",
        suite=lock.suite,
        archive_type="deb",
        mirrors=machine_mirrors(),
    )
    root.update()
    files = root.closure(lock.packages)
    if not files:
        raise BuildError(f"{lock.suite} cannot provide {', '.join(lock.packages)}")
    for name in unlocked([file.file for file in files if not _locked(lock, file.sha256)], lock):
        say(name)
    return [keep(root.download(file, folder), file.sha256) for file in files]


def _locked(lock: LibraryLock, sha256: str) -> bool:
    return any(entry.sha256 == sha256 for entry in lock.accepted)


def unlocked(files: Sequence[str], lock: LibraryLock) -> Sequence[str]:
    """One sentence for each library that is not the locked one."""
    locked = {entry.file.split("_")[0]: entry.version for entry in lock.accepted}
    return [
        f"{lock.suite} carries {file}; the lock knows {locked.get(file.split('_')[0], 'no such package')}. "
        "The archive's signature vouches for it, and only SIPp uses it."
        for file in files
    ]


def _check_loader(root: Path) -> None:
    """Check that the loader lies with the libraries, where the wrapper looks for it."""
    loader = root / _LIBRARIES / _LOADER
    if not loader.is_file():
        raise BuildError(
            f"the C library's package holds no {_LIBRARIES}/{_LOADER}; SIPp is prepared on amd64 only"
        )
