"""A reload takes nothing that a start would refuse, and trust that changes decides at once who gets in."""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path

import pytest

from b2bua.demo.errors import DemoError
from b2bua.initialise import identity_of
from support.certificates import Flaw, Issuer
from support.edge import CALLER_USER, Edge, edge
from support.endpoint import LOCALHOST, contexts, run
from tls.settings import TLSMaterialSettings

EDGE, CALLER = identity_of("edge"), identity_of("caller")


def put(served: Edge, material: TLSMaterialSettings) -> None:
    """This certificate and key as the edge's own."""
    for source, target in (
        (material.private_key_path, served.made.edge.private_key_path),
        (material.certificate_path, served.made.edge.certificate_path),
    ):
        fresh = target.with_suffix(".fresh")
        shutil.copy(source, fresh)
        fresh.chmod(0o600)
        fresh.replace(target)


def reload(served: Edge, outcome: str) -> None:
    """SIGHUP, and wait for one more audit line of the outcome."""
    before = sum(line["event"] == outcome for line in served.audit())
    served.process.send_signal(signal.SIGHUP)
    served.wait_audit(lambda line: sum(each["event"] == outcome for each in served.audit()) > before)


def shown(served: Edge) -> bytes | None:
    context, _ = contexts(served.made.caller)
    context.check_hostname = False
    with (
        socket.create_connection((LOCALHOST, served.made.sip_port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=EDGE) as tls,
    ):
        return tls.getpeercert(binary_form=True)


@pytest.mark.parametrize("flaw", [Flaw.EXPIRED, Flaw.CN_ONLY, Flaw.NO_EKU], ids=lambda flaw: flaw.name)
def test_a_certificate_that_a_start_would_refuse_is_not_taken(tmp_path: Path, flaw: Flaw) -> None:
    """Its key fits, so OpenSSL would take it."""
    issuer = Issuer(tmp_path / "issuer")
    with edge(tmp_path, prepare=lambda made: trust(made.edge, issuer)) as served:
        before = shown(served)
        put(served, issuer.material("flawed", EDGE, flaw=flaw))
        reload(served, "certificate_refused")
        assert shown(served) == before
        put(served, issuer.material("good", EDGE))
        reload(served, "certificate_reloaded")
        assert shown(served) != before
        assert gets_in(served, served.made.caller)
        assert served.stop() == 0


def trust(material: TLSMaterialSettings, issuer: Issuer) -> None:
    with material.trust_path.open("ab") as store:
        store.write(issuer.trust_path.read_bytes())


def gets_in(served: Edge, material: TLSMaterialSettings) -> bool:
    """Whether OPTIONS over a new connection with this certificate is answered."""

    async def scenario() -> bool:
        async with served.endpoint(material, user=CALLER_USER) as endpoint:
            try:
                connection = await served.connect(endpoint)
                return (await endpoint.options(connection, served.uri(), timeout_s=5)).status == 200
            except (OSError, DemoError):
                return False

    return run(scenario())


def test_trust_that_is_added_or_taken_away_counts_from_the_reload_on(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "issuer")
    with edge(tmp_path) as served:
        material = issuer.material("caller", CALLER)
        newcomer = TLSMaterialSettings(
            certificate_path=material.certificate_path,
            private_key_path=material.private_key_path,
            trust_path=tmp_path / "both.pem",
        )
        store = served.made.edge.trust_path
        first = store.read_bytes()
        newcomer.trust_path.write_bytes(first)
        assert not gets_in(served, newcomer)
        store.write_bytes(first + issuer.trust_path.read_bytes())
        reload(served, "certificate_reloaded")
        assert gets_in(served, newcomer)
        assert gets_in(served, served.made.caller)
        store.write_bytes(first)
        reload(served, "certificate_reloaded")
        assert not gets_in(served, newcomer)
        assert gets_in(served, served.made.caller)
        assert served.stop() == 0
