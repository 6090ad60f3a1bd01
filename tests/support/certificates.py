"""Certificates for tests: good ones, and one deliberately bad one for each reason to refuse.

    issuer = Issuer(tmp_path)                       # a fresh root CA in tmp_path
    files = issuer.material("edge", "edge.example") # writes edge.pem, edge.key; returns TLSMaterialSettings
    bad = issuer.material("late", "edge.example", Flaw.EXPIRED)
    issuer.revoke("edge"); crl_path = issuer.write_crl()

Everything takes explicit times, so a test can stand still at `issuer.now`.
"""

from __future__ import annotations

import enum
import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tls.settings import TLSMaterialSettings

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
DAY = timedelta(days=1)

_SHA256_WITH_RSA = bytes.fromhex("06092a864886f70d01010b")
_SHA1_WITH_RSA = bytes.fromhex("06092a864886f70d010105")
_SHA256_WITH_ECDSA = bytes.fromhex("06082a8648ce3d040302")


class Flaw(enum.Enum):
    """What is wrong with a certificate; everything else about it is right."""

    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    CN_ONLY = "common name only, no subject alternative name"
    NUL_IN_NAME = "DNS name continues after a NUL"
    NUL_IN_URI = "sip URI continues after a NUL"
    WILDCARD = "wildcard names only"
    WEAK_RSA = "RSA key of 1024 bits"
    WEAK_CURVE = "EC key on P-192"
    NO_EKU = "no extended key usage"
    CLIENT_ONLY = "extended key usage clientAuth only"
    SERVER_ONLY = "extended key usage serverAuth only"
    EMAIL_ONLY = "extended key usage emailProtection only"
    NO_SIGNING = "key usage without digitalSignature"
    IS_CA = "a CA certificate used as end entity"
    USER_URI = "sip URI with a user part only"


@dataclass(kw_only=True)
class Recipe:
    """Everything that goes into one certificate; flaws are changes to it."""

    subject: str
    names: list[x509.GeneralName]
    key: PrivateKey
    start: datetime
    end: datetime
    usages: Sequence[x509.ObjectIdentifier] | None = BOTH
    ca: bool = False
    path_length: int | None = None
    digital_signature: bool = True
    serial: int | None = None


