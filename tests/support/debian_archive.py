"""A small Debian archive on disk, signed with a key of its own, for the real apt to read."""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


class SigningKey:
    """An OpenPGP key in a home of its own. A context manager: it ends the key's agent."""

    def __init__(self) -> None:
        # The agent's socket path must stay short.
        self._home = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
        self.path = self._home / "archive.gpg"

    def __enter__(self) -> Self:
        self._gpg("--quick-gen-key", "--passphrase", "", "Test Archive", "rsa3072", "sign", "never")
        self.path.write_bytes(self._gpg("--export"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False)
        shutil.rmtree(self._home)

    def clearsign(self, text: str) -> bytes:
        """The text with an inline signature."""
        return self._gpg("--clearsign", stdin=text.encode())

    def _gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        command = [
            "gpg",
            "--homedir",
            str(self._home),
            "--batch",
            "--quiet",
            "--pinentry-mode",
            "loopback",
            *arguments,
        ]
        return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One archive folder that `file:` addresses can name."""

    root: Path
    key: SigningKey

    def add_source(
        self, *, suite: str, package: str, version: str, file: str, data: bytes, signed: bool = True
    ) -> str:
        """Publish one source package version with one tarball; returns the tarball's SHA-256."""
        pool = self.root / "pool" / suite
        pool.mkdir(parents=True, exist_ok=True)
        dsc = f"{package}_{version.rsplit(':', maxsplit=1)[-1]}.dsc"
        (pool / file).write_bytes(data)
        (pool / dsc).write_bytes(b"Format: 3.0 (quilt)\n")
        entries = [(name, (pool / name).read_bytes()) for name in (dsc, file)]
        sums = "".join(f" {hashlib.sha256(raw).hexdigest()} {len(raw)} {name}\n" for name, raw in entries)
        old = "".join(f" {hashlib.md5(raw).hexdigest()} {len(raw)} {name}\n" for name, raw in entries)
        index = (
            f"Package: {package}\nBinary: {package}\nVersion: {version}\nMaintainer: Test <t@example.org>\n"
            f"Architecture: any\nFormat: 3.0 (quilt)\nDirectory: pool/{suite}\nFiles:\n{old}Checksums-Sha256:\n{sums}\n"
        )
        self._publish(suite, index.encode(), signed=signed)
        return hashlib.sha256(data).hexdigest()

    def _publish(self, suite: str, index: bytes, *, signed: bool) -> None:
        folder = self.root / "dists" / suite
        source = folder / "main/source"
        source.mkdir(parents=True, exist_ok=True)
        (source / "Sources").write_bytes(index)
        release = (
            f"Origin: Test\nSuite: {suite}\nCodename: {suite}\nComponents: main\nArchitectures: amd64\n"
            "Date: Thu, 01 Jan 2026 00:00:00 UTC\n"
            f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} main/source/Sources\n"
        )
        for name in ("InRelease", "Release"):
            (folder / name).unlink(missing_ok=True)
        if signed:
            (folder / "InRelease").write_bytes(self.key.clearsign(release))
        else:
            (folder / "Release").write_text(release)


def tarball(files: Mapping[str, bytes], *, top: str, mtime: int = 0) -> bytes:
    """A tar.xz of these files below one top folder."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:xz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime, member.mode = len(data), mtime, 0o644
            archive.addfile(member, io.BytesIO(data))
    return raw.getvalue()
