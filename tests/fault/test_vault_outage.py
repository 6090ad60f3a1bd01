"""A transit engine that is away, sealed, busy, denied, wrong or hostile: one typed error each, then good service again.

What a real server can be made to do is asked of a real OpenBao; what none would do, of a server that answers as told.
"""

from __future__ import annotations

import base64
import collections
import json
import logging
import os
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recording.errors import RecordingError
from recording.format.slots import KeySlot, SlotProvider
from recording.keys.errors import (
    ContextMismatchError,
    KeyAnswerError,
    KeyConfigurationError,
    KeyUnavailableError,
    NotPermittedError,
    UnknownKeyError,
)
from recording.keys.https import ANSWER_MAX_BYTES
from recording.keys.provider import KeyContext
from recording.keys.retry import ATTEMPTS
from recording.keys.vault import VaultTransitProvider
from recording.settings import TLSFloor, TransitSettings, VaultTransitKeySettings
from support.kms import Reply, ServerFiles, https_server, issue_server_files, json_reply
from support.openbao import OpenBao, vault_settings

CONTEXT = KeyContext(file_id=b"F" * 16, tenant_handle=b"T" * 16)
BOUND = base64.b64encode(b"crec-file=" + b"46" * 16 + b",crec-tenant=" + b"54" * 16).decode()
DEK = bytes(range(32))
WRAPPED = "vault:v1:" + base64.b64encode(bytes(60)).decode()
GOOD_KEY = {"derived": True, "keys": {"1": 1795515984}, "latest_version": 1, "auto_rotate_period": 0}
GOOD = {"plaintext": base64.b64encode(DEK).decode(), "ciphertext": WRAPPED, "key_version": 1}


# --- a real server


@pytest.fixture
def key(openbao: OpenBao) -> str:
    name = f"outage-{secrets.token_hex(8)}"
    openbao.create_key(name)
    return name


@pytest.fixture
def real(openbao: OpenBao, key: str, tmp_path: Path) -> VaultTransitProvider:
    return VaultTransitProvider("main", vault_settings(openbao, key, tmp_path / "token"))


def test_a_sealed_server_is_away_until_it_is_unsealed(openbao: OpenBao, real: VaultTransitProvider) -> None:
    slot = real.new_key(CONTEXT).slot
    openbao.seal()
    try:
        for ask in (lambda: real.new_key(CONTEXT), lambda: real.unwrap(slot, CONTEXT), real.health):
            with pytest.raises(KeyUnavailableError, match="sealed"):
                ask()
    finally:
        openbao.unseal()
    real.health()
    assert len(real.unwrap(slot, CONTEXT)) == 32


def test_a_server_that_is_gone_and_comes_back(openbao: OpenBao, real: VaultTransitProvider) -> None:
    key = real.new_key(CONTEXT)
    openbao.stop()
    try:
        with pytest.raises(KeyUnavailableError):
            real.new_key(CONTEXT)
        with pytest.raises(KeyUnavailableError):
            real.health()
    finally:
        openbao.start()
    assert real.unwrap(key.slot, CONTEXT) == key.dek


def consume(made: Iterable[object]) -> None:
    collections.deque(made, maxlen=0)


def test_a_server_that_is_asked_too_often_says_so(openbao: OpenBao, real: VaultTransitProvider) -> None:
    real.new_key(CONTEXT)
    openbao.admin("POST", "sys/quotas/rate-limit/test", {"path": "transit", "rate": 1, "interval": "60s"})
    try:
        with pytest.raises(KeyUnavailableError, match="too often"):
            consume(real.new_key(CONTEXT) for _ in range(3))
    finally:
        openbao.admin("DELETE", "sys/quotas/rate-limit/test")
    assert len(real.new_key(CONTEXT).dek) == 32


