"""The lock: which sources and packages are accepted, by hash."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from buildkit.errors import BuildError

ArchiveType = Literal["deb", "deb-src"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """One archive file that is accepted as it is."""

    version: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLock:
    """What is accepted as the source of one component.

    Attributes:
        name: The lock's table.
        archive_type: Whether `package` is a source package or a binary one.
        package: Debian package that carries it.
        release: Version of the component itself.
        file_suffix: Ends the name of the one file wanted of that package.
        suites: Where to look, in this order.
        content_sha256: `sha256_tree` of the unpacked component; another package version with this
            very content is accepted as well.
        accepted: Files that are accepted by their own hash.
    """

    name: str
    archive_type: ArchiveType
    package: str
    release: str
    file_suffix: str
    suites: tuple[str, ...]
    content_sha256: str
    accepted: tuple[Accepted, ...]

    def accepts(self, sha256: str) -> bool:
        """Whether a file with this hash is accepted without a look inside."""
        return any(entry.sha256 == sha256 for entry in self.accepted)


def read_source_lock(path: Path, name: str) -> SourceLock:
    """Read one table of a lock file.

    Raises:
        BuildError: The file is not a lock, or a hash in it is not a SHA-256.
    """
    try:
        table = tomllib.loads(path.read_text())[name]
        lock = SourceLock(
            name=name,
            archive_type="deb" if table["file_suffix"].endswith(".deb") else "deb-src",
            package=table["package"],
            release=table["release"],
            file_suffix=table["file_suffix"],
            suites=tuple(table["suites"]),
            content_sha256=_hash(table["content_sha256"]),
            accepted=tuple(_accepted(entry) for entry in table["accepted"]),
        )
    except (KeyError, TypeError, tomllib.TOMLDecodeError, ValueError) as error:
        raise BuildError(f"{path}: [{name}] is not a valid lock: {error!r}") from error
    return lock


def _accepted(entry: dict[str, Any]) -> Accepted:
    return Accepted(version=entry["version"], file=entry["file"], sha256=_hash(entry["sha256"]))


def _hash(value: str) -> str:
    if _SHA256.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a SHA-256 in lower-case hexadecimal")
    return value
