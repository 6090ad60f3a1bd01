"""An isolated root changes the suite and nothing else, and says what a failed update means."""

from pathlib import Path

import pytest

from buildkit.apt_root import AptRoot, ArchiveFile, parse_uris, sources_text, update_error
from buildkit.apt_sources import Mirror
from buildkit.errors import BuildError, KeyringError, SuiteAbsentError

MIRROR = Mirror(uri="http://m.example/debian", signed_by="/k.gpg")


def test_only_the_suite_of_a_mirror_is_changed() -> None:
    text = sources_text((MIRROR,), suite="sid", archive_type="deb-src")
    assert text.split("\n") == [
        "Types: deb-src",
        "URIs: http://m.example/debian",
        "Suites: sid",
        "Components: main",
        "Signed-By: /k.gpg",
        "",
    ]


def test_everything_a_root_names_lies_inside_it(tmp_path: Path) -> None:
    AptRoot(folder=tmp_path, suite="sid", archive_type="deb", mirrors=(MIRROR,))
    named = [
        line.split('"')[1]
        for line in (tmp_path / "apt.conf").read_text().splitlines()
        if line.startswith("Dir::")
    ]
    assert named
    assert all(path.startswith(str(tmp_path)) or path == "/dev/null" for path in named)
    assert (tmp_path / "status").read_text() == ""


def test_a_file_is_known_by_its_sha256_alone() -> None:
    good = f"'http://m/a%2b.deb' a+.deb 10 SHA256:{'a' * 64}"
    assert parse_uris(f"{good}\n'http://m/b.deb' b.deb 10 MD5Sum:{'b' * 32}\nReading package lists...\n") == (
        ArchiveFile(uri="http://m/a%2b.deb", file="a+.deb", sha256="a" * 64),
    )


@pytest.mark.parametrize(
    ("output", "kind", "says"),
    [
        (
            "The following signatures couldn't be verified: NO_PUBKEY 6ED0E7B8",
            KeyringError,
            "debian-archive-keyring",
        ),
        ("EXPKEYSIG 0E98404D", KeyringError, "debian-archive-keyring"),
        ("E: The repository 'http://m sid Release' is not signed.", KeyringError, "debian-archive-keyring"),
        (
            "E: The repository 'x forky Release' does not have a Release file.",
            SuiteAbsentError,
            "do not carry sid",
        ),
        ("Temporary failure resolving 'm.example'", BuildError, "could not be fetched"),
    ],
)
def test_a_failed_update_is_explained(output: str, kind: type[BuildError], says: str) -> None:
    error = update_error("sid", output)
    assert type(error) is kind
    assert says in str(error)
