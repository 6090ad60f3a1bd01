"""The one C extension; everything else about the project stands in setup.cfg."""

import json
import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PREFIX_VARIABLE = "SEALTRUNK_PJSIP_PREFIX"
NATIVE = Path("b2bua/native")
HARDENING = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-fvisibility=hidden"]


class BuildNative(build_ext):
    """Compile against the pjsip prefix, so that the extension and pjsua2 load one copy of each library."""

    def build_extension(self, ext: Extension) -> None:
        """Fill in what only the prefix knows, then compile."""
        chosen = os.environ.get(PREFIX_VARIABLE)
        if not chosen:
            raise SystemExit(
                f"error: {PREFIX_VARIABLE} does not name the pjsip prefix that b2bua.native is built against. "
                "Run `make setup`, or set SEALTRUNK_NO_NATIVE=1 to install without the extension "
                "(tls and recording do not need it)."
            )
        prefix = Path(chosen)
        info = json.loads((prefix / "sealtrunk-build.json").read_text())
        ext.extra_compile_args = [
            "-std=gnu11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-isystem{prefix}/include",
            *info["defines"],
            *HARDENING,
        ]
        ext.libraries = [name for name in info["libraries"] if name != "pjsua2"] + ["ssl", "crypto"]
        ext.library_dirs = [str(prefix / "lib")]
        ext.extra_link_args = [f"-Wl,-rpath,{prefix}/lib", "-Wl,--as-needed", "-Wl,-z,relro,-z,now"]
        super().build_extension(ext)


def extensions() -> list[Extension]:
    """The extension, unless it is declined or its sources are not part of this tree."""
    sources = sorted(str(path) for path in NATIVE.glob("*.c"))
    if not sources or os.environ.get("SEALTRUNK_NO_NATIVE") == "1":
        return []
    headers = sorted(str(path) for path in NATIVE.glob("*.h"))
    return [Extension("b2bua.native._native", sources, depends=headers)]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildNative})
