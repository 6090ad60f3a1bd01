"""The only builder of TLS contexts for the product's own servers and clients (the SIP stack builds its own).

Whatever the caller, a context from here speaks TLS 1.3 only, demands a certificate of the peer, gives out no session
tickets and trusts nothing but the roots it was given. Bytes that were judged are the bytes that are loaded: the stdlib
takes certificates from files only, so they go through an anonymous file in memory, not through the path again.
"""

from __future__ import annotations

import contextlib
import enum
import os
import ssl
from collections.abc import Iterator
from typing import Final, assert_never

from cryptography.hazmat.primitives import serialization

from tls.errors import ContextError, PeerRefusedError, RefusalReason
from tls.material import TLSMaterial
from tls.settings import TLS13_ONLY, PolicyProfile, TLSVersion
from tls.trust import TrustStore

_SECURITY_LEVEL: Final = "DEFAULT:@SECLEVEL=2"
"""112 bits: RSA of 2048 bits and SHA-256 at least in every certificate. Source: SSL_CTX_set_security_level(3)."""


class PeerName(enum.Enum):
    """Who compares the server's certificate with the name we wanted to reach."""

    HTTPS = "the handshake, by the DNS or IP names of the certificate"
    SIP = "the caller, by PeerVerifier.verify_server after the handshake and before a byte is sent"


def server_context(
    material: TLSMaterial, *, trust: TrustStore | None = None, profile: PolicyProfile = TLS13_ONLY
) -> ssl.SSLContext:
    """A context for a listening endpoint that lets nobody in without a certificate of `trust`.

    `trust` defaults to the material's own. The context keeps what it was built from; after a rotation build another
    and use it for new connections.

    Raises:
        ContextError: the profile is not TLS 1.3 only, there is no anchor, or OpenSSL refuses the material.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, profile)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    _load_trust(context, material.trust if trust is None else trust)
    _load_identity(context, material)
    _require_as_stated(context, profile)
    return context


def client_context(
    trust: TrustStore,
    *,
    peer_name: PeerName,
    material: TLSMaterial | None = None,
    profile: PolicyProfile = TLS13_ONLY,
) -> ssl.SSLContext:
    """A context for connecting to servers of `trust`, showing `material` where the server asks for a certificate.

    Raises:
        ContextError: the profile is not TLS 1.3 only, there is no anchor, or OpenSSL refuses the material.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, profile)
    context.hostname_checks_common_name = False
    match peer_name:
        case PeerName.HTTPS:
            context.check_hostname = True
        case PeerName.SIP:
            context.check_hostname = False
        case _:
            assert_never(peer_name)
    context.verify_mode = ssl.CERT_REQUIRED
    _load_trust(context, trust)
    if material is not None:
        _load_identity(context, material)
    _require_as_stated(context, profile)
    return context


def peer_certificate_pem(connection: ssl.SSLSocket | ssl.SSLObject) -> str:
    """The leaf a connected peer presented, as PeerVerifier takes it.

    Raises:
        PeerRefusedError: NO_CERTIFICATE.
    """
    der = connection.getpeercert(binary_form=True)
    if not der:
        raise PeerRefusedError(RefusalReason.NO_CERTIFICATE, "the peer presented no certificate")
    return ssl.DER_cert_to_PEM_cert(der)


def _restrict(context: ssl.SSLContext, profile: PolicyProfile) -> None:
    if (profile.minimum_version, profile.maximum_version) != (TLSVersion.TLS_1_3, TLSVersion.TLS_1_3):
        raise ContextError(f"profile {profile.name} is not TLS 1.3 only, and no other is negotiated here")
    context.minimum_version = profile.minimum_version.for_ssl
    context.maximum_version = profile.maximum_version.for_ssl
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    # Set, not added to: with VERIFY_X509_PARTIAL_CHAIN an intermediate in the trust file would be an anchor.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
    context.set_ciphers(_SECURITY_LEVEL)


def _load_trust(context: ssl.SSLContext, trust: TrustStore) -> None:
    if not trust.anchors:
        raise ContextError("there is no trust anchor: every peer would be refused")
    pem = serialization.Encoding.PEM
    parts = [certificate.public_bytes(pem) for certificate in (*trust.anchors, *trust.intermediates)]
    parts += [entry.crl.public_bytes(pem) for entry in trust.revocation_lists]
    if trust.revocation_required:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    with _in_memory("trust", b"".join(parts)) as path:
        try:
            context.load_verify_locations(cafile=path)
        except ssl.SSLError as error:
            raise ContextError(f"OpenSSL refuses the trust anchors ({error.reason})") from error


def _load_identity(context: ssl.SSLContext, material: TLSMaterial) -> None:
    with (
        _in_memory("chain", material.certificate_pem) as chain_path,
        _in_memory("key", material.private_key_pem) as key_path,
    ):
        try:
            context.load_cert_chain(chain_path, key_path)
        except ssl.SSLError as error:
            raise ContextError(f"OpenSSL refuses our certificate or key ({error.reason})") from error


@contextlib.contextmanager
def _in_memory(name: str, data: bytes) -> Iterator[str]:
    """A path, valid inside the block, at which exactly `data` can be read; nothing reaches a disk."""
    descriptor = os.memfd_create(f"tls-{name}", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        yield f"/proc/self/fd/{descriptor}"


def _require_as_stated(context: ssl.SSLContext, profile: PolicyProfile) -> None:
    """Ask the finished context, since a setting that did not take is the failure this module exists to prevent."""
    allowed = {suite.openssl_name for suite in profile.cipher_suites}
    offered = {
        suite["name"] for suite in context.get_ciphers() if suite["protocol"] == TLSVersion.TLS_1_3.label
    }
    if surplus := offered - allowed:
        raise ContextError(
            f"OpenSSL would offer {', '.join(sorted(surplus))}, which profile {profile.name} does not; "
            "start the process with the product's OPENSSL_CONF"
        )
