"""Asking a server what it really accepts: versions, suites, groups, client certificates, tickets, resumption.

Every question is a handshake of its own, in which the client offers exactly one thing. Each context sets both its
minimum and its maximum version: with only one set, a floor in OPENSSL_CONF would answer for the server. OpenSSL's
security level is 0 here, so that what the server would accept is not hidden by what we would.

Blocking, with a time limit for each handshake; for the command line and tests, not for the SIP thread.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from tls.certificate import PARSE_ERRORS
from tls.errors import MalformedIdentityError, PeerRefusedError, ProbeError
from tls.identity import SIPIdentity, identities_of
from tls.material import TLSMaterial
from tls.policy import PeerVerifier
from tls.probe_report import (
    Answer,
    ClientCertificateDemand,
    Dialogue,
    Ending,
    Finding,
    FindingCode,
    ProbeReport,
    VersionOutcome,
    demand_of,
    findings_of,
)
from tls.settings import TLS13_ONLY, CipherSuite, PolicyProfile, TLSVersion

__all__ = [
    "Answer",
    "ClientCertificateDemand",
    "Ending",
    "Finding",
    "FindingCode",
    "ProbeReport",
    "VersionOutcome",
    "probe",
]

HANDSHAKE_LIMIT_S: Final = 5.0
PATIENCE_S: Final = 0.5
"""How long after a handshake to wait for what the server says next: tickets, or the alert that ends it.