@dataclass(kw_only=True)
class Entity:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def new_key(curve: str = "secp256r1") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key({"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1()}[curve])


def sip_names(*hosts: str) -> list[x509.GeneralName]:
    """A sip URI and a DNS name for each host; an IP literal becomes an IP name."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names += [x509.UniformResourceIdentifier(f"sip:{host}"), x509.DNSName(host)]
    return names


def write_private(path: Path, data: bytes) -> Path:
    """Write a file that only we can read, replacing what is there."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
    return path


@dataclass
class Issuer:
    """A root CA, optionally with intermediates below it, writing into one directory."""

    directory: Path
    name: str = "Test Root"
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    depth: int = 0
    rsa: bool = False
    rsa_bits: int = 2048
    ca_usages: Sequence[x509.ObjectIdentifier] | None = None
    ca_lifetime: timedelta = 365 * DAY
    ca_names: Sequence[x509.GeneralName] = ()
    intermediate_curve: str = "secp256r1"

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.revoked: list[int] = []
        self.entities: dict[str, Entity] = {}
        key: PrivateKey = rsa.generate_private_key(65537, self.rsa_bits) if self.rsa else new_key()
        self.root = self._sign(self._ca_recipe(self.name, key), None)
        self.intermediates: list[Entity] = []
        for number in range(self.depth):
            recipe = self._ca_recipe(
                f"{self.name} Intermediate {number + 1}", new_key(self.intermediate_curve)
            )
            self.intermediates.append(self._sign(recipe, self.signer))

    @property
    def signer(self) -> Entity:
        """The CA that signs leaves: the lowest intermediate, or the root."""
        return self.intermediates[-1] if self.intermediates else self.root

    def signed_ca(self, name: str, certificate: x509.Certificate, key_path: Path) -> Entity:
        """A subordinate CA signed with a CA kept elsewhere."""
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return self._sign(self._ca_recipe(name, new_key()), Entity(certificate=certificate, key=key))

    def twin_of_root(self) -> Entity:
        """Another certificate for the root's name and key, signed by it."""
        return self._sign(self._ca_recipe(self.name, self.root.key), self.root)

    def signed_by_same_key(self, name: str) -> Entity:
        """A root of another name on the root's key."""
        return self._sign(self._ca_recipe(name, self.root.key), None)

    def below(self, entity: Entity) -> Issuer:
        """An issuer that signs leaves with `entity`, whatever that is."""
        lower = Issuer(self.directory, name=f"{self.name} below", now=self.now)
        lower.root, lower.intermediates = self.root, [entity]
        return lower

    @property
    def slug(self) -> str:
        return self.name.lower().replace(" ", "-")

    @property
    def trust_path(self) -> Path:
        """File with the root alone."""
        path = self.directory / f"{self.slug}.pem"
        if not path.exists():
            path.write_bytes(self.root.pem)
            path.chmod(0o644)
        return path

    def write_trust(self, name: str, *entities: Entity | bytes) -> Path:
        """A trust file with exactly these certificates."""
        path = self.directory / name
        path.write_bytes(b"".join(entity if isinstance(entity, bytes) else entity.pem for entity in entities))
        path.chmod(0o644)
        return path

    def entity(self, name: str, *hosts: str, flaw: Flaw | None = None) -> Entity:
        """Issue a leaf for `hosts` without writing it."""
        entity = self._sign(
            self._flawed(self._recipe(name, hosts or (f"{name}.example",)), flaw), self.signer
        )
        self.entities[name] = entity
        return entity

    def issue(
        self, name: str, names: Sequence[x509.GeneralName], *, lifetime: timedelta = 30 * DAY
    ) -> Entity:
        """Issue a leaf with exactly these subject alternative names."""
        recipe = replace(self._recipe(name, ()), names=list(names), end=self.now + lifetime)
        self.entities[name] = self._sign(recipe, self.signer)
        return self.entities[name]

    def with_key(self, name: str, key: PrivateKey, *hosts: str) -> Entity:
        """A leaf on a key of the caller's making."""
        self.entities[name] = self._sign(replace(self._recipe(name, hosts), key=key), self.signer)
        return self.entities[name]

    def sha1_entity(self, name: str, *hosts: str) -> Entity:
        """A leaf signed with SHA-1, which the library refuses to make: re-signed by hand. Needs `rsa=True`."""
        signer = self.signer.key
        assert isinstance(signer, rsa.RSAPrivateKey), "SHA-1 leaves come from an Issuer(rsa=True)"
        entity = self.entity(name, *hosts)
        body = entity.certificate.tbs_certificate_bytes.replace(_SHA256_WITH_RSA, _SHA1_WITH_RSA)
        signature = signer.sign(body, padding.PKCS1v15(), hashes.SHA1())
        return self._assemble(name, entity.key, body, _SHA1_WITH_RSA + b"\x05\x00", signature)

    def zero_serial_entity(self, name: str, *hosts: str) -> Entity:
        """A leaf with serial number 0, which the library refuses to make."""
        signer = self.signer.key
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        recipe = replace(self._recipe(name, hosts), serial=0x0102)
        entity = self._sign(recipe, self.signer)
        # Four bytes of header, then the content; a zero takes one byte less, so the length is made anew.
        content = entity.certificate.tbs_certificate_bytes[4:]
        body = _sequence(content.replace(b"\x02\x02\x01\x02", b"\x02\x01\x00", 1))
        signature = signer.sign(body, ec.ECDSA(hashes.SHA256()))
        return self._assemble(name, entity.key, body, _SHA256_WITH_ECDSA, signature)

    def _assemble(
        self, name: str, key: PrivateKey, body: bytes, algorithm: bytes, signature: bytes
    ) -> Entity:
        bits = b"\x03" + _length(len(signature) + 1) + b"\x00" + signature
        der = _sequence(body + _sequence(algorithm) + bits)
        self.entities[name] = Entity(certificate=x509.load_der_x509_certificate(der), key=key)
        return self.entities[name]

    def material(
        self, name: str, *hosts: str, flaw: Flaw | None = None, crl_path: Path | None = None
    ) -> TLSMaterialSettings:
        """Issue a leaf, write its chain and key, and return the paths with this CA as trust."""
        return self.write(name, self.entity(name, *hosts, flaw=flaw), crl_path=crl_path)

    def write(self, name: str, entity: Entity, *, crl_path: Path | None = None) -> TLSMaterialSettings:
        """Write an entity's chain and key."""
        certificate_path = self.directory / f"{name}.pem"
        certificate_path.write_bytes(b"".join(self.chain(entity)))
        return TLSMaterialSettings(
            certificate_path=certificate_path,
            private_key_path=write_private(self.directory / f"{name}.key", entity.key_pem),
            trust_path=self.trust_path,
            crl_path=crl_path,
        )

    def chain(self, entity: Entity) -> list[bytes]:
        """PEM of the leaf and its intermediates, root excluded."""
        return [entity.pem, *(intermediate.pem for intermediate in reversed(self.intermediates))]

    def revoke(self, name: str) -> None:
        """Put the last leaf issued under `name` on the next list."""
        self.revoked.append(self.entities[name].certificate.serial_number)

    def crl(
        self,
        *,
        signer: Entity | None = None,
        key: PrivateKey | None = None,
        start: datetime | None = None,
        lifetime: timedelta = 7 * DAY,
        extension: x509.ExtensionType | None = None,
    ) -> bytes:
        """A revocation list of the signing CA, or of another entity; `key` forges the signature."""
        authority = signer or self.signer
        start = start or self.now - timedelta(hours=1)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.certificate.subject)
            .last_update(start)
            .next_update(start + lifetime)
        )
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start).build()
            builder = builder.add_revoked_certificate(entry)
        if extension is not None:
            builder = builder.add_extension(extension, critical=True)
        crl = builder.sign(key or authority.key, hashes.SHA256())
        return crl.public_bytes(serialization.Encoding.PEM)

    def write_crl(self, name: str = "crl.pem", *lists: bytes) -> Path:
        """Write these lists, or one of the signing CA as it stands."""
        path = self.directory / name
        path.write_bytes(b"".join(lists) if lists else self.crl())
        path.chmod(0o644)
        return path

    def _recipe(self, name: str, hosts: Sequence[str]) -> Recipe:
        return Recipe(
            subject=hosts[0] if hosts else name,
            names=sip_names(*hosts),
            key=new_key(),
            start=self.now - DAY,
            end=self.now + 30 * DAY,
        )

    def _ca_recipe(self, name: str, key: PrivateKey) -> Recipe:
        return Recipe(
            subject=name,
            names=list(self.ca_names),
            key=key,
            start=self.now - 2 * DAY,
            end=self.now + self.ca_lifetime,
            usages=self.ca_usages,
            ca=True,
            digital_signature=False,
        )

    def _flawed(self, recipe: Recipe, flaw: Flaw | None) -> Recipe:
        return recipe if flaw is None else _FLAWS[flaw](recipe, self.now)

    def _sign(self, recipe: Recipe, issuer: Entity | None) -> Entity:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, recipe.subject)])
        issuer_key = issuer.key if issuer else recipe.key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(recipe.key.public_key())
            .serial_number(recipe.serial or x509.random_serial_number())
            .not_valid_before(recipe.start)
            .not_valid_after(recipe.end)
            .add_extension(x509.BasicConstraints(ca=recipe.ca, path_length=recipe.path_length), critical=True)
            .add_extension(_key_usage(recipe), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(recipe.key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
            )
        )
        if recipe.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(recipe.names), critical=False)
        if recipe.usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(recipe.usages)), critical=False)
        return Entity(certificate=builder.sign(issuer_key, hashes.SHA256()), key=recipe.key)


