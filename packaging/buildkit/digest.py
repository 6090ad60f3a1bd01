"""Hashes of files and of unpacked source trees."""

import hashlib
import stat
from pathlib import Path

BLOCK_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_tree(root: Path) -> str:
    """SHA-256 over every entry below `root`: its path, kind, executable bit and content.

    Owners, times and the name of `root` do not count, so that the same source in another archive
    has the same hash. Each field is preceded by its length: no two trees share an encoding.
    """
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*"), key=lambda entry: entry.relative_to(root).as_posix()):
        mode = path.lstat().st_mode
        name = path.relative_to(root).as_posix().encode()
        if stat.S_ISLNK(mode):
            kind, content = b"link", path.readlink().as_posix().encode()
        elif stat.S_ISDIR(mode):
            kind, content = b"folder", b""
        else:
            kind = b"program" if mode & stat.S_IXUSR else b"file"
            content = sha256_file(path).encode()
        for field in (kind, name, content):
            digest.update(len(field).to_bytes(8, "big"))
            digest.update(field)
    return digest.hexdigest()


def sha256_fields(*fields: str) -> str:
    """SHA-256 over a list of texts, each preceded by its length."""
    digest = hashlib.sha256()
    for field in fields:
        raw = field.encode()
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()
