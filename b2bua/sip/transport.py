"""Who may talk to us: the second verification of every peer's certificate, and the trunk it stands for.

Runs inside pjsip's CONNECTED callback, before a byte of SIP is read from or sent on the connection. Source: RFC
5922 section 7, RFC 3261 26.3.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from b2bua.settings import TrunkSettings
from b2bua.sip.callbacks import guarded_function
from b2bua.sip.handler import Handler, PeerEvent
from tls.errors import PeerRefusedError
from tls.policy import PeerVerifier, VerifiedPeer

TLS_1_3 = 0x0304


class PeerGate:
    """Maps connections to trunks. A token is the trunk's place in the configuration plus one; 0 refuses."""

    def __init__(
        self, *, trunks: Mapping[str, TrunkSettings], verifier: PeerVerifier, handler: Handler
    ) -> None:
        self._trunks = tuple(trunks.values())
        self._verifier = verifier
        self._handler = handler
        self.on_connected = guarded_function("on_connected", lambda: 0)(self._connected)
        self.on_disconnected = guarded_function("on_disconnected", lambda: None)(self._disconnected)

    def trunk(self, token: int) -> TrunkSettings | None:
        """The trunk of a verified connection."""
        return self._trunks[token - 1] if 0 < token <= len(self._trunks) else None

    def _connected(
        self,
        hnd: int,
        incoming: bool,
        remote: str,
        remote_name: str,
        protocol: int,
        cipher: int,
        verify_status: int,
        chain_pem: Sequence[str],
    ) -> int:
        del hnd
        source = _host_of(remote)
        try:
            peer, token = self._judge(incoming, source, remote_name, protocol, verify_status, chain_pem)
        except PeerRefusedError as refused:
            outcome = refused.reason.value
            self._handler.peer_event(PeerEvent(incoming=incoming, outcome=outcome, trunk=None, source=source))
            return 0
        except _ConnectionRefusedError as refused:
            event = PeerEvent(incoming=incoming, outcome=refused.reason, trunk=None, source=source)
            self._handler.peer_event(event)
            return 0
        trunk = self._trunks[token - 1]
        self._handler.peer_event(
            PeerEvent(
                incoming=incoming,
                outcome="ok",
                trunk=trunk.name,
                source=source,
                fingerprint=peer.fingerprint,
                cipher=cipher,
            )
        )
        return token

    def _judge(
        self,
        incoming: bool,
        source: str,
        remote_name: str,
        protocol: int,
        verify_status: int,
        chain_pem: Sequence[str],
    ) -> tuple[VerifiedPeer, int]:
        if protocol != TLS_1_3:
            raise _ConnectionRefusedError("protocol_version")
        if verify_status != 0:
            raise _ConnectionRefusedError("library_verification")
        if not incoming:
            peer = self._verifier.verify_server(chain_pem, remote_name)
            return peer, self._find(
                peer,
                (t for t in self._trunks if t.target is not None and t.target.host == remote_name.lower()),
            )
        peer = self._verifier.verify_client(chain_pem)
        token = self._find(peer, self._trunks)
        address = ipaddress.ip_address(source)
        if not any(address in network for network in self._trunks[token - 1].sources):
            raise _ConnectionRefusedError("source_not_allowed")
        return peer, token

    def _find(self, peer: VerifiedPeer, candidates: Iterable[TrunkSettings]) -> int:
        hosts = {identity.host for identity in peer.identities}
        for trunk in candidates:
            if not hosts.isdisjoint(trunk.identities):
                return self._trunks.index(trunk) + 1
        raise _ConnectionRefusedError("unknown_identity")

    def _disconnected(self, hnd: int, token: int, incoming: bool, remote: str, pj_status: int) -> None:
        del hnd
        trunk = self.trunk(token)
        handshake_failed = trunk is None and pj_status != 0
        self._handler.peer_event(
            PeerEvent(
                incoming=incoming,
                outcome="handshake_failed" if handshake_failed else "closed",
                trunk=None if trunk is None else trunk.name,
                source=_host_of(remote),
            )
        )


class _ConnectionRefusedError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _host_of(remote: str) -> str:
    """The host of "127.0.0.1:5061" or "[::1]:5061", without brackets."""
    host, _, _ = remote.rpartition(":")
    return host.strip("[]") or remote
