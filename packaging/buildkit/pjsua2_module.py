"""Build the pjsua2 Python module against the running interpreter, as a wheel.

The name `pjsua2` belongs to somebody else on the public package index. The module is therefore never
named as a requirement: it is installed from the file built here, by path and hash.
"""

import base64
import hashlib
import shutil
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from pathlib import Path

from buildkit.cache import cache_root, publish, workspace
from buildkit.digest import sha256_fields, sha256_tree
from buildkit.pjsip_recipe import LINK_FLAGS, WRAPPER_FLAGS, toolchain
from buildkit.progress import phase, run

LIBRARIES = (
    "pjsua2",
    "pjsua",
    "pjsip-ua",
    "pjsip-simple",
    "pjsip",
    "pjmedia-codec",
    "pjmedia-audiodev",
    "pjmedia",
    "pjnath",
    "pjlib-util",
    "pj",
)
DEFINES = ("-DPJ_AUTOCONF=1", "-DPJ_IS_BIG_ENDIAN=0", "-DPJ_IS_LITTLE_ENDIAN=1")
_SWIG_FLAGS = ("-c++", "-python", "-threads", "-doxygen", "-w312")
_INCLUDED = ("pjlib", "pjlib-util", "pjnath", "pjmedia", "pjsip")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def build_wheel(*, pjproject: Path, release: str, label: str, prefix: Path, stage: Path, log: Path) -> Path:
    """Build the wheel into the staged prefix.

    The compiled wrapper depends on the headers alone, so it is cached by their hash: a patch to the
    libraries costs a link, not a compilation.

    Args:
        pjproject: The built source.
        release: Its version.
        label: Local part of the wheel's version; names the prefix.
        prefix: Final prefix, for the run path.
        stage: Where the libraries lie now, and where the wheel goes.
        log: Collects all output.

    Returns:
        The wheel.
    """
    swig = pjproject / "pjsip-apps/src/swig"
    wrapper = _wrapper(swig=swig, headers=stage / "include", log=log)
    with phase("linking pjsua2"), workspace("wheel") as folder:
        extension = folder / f"_pjsua2{sysconfig.get_config_var('EXT_SUFFIX')}"
        run(
            [
                "g++",
                "-shared",
                "-o",
                str(extension),
                str(wrapper / "pjsua2_wrap.o"),
                f"-L{stage}/lib",
                f"-Wl,-rpath,{prefix}/lib",
                f"-Wl,-rpath-link,{stage}/lib",
                "-Wl,--strip-all",
                LINK_FLAGS,
                *(f"-l{name}" for name in LIBRARIES),
            ],
            log=log,
        )
        files = {extension.name: extension.read_bytes(), "pjsua2.py": (wrapper / "pjsua2.py").read_bytes()}
        return write_wheel(stage / "wheels", version=f"{release}+{label}", files=files)


def _wrapper(*, swig: Path, headers: Path, log: Path) -> Path:
    """The compiled SWIG wrapper and its Python half, from the cache where the headers are the same."""
    key = sha256_fields(
        sha256_tree(headers),
        *(sha256_fields(path.name, path.read_text()) for path in sorted(swig.glob("*.i"))),
        *WRAPPER_FLAGS,
        *_SWIG_FLAGS,
        *DEFINES,
        *toolchain(),
    )
    kept = cache_root() / f"pjsua2-wrapper-{key[:24]}"
    if kept.is_dir():
        return kept
    with (
        phase("generating and compiling the pjsua2 wrapper (about a minute)"),
        workspace("wrapper") as folder,
    ):
        built = folder / "wrapper"
        built.mkdir()
        source = swig.parents[2]
        includes = [f"-I{source / name / 'include'}" for name in _INCLUDED]
        generated = folder / "pjsua2_wrap.cpp"
        run(
            [
                "swig",
                *includes,
                *_SWIG_FLAGS,
                "-outdir",
                str(built),
                "-o",
                str(generated),
                str(swig / "pjsua2.i"),
            ],
            cwd=swig,
            log=log,
        )
        compiled = built / "pjsua2_wrap.o"
        headers_flags = (f"-I{headers}", f"-I{sysconfig.get_paths()['include']}")
        run(
            ["g++", *WRAPPER_FLAGS, *DEFINES, *headers_flags, "-c", str(generated), "-o", str(compiled)],
            log=log,
        )
        publish(built, kept)
    return kept


def wheel_tag() -> str:
    """Compatibility tag of an extension for the running interpreter.

    Source: PEP 425.
    """
    interpreter = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{interpreter}-{interpreter}-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def write_wheel(folder: Path, *, version: str, files: Mapping[str, bytes]) -> Path:
    """Write a wheel with fixed times and order, so that the same input has the same hash.

    Source: PEP 427.
    """
    info = f"pjsua2-{version}.dist-info"
    members = {
        **files,
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: pjsua2\nVersion: {version}\n"
            "Summary: pjsua2 bindings of the pjproject build of sealtrunk\nLicense: GPL-2.0-or-later\n"
        ).encode(),
        f"{info}/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: sealtrunk\nRoot-Is-Purelib: false\nTag: {wheel_tag()}\n"
        ).encode(),
    }
    record = "".join(f"{name},sha256={_record_hash(data)},{len(data)}\n" for name, data in members.items())
    members[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    wheel = folder / f"pjsua2-{version}-{wheel_tag()}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return wheel


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
