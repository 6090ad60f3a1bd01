"""Recipients of sealed exports: certificates with their keys, good and bad, and stock OpenSSL as who opens."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientFiles:
    """A certificate and its key, in PEM files."""

    certificate: Path
    key: Path

    def open(self, message: Path, output: Path) -> subprocess.CompletedProcess[str]:
        """`openssl cms -decrypt`, as anybody would type it."""
        return subprocess.run(
            ["openssl", "cms", "-decrypt", "-inform", "DER", "-in", str(message), "-out", str(output),
             "-recip", str(self.certificate), "-inkey", str(self.key)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


def make_recipient(
    directory: Path,
    name: str,
    key: Key,
    *,
    usages: Sequence[str] | None = ("key_encipherment", "key_agreement"),
    ca: bool | None = False,
    key_id: bool = True,
    start: datetime = NOW - DAY,
    end: datetime = NOW + 90 * DAY,
) -> RecipientFiles:
    """A self-signed certificate. `usages` None, `ca` None: without that extension."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Klinik am Berg, Äußere Straße"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if usages is not None:
        flags = {usage: usage in usages for usage in _USAGES}
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if key_id:
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(key, algorithm)
    files = RecipientFiles(certificate=directory / f"{name}.pem", key=directory / f"{name}.key")
    files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files
