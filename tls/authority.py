"""The development CA: enough of one to run the demo, the tests and a first trunk. Not a CA for patients' calls.

Keys are P-256, signatures ECDSA with SHA-256. The CA may issue end-entity certificates only (path length 0), its name
carries the word "development", and neither it nor a leaf is ever overwritten.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tls.certificate import PARSE_ERRORS, Usage, fingerprint_of, is_self_signed_ca, utc_text
from tls.errors import AuthorityError, MaterialProblem
from tls.identity import NameKind, parse_identity
from tls.settings import TLSMaterialSettings
from tls.source import read_source

CA_LIFETIME: Final = timedelta(days=365)
LEAF_LIFETIME: Final = timedelta(days=90)
CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far before its issue a certificate starts, so that a machine with a slow clock accepts it."""

CA_CERTIFICATE_NAME: Final = "development-ca.pem"
CA_KEY_NAME: Final = "development-ca.key"
_LEAF_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}", re.ASCII)
_PRIVATE_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o700


@dataclass(frozen=True, kw_only=True, slots=True)
class DevelopmentAuthority:
    """A development CA kept in a directory. Build it with `create` or `load`, not directly.

    The private key is read for each signature and not held in between.
    """

    directory: Path
    certificate: x509.Certificate

    @property
    def certificate_path(self) -> Path:
        """The CA certificate, which peers put in their trust file."""
        return self.directory / CA_CERTIFICATE_NAME

    @classmethod
    def create(cls, directory: Path, *, now: datetime, name: str = "sealtrunk") -> DevelopmentAuthority:
        """Make a new CA in `directory`, which is created with mode 0700 if it does not exist.

        Raises:
            AuthorityError: a CA is there already, or the directory cannot be written.
        """
        _make_directory(directory)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"{name} development CA, not for production")]
        )
        certificate = (
            _builder(subject, subject, key.public_key(), key.public_key(), now, CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_pair(directory / CA_KEY_NAME, key, directory / CA_CERTIFICATE_NAME, _pem(certificate))
        return cls(directory=directory, certificate=certificate)

    @classmethod
    def load(cls, directory: Path, *, now: datetime) -> DevelopmentAuthority:
        """Take up the CA that `create` made in `directory`.

        Raises:
            AuthorityError: there is none, it cannot be read, is no root, or has expired.
        """
        path = directory / CA_CERTIFICATE_NAME
        source = read_source(path)
        if isinstance(source, MaterialProblem):
            raise AuthorityError(str(source))
        try:
            certificate = x509.load_pem_x509_certificate(source.data)
            usable = is_self_signed_ca(certificate)
        except PARSE_ERRORS as error:
            raise AuthorityError(f"{path}: it holds no readable certificate; create the CA anew") from error
        if not usable:
            raise AuthorityError(f"{path}: it is not a self-signed CA certificate; create the CA anew")
        if certificate.not_valid_after_utc <= now:
            end = utc_text(certificate.not_valid_after_utc)
            raise AuthorityError(f"{path}: the CA expired at {end}; create one in another directory")
        authority = cls(directory=directory, certificate=certificate)
        authority._private_key()
        return authority

    def issue(
        self,
        name: str,
        *,
        now: datetime,
        sip_identities: Sequence[str],
        ip_addresses: Sequence[str] = (),
        usages: frozenset[Usage] = frozenset(Usage),
        lifetime: timedelta = LEAF_LIFETIME,
    ) -> TLSMaterialSettings:
        """Issue a certificate and write `<name>.pem` and `<name>.key` (0600) beside the CA.

        Each SIP identity, a domain name, becomes a `sip:` URI and a DNS name of the certificate. Returns the paths
        of the new pair with the CA certificate as trust file.

        Raises:
            AuthorityError: the name is unfit or taken, the lifetime outlasts the CA, or a file cannot be written.
            MalformedIdentityError: an identity is not a domain name.
        """
        if not _LEAF_NAME.fullmatch(name):
            raise AuthorityError(
                f"{name!r} does not do as a file name: use a-z, 0-9, dot and hyphen, at most 64"
            )
        if now + lifetime > self.certificate.not_valid_after_utc:
            end = utc_text(self.certificate.not_valid_after_utc)
            raise AuthorityError(
                f"the CA ends at {end}, before the certificate would; give a shorter lifetime"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        signing_key = self._private_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} (development)"[:64])])
        certificate = (
            _builder(
                subject, self.certificate.subject, key.public_key(), signing_key.public_key(), now, lifetime
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(sorted((usage.value for usage in usages), key=str)), critical=False
            )
            .add_extension(x509.SubjectAlternativeName(_names(sip_identities, ip_addresses)), critical=False)
            .sign(signing_key, hashes.SHA256())
        )
        settings = TLSMaterialSettings(
            certificate_path=self.directory / f"{name}.pem",
            private_key_path=self.directory / f"{name}.key",
            trust_path=self.certificate_path,
        )
        _write_pair(settings.private_key_path, key, settings.certificate_path, _pem(certificate))
        return settings

    def _private_key(self) -> ec.EllipticCurvePrivateKey:
        path = self.directory / CA_KEY_NAME
        source = read_source(path)
        if isinstance(source, MaterialProblem):
            raise AuthorityError(str(source))
        if source.mode & 0o077:
            raise AuthorityError(f"{path}: mode {source.mode:04o} exposes the CA key; create the CA anew")
        try:
            key = serialization.load_pem_private_key(source.data, password=None)
        except (*PARSE_ERRORS, TypeError) as error:
            raise AuthorityError(f"{path}: it holds no readable private key; create the CA anew") from error
        if (
            not isinstance(key, ec.EllipticCurvePrivateKey)
            or key.public_key() != self.certificate.public_key()
        ):
            ending = fingerprint_of(self.certificate)[:16]
            raise AuthorityError(
                f"{path}: the key is not that of CA certificate {ending}; create the CA anew"
            )
        return key


def _names(sip_identities: Sequence[str], ip_addresses: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for text in sip_identities:
        identity = parse_identity(text)
        if identity.source is not NameKind.DNS:
            raise AuthorityError(f"{text!r} is an address: SIP identities are domain names, see ip_addresses")
        names += [x509.UniformResourceIdentifier(f"sip:{identity.host}"), x509.DNSName(identity.host)]
    for text in ip_addresses:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError as error:
            raise AuthorityError(f"{text!r} is not an IP address") from error
    if not names:
        raise AuthorityError(
            "a certificate without a name identifies nobody: give a SIP identity or an IP address"
        )
    return names


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise AuthorityError(f"{directory}: it cannot be created ({error.strerror})") from error


def _write_pair(
    key_path: Path, key: ec.EllipticCurvePrivateKey, certificate_path: Path, certificate_pem: bytes
) -> None:
    """Write both files or neither; refuse when either exists."""
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_new(key_path, key_pem, _PRIVATE_MODE)
    try:
        _write_new(certificate_path, certificate_pem, _PUBLIC_MODE)
    except AuthorityError:
        key_path.unlink()
        raise


def _write_new(path: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, mode), "wb") as stream:
            # The mode given to open() is cut by the umask; a certificate must stay readable, a key must not grow.
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError as error:
        raise AuthorityError(
            f"{path}: it exists and is never overwritten; remove it or choose another name"
        ) from error
    except OSError as error:
        raise AuthorityError(f"{path}: it cannot be written ({error.strerror})") from error
