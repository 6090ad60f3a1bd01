"""The module probe as it runs: in a process of its own, under a given OpenSSL configuration."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import cryptography
import pytest

from b2bua.posture.modules import ModuleFacts, ask_modules, ask_system_openssl, read_facts
from b2bua.posture.report import Level
from b2bua.settings import PostureSettings

FIPS_WITHOUT_PROVIDER = """\
openssl_conf = init
[init]
alg_section = algorithms
[algorithms]
default_properties = fips=yes
"""
LEGACY_ONLY = """\
openssl_conf = init
[init]
providers = provider_section
[provider_section]
legacy = legacy_section
[legacy_section]
activate = 1
"""


def probe(configuration: Path) -> Mapping[str, ModuleFacts]:
    done = subprocess.run(
        [sys.executable, "-m", "b2bua.posture.module_probe"],
        env={**os.environ, "OPENSSL_CONF": str(configuration)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return read_facts(json.loads(done.stdout))


def test_every_module_says_who_it_is_and_works() -> None:
    rows = {row.key: row for row in ask_modules(PostureSettings(fips_required=False))}
    assert set(rows) == {
        f"{kind}.{name}" for kind in ("module", "fips") for name in ("python-ssl", "cryptography", "sip")
    }
    assert all(row.level is Level.OK for row in rows.values()), rows
    assert ssl.OPENSSL_VERSION in rows["module.python-ssl"].finding
    assert "default 3." in rows["module.python-ssl"].finding
    assert f"cryptography {cryptography.__version__} with OpenSSL" in rows["module.cryptography"].finding
    assert "static, inside the wheel" in rows["module.cryptography"].finding
    assert "pjsip 2.17, libsrtp2 2." in rows["module.sip"].finding
    assert all(row.evidence.endswith("it worked, it worked") for key, row in rows.items() if "fips" in key)


def test_a_fips_mode_with_nothing_behind_it_works_for_nothing(tmp_path: Path) -> None:
    """The false green: the flag is set, and everything fails."""
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(FIPS_WITHOUT_PROVIDER)
    for name, facts in probe(configuration).items():
        assert facts.problem is None, (name, facts.problem)
        assert (facts.works_aes_gcm, facts.works_chacha20) == (False, False), name
        assert not facts.is_fips_in_force


def test_providers_are_those_that_are_loaded(tmp_path: Path) -> None:
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(LEGACY_ONLY)
    facts = probe(configuration)["python-ssl"]
    assert [name.split()[0] for name in facts.providers] == ["legacy"]
    assert not facts.works_aes_gcm


def test_the_services_configuration_is_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment of the command names: the service replaces it by its own."""
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(FIPS_WITHOUT_PROVIDER)
    monkeypatch.setenv("OPENSSL_CONF", str(configuration))
    rows = {row.key: row for row in ask_modules(PostureSettings(fips_required=False))}
    assert rows["fips.sip"].level is Level.OK


def test_the_program_openssl_is_named() -> None:
    (row,) = ask_system_openssl()
    assert row.level is Level.OK
    assert row.finding.startswith("OpenSSL 3")
