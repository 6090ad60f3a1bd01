"""Our own certificate, key and trust: loaded from files, judged whole, and frozen.

Every check runs on the bytes that were read once, so what was judged is what is used. All problems are
reported together:
an operator mends a directory in one go, not one error per start.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from tls.certificate import (
    PARSE_ERRORS,
    Usage,
    certificate_key_weakness,
    fingerprint_of,
    is_issued_by,
    short_name_of,
    signature_weakness,
    usage_gap,
    utc_text,
)
from tls.errors import MalformedIdentityError, MaterialError, MaterialProblem, ProblemCode
from tls.identity import SIPIdentity, identities_of
from tls.settings import EXPIRY_WARNING, TLS13_ONLY, PolicyProfile, TLSMaterialSettings
from tls.source import SourceFile, read_source
from tls.trust import TrustStore, inspect_trust

BOTH_USAGES: Final = frozenset(Usage)
"""A B2BUA is server on one leg and client on the other, with one certificate."""

_OTHERS_MAY_DO_ANYTHING: Final = 0o077
_ROOT_UID: Final = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TLSMaterial:
    """One endpoint's certificate chain, private key and trust, all checked. Times are aware UTC.

    `digest` identifies the exact bytes of all files. `warnings` are defects that do not forbid use, such as a
    certificate near its end.
    """

    settings: TLSMaterialSettings
    chain: tuple[x509.Certificate, ...]
    certificate_pem: bytes = field(repr=False)
    private_key_pem: bytes = field(repr=False)
    trust: TrustStore
    identities: frozenset[SIPIdentity]
    digest: bytes
    warnings: tuple[MaterialProblem, ...] = ()

    @property
    def leaf(self) -> x509.Certificate:
        """Our own certificate."""
        return self.chain[0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the leaf, lower-case hexadecimal."""
        return fingerprint_of(self.leaf)

    @property
    def not_after(self) -> datetime:
        """The moment the first certificate of our chain expires."""
        return min(certificate.not_valid_after_utc for certificate in self.chain)


@dataclass(frozen=True, kw_only=True, slots=True)
class MaterialFiles:
    """What reading the files of one `TLSMaterialSettings` gave: content, or the reason there is none."""

    settings: TLSMaterialSettings
    certificate: SourceFile | MaterialProblem
    private_key: SourceFile | MaterialProblem
    trust: SourceFile | MaterialProblem
    crl: SourceFile | MaterialProblem | None

    @property
    def digest(self) -> bytes:
        """Identifies the content of all files together, unreadable ones by their problem."""
        digest = hashlib.sha256()
        for source in (self.certificate, self.private_key, self.trust, self.crl):
            digest.update(source.digest if isinstance(source, SourceFile) else str(source).encode())
            # A mode or owner that was mended makes a refused set worth another look.
            state = f"{source.mode}:{source.owner_uid}" if isinstance(source, SourceFile) else ""
            digest.update(f"|{state}|".encode())
        return digest.digest()


def load_material(
    settings: TLSMaterialSettings,
    *,
    now: datetime,
    profile: PolicyProfile = TLS13_ONLY,
    usages: frozenset[Usage] = BOTH_USAGES,
) -> TLSMaterial:
    """Read and judge all files of `settings`.

    Raises:
        MaterialError: listing every problem of every file.
    """
    return judge_material(read_material(settings), now=now, profile=profile, usages=usages)


def read_material(settings: TLSMaterialSettings) -> MaterialFiles:
    """Read each file once, judging nothing."""
    return MaterialFiles(
        settings=settings,
        certificate=read_source(settings.certificate_path),
        private_key=read_source(settings.private_key_path),
        trust=read_source(settings.trust_path),
        crl=None if settings.crl_path is None else read_source(settings.crl_path),
    )


