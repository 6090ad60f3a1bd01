"""What a configuration means, and that each fault is refused with its line and its cure."""

from __future__ import annotations

import ipaddress
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from b2bua.config import MAX_FILE_BYTES, PATH_VARIABLE, default_path, load
from b2bua.config_checks import MOST_TRUNKS
from b2bua.config_values import KMS_KEY_EXAMPLE
from b2bua.errors import ConfigurationError, ConfigurationProblem
from b2bua.settings import (
    AuditSettings,
    Codec,
    CodesFrom,
    ControlSettings,
    Environment,
    LogFormat,
    LogLevel,
    NoMediaPolicy,
    PauseCodes,
    RecordingPolicy,
    SIPTarget,
    SRTPSuite,
    URIScheme,
)
from recording.settings import (
    AWSKMSKeySettings,
    Layout,
    LocalKeySettings,
    PostgreSQLSettings,
    RetentionSettings,
    TLSFloor,
)
from support.certificates import Issuer
from support.configuration import ConfigurationFile, make_configuration


@pytest.fixture
def file(tmp_path: Path) -> ConfigurationFile:
    return make_configuration(tmp_path / "etc")


# --- what a good file means


def test_what_init_makes_is_good_and_complete(file: ConfigurationFile) -> None:
    settings = file.load()
    directory = file.made.directory
    assert settings.environment is Environment.DEVELOPMENT
    assert (settings.listener.address, settings.listener.port) == ("127.0.0.1", 5061)
    assert (settings.listener.public_host, settings.listener.public_port) == ("127.0.0.1", 5061)
    assert settings.tls == file.made.edge
    assert (settings.media.rtp_port_first, settings.media.rtp_port_last) == (20000, 20399)
    assert settings.media.codecs == (Codec.PCMU, Codec.PCMA)
    caller = settings.trunks["caller"]
    assert caller.identities == {"caller.example.test"}
    assert caller.sources == (ipaddress.ip_network("127.0.0.0/8"),)
    assert caller.target == SIPTarget(scheme=URIScheme.SIPS, host="caller.example.test", port=5071)
    assert caller.srtp_suites == (SRTPSuite.AEAD_AES_256_GCM, SRTPSuite.AEAD_AES_128_GCM)
    assert caller.recording is RecordingPolicy.REQUIRED
    assert [(route.source, route.destination) for route in settings.routes] == [
        ("caller", "callee"),
        ("callee", "caller"),
    ]
    assert len(settings.tenants["clinic"].handle) == 16
    assert settings.recording.directory == directory / "recordings"
    assert settings.recording.spool_directory == directory / "recordings-spool"
    assert settings.recording.index_path == directory / "recordings-index.sqlite"
    assert settings.recording.keys == {
        "dev": LocalKeySettings(kek_path=file.made.kek),
        "audit": settings.audit.key,
    }
    assert settings.recording.signing_key_path == directory / "keys" / "signing.pem"
    assert settings.metrics is not None
    assert settings.metrics.tls == file.made.edge
    assert settings.metrics.client_identities == {"monitor.example.test"}
    assert settings.limits.max_calls == 100
    assert settings.emergency_numbers == {"112", "911"}
    assert settings.audit.directory == file.made.directory / "audit"
    assert settings.audit.key == LocalKeySettings(kek_path=file.made.directory / "keys" / "audit.kek")