WRITER = """
path "transit/datakey/plaintext/{key}" {{ capabilities = ["update"] }}
path "transit/keys/{key}" {{ capabilities = ["read"] }}
"""
READER = 'path "transit/decrypt/{key}" {{ capabilities = ["update"] }}'
REWRAPPER = 'path "transit/rewrap/{key}" {{ capabilities = ["update"] }}'


@pytest.mark.parametrize(
    ("policy", "allowed"), [(WRITER, {"new_key"}), (READER, {"unwrap"}), (REWRAPPER, {"rewrap"})]
)
def test_each_right_allows_one_thing(
    openbao: OpenBao, key: str, real: VaultTransitProvider, tmp_path: Path, policy: str, allowed: set[str]
) -> None:
    slot = real.new_key(CONTEXT).slot
    narrow = VaultTransitProvider("main", vault_settings(openbao, key, tmp_path / "narrow", policy=policy))
    requests: dict[str, Callable[[], object]] = {
        "new_key": lambda: narrow.new_key(CONTEXT),
        "unwrap": lambda: narrow.unwrap(slot, CONTEXT),
        "rewrap": lambda: narrow.rewrap(slot, CONTEXT),
    }
    for name, ask in requests.items():
        if name in allowed:
            assert ask()
        else:
            with pytest.raises(NotPermittedError):
                ask()


def test_a_revoked_token_is_refused_and_a_new_one_is_taken_without_a_restart(
    openbao: OpenBao, key: str, tmp_path: Path
) -> None:
    settings = vault_settings(openbao, key, tmp_path / "token")
    provider = VaultTransitProvider("main", settings)
    provider.new_key(CONTEXT)
    openbao.revoke((tmp_path / "token").read_text().strip())
    with pytest.raises(NotPermittedError, match="token"):
        provider.new_key(CONTEXT)
    vault_settings(openbao, key, tmp_path / "renewed")
    (tmp_path / "renewed").rename(tmp_path / "token")
    assert len(provider.new_key(CONTEXT).dek) == 32


def test_a_key_or_mount_that_is_not_there(openbao: OpenBao, key: str, tmp_path: Path) -> None:
    settings = vault_settings(
        openbao, key, tmp_path / "token", policy='path "*" {{ capabilities = ["update", "read"] }}'
    )
    good = VaultTransitProvider("main", settings)
    slot = good.new_key(CONTEXT).slot
    for wrong in (
        replace(settings, key="no-such-key"),
        replace(settings, server=replace(settings.server, mount="elsewhere/transit")),
    ):
        provider = VaultTransitProvider("main", wrong)
        with pytest.raises(UnknownKeyError):
            provider.new_key(CONTEXT)
        with pytest.raises(UnknownKeyError):
            provider.health()
        with pytest.raises(UnknownKeyError):
            provider.unwrap(replace(slot, key_id=provider.slot_key_id), CONTEXT)
    good.health()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"derived": False}, "derived"),
        ({"exportable": True}, "exportable"),
        ({"allow_plaintext_backup": True}, "allow_plaintext_backup"),
    ],
)
def test_a_key_that_does_not_bind_or_keep_is_not_used(
    openbao: OpenBao, tmp_path: Path, parameters: dict[str, object], message: str
) -> None:
    name = f"outage-{secrets.token_hex(8)}"
    openbao.create_key(name, **parameters)
    provider = VaultTransitProvider("main", vault_settings(openbao, name, tmp_path / "token"))
    with pytest.raises(KeyConfigurationError, match=message):
        provider.new_key(CONTEXT)
    with pytest.raises(KeyConfigurationError, match=message):
        provider.health()


