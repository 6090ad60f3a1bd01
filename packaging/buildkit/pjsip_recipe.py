"""What goes into the pjsip prefix, and the hash that names it."""

import re
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from buildkit.digest import sha256_fields, sha256_file
from buildkit.errors import BuildError
from buildkit.lock import SourceLock, read_source_lock
from buildkit.progress import capture

FIRST_MENDING_PATCH = 10

CONFIGURE_FLAGS = (
    "--enable-shared",
    "--enable-epoll",
    "--with-external-srtp",
    "--enable-speex-resample",
    "--disable-video",
    "--disable-sound",
    "--disable-speex-codec",
    "--disable-speex-aec",
    "--disable-gsm-codec",
    "--disable-ilbc-codec",
    "--disable-g7221-codec",
    "--disable-l16-codec",
    "--disable-libyuv",
    "--disable-libwebrtc",
    "--disable-libwebrtc-aec3",
    "--disable-upnp",
    "--disable-silk",
    "--disable-lyra",
    "--disable-opus",
    "--disable-bcg729",
    "--disable-opencore-amr",
    "--disable-ffmpeg",
    "--disable-sdl",
    "--disable-openh264",
    "--disable-vpx",
)
# -O3 makes vectors of the bridge's loops over samples: they took 7.1 % of all CPU with -O2, and take 4.2 %.
COMPILE_FLAGS = "-O3 -g1 -fPIC -fstack-protector-strong -D_FORTIFY_SOURCE=2"
LINK_FLAGS = "-Wl,-z,relro,-z,now"
# The wrapper is one file of 6.7 MB; -O1 takes 45 s where -O2 takes 110 s, and none of it is in the media path.
WRAPPER_FLAGS = ("-O1", "-g0", "-fPIC", "-fstack-protector-strong", "-w")

# These modules decide what the prefix holds: a change in one of them is a new prefix.
_RECIPE_MODULES = ("pjsip_recipe.py", "pjsip_libraries.py", "pjsua2_module.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the content of one prefix.

    Attributes:
        folder: `packaging/pjsip` of the tree.
        pjproject: Lock of its source.
        libsrtp: Lock of its source.
        patches: The queue, in order.
        mended: False for the build that leaves the defects in, which only tests use.
    """

    folder: Path
    pjproject: SourceLock
    libsrtp: SourceLock
    patches: tuple[Path, ...]
    mended: bool

    @property
    def digest(self) -> str:
        """The hash that names the prefix: sources, patches, settings, recipe, compiler, OpenSSL and Python."""
        here = Path(__file__).parent
        return sha256_fields(
            *(lock.content_sha256 for lock in (self.pjproject, self.libsrtp)),
            *(f"{path.name} {sha256_file(path)}" for path in self.patches),
            sha256_file(self.folder / "config_site.h"),
            *(sha256_file(here / name) for name in _RECIPE_MODULES),
            "mended" if self.mended else "bare",
            *toolchain(),
        )


def read_recipe(folder: Path, *, mended: bool) -> Recipe:
    """Read the lock and the patch queue of the tree."""
    lock = folder / "lock.toml"
    return Recipe(
        folder=folder,
        pjproject=read_source_lock(lock, "pjproject"),
        libsrtp=read_source_lock(lock, "libsrtp"),
        patches=tuple(folder / "patches" / name for name in read_series(folder / "patches", mended=mended)),
        mended=mended,
    )


def read_series(folder: Path, *, mended: bool) -> tuple[str, ...]:
    """The names of the patches to apply.

    Raises:
        BuildError: A named patch is missing, or a patch in the folder is not named.
    """
    lines = (line.split("#", 1)[0].strip() for line in (folder / "series").read_text().splitlines())
    names = tuple(line for line in lines if line)
    present = {path.name for path in folder.glob("*.patch")}
    if stray := present.symmetric_difference(names):
        raise BuildError(f"{folder}/series and the patches beside it differ in: {', '.join(sorted(stray))}")
    return tuple(name for name in names if mended or patch_number(name) < FIRST_MENDING_PATCH)


def patch_number(name: str) -> int:
    """The number that begins a patch's name.

    Raises:
        BuildError: It has none.
    """
    match = re.match(r"(\d{4})-", name)
    if match is None:
        raise BuildError(f"patch {name}: its name must begin with four digits and a hyphen")
    return int(match[1])


def toolchain() -> Sequence[str]:
    """What of this machine goes into the build: compilers, OpenSSL, SWIG and the running Python."""
    return (
        capture(["gcc", "-dumpfullversion", "-dumpmachine"]).strip(),
        capture(["g++", "-dumpfullversion"]).strip(),
        capture(["pkg-config", "--modversion", "openssl"]).strip(),
        capture(["swig", "-version"]).strip(),
        sys.version,
        str(sysconfig.get_config_var("EXT_SUFFIX")),
        sysconfig.get_paths()["include"],
    )
