"""TLS listeners: what they publish, and new certificates under live connections without a closed socket."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from support.pj_attack import Authority, Identity, Peer, client_context, header_of, status_of
from support.pj_process import ChildError, PjProcess
from support.pj_sip import Dialog


@dataclass(frozen=True)
class Rig:
    pj: PjProcess
    authority: Authority
    client: Identity
    server: Identity
    transport_id: int
    port: int

    def connect(self) -> Peer:
        return Peer.connect(client_context(self.authority, self.client), self.port)

    def swap(self, identity: Identity, trust: Path | None = None) -> None:
        self.pj.call("swap", transport_id=self.transport_id, **files(identity, trust or self.authority.path))


def files(identity: Identity, trust: Path) -> dict[str, str]:
    return {
        "certificate_path": str(identity.cert),
        "private_key_path": str(identity.key),
        "trust_path": str(trust),
    }


def shown_by(peer: Peer) -> bytes | None:
    return peer.socket.getpeercert(binary_form=True)


def der(identity: Identity) -> bytes:
    certificate = x509.load_pem_x509_certificate(identity.cert.read_bytes())
    return certificate.public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def rig(tmp_path: Path, authority: Authority) -> Iterator[Rig]:
    server, client = authority.issue("server"), authority.issue("client")
    with PjProcess(tmp_path) as pj:
        pj.call("guard")
        transport_id, port = pj.call(
            "listen", public_host="sip.example", public_port=5071, **files(server, authority.path)
        )
        yield Rig(pj, authority, client, server, transport_id, port)


def test_the_published_name_and_port_are_those_given(rig: Rig) -> None:
    rig.pj.call("account", transport_id=rig.transport_id)
    with rig.connect() as peer:
        final = Dialog(peer).invite()
        assert status_of(final) == "200"
        assert re.search(r"@sip\.example:5071;", header_of(final, "Contact")), final


def test_a_swapped_certificate_is_shown_to_new_connections_only(rig: Rig) -> None:
    renewed = rig.authority.issue("renewed")
    with rig.connect() as old:
        assert old.options() == "200"
        assert shown_by(old) == der(rig.server)
        rig.swap(renewed)
        with rig.connect() as new:
            assert shown_by(new) == der(renewed)
            assert new.options() == "200"
        assert old.options() == "200"


def test_a_swapped_trust_decides_who_may_connect(rig: Rig, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", name="another authority")
    rig.swap(rig.server, trust=other.path)
    with rig.connect() as peer:
        assert peer.options() == ""
    allowed = replace(rig, client=other.issue("other-client"))
    with allowed.connect() as peer:
        assert peer.options() == "200"


def test_a_swap_that_fails_leaves_the_old_context(rig: Rig, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    strange = rig.authority.issue("strange")
    for identity in (
        Identity(cert=broken, key=rig.server.key),
        Identity(cert=rig.server.cert, key=strange.key),
        Identity(cert=tmp_path / "absent.pem", key=rig.server.key),
    ):
        with pytest.raises(ChildError, match="listener_swap: the old context stays") as raised:
            rig.swap(identity)
        assert raised.value.kind == "NativeError"
        with rig.connect() as peer:
            assert shown_by(peer) == der(rig.server)
            assert peer.options() == "200"


def test_no_connection_is_refused_while_certificates_change(rig: Rig) -> None:
    identities = [rig.authority.issue(f"renewed-{number}") for number in range(10)]
    answers: list[str] = []
    stop = threading.Event()

    def knock() -> None:
        while not stop.is_set():
            with rig.connect() as peer:
                answers.append(peer.options())

    knocking = threading.Thread(target=knock)
    knocking.start()
    try:
        for identity in identities:
            rig.swap(identity)
            seen = len(answers)
            while len(answers) < seen + 3 and knocking.is_alive():
                rig.pj.events("none")
    finally:
        stop.set()
        knocking.join()
    assert len(answers) >= 30
    assert set(answers) == {"200"}


def test_a_restart_binds_the_same_port_and_keeps_live_connections(rig: Rig) -> None:
    with rig.connect() as old:
        assert old.options() == "200"
        rig.pj.call("native_call", name="listener_restart", arguments=[rig.transport_id])
        assert rig.pj.call("native_call", name="listener_port", arguments=[rig.transport_id]) == rig.port
        with rig.connect() as new:
            assert new.options() == "200"
        assert old.options() == "200"


def test_a_listener_on_ipv6(rig: Rig) -> None:
    _, port = rig.pj.call("listen", address="::1", public_host="::1", **files(rig.server, rig.authority.path))
    assert port > 0
    with Peer.connect(client_context(rig.authority, rig.client), rig.port) as peer:
        assert peer.options() == "200"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"address": "localhost"}, "address localhost: an IP address is taken"),
        ({"port": 70000}, "port 70000"),
        ({"public_port": -1}, "public_port -1"),
        ({"public_host": ""}, "public_host: 0 bytes"),
        ({"ciphers": []}, "1 to 16 of them"),
        ({"ciphers": [0xFFFE]}, "0xfffe is not in this OpenSSL"),
        ({"handshake_timeout_ms": 0}, "handshake_timeout_ms 0"),
        ({"certificate_path": "/nonexistent/cert.pem"}, "listener_create"),
        ({"trust_path": "/nonexistent/ca.pem"}, "listener_create"),
    ],
    ids=str,
)
def test_a_listener_with_a_wrong_setting_is_not_made(rig: Rig, change: dict[str, object], text: str) -> None:
    given = {**files(rig.server, rig.authority.path), **change}
    with pytest.raises(ChildError, match=text):
        rig.pj.call("listen", **given)
    assert rig.pj.call("listen", **files(rig.server, rig.authority.path))[1] > 0


def test_a_port_in_use_is_an_error(rig: Rig) -> None:
    with pytest.raises(ChildError, match="listener_create"):
        rig.pj.call("listen", port=rig.port, **files(rig.server, rig.authority.path))
    with rig.connect() as peer:
        assert peer.options() == "200"


def test_an_unknown_listener_is_an_error(rig: Rig) -> None:
    for name in ("listener_port", "listener_restart"):
        with pytest.raises(ChildError, match="no listener 5"):
            rig.pj.call("native_call", name=name, arguments=[5])


def test_the_guard_comes_before_the_first_listener(tmp_path: Path, authority: Authority) -> None:
    server = authority.issue("server")
    with PjProcess(tmp_path) as pj:
        with pytest.raises(ChildError, match="guard_install comes first"):
            pj.call("listen", **files(server, authority.path))
        pj.call("guard")
        with pytest.raises(ChildError, match="the guard is in place"):
            pj.call("guard")
        assert pj.call("listen", **files(server, authority.path))[1] > 0
    with PjProcess(tmp_path) as pj:
        pj.call("plain_transport", kind="udp")
        with pytest.raises(ChildError, match="before the first transport"):
            pj.call("guard")


def test_the_guard_can_be_set_up_again_in_a_new_library(tmp_path: Path, authority: Authority) -> None:
    server, client = authority.issue("server"), authority.issue("client")
    with PjProcess(tmp_path) as pj:
        pj.call("guard")
        pj.call("listen", **files(server, authority.path))
        for removed in (False, True):
            pj.call("start_again", guard_removed=removed)
            pj.call("guard")
            _, port = pj.call("listen", **files(server, authority.path))
            with Peer.connect(client_context(authority, client), port) as peer:
                assert peer.options() == "200"
            pj.wait_event("disconnected", token=1)