def judge_material(
    files: MaterialFiles,
    *,
    now: datetime,
    profile: PolicyProfile = TLS13_ONLY,
    usages: frozenset[Usage] = BOTH_USAGES,
) -> TLSMaterial:
    """Judge what `read_material` read.

    Raises:
        MaterialError: listing every problem of every file.
    """
    problems = [
        source
        for source in (files.certificate, files.private_key, files.trust, files.crl)
        if isinstance(source, MaterialProblem)
    ]
    warnings: list[MaterialProblem] = []
    chain: tuple[x509.Certificate, ...] = ()
    if isinstance(files.certificate, SourceFile):
        chain = _load_chain(files.certificate, problems)
        problems += _chain_problems(chain, files.certificate, profile, usages, now)
        warnings += _expiry_warnings(chain, files.certificate, now)
    if isinstance(files.private_key, SourceFile):
        problems += _key_problems(files.private_key, chain)
    trust = TrustStore(anchors=())
    if isinstance(files.trust, SourceFile):
        crl = files.crl if isinstance(files.crl, SourceFile) else None
        inspection = inspect_trust(files.trust, crl, profile=profile, now=now)
        trust = inspection.store
        problems += inspection.problems
        warnings += inspection.warnings
    if problems:
        raise MaterialError(problems)
    assert isinstance(files.certificate, SourceFile)
    assert isinstance(files.private_key, SourceFile)
    return TLSMaterial(
        settings=files.settings,
        chain=chain,
        certificate_pem=files.certificate.data,
        private_key_pem=files.private_key.data,
        trust=trust,
        identities=identities_of(chain[0], accept_ip=profile.accept_ip_identities),
        digest=files.digest,
        warnings=tuple(warnings),
    )


def load_trust(
    settings: TLSMaterialSettings, *, now: datetime, profile: PolicyProfile = TLS13_ONLY
) -> TrustStore:
    """Read and judge the trust and revocation files alone.

    Raises:
        MaterialError: listing every problem of both files.
    """
    sources = [read_source(path) for path in (settings.trust_path, settings.crl_path) if path is not None]
    problems = [source for source in sources if isinstance(source, MaterialProblem)]
    readable = [source for source in sources if isinstance(source, SourceFile)]
    if problems:
        raise MaterialError(problems)
    crl = readable[1] if settings.crl_path is not None else None
    inspection = inspect_trust(readable[0], crl, profile=profile, now=now)
    if inspection.problems:
        raise MaterialError(inspection.problems)
    return inspection.store


def _load_chain(source: SourceFile, problems: list[MaterialProblem]) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(source.data))
    except PARSE_ERRORS:
        problems.append(
            MaterialProblem(
                code=ProblemCode.NOT_PEM,
                path=source.path,
                what="it holds no readable PEM certificate",
                cure="put our certificate there in PEM, followed by its intermediates",
            )
        )
        return ()


def _chain_problems(
    chain: Sequence[x509.Certificate],
    source: SourceFile,
    profile: PolicyProfile,
    usages: frozenset[Usage],
    now: datetime,
) -> Iterator[MaterialProblem]:
    if not chain:
        return
    try:
        yield from _certificate_problems(chain, source, profile, now)
        yield from _leaf_problems(chain[0], source, usages)
    except PARSE_ERRORS:
        yield MaterialProblem(
            code=ProblemCode.MALFORMED,
            path=source.path,
            what="a certificate has a part that cannot be parsed",
            cure="have it issued anew",
        )
    for number, (lower, upper) in enumerate(pairwise(chain), start=1):
        if not is_issued_by(lower, upper):
            yield MaterialProblem(
                code=ProblemCode.BROKEN_CHAIN,
                path=source.path,
                what=f"certificate {number} was not issued by certificate {number + 1}",
                cure="order the file leaf first, each certificate followed by the one that issued it",
            )
    between = sum(certificate.issuer != certificate.subject for certificate in chain[1:])
    if between > profile.max_chain_depth:
        yield MaterialProblem(
            code=ProblemCode.TOO_DEEP,
            path=source.path,
            what=f"{between} intermediates are more than the profile's depth of {profile.max_chain_depth}",
            cure="use a shorter chain",
        )


