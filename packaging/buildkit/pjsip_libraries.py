"""Build libsrtp and pjproject as shared libraries into a staged prefix."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from buildkit.pjsip_recipe import COMPILE_FLAGS, CONFIGURE_FLAGS, LINK_FLAGS
from buildkit.progress import phase, run

JOBS = "-j2"


def build_libraries(
    *,
    libsrtp: Path,
    pjproject: Path,
    patches: Sequence[Path],
    config_site: Path,
    prefix: Path,
    stage: Path,
    log: Path,
) -> None:
    """Build both libraries.

    Args:
        libsrtp: Unpacked source; changed by the build.
        pjproject: Unpacked source; changed by the build.
        patches: Applied to pjproject in this order.
        config_site: pjproject's compile-time settings.
        prefix: Where the result will lie in the end: it goes into the run path of each library.
        stage: Where the result is written now.
        log: Collects all output.
    """
    with phase("building libsrtp on OpenSSL"):
        _build_libsrtp(libsrtp, prefix=prefix, stage=stage, log=log)
    with phase(f"applying {len(patches)} patches to pjproject"):
        for patch in patches:
            run(
                ["patch", "--batch", "--forward", "--fuzz=0", "-p1", "-i", str(patch)], cwd=pjproject, log=log
            )
        shutil.copyfile(config_site, pjproject / "pjlib/include/pj/config_site.h")
    with phase("building pjproject"):
        _build_pjproject(pjproject, prefix=prefix, stage=stage, log=log)
    for archive in (stage / "lib").glob("*.a"):
        # Two static copies of pjsua in one process crash it: leave nothing to link statically.
        archive.unlink()


def _build_libsrtp(source: Path, *, prefix: Path, stage: Path, log: Path) -> None:
    flags = {"CFLAGS": COMPILE_FLAGS, "LDFLAGS": LINK_FLAGS}
    run(["./configure", "--enable-openssl", f"--prefix={prefix}"], cwd=source, env=flags, log=log)
    run(["make", JOBS, "shared_library"], cwd=source, log=log)
    _install(source, prefix=prefix, stage=stage, log=log)


def _build_pjproject(source: Path, *, prefix: Path, stage: Path, log: Path) -> None:
    compile_flags = f"-I{stage}/include {COMPILE_FLAGS} -ffile-prefix-map={source}=pjproject"
    flags = {
        "CFLAGS": compile_flags,
        "CXXFLAGS": compile_flags,
        "LDFLAGS": f"-L{stage}/lib -Wl,-rpath,{prefix}/lib {LINK_FLAGS}",
        "LIBS": "-lspeexdsp",
        "PYTHON": "false",
    }
    run(["./configure", f"--prefix={prefix}", *CONFIGURE_FLAGS], cwd=source, env=flags, log=log)
    run(["make", JOBS, "lib"], cwd=source, log=log)
    _install(source, prefix=prefix, stage=stage, log=log)


def _install(source: Path, *, prefix: Path, stage: Path, log: Path) -> None:
    """`make install` for `prefix`, but written to `stage`."""
    destination = stage.with_name(stage.name + ".destination")
    run(["make", "install", f"DESTDIR={destination}"], cwd=source, log=log)
    shutil.copytree(destination / prefix.relative_to("/"), stage, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(destination)
