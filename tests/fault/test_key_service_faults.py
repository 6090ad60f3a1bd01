"""What no key service may do to us, whatever its kind: each fault is one typed error within the time that was given."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from recording.keys.errors import KeyAnswerError, KeyUnavailableError
from recording.keys.https import ANSWER_MAX_BYTES
from recording.keys.provider import KeyProvider
from recording.keys.retry import ATTEMPTS
from support.kms import TEST_CREDENTIALS, Reply, https_server, issue_server_files
from support.told import (
    CONTEXT,
    DEK,
    Told,
    ToldServer,
    aws_at,
    aws_refusal,
    aws_told,
    told_server,
    vault_at,
    vault_refusal,
    vault_told,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A service, its provider, the failures of it that pass, and what is said of a redirect."""

    service: Callable[[], Told]
    at: Callable[..., KeyProvider]
    passing: tuple[Reply, ...]
    redirected: str


KINDS = {
    "aws-kms": Kind(
        service=aws_told,
        at=aws_at,
        redirected="HTTP status 3",
        passing=(
            aws_refusal("x", 500),
            aws_refusal("ThrottlingException"),
            Reply(status=502, body=b"<html>"),
        ),
    ),
    "vault-transit": Kind(
        service=vault_told,
        at=vault_at,
        redirected="redirects",
        passing=(vault_refusal(500), vault_refusal(429), vault_refusal(503, "Vault is sealed")),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A server of one kind and a provider that asks it."""

    kind: Kind
    server: ToldServer
    provider: KeyProvider

    @property
    def service(self) -> Told:
        return self.server.service


@pytest.fixture(scope="module", params=list(KINDS))
def shared_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    kind = KINDS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TEST_CREDENTIALS.items():
            patch.setenv(name, value)
        with told_server(kind.service(), tmp_path_factory.mktemp("told")) as server:
            yield Case(kind=kind, server=server, provider=kind.at(server.url, server.files))


@pytest.fixture
def case(shared_case: Case) -> Case:
    shared_case.service.reset()
    return shared_case


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"<html>", b"[" * 20_000,
        b"{}", b'{"data": null}', b'{"data": []}', b'{"data": {}}', b'{"data": ' + b"[" * 20_000,
        b'{"Plaintext": {"a": 1}}', b'{"KeyId": ' + b"[" * 20_000,
    ],
)  # fmt: skip
def test_an_answer_that_is_no_answer(case: Case, body: bytes) -> None:
    case.service.reply = Reply(body=body)
    with pytest.raises(KeyAnswerError):
        case.provider.new_key(CONTEXT)


def padded(good: Reply, length: int) -> Reply:
    """The good answer, so long, with more in it than was asked for."""
    document = json.loads(good.body)
    inner = document.get("data", document)
    inner["padding"] = "x" * (length - len(json.dumps(document)) - 15)
    return replace(good, body=json.dumps(document).encode())


def test_an_endless_answer_is_cut_short(case: Case) -> None:
    case.service.reply = padded(case.service.good, ANSWER_MAX_BYTES)
    assert case.provider.new_key(CONTEXT).dek == DEK
    case.service.reply = padded(case.service.good, ANSWER_MAX_BYTES + 1)
    with pytest.raises(KeyAnswerError, match="longer than"):
        case.provider.new_key(CONTEXT)
    case.service.reply = case.service.good
    assert case.provider.new_key(CONTEXT).dek == DEK, "what was left of the answer is not taken for the next"


@pytest.mark.parametrize("number", range(3))
def test_a_passing_failure_is_got_over(case: Case, number: int) -> None:
    case.service.replies = [case.kind.passing[number]] * (ATTEMPTS - 1)
    assert case.provider.new_key(CONTEXT).dek == DEK
    assert len(case.service.asked) == ATTEMPTS


def test_a_server_that_does_not_answer_costs_the_time_that_was_given(case: Case) -> None:
    hold = threading.Event()
    case.service.reply = replace(case.service.good, hold=hold)
    hasty = case.kind.at(case.server.url, case.server.files, timeout_s=0.5)
    started = time.monotonic()
    with pytest.raises(KeyUnavailableError):
        hasty.new_key(CONTEXT)
    assert 0.4 < time.monotonic() - started < 3
    hold.set()
    assert case.provider.new_key(CONTEXT).dek == DEK


def test_a_server_that_is_gone_and_comes_back(case: Case) -> None:
    files, service = case.server.files, case.service
    with https_server(files, service) as url:
        provider = case.kind.at(url, files)
        assert provider.new_key(CONTEXT).dek == DEK
        provider.health()
    with pytest.raises(KeyUnavailableError):
        provider.new_key(CONTEXT)
    with pytest.raises(KeyUnavailableError):
        provider.health()
    with https_server(files, service, port=int(url.rpartition(":")[2])):
        assert provider.new_key(CONTEXT).dek == DEK


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(case: Case, status: int) -> None:
    elsewhere = case.kind.service()
    with https_server(case.server.files, elsewhere) as target:
        case.service.reply = Reply(status=status, headers=(("Location", target),))
        with pytest.raises(KeyAnswerError, match=case.kind.redirected):
            case.provider.new_key(CONTEXT)
    assert elsewhere.asked == []


def test_a_server_of_another_authority_is_not_spoken_to(case: Case, tmp_path: Path) -> None:
    stranger = issue_server_files(tmp_path)
    with https_server(stranger, case.service) as url:
        ours = replace(stranger, ca_path=case.server.files.ca_path)
        with pytest.raises(KeyUnavailableError, match="certificate verify failed"):
            case.kind.at(url, ours).new_key(CONTEXT)
        assert case.service.asked == []
        assert case.kind.at(url, stranger).new_key(CONTEXT).dek == DEK


def test_a_server_of_another_name_is_not_spoken_to(case: Case) -> None:
    with pytest.raises(KeyUnavailableError, match="localhost"):
        case.kind.at(case.server.url.replace("127.0.0.1", "localhost"), case.server.files).new_key(CONTEXT)
    assert case.service.asked == []


def test_tls_1_2_is_not_spoken(case: Case) -> None:
    with https_server(case.server.files, case.service, maximum_version=ssl.TLSVersion.TLSv1_2) as url:
        with pytest.raises(KeyUnavailableError, match=r"(?i)protocol"):
            case.kind.at(url, case.server.files).new_key(CONTEXT)
        assert case.service.asked == []