def test_rotation_and_rewrap_move_slots_to_the_new_version(
    openbao: OpenBao, key: str, real: VaultTransitProvider
) -> None:
    made = real.new_key(CONTEXT)
    assert made.slot.wrapped.startswith(b"vault:v1:")
    openbao.rotate_key(key)
    openbao.admin("POST", f"transit/keys/{key}/config", {"auto_rotate_period": "2160h"})
    lifecycle = real.lifecycle()
    assert [version.number for version in lifecycle.versions] == [1, 2]
    assert lifecycle.rotation_period_s == 90 * 86400
    moved = real.rewrap(made.slot, CONTEXT)
    assert moved.wrapped.startswith(b"vault:v2:")
    assert real.unwrap(made.slot, CONTEXT) == real.unwrap(moved, CONTEXT) == made.dek
    openbao.admin("POST", f"transit/keys/{key}/config", {"min_decryption_version": 2})
    with pytest.raises(ContextMismatchError):
        real.unwrap(made.slot, CONTEXT)
    assert real.unwrap(moved, CONTEXT) == made.dek


def test_a_changed_bit_inside_the_wrapped_key_is_found_by_the_server(real: VaultTransitProvider) -> None:
    slot = real.new_key(CONTEXT).slot
    prefix, _, text = slot.wrapped.rpartition(b":")
    for at in (0, 20, 59):
        raw = bytearray(base64.b64decode(text))
        raw[at] ^= 1
        altered = replace(slot, wrapped=prefix + b":" + base64.b64encode(raw))
        with pytest.raises(ContextMismatchError):
            real.unwrap(altered, CONTEXT)
        with pytest.raises(ContextMismatchError):
            real.rewrap(altered, CONTEXT)
    assert real.unwrap(slot, CONTEXT)


def test_a_key_in_a_namespace_is_another_key(openbao: OpenBao, key: str, tmp_path: Path) -> None:
    team = f"team-{secrets.token_hex(4)}"
    openbao.admin("POST", f"sys/namespaces/{team}")
    openbao.admin("POST", f"{team}/sys/mounts/transit", {"type": "transit"})
    openbao.admin("POST", f"{team}/transit/keys/{key}", {"derived": True})
    policy = f'path "{team}/transit/*" {{{{ capabilities = ["update", "read"] }}}}\n' + WRITER
    settings = vault_settings(openbao, key, tmp_path / "token", policy=policy)
    inside = VaultTransitProvider("main", replace(settings, server=replace(settings.server, namespace=team)))
    outside = VaultTransitProvider("main", settings)
    slot = inside.new_key(CONTEXT).slot
    assert inside.slot_key_id.decode() == f"127.0.0.1:{openbao.port}/{team}/transit/{key}"
    assert inside.unwrap(slot, CONTEXT)
    with pytest.raises(UnknownKeyError):
        outside.unwrap(slot, CONTEXT)


def test_a_server_id_keeps_recordings_readable_when_the_address_changes(
    openbao: OpenBao, key: str, tmp_path: Path
) -> None:
    settings = vault_settings(openbao, key, tmp_path / "token", server_id="vault.example.test")
    provider = VaultTransitProvider("main", settings)
    assert provider.slot_key_id.decode() == f"vault.example.test/transit/{key}"
    assert provider.unwrap(provider.new_key(CONTEXT).slot, CONTEXT)


def test_a_server_that_speaks_tls_1_2_only_needs_a_written_exception(tmp_path: Path) -> None:
    with OpenBao(tmp_path, tls=("tls12", "tls12")) as old:
        old.create_key("recordings")
        settings = vault_settings(old, "recordings", tmp_path / "token")
        with pytest.raises(KeyUnavailableError, match=r"(?i)protocol"):
            VaultTransitProvider("main", settings).new_key(CONTEXT)
        exception = replace(settings, server=replace(settings.server, tls_floor=TLSFloor.TLS_1_2))
        provider = VaultTransitProvider("main", exception)
        assert len(provider.new_key(CONTEXT).dek) == 32
        assert provider.describe()["tls_floor"] == "1.2"