def test_every_optional_key_reaches_the_settings(file: ConfigurationFile, tmp_path: Path) -> None:
    ca = tmp_path / "kms-ca.pem"
    shutil.copy(file.made.authority, ca)
    file.replace('listen = "127.0.0.1:5061"', 'listen = "[::1]:5061"\npublic = "Edge.Example.Test.:6000"')
    file.replace(
        'address = "127.0.0.1"\nrtp',
        'address = "::1"\npublic_address = "2001:db8::0:1"\ncodecs = ["G722"]\nrtp',
    )
    file.replace(
        'layout = "mixed"',
        'spool = "/s"\nindex = "i.db"\nchunk_size = 4096\nrecord_ms = 100\nlayout = "split"',
    )
    file.replace('key = "audit"  ', 'key = "audit"\nsegment_seconds = 60\ncommit_ms = 50  ')
    file.append(f"""
[recording.pool]
size = 2
ttl_s = 60
refill_per_request = 1
[keys.cloud]
provider = "aws-kms"
key_id = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
region = "eu-central-1"
endpoint_url = "https://127.0.0.1:5000"
ca = "{ca}"
timeout_s = 2
[tenants.ward]
handle = "00112233445566778899aabbccddeeff"
key = "cloud"
[trunks.carrier]
identities = ["sbc.carrier.example", "sbc2.carrier.example"]
sources = ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]
target = "sip:SBC.carrier.example:5061;transport=TLS"
addresses = ["2001:db8::5"]
tenant = "ward"
recording = "best-effort"
srtp_suites = ["AES_CM_128_HMAC_SHA1_80"]
max_calls = 7
no_answer_s = 30
pass_headers = ["X-Call-Reference"]
pause_code = "*71"
resume_code = "#72"
pause_codes_from = "b"
pause_codes_relayed = false
no_media_s = 5
on_no_media = "end"
[[routes]]
from = "carrier"
to = "caller"
prefix = "+49"
strip = 3
prepend = "0"
[log]
level = "warning"
format = "json"
""")
    settings = file.load()
    assert settings.listener.address == "::1"
    assert (settings.listener.public_host, settings.listener.public_port) == ("edge.example.test", 6000)
    assert (settings.media.address, settings.media.public_address) == ("::1", "2001:db8::1")
    assert settings.media.codecs == (Codec.G722,)
    recording = settings.recording
    assert (recording.spool_directory, recording.index_path) == (Path("/s"), file.made.directory / "i.db")
    assert (recording.layout, recording.chunk_size, recording.record_ms) == (Layout.SPLIT, 4096, 100)
    assert (recording.pool.size, recording.pool.ttl_s, recording.pool.refill_per_request) == (2, 60, 1)
    assert recording.keys["cloud"] == AWSKMSKeySettings(
        key_id="arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        region="eu-central-1",
        endpoint_url="https://127.0.0.1:5000",
        ca_path=ca,
        timeout_s=2.0,
    )
    assert settings.tenants["ward"].handle == bytes.fromhex("00112233445566778899aabbccddeeff")
    carrier = settings.trunks["carrier"]
    assert carrier.target == SIPTarget(scheme=URIScheme.SIP, host="sbc.carrier.example", port=5061)
    assert carrier.addresses == ("2001:db8::5",)
    assert carrier.target.uri("7") == "sip:7@sbc.carrier.example:5061;transport=tls"
    assert [str(network) for network in carrier.sources] == [
        "192.0.2.0/24",
        "2001:db8::/32",
        "198.51.100.7/32",
    ]
    assert (carrier.recording, carrier.max_calls, carrier.no_answer_s) == (RecordingPolicy.BEST_EFFORT, 7, 30)
    assert carrier.srtp_suites == (SRTPSuite.AES_CM_128_HMAC_SHA1_80,)
    assert carrier.pass_headers == {"x-call-reference"}
    assert carrier.pause_codes == PauseCodes(pause="*71", resume="#72", heard_from=CodesFrom.B, relayed=False)
    assert (carrier.no_media_s, carrier.on_no_media) == (5, NoMediaPolicy.END)
    assert settings.control == ControlSettings(socket=file.made.directory / "run/control.sock")
    route = settings.routes[2]
    assert (route.source, route.destination) == ("carrier", "caller")
    assert (route.prefix, route.strip, route.prepend) == ("+49", 3, "0")
    assert (settings.audit.segment_seconds, settings.audit.commit_ms) == (60, 50)
    assert settings.audit.kill_loss_bound_ms == 50
    assert (settings.log.level, settings.log.format) == (LogLevel.WARNING, LogFormat.JSON)


def test_without_an_environment_it_is_production(file: ConfigurationFile) -> None:
    file.replace('environment = "development"\n', "")
    assert {problem.key for problem in file.problems()} == {
        "tls.trust",
        "keys.dev.provider",
        "keys.audit.provider",
    }
    file.replace('signing_key = "keys/signing.pem"', "")
    assert "recording.signing_key" in {problem.key for problem in file.problems()}


