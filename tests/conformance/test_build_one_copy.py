"""pjsua2 and our extension run on one copy of each library, the one built here, on one OpenSSL."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.pjsip_build import build_info, prefix, unpatched_prefix

STUB = Path(__file__).resolve().parents[2] / "packaging/pjsip/stubs/pjsua2.pyi"

PROGRAM = """
import json, sys
import pjsua2
from b2bua.native import _native

endpoint = pjsua2.Endpoint()
endpoint.libCreate()
config = pjsua2.EpConfig()
config.logConfig.level = config.logConfig.consoleLevel = 0
endpoint.libInit(config)
result = {
    "version": endpoint.libVersion().full,
    "suites": list(endpoint.srtpCryptoEnum()),
    "maps": sorted({line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}),
}
endpoint.libDestroy()
with open(sys.argv[1], "w") as report:
    json.dump(result, report)
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    # Not over stdout: pjlib writes there through C's own buffer until logging is configured.
    report = tmp_path_factory.mktemp("loaded") / "report.json"
    subprocess.run([sys.executable, "-c", PROGRAM, str(report)], check=True, timeout=60)
    result: dict[str, Any] = json.loads(report.read_text())
    return result


def named(loaded: dict[str, Any], pattern: str) -> list[str]:
    return [path for path in loaded["maps"] if re.fullmatch(pattern, Path(path).name)]


def test_the_module_is_the_release_that_was_built(loaded: dict[str, Any]) -> None:
    assert loaded["version"] == build_info(prefix())["pjproject"] == "2.17"


@pytest.mark.parametrize("name", [f"lib{name}" for name in build_info(prefix())["libraries"]])
def test_each_library_is_loaded_once_and_from_the_prefix(loaded: dict[str, Any], name: str) -> None:
    assert [Path(path).parent for path in named(loaded, rf"{name}\.so[.0-9]*")] == [prefix() / "lib"]


def test_both_modules_are_in_that_process(loaded: dict[str, Any]) -> None:
    assert len(named(loaded, r"_pjsua2\..*\.so")) == 1
    assert len(named(loaded, r"_native\..*\.so")) == 1


def test_tls_and_srtp_run_on_one_openssl_3(loaded: dict[str, Any]) -> None:
    assert len(named(loaded, r"libssl\.so\.3")) == 1
    assert len(named(loaded, r"libcrypto\.so\.3")) == 1
    assert not named(loaded, r"lib(nss|gnutls|mbed).*\.so.*")


def needed(library: Path) -> set[str]:
    shown = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", shown))


@pytest.mark.parametrize("folder", [prefix, unpatched_prefix], ids=["patched", "unpatched"])
def test_the_libraries_use_openssl_and_our_libsrtp(folder: Any) -> None:
    libraries = folder() / "lib"
    assert "libssl.so.3" in needed(libraries / "libpj.so.2")
    assert "libsrtp2.so.1" in needed(libraries / "libpjmedia.so.2")
    assert "libcrypto.so.3" in needed(libraries / "libsrtp2.so.1")
    assert not list(libraries.glob("*.a"))


@pytest.mark.parametrize("suite", ["AEAD_AES_256_GCM", "AEAD_AES_128_GCM", "AES_256_CM_HMAC_SHA1_80"])
def test_the_suites_of_the_policy_are_built_in(loaded: dict[str, Any], suite: str) -> None:
    assert suite in loaded["suites"]


def test_no_192_bit_suite_is_built_in(loaded: dict[str, Any]) -> None:
    assert not [suite for suite in loaded["suites"] if "192" in suite]


def test_the_two_builds_differ_in_the_mending_patches_only() -> None:
    patched, unpatched = build_info(prefix()), build_info(unpatched_prefix())
    assert patched["mended"] is True
    assert unpatched["mended"] is False
    assert [name for name in patched["patches"] if name < "0010"] == unpatched["patches"]
    for same in ("pjproject", "libsrtp", "defines", "libraries"):
        assert patched[same] == unpatched[same]


def stub_names() -> list[str]:
    names: list[str] = []
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            names.append(node.name)
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    names.append(f"{node.name}.{member.name}")
                elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                    names.append(f"{node.name}.{member.target.id}")
    return names


def test_every_name_of_the_stub_exists_in_the_module() -> None:
    program = """
import functools, json, sys
import pjsua2
absent = []
for name in json.load(sys.stdin):
    try:
        functools.reduce(getattr, name.split("."), pjsua2)
    except AttributeError:
        absent.append(name)
print(json.dumps(absent))
"""
    names = stub_names()
    assert "Call.makeCall" in names
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(names), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
