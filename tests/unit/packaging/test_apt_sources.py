"""The machine's own apt sources are read in both forms, and only Debian's archives count."""

from pathlib import Path

import pytest

from buildkit.apt_sources import DEBIAN_KEYRING, Mirror, machine_mirrors
from buildkit.errors import BuildError

DEB822 = """\
# the archive
Types: deb
URIs: http://mirror.example/debian/ https://second.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/own.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""


def write(etc: Path, name: str, text: str) -> None:
    path = etc / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def uris(mirrors: tuple[Mirror, ...]) -> list[str]:
    return [mirror.uri for mirror in mirrors]


def test_deb822_sources_keep_their_keyring(tmp_path: Path) -> None:
    write(tmp_path, "sources.list.d/debian.sources", DEB822)
    assert machine_mirrors(tmp_path) == (
        Mirror(uri="http://mirror.example/debian", signed_by="/usr/share/keyrings/own.gpg"),
        Mirror(uri="https://second.example/debian", signed_by="/usr/share/keyrings/own.gpg"),
    )


def test_one_line_sources_are_read_and_get_the_debian_keyring(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sources.list",
        "# comment\ndeb http://mirror.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://other.example/debian trixie main # why\n",
    )
    assert machine_mirrors(tmp_path) == (
        Mirror(uri="http://mirror.example/debian", signed_by=str(DEBIAN_KEYRING)),
        Mirror(uri="http://other.example/debian", signed_by="/k.gpg"),
    )


def test_an_embedded_key_is_kept_with_its_lines(tmp_path: Path) -> None:
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ=="
    write(
        tmp_path,
        "sources.list.d/a.sources",
        f"Types: deb\nURIs: http://m.example/debian\nSuites: sid\nComponents: main\nSigned-By:{key}\n",
    )
    assert machine_mirrors(tmp_path)[0].signed_by == key


def test_a_trusted_mark_never_replaces_the_key(tmp_path: Path) -> None:
    write(tmp_path, "sources.list", "deb [trusted=yes] http://m.example/debian bookworm main\n")
    assert machine_mirrors(tmp_path)[0].signed_by == str(DEBIAN_KEYRING)


def test_a_mirror_named_twice_counts_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sources.list",
        "deb http://m.example/debian bookworm main\ndeb-src http://m.example/debian/ bookworm main\n",
    )
    assert uris(machine_mirrors(tmp_path)) == ["http://m.example/debian"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", "deb https://apt.example/stable nodistro main\n"),
        ("sources.list", "deb https://apt.example/docker bookworm stable\n"),
        ("sources.list", "# deb http://mirror.example/debian bookworm main\n"),
        ("sources.list.d/a.sources", DEB822.replace("Types: deb\n", "Types: deb\nEnabled: no\n")),
        ("sources.list.d/a.disabled", DEB822),
        ("other.list", "deb http://mirror.example/debian bookworm main\n"),
    ],
    ids=["suite", "component", "comment", "switched-off", "other-ending", "other-folder"],
)
def test_what_is_no_debian_archive_does_not_count(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, name, text)
    with pytest.raises(BuildError, match="no Debian mirror found"):
        machine_mirrors(tmp_path)