def test_a_server_of_another_authority_or_name_is_not_spoken_to(
    openbao: OpenBao, key: str, tmp_path: Path
) -> None:
    settings = vault_settings(openbao, key, tmp_path / "token")
    stranger = issue_server_files(tmp_path / "stranger")
    by_other_ca = replace(settings, server=replace(settings.server, ca_path=stranger.ca_path))
    with pytest.raises(KeyUnavailableError, match="certificate verify failed"):
        VaultTransitProvider("main", by_other_ca).new_key(CONTEXT)
    address = openbao.url.replace("127.0.0.1", "localhost")
    with pytest.raises(KeyUnavailableError, match="localhost"):
        VaultTransitProvider(
            "main", replace(settings, server=replace(settings.server, address=address))
        ).health()
    VaultTransitProvider("main", settings).health()


# --- the token's file


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.chmod(0o640), "0640"),
        (lambda path: path.unlink(), "token_file"),
        (lambda path: path.write_text(""), "one line"),
        (lambda path: path.write_text("one\ntwo\n"), "one line"),
        (lambda path: path.write_text("s.\x00token"), "one line"),
        (lambda path: path.write_text("s.tökèn"), "one line"),
        (lambda path: path.write_text("x" * 5000), "one line"),
        (lambda path: (path.unlink(), path.mkdir()), "regular"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "regular"),
    ],
)
def test_a_token_file_that_cannot_be_used(
    openbao: OpenBao, key: str, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    provider = VaultTransitProvider("main", vault_settings(openbao, key, tmp_path / "token"))
    provider.health()
    damage(tmp_path / "token")
    with pytest.raises(KeyConfigurationError, match=message):
        provider.health()


# --- a server that answers as told


class Service:
    """Answers as told and counts what it was asked; a key's facts are good unless told otherwise."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.replies: list[Reply] = []
        self.reply = told(GOOD)
        self.facts = told(GOOD_KEY)

    def __call__(self, path: str, request: dict[str, object]) -> Reply:
        if path == "/v1/transit/keys/recordings":
            return self.facts
        self.asked.append((path, request))
        return self.replies.pop(0) if self.replies else self.reply


def told(data: object) -> Reply:
    return json_reply({"data": data})


def refusal(status: int, *errors: str, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(status=status, body=json.dumps({"errors": errors}).encode(), headers=headers)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ServerFiles:
    return issue_server_files(tmp_path_factory.mktemp("vault"))


@pytest.fixture(scope="module")
def shared_service() -> Service:
    return Service()


@pytest.fixture
def service(shared_service: Service) -> Service:
    shared_service.reset()
    return shared_service


@pytest.fixture(scope="module")
def url(files: ServerFiles, shared_service: Service) -> Iterator[str]:
    with https_server(files, shared_service) as address:
        yield address


def made(url: str, files: ServerFiles, tmp_path: Path, *, timeout_s: float = 10) -> VaultTransitProvider:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("s.token")
    server = TransitSettings(
        address=url, token_path=token, ca_path=files.ca_path, server_id="vault", timeout_s=timeout_s
    )
    return VaultTransitProvider("main", VaultTransitKeySettings(key="recordings", server=server))


@pytest.fixture
def provider(url: str, files: ServerFiles, service: Service, tmp_path: Path) -> VaultTransitProvider:
    del service
    return made(url, files, tmp_path)


SLOT = KeySlot(
    provider=SlotProvider.VAULT_TRANSIT, key_id=b"vault/transit/recordings", wrapped=WRAPPED.encode()
)


def test_what_is_asked_and_what_is_made_of_the_answer(
    provider: VaultTransitProvider, service: Service
) -> None:
    key = provider.new_key(CONTEXT)
    assert (key.dek, key.slot) == (DEK, SLOT)
    assert provider.unwrap(SLOT, CONTEXT) == DEK
    service.reply = told({"ciphertext": WRAPPED.replace(":v1:", ":v2:")})
    assert provider.rewrap(SLOT, CONTEXT).wrapped == WRAPPED.replace(":v1:", ":v2:").encode()
    assert service.asked == [
        ("/v1/transit/datakey/plaintext/recordings", {"context": BOUND, "bits": 256}),
        ("/v1/transit/decrypt/recordings", {"ciphertext": WRAPPED, "context": BOUND}),
        ("/v1/transit/rewrap/recordings", {"ciphertext": WRAPPED, "context": BOUND}),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"plaintext": ""},
        {"plaintext": base64.b64encode(DEK[:31]).decode()},
        {"plaintext": base64.b64encode(DEK + b"\0").decode()},
        {"plaintext": base64.b64encode(bytes(32)).decode()},
        {"plaintext": base64.b64encode(b"k" * 32).decode()},
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
    provider: VaultTransitProvider, service: Service, change: dict[str, object]
) -> None:
    service.reply = told({**GOOD, **change})
    with pytest.raises(KeyAnswerError):
        provider.new_key(CONTEXT)
    assert len(service.asked) == 1, "an answer is not asked for again"
    service.reply = told(GOOD)
    assert provider.new_key(CONTEXT).dek == DEK


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"<html>", b"[" * 20_000, b"{}", b'{"data": null}',
        b'{"data": []}', b'{"data": {}}', b'{"data": ' + b"[" * 20_000,
    ],
)  # fmt: skip
def test_an_answer_that_is_no_answer(provider: VaultTransitProvider, service: Service, body: bytes) -> None:
    service.reply = Reply(body=body)
    with pytest.raises(KeyAnswerError):
        provider.new_key(CONTEXT)


def test_an_endless_answer_is_cut_short(provider: VaultTransitProvider, service: Service) -> None:
    service.reply = told({**GOOD, "padding": "x" * (ANSWER_MAX_BYTES - 1000)})
    assert provider.new_key(CONTEXT).dek == DEK
    service.reply = told({**GOOD, "padding": "x" * ANSWER_MAX_BYTES})
    with pytest.raises(KeyAnswerError, match="longer"):
        provider.new_key(CONTEXT)


@pytest.mark.parametrize(
    ("reply", "error", "tries"),
    [
        (refusal(400, "encryption key not found"), UnknownKeyError, 1),
        (refusal(400, "cipher: message authentication failed"), ContextMismatchError, 1),
        (refusal(400, "something\nelse"), KeyAnswerError, 1),
        (refusal(400, "x" * 60_000), KeyAnswerError, 1),
        (Reply(status=400, body=b"[" * 20_000), KeyAnswerError, 1),
        (Reply(status=400, body=b'{"errors": {"a": 1}}'), KeyAnswerError, 1),
        (refusal(403, "permission denied"), NotPermittedError, 1),
        (Reply(status=404, body=b""), UnknownKeyError, 1),
        (refusal(405, "unsupported operation"), KeyAnswerError, 1),
        (refusal(412, "behind"), KeyUnavailableError, ATTEMPTS),
        (refusal(429, "quota"), KeyUnavailableError, ATTEMPTS),
        (refusal(472), KeyUnavailableError, ATTEMPTS),
        (refusal(473), KeyUnavailableError, ATTEMPTS),
        (refusal(500, "internal"), KeyUnavailableError, ATTEMPTS),
        (Reply(status=502, body=b"<html>"), KeyUnavailableError, ATTEMPTS),
        (refusal(503, "Vault is sealed"), KeyUnavailableError, ATTEMPTS),
        (Reply(status=204, body=b""), KeyAnswerError, 1),
    ],
)
def test_each_refusal_has_its_error(
    provider: VaultTransitProvider, service: Service, reply: Reply, error: type[RecordingError], tries: int
) -> None:
    service.reply = reply
    with pytest.raises(RecordingError) as caught:
        provider.unwrap(SLOT, CONTEXT)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert len(service.asked) == tries


@pytest.mark.parametrize("reply", [refusal(500), refusal(429), refusal(503, "Vault is sealed")])
def test_a_passing_failure_is_got_over(
    provider: VaultTransitProvider, service: Service, reply: Reply
) -> None:
    service.replies = [reply] * (ATTEMPTS - 1)
    assert provider.new_key(CONTEXT).dek == DEK
    assert len(service.asked) == ATTEMPTS


def test_a_server_that_asks_to_be_left_alone_is_left_alone(
    provider: VaultTransitProvider, service: Service
) -> None:
    service.replies = [refusal(429, headers=(("Retry-After", "1"),))]
    began = time.monotonic()
    assert provider.new_key(CONTEXT).dek == DEK
    assert time.monotonic() - began >= 1
    service.reply = refusal(429, headers=(("Retry-After", "3600"),))
    asked, began = len(service.asked), time.monotonic()
    with pytest.raises(KeyUnavailableError):
        provider.new_key(CONTEXT)
    assert time.monotonic() - began < 5, "longer than there is time for: not waited for"
    assert len(service.asked) == asked + 1


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "²", ""])
def test_a_wait_that_is_no_number_counts_as_none(
    provider: VaultTransitProvider, service: Service, text: str
) -> None:
    service.replies = [refusal(429, headers=(("Retry-After", text.encode("utf-8").decode("latin-1")),))]
    assert provider.new_key(CONTEXT).dek == DEK


def test_a_server_that_does_not_answer_costs_the_time_that_was_given(
    url: str, files: ServerFiles, service: Service, tmp_path: Path
) -> None:
    hold = threading.Event()
    service.reply = replace(told(GOOD), hold=hold)
    started = time.monotonic()
    with pytest.raises(KeyUnavailableError):
        made(url, files, tmp_path, timeout_s=0.5).new_key(CONTEXT)
    assert 0.4 < time.monotonic() - started < 3
    hold.set()
    assert made(url, files, tmp_path).new_key(CONTEXT).dek == DEK


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(
    provider: VaultTransitProvider, service: Service, files: ServerFiles, status: int
) -> None:
    elsewhere = Service()
    with https_server(files, elsewhere) as target:
        service.reply = Reply(status=status, headers=(("Location", target),))
        with pytest.raises(KeyAnswerError, match="redirects"):
            provider.new_key(CONTEXT)
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    "facts",
    [
        {**GOOD_KEY, "keys": {}},
        {**GOOD_KEY, "keys": None},
        {**GOOD_KEY, "keys": {"x": 1}},
        {**GOOD_KEY, "keys": {"1": None}},
        {**GOOD_KEY, "keys": {"1": "yesterday"}},
        {**GOOD_KEY, "keys": {"1": 10**30}},
        {**GOOD_KEY, "keys": {"1": {"creation_time": []}}},
        {**GOOD_KEY, "keys": {"9" * 5000: 1}},
    ],
)
def test_a_lifecycle_that_is_none(provider: VaultTransitProvider, service: Service, facts: object) -> None:
    assert len(provider.lifecycle().versions) == 1
    service.facts = told(facts)
    with pytest.raises(KeyAnswerError):
        provider.lifecycle()


def test_the_environment_changes_neither_address_nor_route_nor_token(
    provider: VaultTransitProvider, service: Service, monkeypatch: pytest.MonkeyPatch
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


def test_tls_1_2_is_not_spoken(files: ServerFiles, service: Service, tmp_path: Path) -> None:
    with https_server(files, service, maximum_version=ssl.TLSVersion.TLSv1_2) as url:
        with pytest.raises(KeyUnavailableError, match=r"(?i)protocol"):
            made(url, files, tmp_path).new_key(CONTEXT)
        assert service.asked == []


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
        provider.unwrap(SLOT, CONTEXT)
    text = caplog.text + "".join(repr(record.args) for record in caplog.records)
    assert base64.b64encode(DEK).decode() not in text
    assert "s.token" not in text
