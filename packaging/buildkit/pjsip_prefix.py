"""The pjsip prefix: found in the cache under the hash of its inputs, or built there."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from buildkit.cache import cache_root, exclusive, publish, workspace
from buildkit.digest import sha256_file
from buildkit.errors import BuildError
from buildkit.pjsip_libraries import build_libraries
from buildkit.pjsip_recipe import Recipe
from buildkit.pjsua2_module import DEFINES, LIBRARIES, build_wheel
from buildkit.progress import phase, say
from buildkit.source import obtain, unpack

INFO_FILE = "sealtrunk-build.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltWheel:
    """The pjsua2 wheel of a prefix, and its hash as recorded when it was built."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A finished prefix.

    Attributes:
        path: Holds `include`, `lib` and `wheels`.
        wheel: None in the build that leaves the defects in: the product never runs on that.
    """

    path: Path
    wheel: BuiltWheel | None

    @property
    def required_wheel(self) -> BuiltWheel:
        """The wheel.

        Raises:
            BuildError: This prefix has none.
        """
        if self.wheel is None:
            raise BuildError(f"{self.path} is built without the mending patches and has no pjsua2 module")
        return self.wheel


def prefix_path(recipe: Recipe) -> Path:
    """Where the prefix of these inputs lies or will lie."""
    return cache_root() / f"pjsip-{recipe.digest[:24]}"


def find_prefix(recipe: Recipe) -> Prefix | None:
    """The finished prefix of these inputs, if it is in the cache.

    Raises:
        BuildError: It is there, but its wheel is not the one that was built.
    """
    path = prefix_path(recipe)
    if not (path / INFO_FILE).is_file():
        return None
    info = json.loads((path / INFO_FILE).read_text())
    if info["wheel"] is None:
        return Prefix(path=path, wheel=None)
    wheel = BuiltWheel(path=path / "wheels" / info["wheel"], sha256=info["wheel_sha256"])
    if not wheel.path.is_file() or sha256_file(wheel.path) != wheel.sha256:
        raise BuildError(
            f"{wheel.path} is not the file that was built there; remove {path} and run the set-up again"
        )
    return Prefix(path=path, wheel=wheel)


def ensure_prefix(recipe: Recipe) -> Prefix:
    """Return the prefix of these inputs, building it first where needed.

    Raises:
        BuildError: A source cannot be had, or a step of the build failed.
    """
    if (found := find_prefix(recipe)) is not None:
        return found
    with exclusive("pjsip"):
        if (found := find_prefix(recipe)) is not None:
            return found
        _build(recipe)
    if (found := find_prefix(recipe)) is None:
        raise BuildError(f"the build left no prefix in {prefix_path(recipe)}")
    return found


def _build(recipe: Recipe) -> None:
    final = prefix_path(recipe)
    kind = "with" if recipe.mended else "without"
    say(f"pjproject {recipe.pjproject.release} {kind} our mending patches will be built into {final}")
    log = cache_root() / "logs" / f"{final.name}.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("")
    with workspace("pjsip") as work:
        with phase("obtaining the sources"):
            tarballs = {lock.name: obtain(lock) for lock in (recipe.libsrtp, recipe.pjproject)}
            for name, tarball in tarballs.items():
                unpack(tarball, work / name)
        stage = work / "stage"
        build_libraries(
            libsrtp=work / "libsrtp",
            pjproject=work / "pjproject",
            patches=recipe.patches,
            config_site=recipe.folder / "config_site.h",
            prefix=final,
            stage=stage,
            log=log,
        )
        wheel = (
            _build_wheel(recipe, source=work / "pjproject", stage=stage, log=log) if recipe.mended else None
        )
        _write_info(recipe, stage=stage, wheel=wheel)
        shutil.copyfile(log, stage / "build.log")
        publish(stage, final)


def _build_wheel(recipe: Recipe, *, source: Path, stage: Path, log: Path) -> BuiltWheel:
    wheel = build_wheel(
        pjproject=source,
        release=recipe.pjproject.release,
        label=f"sealtrunk.{recipe.digest[:12]}",
        prefix=prefix_path(recipe),
        stage=stage,
        log=log,
    )
    digest = sha256_file(wheel)
    wheel.with_suffix(".whl.sha256").write_text(f"{digest}  {wheel.name}\n")
    return BuiltWheel(path=wheel, sha256=digest)


def _write_info(recipe: Recipe, *, stage: Path, wheel: BuiltWheel | None) -> None:
    """Write what others need to compile and link against the prefix, and to install its wheel."""
    info = {
        "pjproject": recipe.pjproject.release,
        "libsrtp": recipe.libsrtp.release,
        "mended": recipe.mended,
        "patches": [path.name for path in recipe.patches],
        "defines": list(DEFINES),
        "libraries": [*LIBRARIES, "srtp2"],
        "wheel": wheel.path.name if wheel else None,
        "wheel_sha256": wheel.sha256 if wheel else None,
    }
    (stage / INFO_FILE).write_text(json.dumps(info, indent=2) + "\n")