@pytest.mark.parametrize("plain", ["audit.jsonl", "-"])
def test_an_audit_log_in_clear_is_for_development(file: ConfigurationFile, plain: str) -> None:
    file.replace('directory = "audit"', f'plain = "{plain}"')
    file.replace('key = "audit"  ', "")
    path = file.made.directory / "audit.jsonl" if plain != "-" else None
    assert file.load().audit == AuditSettings(path=path)
    file.replace('environment = "development"\n', "")
    (problem,) = (problem for problem in file.problems() if problem.key == "audit.plain")
    assert "production refuses it" in problem.what


def test_the_environment_variable_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    assert default_path() is None
    monkeypatch.setenv(PATH_VARIABLE, "/etc/b2bua.toml")
    assert default_path() == Path("/etc/b2bua.toml")


# --- files and their owners


def test_an_exposed_private_key_is_refused(file: ConfigurationFile) -> None:
    key = file.made.edge.private_key_path
    key.chmod(0o644)
    problem = file.problem()
    assert (problem.key, problem.line) == ("tls.private_key", file.line("private_key ="))
    assert "0644" in problem.what
    assert f"chmod 0600 {key}" in problem.cure
    key.chmod(0o600)
    file.load()


def test_an_exposed_kek_is_refused(file: ConfigurationFile) -> None:
    file.made.kek.chmod(0o640)
    problem = file.problem()
    assert (problem.key, problem.line) == ("keys.dev.kek", file.line("kek ="))
    assert "0640" in problem.what
    assert f"chmod 600 {file.made.kek}" in problem.cure
    file.made.kek.chmod(0o600)
    file.load()


def test_a_kek_of_the_wrong_size_is_refused(file: ConfigurationFile) -> None:
    file.made.kek.write_bytes(b"k" * 31)
    problem = file.problem()
    assert (problem.key, "32 bytes" in problem.what) == ("keys.dev.kek", True)
    file.made.kek.write_bytes(b"k" * 32)
    file.load()


def test_an_expired_certificate_is_refused(file: ConfigurationFile) -> None:
    problems = file_problems_at(file, datetime.now(UTC) + timedelta(days=91))
    assert [(problem.key, problem.line, problem.cure) for problem in problems] == [
        ("tls.certificate", file.line("certificate ="), "renew it")
    ]
    load(file.path, now=datetime.now(UTC) + timedelta(days=89))


