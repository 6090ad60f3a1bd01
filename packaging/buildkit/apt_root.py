"""An apt of our own beside the machine's: other suites, other folders, the same mirrors and keys.

The machine's sources, lists and package state are never touched: adding another suite to them would
let the next `apt-get install` replace the C library, OpenSSL and Python.
"""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from buildkit.apt_sources import Mirror
from buildkit.errors import BuildError, KeyringError, SuiteAbsentError
from buildkit.lock import ArchiveType

_HELPER = "/usr/lib/apt/apt-helper"
_URI_LINE = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")
_KEY_TROUBLE = re.compile(
    r"NO_PUBKEY|EXPKEYSIG|BADSIG|REVKEYSIG|is not signed|no keyring|cannot be authenticated", re.IGNORECASE
)
_ABSENT = re.compile(r"does not have a Release file|404 +Not Found", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """A file of the archive, as the signed index describes it.

    Attributes:
        uri: Where it lies.
        file: Its name, unescaped.
        sha256: What the signed index says its hash is.
    """

    uri: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file on offer, with the suite and the package version it belongs to."""

    suite: str
    version: str
    file: ArchiveFile


class AptRoot:
    """One isolated apt root for one suite. Its folder may be kept and reused."""

    def __init__(
        self, *, folder: Path, suite: str, archive_type: ArchiveType, mirrors: Sequence[Mirror]
    ) -> None:
        """Write the root's configuration; nothing is fetched yet."""
        self.suite = suite
        self._archive_type = archive_type
        self._config = folder / "apt.conf"
        for part in ("lists/partial", "cache/archives/partial", "etc"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text("")
        (folder / "machine.sources").write_text(sources_text(mirrors, suite=suite, archive_type=archive_type))
        self._config.write_text(_config_text(folder))

    def update(self) -> None:
        """Fetch the suite's signed index.

        Raises:
            KeyringError: The machine's Debian keyring does not vouch for it.
            SuiteAbsentError: No mirror of this machine has the suite.
            BuildError: It could not be fetched.
        """
        done = self._run("apt-get", "-o", "APT::Update::Error-Mode=any", "-qq", "update")
        if done.returncode == 0:
            return
        raise update_error(self.suite, done.stdout + done.stderr)

    def candidates(self, package: str) -> tuple[Candidate, ...]:
        """Every file of every version of a package in this suite; none if the suite lacks it."""
        if self._archive_type == "deb":
            files = self._print_uris("download", package)
            return tuple(
                Candidate(suite=self.suite, version=unquote(file.file.split("_")[1]), file=file)
                for file in files
            )
        shown = self._run("apt-cache", "showsrc", "--only-source", package).stdout
        versions = dict.fromkeys(re.findall(r"^Version: (\S+)$", shown, re.MULTILINE))
        return tuple(
            Candidate(suite=self.suite, version=version, file=file)
            for version in versions
            for file in self._print_uris("source", "--download-only", f"{package}={version}")
        )

    def closure(self, packages: Sequence[str]) -> tuple[ArchiveFile, ...]:
        """These packages and everything they depend on, down to the C library."""
        return self._print_uris("install", "--yes", "--no-install-recommends", *packages)

    def download(self, wanted: ArchiveFile, into: Path) -> Path:
        """Fetch one file through apt and have apt check its hash.

        Raises:
            BuildError: It could not be fetched, or its hash is not that of the index.
        """
        into.mkdir(parents=True, exist_ok=True)
        target = into / wanted.file
        done = self._run(_HELPER, "download-file", wanted.uri, str(target), f"SHA256:{wanted.sha256}")
        if done.returncode != 0 or not target.is_file():
            raise BuildError(f"could not fetch {wanted.file}: {(done.stderr or done.stdout).strip()}")
        return target

    def _print_uris(self, command: str, *arguments: str) -> tuple[ArchiveFile, ...]:
        return parse_uris(
            self._run(
                "apt-get", "-qq", "-o", "Acquire::ForceHash=SHA256", "--print-uris", command, *arguments
            ).stdout
        )

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "-c", str(self._config), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def sources_text(mirrors: Sequence[Mirror], *, suite: str, archive_type: ArchiveType) -> str:
    """The deb822 sources of an isolated root: the machine's mirrors with only the suite changed."""
    return "\n".join(
        f"Types: {archive_type}\nURIs: {mirror.uri}\nSuites: {suite}\nComponents: main\n"
        f"Signed-By: {mirror.signed_by}\n"
        for mirror in mirrors
    )


def parse_uris(text: str) -> tuple[ArchiveFile, ...]:
    """Read what `apt-get --print-uris` prints; a line without a SHA-256 does not count."""
    matches = (_URI_LINE.match(line.strip()) for line in text.splitlines())
    return tuple(
        ArchiveFile(uri=match["uri"], file=match["file"], sha256=match["sha256"])
        for match in matches
        if match
    )


def update_error(suite: str, output: str) -> BuildError:
    """Say what a failed update means and how to mend it."""
    if _KEY_TROUBLE.search(output):
        return KeyringError(
            f"the Debian keyring of this machine does not know the key that signs {suite}; an administrator must "
            f"run: apt-get update && apt-get install debian-archive-keyring\n{output.strip()}"
        )
    if _ABSENT.search(output):
        return SuiteAbsentError(f"the mirrors of this machine do not carry {suite}")
    return BuildError(f"the index of {suite} could not be fetched:\n{output.strip()}")


def _config_text(folder: Path) -> str:
    """Settings read after the machine's own, whose proxy and certificate settings stay in force."""
    return f"""
Dir::Etc::sourcelist "{folder}/machine.sources";
Dir::Etc::sourceparts "{folder}/etc";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{folder}/etc";
Dir::State "{folder}";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::State::extended_states "{folder}/extended_states";
Dir::Cache "{folder}/cache";
Dir::Cache::archives "{folder}/cache/archives";
Acquire::Languages "none";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Retries "3";
APT::Get::AllowUnauthenticated "false";
APT::Sandbox::User "root";
Debug::NoLocking "true";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::CNF;
"""