Both follow the client's Finished at once, so this is a few round trips.
"""

_READ_BYTES: Final = 16384
_TLS13_SUITES: Final = tuple(suite for suite in CipherSuite if suite.iana_id >> 8 == 0x13)
_EVERY_SUITE: Final = b"ALL:@SECLEVEL=0"

_STATE_REQUEST: Final = b"read server certificate request"
_STATE_CERTIFICATE: Final = b"read server certificate"
_STATE_TICKET: Final = b"read server session ticket"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Target:
    """Whom to ask, and how long to wait."""

    host: str
    port: int
    server_name: str
    handshake_limit_s: float
    patience_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Resumable:
    """A session and the context it was made in; pyOpenSSL takes it back in that context only."""

    context: SSL.Context
    session: SSL.Session


@dataclass(frozen=True, kw_only=True, slots=True)
class _Offer:
    """What one handshake offers; `listen` waits for what the server says after it."""

    version: TLSVersion
    suite: CipherSuite | None = None
    material: TLSMaterial | None = None
    resume: _Resumable | None = None
    listen: bool = False


def probe(
    host: str,
    port: int,
    *,
    material: TLSMaterial | None = None,
    verifier: PeerVerifier | None = None,
    server_name: str | None = None,
    profile: PolicyProfile = TLS13_ONLY,
    handshake_limit_s: float = HANDSHAKE_LIMIT_S,
    patience_s: float = PATIENCE_S,
) -> ProbeReport:
    """Ask the TLS server at `host:port` what it accepts, and hold the answers against `profile`.

    With `material` the probe also shows our certificate and reports whether the server let it in. With `verifier`
    the server's certificate is judged for `server_name` (default: `host`), which is sent as SNI too.

    Raises:
        ProbeError: nobody listens there, or no version of TLS was taken up.
    """
    target = _Target(
        host=host,
        port=port,
        server_name=server_name or host,
        handshake_limit_s=handshake_limit_s,
        patience_s=patience_s,
    )
    older: dict[TLSVersion, Dialogue] = {
        version: _converse(target, _Offer(version=version, material=material))[0]
        for version in TLSVersion
        if version is not TLSVersion.TLS_1_3
    }
    bare, bare_session = _converse(target, _Offer(version=TLSVersion.TLS_1_3, listen=True))
    shown, session = bare, bare_session
    if material is not None:
        shown, session = _converse(target, _Offer(version=TLSVersion.TLS_1_3, material=material, listen=True))
    answers: Mapping[TLSVersion, Dialogue] = {**older, TLSVersion.TLS_1_3: bare}
    _require_some_tls(target, answers)
    chain = bare.chain or next((each.chain for each in older.values() if each.chain), ())
    report = ProbeReport(
        host=host,
        port=port,
        versions=tuple(
            VersionOutcome(version=version, answer=each.answer, detail=each.detail)
            for version, each in answers.items()
        ),
        cipher_suites=_accepted_suites(target, material) if bare.answer is Answer.ACCEPTED else (),
        group=bare.group_name,
        client_certificate=demand_of(bare),
        our_certificate_accepted=None if material is None else shown.ending is Ending.OPEN,
        tickets=max(bare.tickets, shown.tickets),
        resumed=any(_resumes(target, material, each) for each in (session, bare_session) if each is not None),
        chain=chain,
        identities=_identities(chain),
        refusal=_refusal(verifier, chain, target.server_name),
    )
    return replace(report, findings=findings_of(report, profile))


def _require_some_tls(target: _Target, answers: Mapping[TLSVersion, Dialogue]) -> None:
    if all(each.answer is not Answer.ACCEPTED for each in answers.values()):
        details = "; ".join(f"{version.label}: {each.detail}" for version, each in answers.items())
        raise ProbeError(f"{target.host}:{target.port} takes up no version of TLS ({details})")


def _accepted_suites(target: _Target, material: TLSMaterial | None) -> tuple[CipherSuite, ...]:
    offers = (
        (suite, _Offer(version=TLSVersion.TLS_1_3, suite=suite, material=material)) for suite in _TLS13_SUITES
    )
    return tuple(suite for suite, offer in offers if _converse(target, offer)[0].answer is Answer.ACCEPTED)


def _resumes(target: _Target, material: TLSMaterial | None, session: _Resumable) -> bool:
    """Whether a second handshake with `session` was shortened: then the server sends no certificate."""
    offer = _Offer(version=TLSVersion.TLS_1_3, material=material, resume=session)
    again, _ = _converse(target, offer)
    return again.established and not again.certificate_received


def _identities(chain: Sequence[x509.Certificate]) -> frozenset[SIPIdentity]:
    try:
        return identities_of(chain[0], accept_ip=True) if chain else frozenset()
    except MalformedIdentityError:
        return frozenset()


def _refusal(
    verifier: PeerVerifier | None, chain: Sequence[x509.Certificate], name: str
) -> PeerRefusedError | None:
    if verifier is None:
        return None
    try:
        verifier.verify_server([each.public_bytes(serialization.Encoding.PEM) for each in chain], name)
    except PeerRefusedError as error:
        return error
    return None


def _converse(target: _Target, offer: _Offer) -> tuple[Dialogue, _Resumable | None]:
    """Run one handshake; with it the session that could be resumed, if the server gave one."""
    states: list[bytes] = []
    try:
        connection = _connection(target, offer, states)
    except SSL.Error as error:
        return _summary(None, states, Ending.NOT_OFFERED, _word(error), established=False), None
    try:
        stream = socket.create_connection((target.host, target.port), timeout=target.handshake_limit_s)
    except OSError as error:
        raise ProbeError(
            f"{target.host}:{target.port} cannot be reached ({error.strerror or error})"
        ) from error
    with stream:
        wire = _Wire(connection, stream)
        ending, detail, established = _run(wire, target, listen=offer.listen)
        if established:
            wire.take_leave()
    session = connection.get_session() if _count(states, _STATE_TICKET) else None
    resumable = None if session is None else _Resumable(context=connection.get_context(), session=session)
    return _summary(connection, states, ending, detail, established=established), resumable


def _connection(target: _Target, offer: _Offer, states: list[bytes]) -> SSL.Connection:
    connection = SSL.Connection(_context(offer) if offer.resume is None else offer.resume.context, None)
    connection.set_app_data(states)
    if not _is_address(target.server_name):
        connection.set_tlsext_host_name(target.server_name.encode("ascii"))
    connection.set_connect_state()
    if offer.resume is not None:
        connection.set_session(offer.resume.session)
    return connection


def _context(offer: _Offer) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(offer.version.value)
    context.set_max_proto_version(offer.version.value)
    context.set_cipher_list(_EVERY_SUITE)
    suites = _TLS13_SUITES if offer.suite is None else (offer.suite,)
    context.set_tls13_ciphersuites(":".join(suite.openssl_name for suite in suites).encode())
    context.set_info_callback(_note_state)
    if offer.material is not None:
        _show(context, offer.material)
    return context


def _note_state(connection: SSL.Connection, _where: int, _code: int) -> None:
    """Append the state to the list that belongs to this connection."""
    states: list[bytes] = connection.get_app_data()
    states.append(connection.get_state_string())


def _show(context: SSL.Context, material: TLSMaterial) -> None:
    key = serialization.load_pem_private_key(material.private_key_pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey), "material accepts no other keys"
    context.use_certificate(material.leaf)
    context.use_privatekey(key)
    for certificate in material.chain[1:]:
        context.add_extra_chain_cert(certificate)


class _ServerClosedError(Exception):
    """The server closed the connection without a word of TLS."""


class _Wire:
    """A TLS connection joined to a socket through memory, so that every wait has our own time limit."""

    def __init__(self, connection: SSL.Connection, stream: socket.socket) -> None:
        self.connection = connection
        self._stream = stream

    def send_pending(self) -> None:
        try:
            while pending := self.connection.bio_read(_READ_BYTES):
                self._stream.sendall(pending)
        except SSL.WantReadError:
            return

    def take_leave(self) -> None:
        """Send close_notify. Both ends drop a session that ended without it, and its resumption is to be tried."""
        with contextlib.suppress(SSL.Error, OSError):
            self.connection.shutdown()
            self.send_pending()

    def receive(self, limit_s: float) -> None:
        """Feed the connection what the server sent.

        Raises:
            TimeoutError: nothing came within `limit_s`.
            _ServerClosedError: the server closed or reset the connection.
        """
        if limit_s <= 0:
            raise TimeoutError
        self._stream.settimeout(limit_s)
        try:
            data = self._stream.recv(_READ_BYTES)
        except ConnectionError as error:
            raise _ServerClosedError from error
        if not data:
            raise _ServerClosedError
        self.connection.bio_write(data)


def _run(wire: _Wire, target: _Target, *, listen: bool) -> tuple[Ending, str, bool]:
    """Shake hands and, with `listen`, wait for the server's next word. Gives ending, detail, established."""
    try:
        _shake_hands(wire, target.handshake_limit_s)
    except TimeoutError:
        return Ending.ALERTED, "no answer in time", False
    except (_ServerClosedError, ConnectionError):
        return Ending.ALERTED, "connection closed", False
    except SSL.Error as error:
        return Ending.ALERTED, _word(error), False
    try:
        while listen:
            _listen(wire, target.patience_s)
    except TimeoutError:
        return Ending.OPEN, "", True
    except (_ServerClosedError, ConnectionError, SSL.ZeroReturnError):
        return Ending.CLOSED, "connection closed after the handshake", True
    except SSL.Error as error:
        return Ending.ALERTED, _word(error), True
    return Ending.OPEN, "", True