def _key_usage(recipe: Recipe) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=recipe.digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not recipe.digital_signature and not recipe.ca,
        key_cert_sign=recipe.ca,
        crl_sign=recipe.ca,
        encipher_only=False,
        decipher_only=False,
    )


def _length(count: int) -> bytes:
    """A DER length."""
    if count < 0x80:
        return bytes([count])
    octets = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def _sequence(content: bytes) -> bytes:
    return b"\x30" + _length(len(content)) + content


def _named(*names: x509.GeneralName) -> Callable[[Recipe, datetime], Recipe]:
    return lambda recipe, _now: replace(recipe, names=list(names))


def _nul_in_name(recipe: Recipe, _now: datetime) -> Recipe:
    return replace(recipe, names=[x509.DNSName(f"{recipe.subject}\0.attacker.example")])


def _nul_in_uri(recipe: Recipe, _now: datetime) -> Recipe:
    uri = x509.UniformResourceIdentifier(f"sip:{recipe.subject}\0.attacker.example")
    return replace(recipe, names=[uri, x509.DNSName(recipe.subject)])


def _wildcard(recipe: Recipe, _now: datetime) -> Recipe:
    return replace(recipe, names=sip_names(f"*.{recipe.subject.partition('.')[2]}"))


def _user_uri(recipe: Recipe, _now: datetime) -> Recipe:
    return replace(recipe, names=[x509.UniformResourceIdentifier(f"sip:+15550100@{recipe.subject}")])


_FLAWS: dict[Flaw, Callable[[Recipe, datetime], Recipe]] = {
    Flaw.EXPIRED: lambda recipe, now: replace(recipe, end=now - timedelta(seconds=1)),
    Flaw.NOT_YET_VALID: lambda recipe, now: replace(recipe, start=now + timedelta(seconds=1)),
    Flaw.CN_ONLY: _named(),
    Flaw.NUL_IN_NAME: _nul_in_name,
    Flaw.NUL_IN_URI: _nul_in_uri,
    Flaw.WILDCARD: _wildcard,
    Flaw.WEAK_RSA: lambda recipe, _now: replace(recipe, key=rsa.generate_private_key(65537, 1024)),
    Flaw.WEAK_CURVE: lambda recipe, _now: replace(recipe, key=ec.generate_private_key(ec.SECP192R1())),
    Flaw.NO_EKU: lambda recipe, _now: replace(recipe, usages=None),
    Flaw.CLIENT_ONLY: lambda recipe, _now: replace(recipe, usages=[ExtendedKeyUsageOID.CLIENT_AUTH]),
    Flaw.SERVER_ONLY: lambda recipe, _now: replace(recipe, usages=[ExtendedKeyUsageOID.SERVER_AUTH]),
    Flaw.EMAIL_ONLY: lambda recipe, _now: replace(recipe, usages=[ExtendedKeyUsageOID.EMAIL_PROTECTION]),
    Flaw.NO_SIGNING: lambda recipe, _now: replace(recipe, digital_signature=False),
    Flaw.IS_CA: lambda recipe, _now: replace(recipe, ca=True),
    Flaw.USER_URI: _user_uri,
}