def file_problems_at(file: ConfigurationFile, now: datetime) -> tuple[ConfigurationProblem, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(file.path, now=now)
    return caught.value.problems


def test_production_refuses_local_keys_and_the_development_authority(file: ConfigurationFile) -> None:
    file.replace('"development"\n', '"production"\n')
    found = {problem.key: problem for problem in file.problems()}
    assert set(found) == {"keys.dev.provider", "keys.audit.provider", "tls.trust"}
    assert found["keys.dev.provider"].line == file.line('provider = "local"')
    assert '"aws-kms"' in found["keys.dev.provider"].cure
    assert found["tls.trust"].line == file.line("trust =")
    assert "authority of your peers" in found["tls.trust"].cure


def test_production_takes_a_kms_key_and_another_authority(file: ConfigurationFile, tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "ca", now=datetime.now(UTC))
    material = issuer.material("edge", "edge.example.test")
    file.replace('"development"\n', '"production"\n')
    file.replace("tls/edge.pem", str(material.certificate_path))
    file.replace("tls/edge.key", str(material.private_key_path))
    file.replace("tls/development-ca.pem", str(material.trust_path))
    for kek in ("keys/dev.kek", "keys/audit.kek"):
        section = file.text.splitlines()[file.line(kek) - 1]
        file.replace(
            f'provider = "local"\n{section}',
            f'provider = "aws-kms"\nkey_id = "{KMS_KEY_EXAMPLE}"\nregion = "eu-central-1"',
        )
    assert file.load().environment is Environment.PRODUCTION


# --- the file as a whole


def test_all_problems_come_at_once_in_the_order_of_the_file(file: ConfigurationFile) -> None:
    file.replace('"development"\n', '"dev"\n')
    file.replace("20000-20399", "20001-20399")
    file.replace("tls/edge.pem", "tls/none.pem")
    file.replace('["callee.example.test"]', '["*"]')
    file.replace('to = "callee"', 'to = "pbx"')
    file.replace("max_calls = 100", "max_call = 100")
    file.made.kek.chmod(0o644)
    problems = file.problems()
    assert [problem.key for problem in problems] == [
        "environment",
        "tls.certificate",
        "media.rtp_ports",
        "keys.dev.kek",
        "trunks.callee.identities[0]",
        "routes[0].to",
        "limits.max_call",
    ]
    lines = [problem.line for problem in problems]
    assert lines == sorted(line for line in lines if line is not None)


def test_a_fault_in_one_field_hides_none_in_another_of_its_table(file: ConfigurationFile) -> None:
    file.replace('["callee.example.test"]', '["*"]')
    file.replace('target = "sips:callee', 'srtp_suites = ["NULL_HMAC_SHA1_80"]\ntarget = "http:callee')
    callee = file.text.index("[trunks.callee]")
    file.path.write_text(file.text[:callee] + file.text[callee:].replace('"clinic"', '"ward"', 1))
    assert {problem.key for problem in file.problems()} == {
        "trunks.callee.identities[0]",
        "trunks.callee.srtp_suites[0]",
        "trunks.callee.target",
        "trunks.callee.tenant",
    }


@pytest.mark.parametrize(
    ("suite", "reason"),
    [
        ("AES_CM_128_HMAC_SHA1_32", "32 bits"),
        ("AES_256_CM_HMAC_SHA1_32", "32 bits"),
        ("NULL_HMAC_SHA1_80", "does not protect"),
        ("AES_192_CM_HMAC_SHA1_80", "AES-192"),
        ("AEAD_AES_128_GCM_8", "64 bits"),
        ("F8_128_HMAC_SHA1_80", "not an SRTP suite"),
    ],
)
def test_a_weak_suite_is_refused_and_the_allowed_ones_named(
    file: ConfigurationFile, suite: str, reason: str
) -> None:
    file.replace(
        'target = "sips:callee', f'srtp_suites = [\n"AEAD_AES_256_GCM",\n"{suite}"]\ntarget = "sips:callee'
    )
    problem = file.problem()
    assert (problem.key, problem.line) == ("trunks.callee.srtp_suites[1]", file.line(suite))
    assert reason in problem.what
    assert all(allowed.value in problem.cure for allowed in SRTPSuite)


def test_every_allowed_suite_is_taken_in_the_order_given(file: ConfigurationFile) -> None:
    suites = [suite.value for suite in reversed(SRTPSuite)]
    file.replace('target = "sips:callee', f'srtp_suites = {suites}\ntarget = "sips:callee')
    assert [suite.value for suite in file.load().trunks["callee"].srtp_suites] == suites


def test_two_tenants_may_not_share_a_handle(file: ConfigurationFile) -> None:
    handle = file.load().tenants["clinic"].handle.hex()
    file.append(f'[tenants.ward]\nhandle = "{handle.upper()}"\nkey = "dev"')
    problem = file.problem()
    assert (problem.key, problem.line) == ("tenants.ward.handle", file.line(handle.upper()))
    assert "tenants.clinic" in problem.what


def test_more_trunks_than_one_process_serves(file: ConfigurationFile) -> None:
    def add(first: int, last: int) -> None:
        file.append(
            "\n".join(
                f'[trunks.t{n}]\nidentities = ["t{n}.test"]\nsources = ["::1"]\ntenant = "clinic"'
                for n in range(first, last)
            )
        )

    add(2, MOST_TRUNKS)
    assert len(file.load().trunks) == MOST_TRUNKS
    add(MOST_TRUNKS, MOST_TRUNKS + 1)
    problem = file.problem()
    assert (problem.key, problem.line) == ("trunks", file.line("[trunks.caller]"))
    assert f"{MOST_TRUNKS + 1} trunks" in problem.what


def test_secrets_are_not_repeated_in_the_message(file: ConfigurationFile) -> None:
    file.replace(
        'kek = "keys/dev.kek"', 'kek = """-----BEGIN PRIVATE KEY-----\nMIGH"""\npassphrase = "hunter2"'
    )
    text = "\n".join(map(str, file.problems()))
    assert "hunter2" not in text
    assert "MIGH" not in text


@pytest.mark.parametrize("table", ["sip", "tls", "media", "recording", "keys", "tenants", "trunks", "routes"])
def test_a_file_without_a_needed_table_says_which(file: ConfigurationFile, table: str) -> None:
    lines = file.text.splitlines()
    kept, skipping = [], False
    for line in lines:
        if line.startswith("["):
            skipping = line.lstrip("[").startswith((f"{table}]", f"{table}."))
        if not skipping:
            kept.append(line)
    file.path.write_text("\n".join(kept))
    problem = next(problem for problem in file.problems() if problem.key == table)
    assert problem.line is None
    assert table in problem.what or "no route" in problem.what


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = [\n", 3),
        ("a = 1\n\nb = nonsense\n", 3),
        ("a = 1\na = 2\n", 2),
        ('a = "x', 1),
    ],
)
def test_a_syntax_error_has_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "b2bua.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert problem.line == line
    assert "TOML" in problem.what


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [(b"a = 1\nb = '\xff'\n", 2, "UTF-8"), (b"#" * (MAX_FILE_BYTES + 1), None, "larger")],
)
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes, line: int | None, what: str) -> None:
    path = tmp_path / "b2bua.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert (problem.line, what in problem.what) == (line, True)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "none.toml")
    (problem,) = caught.value.problems
    assert "No such file" in problem.what
    assert "b2bua init" in problem.cure


