"""`b2bua keys status` and `b2bua tls check` against real keys and a real TLS server on loopback."""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from b2bua.cli.main import main
from b2bua.metrics import Metrics, MetricsServer
from recording.keys.administration import build_administration
from support.configuration import ConfigurationFile, make_configuration
from support.key_pairs import rsa_files
from support.openbao import OpenBao, vault_settings
from support.softhsm import SoftHSM
from tls.settings import TLSMaterialSettings


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    return make_configuration(tmp_path / "lab")


# --- keys status


def keys(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, list[dict[str, str]], str]:
    code = main(["keys", "status", "-c", str(file.path), "--json", *words])
    captured = capsys.readouterr()
    found: list[dict[str, str]] = json.loads(captured.out)["keys"]
    return code, found, captured.err


def test_a_local_key_answers_and_is_unfit_for_production(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found, _ = keys(file, capsys)
    assert code == 0
    key = next(each for each in found if each["name"] == "dev")
    assert (key["name"], key["tenants"], key["health"]) == ("dev", "clinic", "answers")
    assert key["fit_for_production"] == "no"
    assert len(key["key_id"]) == 16
    assert file.made.kek.read_bytes().hex() not in json.dumps(key)


def test_a_data_key_can_be_asked_for(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = keys(file, capsys, "--request")
    assert (code, {key["health"] for key in found}) == (0, {"a data key was made"})


def test_a_key_service_that_is_not_there_fails_and_does_not_hide_the_others(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    cloud = f"""[keys.cloud]
provider = "aws-kms"
key_id = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
region = "eu-central-1"
endpoint_url = "https://127.0.0.1:{port}"
ca = "{file.made.authority}"
timeout_s = 0.5

[keys.dev]"""
    file.replace("[keys.dev]", cloud)
    code, found, err = keys(file, capsys)
    by_name = {key["name"]: key for key in found}
    assert by_name["cloud"]["health"].startswith("failed: ")
    assert by_name["cloud"]["fit_for_production"] == "yes"
    assert by_name["dev"]["health"] == "answers"
    assert code == 34
    assert f"127.0.0.1:{port}" in err


def test_keys_in_transit_and_in_a_token_tell_their_versions(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str], openbao: OpenBao, softhsm: SoftHSM
) -> None:
    name, directory = f"status-{secrets.token_hex(8)}", file.made.directory
    openbao.create_key(name, auto_rotate_period="2160h")
    vault_settings(openbao, name, directory / "keys" / "vault.token")
    token = softhsm.settings(name)
    build_administration("token", token).rotate()
    rsa_files(directory / "keys", "escrow")
    file.append(f"""
[keys.vault]
provider = "vault-transit"
address = "{openbao.url}"
key = "{name}"
token_file = "keys/vault.token"
ca = "{openbao.files.ca_path}"
[keys.token]
provider = "pkcs11-aes-kw"
module = "{token.module_path}"
token_label = "{token.token}"
key = "{name}"
pin_file = "{token.pin_path}"
[keys.escrow]
provider = "rsa-oaep-sha256"
public_key = "keys/escrow.pub"
""")
    code, found, _ = keys(file, capsys, "--request")
    by_name = {key["name"]: key for key in found}
    assert code == 0
    assert all(key["health"] == "a data key was made" for key in found)
    assert by_name["vault"]["rotates_by_itself"] == "every 90 days"
    assert (by_name["token"]["versions"], by_name["token"]["rotates_by_itself"]) == ("1", "no")
    assert by_name["escrow"]["version_created_at"] == "unknown"
    openbao.seal()
    try:
        code, found, err = keys(file, capsys)
    finally:
        openbao.unseal()
    assert code == 34
    assert "sealed" in err
    assert {key["name"] for key in found if key["health"] == "answers"} == set(by_name) - {"vault"}


def test_the_table_is_for_people(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "status", "-c", str(file.path)]) == 0
    out = capsys.readouterr().out
    for words in ("dev", "clinic", "answers", str(file.made.kek)):
        assert words in out


def test_a_kind_without_a_key_is_named(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
    def absent() -> set[str]:
        assert main(["keys", "status", "-c", str(file.path), "--json"]) == 0
        return set(json.loads(capsys.readouterr().out)["absent"])

    assert "token" in absent()
    assert "signing" not in absent()
    assert main(["keys", "status", "-c", str(file.path)]) == 0
    assert "token: none is configured; this program issues no tokens" in capsys.readouterr().out
    file.replace('signing_key = "keys/signing.pem"', "")
    assert {"token", "signing"} <= absent()


# --- tls check


@pytest.fixture
def strict(file: ConfigurationFile) -> Iterator[int]:
    """The port of a server of ours: TLS 1.3, client certificates, no tickets."""
    settings = file.load().metrics
    assert settings is not None
    clients = frozenset({"edge.example.test"})
    server = MetricsServer(
        replace(settings, port=0, client_identities=clients), Metrics(), is_ready=lambda: True
    )
    server.start()
    yield server.port
    server.stop()


@pytest.fixture
def careless(file: ConfigurationFile) -> Iterator[int]:
    """The port of a server with Python's defaults: TLS 1.2 too, nobody asked for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    edge: TLSMaterialSettings = file.made.edge
    context.load_cert_chain(edge.certificate_path, edge.private_key_path)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            with stream:
                stream.settimeout(5)
                try:
                    with context.wrap_socket(stream, server_side=True) as connection:
                        connection.recv(1)
                except OSError:
                    continue

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def check(file: ConfigurationFile, port: int, *words: str) -> int:
    return main(["tls", "check", f"127.0.0.1:{port}", "-c", str(file.path), *words])


def test_a_server_of_ours_passes(
    file: ConfigurationFile, strict: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(file, strict, "--name", "edge.example.test", "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["versions"]["TLSv1.3"] == "accepted"
    assert found["versions"]["TLSv1.2"] != "accepted"
    assert found["client_certificate"] == "required"
    assert found["identities"] == ["edge.example.test"]
    assert found["findings"] == []
    assert "b2bua: " not in captured.err


def test_a_certificate_for_somebody_else_is_a_finding(
    file: ConfigurationFile, strict: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(file, strict, "--name", "pbx.example.test") == 78
    captured = capsys.readouterr()
    assert "peer-refused" in captured.err
    assert "TLSv1.3: accepted" in captured.out


def test_a_careless_server_has_findings_one_a_line(
    file: ConfigurationFile, careless: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(file, careless, "--name", "edge.example.test") == 78
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("b2bua: client-certificate-not-required: ") for line in lines)
    assert any(line.startswith("b2bua: tickets-issued: ") for line in lines)


def test_nobody_there(file: ConfigurationFile, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert check(file, port) == 58
    assert str(port) in capsys.readouterr().err


@pytest.mark.parametrize("server", ["127.0.0.1:0", "::1:5061", "127.0.0.1:99999", "a b:5061"])
def test_what_is_no_server_is_an_error_with_a_cure(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tls", "check", server]) == 77
    assert ";" in capsys.readouterr().err
