"""What one certificate says, and whether a policy profile finds it strong enough. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tls.settings import PolicyProfile

PARSE_ERRORS: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises, at first use, for a part of a certificate that it cannot make sense of."""


class Usage(enum.Enum):
    """A role a certificate may play in a handshake, valued by its extended key usage."""

    CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
    SERVER = ExtendedKeyUsageOID.SERVER_AUTH

    @property
    def label(self) -> str:
        """The name of the usage in RFC 5280 section 4.2.1.12."""
        return "clientAuth" if self is Usage.CLIENT else "serverAuth"


def fingerprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 over the DER form, lower-case hexadecimal without separators."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def short_name_of(certificate: x509.Certificate) -> str:
    """A name fit for a log line: the start of the fingerprint, never a subject the peer has written."""
    return f"certificate {fingerprint_of(certificate)[:16]}"


def key_weakness(public_key: object, profile: PolicyProfile) -> str | None:
    """Why the profile does not accept this public key, or None."""
    if isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size < profile.minimum_rsa_bits:
            return f"RSA key of {public_key.key_size} bits, at least {profile.minimum_rsa_bits} are required"
        return None
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        if public_key.curve.name not in profile.curves:
            return f"EC key on curve {public_key.curve.name}, allowed are {', '.join(sorted(profile.curves))}"
        return None
    return f"{type(public_key).__name__} is neither an RSA nor an EC key"


def certificate_key_weakness(certificate: x509.Certificate, profile: PolicyProfile) -> str | None:
    """`key_weakness` of the certificate's key; a key cryptography cannot load is weak too."""
    try:
        public_key = certificate.public_key()
    except PARSE_ERRORS:
        return "the public key cannot be read"
    return key_weakness(public_key, profile)


def signature_weakness(
    signed: x509.Certificate | x509.CertificateRevocationList, profile: PolicyProfile
) -> str | None:
    """Why the profile does not accept the hash the issuer signed with, or None."""
    try:
        algorithm = signed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        algorithm = None
    name = algorithm.name if algorithm is not None else "an unknown algorithm"
    if name in profile.signature_hashes:
        return None
    return f"signed with {name}, allowed are {', '.join(sorted(profile.signature_hashes))}"


def usage_gap(certificate: x509.Certificate, usages: Iterable[Usage]) -> str | None:
    """Which of `usages` a leaf does not allow, or None.

    The extension must be there and must name the usage: an absent one would let a mail or code-signing
    certificate of the same CA open a trunk.

    Raises:
        One of PARSE_ERRORS: an extension cannot be parsed.
    """
    if is_ca(certificate):
        return "it is a CA certificate, not an end-entity certificate"
    extensions = certificate.extensions
    try:
        key_usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        pass
    else:
        if not key_usage.digital_signature:
            return "its key usage does not allow digital signatures"
    try:
        allowed = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return "it has no extended key usage"
    missing = sorted(usage.label for usage in usages if usage.value not in allowed)
    return f"its extended key usage lacks {', '.join(missing)}" if missing else None


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether basic constraints say CA and key usage, where present, allows signing certificates.

    Raises:
        One of PARSE_ERRORS: an extension cannot be parsed.
    """
    extensions = certificate.extensions
    try:
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
    except x509.ExtensionNotFound:
        return False
    try:
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the names and the signature say that `issuer` issued `certificate`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*PARSE_ERRORS, TypeError, InvalidSignature):
        return False
    return True


def is_self_signed_ca(certificate: x509.Certificate) -> bool:
    """Whether this is a root: a CA certificate that signed itself. Only such a one may be a trust anchor."""
    return (
        certificate.issuer == certificate.subject
        and is_ca(certificate)
        and is_issued_by(certificate, certificate)
    )


def utc_text(moment: datetime) -> str:
    """A moment as operators read it in messages."""
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")
