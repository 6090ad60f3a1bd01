"""Whom we call: the certificate must be the target's and the trunk's, and the connection gets that trunk's token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import Invitation
from b2bua.initialise import InitResult, identity_of
from support.certificates import Issuer
from support.edge import CALLEE_USER, CALLER_USER, Edge, edge
from support.endpoint import run
from tls.settings import TLSMaterialSettings

CALLER, CALLEE = identity_of("caller"), identity_of("callee")


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("issuer"))


@contextmanager
def trusting(directory: Path, issuer: Issuer, edit: Callable[[str], str] = str) -> Iterator[Edge]:
    def prepare(made: InitResult) -> None:
        with made.edge.trust_path.open("ab") as trust:
            trust.write(issuer.trust_path.read_bytes())

    with edge(directory, prepare=prepare, edit=edit) as running:
        yield running


def server(served: Edge, issuer: Issuer, name: str, *hosts: str) -> TLSMaterialSettings:
    material = issuer.material(name, *hosts)
    return TLSMaterialSettings(
        certificate_path=material.certificate_path,
        private_key_path=material.private_key_path,
        trust_path=served.made.caller.trust_path,
    )


async def called(served: Edge, material: TLSMaterialSettings) -> tuple[int, int]:
    """The status of a call to a callee with this certificate, and how many INVITEs it got; its BYE must be taken."""
    callee = served.endpoint(material, user=CALLEE_USER, port=served.made.callee_port, answering=Answering())
    async with served.endpoint(served.made.caller, user=CALLER_USER) as caller, callee:
        call = await caller.invite(await served.connect(caller), Invitation(uri=served.uri()))
        status = (await call.wait_final(timeout_s=20)).status
        if status == 200:
            other = await callee.next_call()
            await other.wait_acknowledged()
            assert (await other.hang_up()).status == 200
            await call.wait_ended()
        return status, len(callee.transcript.requests("INVITE"))


def test_the_targets_own_certificate_without_an_identity_of_its_trunk_gets_nothing(
    tmp_path: Path, issuer: Issuer
) -> None:
    """The host is right, but the trunk is known by another name only."""

    def edit(text: str) -> str:
        return text.replace(f'identities = ["{CALLEE}"]', 'identities = ["carrier.example.test"]')

    with trusting(tmp_path, issuer, edit) as served:
        host_only = server(served, issuer, "host", CALLEE)
        both = server(served, issuer, "both", CALLEE, "carrier.example.test")
        assert run(called(served, host_only)) == (503, 0)
        assert served.wait_audit(lambda line: line.get("reason") == "unknown_identity")
        assert run(called(served, both)) == (200, 1)


def test_another_trunks_certificate_at_the_target_gets_nothing(tmp_path: Path, issuer: Issuer) -> None:
    with trusting(tmp_path, issuer) as served:
        assert run(called(served, server(served, issuer, "wrong", CALLER))) == (503, 0)
        assert run(called(served, server(served, issuer, "right", CALLEE))) == (200, 1)


def test_a_certificate_of_two_trunks_counts_as_the_one_that_was_called(
    tmp_path: Path, issuer: Issuer
) -> None:
    """Else the callee's BYE would be a request in another trunk's dialogue, and be refused."""
    with trusting(tmp_path, issuer) as served:
        assert run(called(served, server(served, issuer, "shared", CALLER, CALLEE))) == (200, 1)
