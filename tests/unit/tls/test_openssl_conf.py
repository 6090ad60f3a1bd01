"""The OpenSSL floor: the text is understood by OpenSSL, and its absence or a gap in it is noticed.

Each case starts a Python of its own, because OpenSSL reads its configuration once per process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tls
from tls.errors import OpenSSLConfigurationError
from tls.openssl_conf import openssl_configuration
from tls.settings import TLS12_EXCEPTION

VERIFY = """
from tls.errors import OpenSSLConfigurationError
from tls.openssl_conf import verify_openssl_configuration_in_effect
try:
    verify_openssl_configuration_in_effect()
except OpenSSLConfigurationError as error:
    print("\\n".join(error.differences))
    raise SystemExit(error.exit_code)
"""

DEFAULT_SERVER_TICKETS = """
import ssl
print(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).num_tickets)
"""


def run(code: str, configuration: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "OPENSSL_CONF"}
    environment["PYTHONPATH"] = str(Path(tls.__file__).parent.parent)
    if configuration is not None:
        environment["OPENSSL_CONF"] = str(configuration)
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "openssl.cnf"
    path.write_text(openssl_configuration())
    return path


def test_in_effect(configuration: Path) -> None:
    outcome = run(VERIFY, configuration)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def test_not_in_effect_names_everything_missing() -> None:
    outcome = run(VERIFY, None)
    assert outcome.returncode == OpenSSLConfigurationError.exit_code
    for part in ("minimum protocol", "maximum protocol", "session tickets", "groups", "signature schemes"):
        assert part in outcome.stdout


@pytest.mark.parametrize(
    ("key", "replacement", "difference"),
    [
        ("MinProtocol", "MinProtocol = TLSv1.2", "minimum protocol is TLSv1.2, not TLSv1.3"),
        ("MaxProtocol", None, "maximum protocol is unset"),
        ("NumTickets", "NumTickets = 1", "a server issues 1 session tickets"),
        ("NumTickets", None, "session tickets"),
        ("Ciphersuites", "Ciphersuites = TLS_AES_256_GCM_SHA384:TLS_AES_128_CCM_SHA256", "0x1304"),
        ("Groups", "Groups = X25519:X448", "groups beyond the profile are offered: 0x001e"),
        ("SignatureAlgorithms", "SignatureAlgorithms = ed25519:ecdsa_secp256r1_sha256", "0x0807"),
    ],
)
def test_each_gap_is_noticed(configuration: Path, key: str, replacement: str | None, difference: str) -> None:
    lines = configuration.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(f"{key} ")]
    assert len(kept) == len(lines) - 1
    configuration.write_text("\n".join([*kept, *([replacement] if replacement else []), ""]))
    outcome = run(VERIFY, configuration)
    assert outcome.returncode == OpenSSLConfigurationError.exit_code
    assert outcome.stdout.count("\n") == 1
    assert difference in outcome.stdout


def test_a_configuration_that_openssl_cannot_read_is_noticed(configuration: Path) -> None:
    configuration.write_text(openssl_configuration().replace("X25519", "no-such-group"))
    assert run(VERIFY, configuration).returncode != 0
    configuration.write_text(openssl_configuration())
    assert run(VERIFY, configuration).returncode == 0


def test_a_careless_server_in_the_process_issues_no_tickets(configuration: Path) -> None:
    assert run(DEFAULT_SERVER_TICKETS, configuration).stdout == "0\n"
    assert run(DEFAULT_SERVER_TICKETS, None).stdout == "2\n"


def test_the_exception_profile_is_text_too() -> None:
    text = openssl_configuration(TLS12_EXCEPTION)
    assert "MaxProtocol = TLSv1.2" in text
    assert "CipherString = ECDHE-ECDSA-AES256-GCM-SHA384:" in text
    assert "Ciphersuites" not in text
    assert "NumTickets = 0" in text
