"""What a transit engine may answer and what is made of it, asked of a server that answers as told."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recording.errors import RecordingError
from recording.keys.errors import (
    ContextMismatchError,
    KeyAnswerError,
    KeyConfigurationError,
    KeyUnavailableError,
    NotPermittedError,
    UnknownKeyError,
)
from recording.keys.retry import ATTEMPTS
from recording.keys.vault import VaultTransitProvider
from recording.settings import TransitSettings, VaultTransitKeySettings
from support.kms import Reply
from support.told import (
    CONTEXT,
    DEK,
    VAULT_GOOD,
    VAULT_KEY,
    VAULT_KEY_PATH,
    VAULT_SLOT,
    Told,
    ToldServer,
    encoded,
    told_server,
    vault_at,
    vault_refusal,
    vault_reply,
    vault_told,
)

BOUND = base64.b64encode(b"crec-file=" + b"46" * 16 + b",crec-tenant=" + b"54" * 16).decode()
WRAPPED = VAULT_SLOT.wrapped.decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToldServer]:
    with told_server(vault_told(), tmp_path_factory.mktemp("vault")) as running:
        yield running


@pytest.fixture
def service(server: ToldServer) -> Told:
    server.service.reset()
    return server.service


@pytest.fixture
def provider(server: ToldServer, service: Told) -> VaultTransitProvider:
    return vault_at(server.url, server.files)


def test_what_is_asked_and_what_is_made_of_the_answer(provider: VaultTransitProvider, service: Told) -> None:
    key = provider.new_key(CONTEXT)
    assert (key.dek, key.slot) == (DEK, VAULT_SLOT)
    assert provider.unwrap(VAULT_SLOT, CONTEXT) == DEK
    service.reply = vault_reply({"ciphertext": WRAPPED.replace(":v1:", ":v2:")})
    assert provider.rewrap(VAULT_SLOT, CONTEXT).wrapped == WRAPPED.replace(":v1:", ":v2:").encode()
    assert service.asked == [
        ("/v1/transit/datakey/plaintext/recordings", {"context": BOUND, "bits": 256}),
        ("/v1/transit/decrypt/recordings", {"ciphertext": WRAPPED, "context": BOUND}),
        ("/v1/transit/rewrap/recordings", {"ciphertext": WRAPPED, "context": BOUND}),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"plaintext": ""},
        {"plaintext": encoded(DEK[:31])},
        {"plaintext": encoded(DEK + b"\0")},
        {"plaintext": encoded(bytes(32))},
        {"plaintext": encoded(b"k" * 32)},
        {"plaintext": "!" * 44},
        {"plaintext": 7},
        {"plaintext": None},
        {"plaintext": "é" * 44},
        {"ciphertext": ""},
        {"ciphertext": None},
        {"ciphertext": 7},
        {"ciphertext": WRAPPED.replace("vault:", "other:")},
        {"ciphertext": WRAPPED.replace(":v1:", ":v0:")},
        {"ciphertext": WRAPPED + "\n"},
        {"ciphertext": WRAPPED.replace(":v1:", f":v{'9' * 5000}:")},
        {"ciphertext": "vault:v1:" + "A" * 1000},
    ],
)
def test_an_answer_that_breaks_the_contract_is_thrown_away(
    provider: VaultTransitProvider, service: Told, change: dict[str, object]
) -> None:
    service.reply = vault_reply({**VAULT_GOOD, **change})
    with pytest.raises(KeyAnswerError):
        provider.new_key(CONTEXT)
    assert len(service.asked) == 1, "an answer is not asked for again"
    service.reply = vault_reply(VAULT_GOOD)
    assert provider.new_key(CONTEXT).dek == DEK


@pytest.mark.parametrize(
    ("reply", "error", "tries"),
    [
        (vault_refusal(400, "encryption key not found"), UnknownKeyError, 1),
        (vault_refusal(400, "cipher: message authentication failed"), ContextMismatchError, 1),
        (vault_refusal(400, "something\nelse"), KeyAnswerError, 1),
        (vault_refusal(400, "x" * 60_000), KeyAnswerError, 1),
        (Reply(status=400, body=b"[" * 20_000), KeyAnswerError, 1),
        (Reply(status=400, body=b'{"errors": {"a": 1}}'), KeyAnswerError, 1),
        (vault_refusal(403, "permission denied"), NotPermittedError, 1),
        (Reply(status=404, body=b""), UnknownKeyError, 1),
        (vault_refusal(405, "unsupported operation"), KeyAnswerError, 1),
        (vault_refusal(412, "behind"), KeyUnavailableError, ATTEMPTS),
        (vault_refusal(429, "quota"), KeyUnavailableError, ATTEMPTS),
        (vault_refusal(472), KeyUnavailableError, ATTEMPTS),
        (vault_refusal(473), KeyUnavailableError, ATTEMPTS),
        (vault_refusal(500, "internal"), KeyUnavailableError, ATTEMPTS),
        (Reply(status=502, body=b"<html>"), KeyUnavailableError, ATTEMPTS),
        (vault_refusal(503, "Vault is sealed"), KeyUnavailableError, ATTEMPTS),
        (Reply(status=204, body=b""), KeyAnswerError, 1),
    ],
)
def test_each_refusal_has_its_error(
    provider: VaultTransitProvider, service: Told, reply: Reply, error: type[RecordingError], tries: int
) -> None:
    service.reply = reply
    with pytest.raises(RecordingError) as caught:
        provider.unwrap(VAULT_SLOT, CONTEXT)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert len(service.asked) == tries


def test_a_server_that_asks_to_be_left_alone_is_left_alone(
    provider: VaultTransitProvider, service: Told
) -> None:
    service.replies = [vault_refusal(429, headers=(("Retry-After", "1"),))]
    began = time.monotonic()
    assert provider.new_key(CONTEXT).dek == DEK
    assert time.monotonic() - began >= 1
    service.reply = vault_refusal(429, headers=(("Retry-After", "3600"),))
    asked, began = len(service.asked), time.monotonic()
    with pytest.raises(KeyUnavailableError):
        provider.new_key(CONTEXT)
    assert time.monotonic() - began < 5, "longer than there is time for: not waited for"
    assert len(service.asked) == asked + 1


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "²", ""])
def test_a_wait_that_is_no_number_counts_as_none(
    provider: VaultTransitProvider, service: Told, text: str
) -> None:
    service.replies = [vault_refusal(429, headers=(("Retry-After", text.encode("utf-8").decode("latin-1")),))]
    assert provider.new_key(CONTEXT).dek == DEK


@pytest.mark.parametrize(
    "facts",
    [
        {**VAULT_KEY, "keys": {}},
        {**VAULT_KEY, "keys": None},
        {**VAULT_KEY, "keys": {"x": 1}},
        {**VAULT_KEY, "keys": {"1": None}},
        {**VAULT_KEY, "keys": {"1": "yesterday"}},
        {**VAULT_KEY, "keys": {"1": 10**30}},
        {**VAULT_KEY, "keys": {"1": {"creation_time": []}}},
        {**VAULT_KEY, "keys": {"9" * 5000: 1}},
    ],
)
def test_a_lifecycle_that_is_none(provider: VaultTransitProvider, service: Told, facts: object) -> None:
    assert len(provider.lifecycle().versions) == 1
    service.standing[VAULT_KEY_PATH] = vault_reply(facts)
    with pytest.raises(KeyAnswerError):
        provider.lifecycle()


def test_the_environment_changes_neither_address_nor_route_nor_token(
    provider: VaultTransitProvider, service: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "VAULT_ADDR": "http://127.0.0.1:9",
        "VAULT_TOKEN": "other",
        "VAULT_SKIP_VERIFY": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "REQUESTS_CA_BUNDLE": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    assert provider.new_key(CONTEXT).dek == DEK
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"address": "http://vault.example"}, "https"),
        ({"address": "http://127.0.0.1:8200"}, "https"),
        ({"address": "127.0.0.1:8200"}, "https"),
        ({"address": "https://"}, "https"),
        ({"address": "https://user:word@vault.example"}, "https"),
        ({"address": "https://vault.example/v1"}, "https"),
        ({"address": "https://vault.example:99999"}, "https"),
        ({"address": "https://[::1"}, "https"),
        ({"mount": "../sys"}, "mount"),
        ({"mount": ""}, "mount"),
        ({"mount": "a//b"}, "mount"),
        ({"namespace": "a b"}, "namespace"),
        ({"server_id": "a/b"}, "server_id"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": 61.0}, "timeout_s"),
        ({"ca_path": Path("/nowhere/ca.pem")}, "ca_path"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_sent(
    change: dict[str, object], message: str
) -> None:
    server = TransitSettings(address="https://127.0.0.1:9", token_path=Path("/nowhere/token"))
    VaultTransitProvider("main", VaultTransitKeySettings(key="recordings", server=server))
    with pytest.raises(KeyConfigurationError, match=message):
        VaultTransitProvider(
            "main",
            VaultTransitKeySettings(key="recordings", server=replace(server, **change)),  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("key", ["", "../sys", "a/b", "a?b", "a\nb", "x" * 200])
def test_a_key_name_that_would_leave_its_path_is_refused(key: str) -> None:
    server = TransitSettings(address="https://127.0.0.1:9", token_path=Path("/nowhere/token"))
    with pytest.raises(KeyConfigurationError, match="key"):
        VaultTransitProvider("main", VaultTransitKeySettings(key=key, server=server))


def test_no_log_at_any_level_shows_a_data_key_or_the_token(
    provider: VaultTransitProvider, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        provider.new_key(CONTEXT)
        provider.unwrap(VAULT_SLOT, CONTEXT)
    text = caplog.text + "".join(repr(record.args) for record in caplog.records)
    assert encoded(DEK) not in text
    assert "s.token" not in text
