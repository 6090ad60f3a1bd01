"""`b2bua audit export` and signed checkpoints, as a user types them."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from b2bua.audit import AuditEvent, AuditLine, AuditLog
from b2bua.cli.main import main
from support.audited import sealed_lines
from support.configuration import ConfigurationFile, make_configuration
from support.recipients import RecipientFiles, make_recipient

UID = "ab" * 16


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    made = make_configuration(tmp_path / "lab")
    write(made, AuditEvent.SERVICE_STARTED, AuditEvent.CALL_STARTED)
    return made


def write(file: ConfigurationFile, *events: AuditEvent) -> None:
    log = AuditLog(file.load().audit)
    for event in events:
        log.write(AuditLine(event=event, call_uid=UID if event is AuditEvent.CALL_STARTED else None))
    log.close()


@pytest.fixture(params=["rsa", "ec"])
def recipient(request: pytest.FixtureRequest, tmp_path: Path) -> RecipientFiles:
    key = (
        rsa.generate_private_key(65537, 3072)
        if request.param == "rsa"
        else ec.generate_private_key(ec.SECP256R1())
    )
    return make_recipient(tmp_path, "siem", key)


def export(file: ConfigurationFile, recipient: RecipientFiles, out: Path, *words: str) -> int:
    common = [
        "-c",
        str(file.path),
        "--recipient",
        str(recipient.certificate),
        "-o",
        str(out),
        "--reason",
        "siem",
    ]
    return main(["audit", "export", *common, *words])


def opened(recipient: RecipientFiles, message: Path) -> list[dict[str, object]]:
    plain = message.with_suffix(".jsonl")
    done = recipient.open(message, plain)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in plain.read_text().splitlines()]


def test_stock_openssl_opens_the_lines(
    file: ConfigurationFile, recipient: RecipientFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit.p7m"
    assert export(file, recipient, out) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert b"service_started" not in out.read_bytes()
    lines = opened(recipient, out)
    assert [line["event"] for line in lines] == ["service_started", "call_started", "audit_exported"]
    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert all(len(str(line["hash"])) == 64 for line in lines)
    last = sealed_lines(file.path)[-1]
    assert (last["event"], last["reason"]) == ("audit_exported", "siem")
    assert len(last["fingerprint"]) == 64
    assert "sealed to 1 recipients" in capsys.readouterr().out


def test_the_log_names_each_certificate_that_it_was_sealed_to(
    file: ConfigurationFile, recipient: RecipientFiles, tmp_path: Path
) -> None:
    second = make_recipient(tmp_path, "second", ec.generate_private_key(ec.SECP256R1()))
    assert export(file, recipient, tmp_path / "a.p7m", "--recipient", str(second.certificate)) == 0
    lines = [line for line in sealed_lines(file.path) if line["event"] == "audit_exported"]
    pems = [each.certificate.read_bytes() for each in (recipient, second)]
    wanted = [x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex() for pem in pems]
    assert [line["fingerprint"] for line in lines] == wanted
    assert {line["uid"] for line in lines} == {os.getuid()}


def test_filters_and_what_may_not_be(
    file: ConfigurationFile, recipient: RecipientFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit.p7m"
    assert export(file, recipient, out, "--call-uid", UID, "--json") == 0
    assert json.loads(capsys.readouterr().out)["lines"] == 1
    assert [line["event"] for line in opened(recipient, out)] == ["call_started"]
    assert export(file, recipient, out) == 77, "nothing is replaced"
    assert "exists" in capsys.readouterr().err
    assert export(file, recipient, tmp_path / "none" / "audit.p7m") == 77
    assert export(file, recipient, tmp_path / "b.p7m", "--recipient", str(tmp_path / "none.pem")) == 77
    before = len(sealed_lines(file.path))
    code = main(
        ["audit", "export", "-c", str(file.path), "--recipient", str(file.made.authority), "-o", str(tmp_path / "c"),
         "--reason", "siem"]
    )  # fmt: skip
    assert code == 107, "a certification authority is nobody to seal to"
    assert len(sealed_lines(file.path)) == before
    assert not list(tmp_path.glob(".*")), "nothing half-made is left"


# --- checkpoints


def checkpoints(file: ConfigurationFile) -> Path:
    return file.made.directory / "audit-checkpoints.jws"


def verify(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, dict[str, object]]:
    code = main(["audit", "verify", "-c", str(file.path), "--json", *words])
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return code, found


def test_each_file_that_ends_is_vouched_for(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(checkpoints(file).read_bytes().splitlines()) == 1
    code, found = verify(file, capsys)
    assert (code, found["checkpoints"]) == (0, 2), "the line of the verification is in a file of its own"


def test_a_log_put_back_to_an_older_state_shows(
    file: ConfigurationFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = file.made.directory / "audit"
    shutil.copytree(audit, tmp_path / "older")
    write(file, AuditEvent.CALL_STARTED, AuditEvent.SERVICE_STOPPED)
    kept = tmp_path / "kept.jws"
    shutil.copy(checkpoints(file), kept)
    shutil.rmtree(audit)
    (tmp_path / "older").rename(audit)
    code, found = verify(file, capsys, "--directory", str(audit))
    assert (code, found["whole"]) == (0, True), "in itself it hangs together"
    code, found = verify(file, capsys, "--directory", str(audit), "--checkpoints", str(kept))
    assert code == 94
    assert [finding["kind"] for finding in found["findings"]] == ["rolled_back"]  # type: ignore[attr-defined]


def test_checkpoints_that_were_altered_show(
    file: ConfigurationFile, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(checkpoints(file).read_bytes())
    data[len(data) // 2] ^= 1
    checkpoints(file).write_bytes(data)
    code, found = verify(file, capsys)
    assert code == 94
    assert [finding["kind"] for finding in found["findings"]] == ["bad_checkpoint"]  # type: ignore[attr-defined]
    assert (
        main(["audit", "verify", "-c", str(file.path), "--checkpoints", str(file.path.parent / "none")]) == 77
    )


def test_without_a_signing_key_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_configuration(tmp_path / "lab")
    made.replace('signing_key = "keys/signing.pem"', "")
    write(made, AuditEvent.SERVICE_STARTED)
    assert not checkpoints(made).exists()
    code, found = verify(made, capsys)
    assert (code, found["checkpoints"]) == (0, 0)
