"""Which Debian mirrors this machine uses, read from its own apt sources.

Both forms are read: one-line `.list` files and deb822 `.sources` files. Only Debian's own archives
count; they are recognised by suite and component, and whatever is fetched from them must be signed
by a Debian archive key, so an entry recognised wrongly can deliver nothing.

Source: sources.list(5).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from buildkit.errors import BuildError

DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEBIAN_SUITES = frozenset(
    {
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "sid",
        "stable",
        "oldstable",
        "oldoldstable",
        "testing",
        "unstable",
    }
)
_ONE_LINE = re.compile(r"^(deb|deb-src)\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>.+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """One archive address and the key material its entry names.

    Attributes:
        uri: As written on the machine, a trailing slash removed.
        signed_by: The value of `Signed-By` verbatim (paths, fingerprints or an embedded key), or
            Debian's archive keyring where the entry names none.
    """

    uri: str
    signed_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str


def machine_mirrors(etc: Path = Path("/etc/apt")) -> tuple[Mirror, ...]:
    """The Debian mirrors of this machine, in the order written, each once.

    Raises:
        BuildError: There is none.
    """
    found: dict[Mirror, None] = {}
    for entry in _entries(etc):
        if not _is_debian(entry):
            continue
        for uri in entry.uris:
            found[Mirror(uri=uri.rstrip("/"), signed_by=entry.signed_by)] = None
    if not found:
        raise BuildError(
            f"no Debian mirror found under {etc}: this set-up needs Debian 12 with its usual apt sources"
        )
    return tuple(found)


def _entries(etc: Path) -> Iterator[_Entry]:
    parts = etc / "sources.list.d"
    lists = [etc / "sources.list", *sorted(parts.glob("*.list"))]
    for path in lists:
        if path.is_file():
            yield from parse_one_line(path.read_text(errors="replace"))
    for path in sorted(parts.glob("*.sources")):
        yield from parse_deb822(path.read_text(errors="replace"))


def _is_debian(entry: _Entry) -> bool:
    """Whether an entry names a main Debian archive (security archives carry no other suites)."""
    return "main" in entry.components and any(
        suite.removesuffix("-updates").removesuffix("-backports") in _DEBIAN_SUITES for suite in entry.suites
    )


def parse_one_line(text: str) -> Iterator[_Entry]:
    """Entries of a `sources.list` file."""
    for raw in text.splitlines():
        match = _ONE_LINE.match(raw.split("#", 1)[0].strip())
        if match is None:
            continue
        options = dict(option.split("=", 1) for option in (match["options"] or "").split() if "=" in option)
        suite, *components = match["rest"].split()
        yield _Entry(
            uris=(match["uri"],),
            suites=(suite,),
            components=tuple(components),
            signed_by=options.get("signed-by", "").replace(",", " ") or str(DEBIAN_KEYRING),
        )


def parse_deb822(text: str) -> Iterator[_Entry]:
    """Entries of a deb822 `.sources` file."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = _fields(stanza.splitlines())
        if "uris" not in fields or fields.get("enabled", "yes").strip().lower() in {"no", "false", "0"}:
            continue
        yield _Entry(
            uris=tuple(fields["uris"].split()),
            suites=tuple(fields.get("suites", "").split()),
            components=tuple(fields.get("components", "").split()),
            signed_by=fields.get("signed-by", "") or str(DEBIAN_KEYRING),
        )


def _fields(lines: Iterable[str]) -> dict[str, str]:
    """Fields of one stanza by lower-case name; continuation lines keep their line breaks."""
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.startswith("#"):
            continue
        if line[:1] in {" ", "\t"} and name:
            fields[name] += "\n" + line
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields
