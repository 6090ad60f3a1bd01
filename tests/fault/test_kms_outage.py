"""What AWS KMS may answer and what is made of it, asked of a server that answers as told."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recording.errors import RecordingError
from recording.keys.aws_kms import CIPHERTEXT_MAX, AWSKMSProvider
from recording.keys.errors import (
    ContextMismatchError,
    KeyAnswerError,
    KeyConfigurationError,
    KeyUnavailableError,
    NoKeyError,
    NotPermittedError,
    UnknownKeyError,
)
from recording.keys.pool import KeyPool, TenantKey
from recording.keys.provider import KeyLifecycle, told_lifecycle
from recording.keys.retry import ATTEMPTS
from recording.settings import AWSKMSKeySettings, PoolSettings, TLSFloor
from support.kms import (
    REGION,
    TEST_CREDENTIALS,
    Reply,
    ServerFiles,
    https_server,
    json_reply,
    kms_settings,
)
from support.observers import ListeningObserver
from support.told import (
    ARN,
    AWS_GOOD,
    AWS_SLOT,
    CONTEXT,
    DEK,
    Told,
    ToldServer,
    aws_at,
    aws_refusal,
    aws_told,
    encoded,
    told_server,
)

OTHER_ARN = ARN[:-1] + "c"


@pytest.fixture(scope="module", autouse=True)
def credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TEST_CREDENTIALS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToldServer]:
    with told_server(aws_told(), tmp_path_factory.mktemp("kms")) as running:
        yield running


@pytest.fixture(scope="module")
def files(server: ToldServer) -> ServerFiles:
    return server.files


@pytest.fixture(scope="module")
def url(server: ToldServer) -> str:
    return server.url


@pytest.fixture
def service(server: ToldServer) -> Told:
    server.service.reset()
    return server.service


@pytest.fixture(scope="module")
def shared_provider(server: ToldServer, credentials: None) -> AWSKMSProvider:
    """boto3 takes half a second to make a client."""
    return aws_at(server.url, server.files)


@pytest.fixture
def provider(shared_provider: AWSKMSProvider, service: Told) -> AWSKMSProvider:
    return shared_provider


def test_what_is_asked_and_what_is_made_of_the_answer(provider: AWSKMSProvider, service: Told) -> None:
    key = provider.new_key(CONTEXT)
    assert (key.dek, key.slot) == (DEK, AWS_SLOT)
    context = {"crec-file": "46" * 16, "crec-tenant": "54" * 16}
    assert service.asked == [
        ("GenerateDataKey", {"KeyId": ARN, "KeySpec": "AES_256", "EncryptionContext": context})
    ]
    assert provider.unwrap(AWS_SLOT, CONTEXT) == DEK
    assert service.asked[1] == (
        "Decrypt", {"KeyId": ARN, "CiphertextBlob": encoded(AWS_SLOT.wrapped), "EncryptionContext": context},
    )  # fmt: skip
    service.reply = json_reply({"CiphertextBlob": encoded(b"newer"), "KeyId": ARN, "SourceKeyId": ARN})
    assert provider.rewrap(AWS_SLOT, CONTEXT) == replace(AWS_SLOT, wrapped=b"newer")
    assert service.asked[2] == (
        "ReEncrypt",
        {
            "CiphertextBlob": encoded(AWS_SLOT.wrapped), "SourceKeyId": ARN, "SourceEncryptionContext": context,
            "DestinationKeyId": ARN, "DestinationEncryptionContext": context,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"Plaintext": encoded(b"")},
        {"Plaintext": encoded(DEK[:16])},
        {"Plaintext": encoded(DEK[:31])},
        {"Plaintext": encoded(DEK + b"\0")},
        {"Plaintext": encoded(DEK * 2)},
        {"Plaintext": encoded(bytes(32))},
        {"Plaintext": encoded(b"k" * 32)},
        {"Plaintext": "!"},
        {"Plaintext": 7},
        {"Plaintext": None},
        {"CiphertextBlob": encoded(b"")},
        {"CiphertextBlob": encoded(bytes(CIPHERTEXT_MAX + 1))},
        {"CiphertextBlob": None},
        {"KeyId": OTHER_ARN},
        {"KeyId": "alias/recordings"},
        {"KeyId": None},
        {"KeyId": ["x"]},
    ],
)
def test_an_answer_that_breaks_the_contract_is_thrown_away(
    provider: AWSKMSProvider, service: Told, change: dict[str, object]
) -> None:
    service.reply = json_reply({**AWS_GOOD, **change})
    with pytest.raises(KeyAnswerError):
        provider.new_key(CONTEXT)
    assert len(service.asked) == 1, "an answer is not asked for again"
    service.reply = json_reply({**AWS_GOOD, "CiphertextBlob": encoded(bytes(CIPHERTEXT_MAX))})
    assert len(provider.new_key(CONTEXT).slot.wrapped) == CIPHERTEXT_MAX


@pytest.mark.parametrize("operation", ["unwrap", "rewrap"])
def test_answers_to_other_operations_are_checked_too(
    provider: AWSKMSProvider, service: Told, operation: str
) -> None:
    service.reply = json_reply({**AWS_GOOD, "SourceKeyId": OTHER_ARN, "KeyId": OTHER_ARN})
    with pytest.raises(KeyAnswerError):
        getattr(provider, operation)(AWS_SLOT, CONTEXT)
    service.reply = json_reply({**AWS_GOOD, "Plaintext": encoded(DEK[:31]), "SourceKeyId": OTHER_ARN})
    with pytest.raises(KeyAnswerError):
        getattr(provider, operation)(AWS_SLOT, CONTEXT)
    service.reply = json_reply({**AWS_GOOD, "SourceKeyId": ARN})
    assert getattr(provider, operation)(AWS_SLOT, CONTEXT)


@pytest.mark.parametrize(
    ("code", "status", "error", "tries"),
    [
        ("AccessDeniedException", 400, NotPermittedError, 1),
        ("UnrecognizedClientException", 400, NotPermittedError, 1),
        ("ExpiredTokenException", 400, NotPermittedError, 1),
        ("NotFoundException", 400, UnknownKeyError, 1),
        ("DisabledException", 400, UnknownKeyError, 1),
        ("KMSInvalidStateException", 400, UnknownKeyError, 1),
        ("IncorrectKeyException", 400, UnknownKeyError, 1),
        ("InvalidCiphertextException", 400, ContextMismatchError, 1),
        ("ThrottlingException", 400, KeyUnavailableError, ATTEMPTS),
        ("LimitExceededException", 400, KeyUnavailableError, ATTEMPTS),
        ("DependencyTimeoutException", 500, KeyUnavailableError, ATTEMPTS),
        ("KMSInternalException", 500, KeyUnavailableError, ATTEMPTS),
        ("SomethingNew", 503, KeyUnavailableError, ATTEMPTS),
        ("SomethingNew", 400, KeyAnswerError, 1),
        ("Some\nthing <new>", 400, KeyAnswerError, 1),
    ],
)
def test_each_refusal_is_what_it_is_and_only_passing_ones_are_repeated(
    provider: AWSKMSProvider,
    service: Told,
    code: str,
    status: int,
    error: type[RecordingError],
    tries: int,
) -> None:
    service.reply = aws_refusal(code, status)
    with pytest.raises(error) as caught:
        provider.unwrap(AWS_SLOT, CONTEXT)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert len(service.asked) == tries


def test_a_server_that_is_not_well_fails_its_health(provider: AWSKMSProvider, service: Told) -> None:
    provider.health()
    service.reply = Reply(status=503)
    with pytest.raises(KeyUnavailableError, match="503"):
        provider.health()


def described(state: object) -> Reply:
    return json_reply({**AWS_GOOD, "KeyMetadata": {"Arn": ARN, "KeyId": ARN, "KeyState": state}})


@pytest.mark.parametrize(
    "state", ["Disabled", "PendingDeletion", "Creating", "PendingImport", 7, None, "a b"]
)
def test_a_key_that_is_switched_off_or_doomed_is_not_well(
    provider: AWSKMSProvider, service: Told, state: object
) -> None:
    service.reply = described(state)
    with pytest.raises(UnknownKeyError, match="cancel its deletion"):
        provider.health()


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnrecognizedClientException", "RequestExpired"])
def test_who_may_not_ask_after_a_key_is_no_fault_of_the_service_and_a_stranger_is(
    provider: AWSKMSProvider, service: Told, code: str
) -> None:
    service.reply = aws_refusal(code)
    if code == "AccessDeniedException":
        provider.health()
    else:
        with pytest.raises(NotPermittedError, match="clock"):
            provider.health()


def test_tls_1_2_is_spoken_where_somebody_wrote_it_down(files: ServerFiles, service: Told) -> None:
    with https_server(files, service, maximum_version=ssl.TLSVersion.TLSv1_2) as url:
        settings = replace(kms_settings(url, files, key_id=ARN), tls_floor=TLSFloor.TLS_1_2)
        provider = AWSKMSProvider("main", settings)
        assert provider.new_key(CONTEXT).dek == DEK
        assert provider.describe()["tls_floor"] == "1.2"


CREATED, ROTATED, AGAIN = 1_700_000_000, 1_731_536_000, 1_763_072_000
KEY_FACTS: dict[str, dict[str, object]] = {
    "DescribeKey": {"KeyMetadata": {"Arn": ARN, "KeyId": ARN, "CreationDate": CREATED}},
    "GetKeyRotationStatus": {"KeyRotationEnabled": True, "RotationPeriodInDays": 90},
    "ListKeyRotations": {
        "Rotations": [{"RotationDate": AGAIN}, {"RotationDate": ROTATED}],
        "Truncated": False,
    },
}


def lifecycle_of(files: ServerFiles, facts: Mapping[str, dict[str, object]]) -> KeyLifecycle:
    with https_server(files, lambda operation, _: json_reply(facts[operation])) as url:
        return aws_at(url, files).lifecycle()


def test_a_lifecycle_is_creation_and_rotations(files: ServerFiles) -> None:
    lifecycle = lifecycle_of(files, KEY_FACTS)
    assert [(version.number, version.created_at) for version in lifecycle.versions] == [
        (number, datetime.fromtimestamp(moment, UTC))
        for number, moment in enumerate((CREATED, ROTATED, AGAIN), start=1)
    ]
    assert lifecycle.rotation_period_s == 90 * 86400
    off = {**KEY_FACTS, "GetKeyRotationStatus": {"KeyRotationEnabled": False}}
    assert lifecycle_of(files, off).rotation_period_s is None
    by_default = {**KEY_FACTS, "GetKeyRotationStatus": {"KeyRotationEnabled": True}}
    assert lifecycle_of(files, by_default).rotation_period_s == 365 * 86400


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("DescribeKey", {}),
        ("DescribeKey", {"KeyMetadata": {"Arn": OTHER_ARN, "KeyId": "x", "CreationDate": CREATED}}),
        ("DescribeKey", {"KeyMetadata": {"Arn": ARN, "KeyId": "x"}}),
        ("DescribeKey", {"KeyMetadata": {"Arn": ARN, "KeyId": "x", "CreationDate": "soon"}}),
        ("GetKeyRotationStatus", {"KeyRotationEnabled": True, "RotationPeriodInDays": 0}),
        ("GetKeyRotationStatus", {"KeyRotationEnabled": True, "RotationPeriodInDays": "many"}),
        ("ListKeyRotations", {}),
        ("ListKeyRotations", {"Rotations": [{}]}),
        ("ListKeyRotations", {"Rotations": 7}),
    ],
)
def test_a_lifecycle_that_is_none(files: ServerFiles, operation: str, answer: dict[str, object]) -> None:
    lifecycle_of(files, KEY_FACTS)
    with pytest.raises(KeyAnswerError):
        lifecycle_of(files, {**KEY_FACTS, operation: answer})


def test_who_may_not_ask_about_a_key_is_told_so_and_status_goes_on(
    provider: AWSKMSProvider, service: Told
) -> None:
    service.reply = aws_refusal("AccessDeniedException")
    with pytest.raises(NotPermittedError):
        provider.lifecycle()
    assert "NotPermittedError" in str(told_lifecycle(provider))


def test_the_environment_changes_neither_endpoint_nor_route(
    provider: AWSKMSProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere")
    assert provider.new_key(CONTEXT).dek == DEK
    monkeypatch.delenv("AWS_CA_BUNDLE")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    plain = AWSKMSProvider("main", AWSKMSKeySettings(key_id=ARN, region=REGION))
    assert plain.describe()["endpoint"] == f"https://kms.{REGION}.amazonaws.com"


def test_missing_credentials_are_said_to_be_missing(
    provider: AWSKMSProvider, url: str, files: ServerFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NotPermittedError, match="credentials"):
        aws_at(url, files).new_key(CONTEXT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endpoint_url": "http://kms.example"}, "https"),
        ({"endpoint_url": "http://127.0.0.1:4566"}, "https"),
        ({"endpoint_url": "127.0.0.1:4566"}, "https"),
        ({"endpoint_url": "https://"}, "https"),
        ({"key_id": "alias/recordings"}, "ARN"),
        ({"key_id": "1234abcd-12ab-34cd-56ef-1234567890ab"}, "ARN"),
        ({"key_id": f"arn:aws:kms:{REGION}:111122223333:alias/recordings"}, "ARN"),
        ({"region": "us-east-1"}, "region"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": 61.0}, "timeout_s"),
        ({"ca_path": Path("/nowhere/ca.pem")}, "ca_path"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_sent(
    change: dict[str, object], message: str
) -> None:
    settings = AWSKMSKeySettings(key_id=ARN, region=REGION, endpoint_url="https://127.0.0.1:9")
    AWSKMSProvider("main", settings)
    with pytest.raises(KeyConfigurationError, match=message):
        AWSKMSProvider("main", replace(settings, **change))  # type: ignore[arg-type]


def test_a_trust_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    settings = AWSKMSKeySettings(key_id=ARN, region=REGION, ca_path=tmp_path / "ca.pem")
    with pytest.raises(KeyConfigurationError, match="ca_path"):
        AWSKMSProvider("main", settings)


def test_no_log_at_any_level_shows_a_data_key(
    url: str, files: ServerFiles, caplog: pytest.LogCaptureFixture
) -> None:
    """botocore's parsers log whole answers at DEBUG."""
    with caplog.at_level(logging.DEBUG):
        provider = aws_at(url, files)
        provider.new_key(CONTEXT)
        provider.unwrap(AWS_SLOT, CONTEXT)
    text = caplog.text + "".join(repr(record.args) for record in caplog.records)
    assert encoded(DEK) not in text
    assert repr(DEK) not in text
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger="botocore.parsers"):
        provider.new_key(CONTEXT)
    assert encoded(DEK) in caplog.text, "the test sees what it looks for when the guard is lifted"


def test_a_pool_rides_out_an_outage_and_refills_after_it(provider: AWSKMSProvider, service: Told) -> None:
    pool = KeyPool(
        tenants={"clinic": TenantKey(handle=b"T" * 16, provider="main")},
        providers={"main": provider},
        settings=PoolSettings(size=2),
        observer=ListeningObserver(),
    )
    pool.start()
    try:
        assert pool.wait_ready(10, level=2)
        service.reply = aws_refusal("AccessDeniedException")
        pool.take("clinic").wipe()
        pool.take("clinic").wipe()
        with pytest.raises(NoKeyError):
            pool.take("clinic")
        service.reply = json_reply(AWS_GOOD)
        assert pool.wait_ready(20, level=2)
        assert pool.problems() == {}
    finally:
        pool.stop()