# --- the index and retention


def test_the_index_is_an_sqlite_file_unless_a_database_is_named(file: ConfigurationFile) -> None:
    recording = file.load().recording
    assert recording.index_place == file.made.directory / "recordings-index.sqlite"
    assert recording.index.search_key_path == file.made.directory / "keys/index-search.key"
    assert recording.retention == RetentionSettings()


def test_a_database_is_reached_with_what_the_file_names(file: ConfigurationFile) -> None:
    file.replace(
        "search_key =",
        'url = "postgresql://rec@[::1]:5433/catalogue"\nca = "tls/development-ca.pem"\n'
        'certificate = "tls/edge.pem"\nprivate_key = "tls/edge.key"\ntls_floor = "1.2"\ntimeout_s = 9\nkey = "dev"\n'
        "search_key =",
    )
    directory = file.made.directory
    recording = file.load().recording
    assert recording.index.key == "dev"
    assert recording.tls_floor_exceptions == ("index",)
    assert recording.index_place == PostgreSQLSettings(
        host="::1",
        port=5433,
        user="rec",
        database="catalogue",
        ca_path=directory / "tls/development-ca.pem",
        certificate_path=directory / "tls/edge.pem",
        private_key_path=directory / "tls/edge.key",
        tls_floor=TLSFloor.TLS_1_2,
        timeout_s=9,
    )
    file.replace("[recording]\n", '[recording]\nindex = "index.sqlite"\n')
    with pytest.raises(ConfigurationError, match="there is one index"):
        file.load()


def test_retention_is_the_tenants_or_the_longest_of_its_trunks(file: ConfigurationFile) -> None:
    file.replace(
        'key = "dev"\n\n[trunks.caller]', 'key = "dev"\nretain_days = 30\n\n[trunks.caller]\nretain_days = 7'
    )
    settings = file.load()
    handle = settings.tenants["clinic"].handle
    retention = settings.recording.retention
    began = datetime(2026, 1, 1, 5, tzinfo=UTC)
    assert retention.days(tenant_handle=handle, trunks=("callee", "other")) == 30
    assert retention.days(tenant_handle=handle, trunks=("caller", "callee")) == 7
    assert retention.until(began, tenant_handle=handle, trunks=(None, "caller")) == began + timedelta(days=7)
    longer = replace(retention, trunks={"caller": 7, "callee": 9})
    assert longer.days(tenant_handle=handle, trunks=("caller", "callee")) == 9
    assert longer.until(began, tenant_handle=b"?" * 16, trunks=("none", None)) is None