def _certificate_problems(
    chain: Sequence[x509.Certificate], source: SourceFile, profile: PolicyProfile, now: datetime
) -> Iterator[MaterialProblem]:
    for certificate in chain:
        name = short_name_of(certificate)
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        checks = (
            (ProblemCode.EXPIRED, f"it expired at {utc_text(end)}" if end <= now else None),
            (ProblemCode.NOT_YET_VALID, f"it is valid from {utc_text(start)}" if now < start else None),
            (ProblemCode.WEAK_KEY, certificate_key_weakness(certificate, profile)),
            (ProblemCode.WEAK_SIGNATURE, signature_weakness(certificate, profile)),
        )
        for code, fault in checks:
            if fault is not None:
                yield MaterialProblem(
                    code=code, path=source.path, what=f"{name}: {fault}", cure=_CURES.get(code, _RENEW)
                )


_RENEW: Final = "have it issued anew with an RSA key of 2048 bits or a P-256 key, signed with SHA-256"
_CURES: Final = {
    ProblemCode.EXPIRED: "renew it",
    ProblemCode.NOT_YET_VALID: "wait, or set this machine's clock",
}


def _leaf_problems(
    leaf: x509.Certificate, source: SourceFile, usages: frozenset[Usage]
) -> Iterator[MaterialProblem]:
    gap = usage_gap(leaf, usages)
    if gap is not None:
        labels = ", ".join(sorted(usage.label for usage in usages))
        yield MaterialProblem(
            code=ProblemCode.WRONG_USAGE,
            path=source.path,
            what=f"our certificate will be refused: {gap}",
            cure=f"have it issued for {labels}",
        )
    try:
        identities = identities_of(leaf, accept_ip=True)
    except MalformedIdentityError as error:
        what, named = str(error), False
    else:
        what, named = "our certificate names no SIP domain, DNS host or address", bool(identities)
    if not named:
        yield MaterialProblem(
            code=ProblemCode.NO_IDENTITY,
            path=source.path,
            what=what,
            cure="have it issued with a subject alternative name: URI sip:<domain> or DNS <host>",
        )


def _expiry_warnings(
    chain: Sequence[x509.Certificate], source: SourceFile, now: datetime
) -> Iterator[MaterialProblem]:
    for certificate in chain:
        end = certificate.not_valid_after_utc
        if now < end and end - now < EXPIRY_WARNING:
            yield MaterialProblem(
                code=ProblemCode.EXPIRING_SOON,
                path=source.path,
                what=f"{short_name_of(certificate)} expires at {utc_text(end)}",
                cure="renew it",
            )


def _key_problems(source: SourceFile, chain: Sequence[x509.Certificate]) -> Iterator[MaterialProblem]:
    if source.mode & _OTHERS_MAY_DO_ANYTHING:
        yield MaterialProblem(
            code=ProblemCode.KEY_EXPOSED,
            path=source.path,
            what=f"mode {source.mode:04o} gives the private key to other users",
            cure=f"run: chmod 0600 {source.path}, and replace the key if others could read it",
        )
    # root may hand keys to a service (systemd credentials); nobody else may own what identifies us.
    if source.owner_uid not in (os.geteuid(), _ROOT_UID):
        yield MaterialProblem(
            code=ProblemCode.KEY_FOREIGN_OWNER,
            path=source.path,
            what=f"user id {source.owner_uid} owns the private key, we run as {os.geteuid()}",
            cure=f"run: chown {os.geteuid()} {source.path}",
        )
    key = _load_key(source)
    if isinstance(key, MaterialProblem):
        yield key
    elif chain and not _key_fits(key, chain[0]):
        yield MaterialProblem(
            code=ProblemCode.KEY_MISMATCH,
            path=source.path,
            what="the private key does not belong to the first certificate of the certificate file",
            cure="install the key and the certificate that were made together",
        )


def _load_key(source: SourceFile) -> PrivateKeyTypes | MaterialProblem:
    code, what = ProblemCode.NOT_PEM, "it holds no readable PEM private key"
    try:
        return serialization.load_pem_private_key(source.data, password=None)
    except TypeError:
        code, what = ProblemCode.KEY_ENCRYPTED, "the private key is encrypted with a passphrase"
    except (ValueError, UnsupportedAlgorithm):
        pass
    cure = "store an unencrypted PKCS#8 key with mode 0600, on an encrypted or memory file system"
    return MaterialProblem(code=code, path=source.path, what=what, cure=cure)


def _key_fits(key: PrivateKeyTypes, certificate: x509.Certificate) -> bool:
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        return key.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)
    except PARSE_ERRORS:
        return False