def _shake_hands(wire: _Wire, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            wire.connection.do_handshake()
        except SSL.WantReadError:
            wire.send_pending()
            wire.receive(deadline - time.monotonic())
        else:
            wire.send_pending()
            return


def _listen(wire: _Wire, patience_s: float) -> None:
    """Take in one piece of what the server says after the handshake; application data is dropped."""
    wire.receive(patience_s)
    try:
        while True:
            wire.connection.recv(_READ_BYTES)
    except SSL.WantReadError:
        return


def _summary(
    connection: SSL.Connection | None, states: list[bytes], ending: Ending, detail: str, *, established: bool
) -> Dialogue:
    chain: Sequence[x509.Certificate] = ()
    if connection is not None:
        try:
            chain = connection.get_peer_cert_chain(as_cryptography=True) or ()
        except PARSE_ERRORS:
            detail = f"{detail} (the server's certificate cannot be parsed)".strip()
    return Dialogue(
        ending=ending,
        detail=detail,
        established=established,
        cipher_name=connection.get_cipher_name() if connection is not None else None,
        group_name=connection.get_group_name() if connection is not None and established else None,
        certificate_requested=_count(states, _STATE_REQUEST) > 0,
        certificate_received=_count(states, _STATE_CERTIFICATE) > 0,
        tickets=_count(states, _STATE_TICKET),
        chain=tuple(chain),
    )


def _count(states: list[bytes], ending: bytes) -> int:
    return sum(state.endswith(ending) for state in states)


def _word(error: SSL.Error) -> str:
    """OpenSSL's reason for an error: the last part of the last entry of its queue."""
    queue = error.args[0] if error.args else None
    return str(queue[-1][-1]) if isinstance(queue, list) and queue else str(error)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
