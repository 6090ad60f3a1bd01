"""Trust anchors, helper intermediates and revocation lists: loaded, checked, and never more trusted than meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from tls.certificate import (
    PARSE_ERRORS,
    certificate_key_weakness,
    is_ca,
    is_self_signed_ca,
    short_name_of,
    signature_weakness,
    utc_text,
)
from tls.errors import MaterialProblem, ProblemCode
from tls.settings import EXPIRY_WARNING, PolicyProfile
from tls.source import SourceFile

_OTHERS_MAY_WRITE: Final = 0o022
_CRL_BLOCK: Final = re.compile(rb"-----BEGIN X509 CRL-----\s.*?-----END X509 CRL-----", re.DOTALL)
_UNSUPPORTED_CRL_EXTENSIONS: Final = (x509.IssuingDistributionPoint, x509.DeltaCRLIndicator)
"""Lists that speak of a part of the certificates, or of changes only: reading one as a whole would miss entries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RevocationList:
    """One list and the trusted CA certificate whose key has signed it."""

    issuer: x509.Certificate
    crl: x509.CertificateRevocationList

    def speaks_of(self, issuer: x509.Certificate) -> bool:
        """Whether certificates issued by `issuer` (same name, same key) are this list's business."""
        return issuer.subject == self.issuer.subject and _key_bytes(issuer) == _key_bytes(self.issuer)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustStore:
    """What peers are judged by.

    `anchors` are self-signed CA certificates. `intermediates` only help to build a path. With
    `revocation_required` every certificate below an anchor needs a current list of its issuer.
    """

    anchors: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...] = ()
    revocation_lists: tuple[RevocationList, ...] = ()
    revocation_required: bool = False

    @property
    def anchors_pem(self) -> bytes:
        """The anchors alone, for TLS stacks that take every certificate they are given as an anchor."""
        return b"".join(anchor.public_bytes(serialization.Encoding.PEM) for anchor in self.anchors)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustInspection:
    """Outcome of reading trust and revocation files: the store is usable only when `problems` is empty."""

    store: TrustStore
    problems: tuple[MaterialProblem, ...]
    warnings: tuple[MaterialProblem, ...]


def inspect_trust(
    trust: SourceFile, crl: SourceFile | None, *, profile: PolicyProfile, now: datetime
) -> TrustInspection:
    """Sort the certificates of `trust` into anchors and intermediates, and match the lists of `crl` to them."""
    anchors: list[x509.Certificate] = []
    intermediates: list[x509.Certificate] = []
    problems = list(_writable_problems(trust))
    warnings: list[MaterialProblem] = []
    for certificate in _certificates(trust, problems):
        found = list(_trusted_certificate_problems(certificate, trust, profile))
        problems += found
        if found:
            continue
        (anchors if is_self_signed_ca(certificate) else intermediates).append(certificate)
    current = [anchor for anchor in anchors if _is_current(anchor, now)]
    warnings += [_dated_warning(anchor, trust, now) for anchor in anchors if _needs_warning(anchor, now)]
    if not current and not problems:
        problems.append(_no_anchor(trust, anchors))
    revocation_lists: tuple[RevocationList, ...] = ()
    if crl is not None:
        problems += _writable_problems(crl)
        revocation_lists = tuple(_revocation_lists(crl, (*anchors, *intermediates), profile, now, problems))
    store = TrustStore(
        anchors=tuple(anchors),
        intermediates=tuple(intermediates),
        revocation_lists=revocation_lists,
        revocation_required=crl is not None,
    )
    return TrustInspection(store=store, problems=tuple(problems), warnings=tuple(warnings))


def _certificates(trust: SourceFile, problems: list[MaterialProblem]) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(trust.data)
    except PARSE_ERRORS:
        problems.append(
            MaterialProblem(
                code=ProblemCode.NOT_PEM,
                path=trust.path,
                what="it holds no readable PEM certificates",
                cure="put the CA certificates that peers chain to there, in PEM",
            )
        )
        return []


def _trusted_certificate_problems(
    certificate: x509.Certificate, trust: SourceFile, profile: PolicyProfile
) -> Iterator[MaterialProblem]:
    name = short_name_of(certificate)
    try:
        authority = is_ca(certificate)
    except PARSE_ERRORS:
        yield MaterialProblem(
            code=ProblemCode.MALFORMED,
            path=trust.path,
            what=f"{name} has an unreadable extension",
            cure="remove it or have it issued anew",
        )
        return
    if not authority:
        yield MaterialProblem(
            code=ProblemCode.NOT_A_CA,
            path=trust.path,
            what=f"{name} is not a CA certificate and would not be trusted",
            cure="put the CA certificate that issued it there instead",
        )
        return
    checks = (
        (ProblemCode.WEAK_KEY, certificate_key_weakness(certificate, profile)),
        (ProblemCode.WEAK_SIGNATURE, signature_weakness(certificate, profile)),
    )
    for code, weakness in checks:
        if weakness is not None:
            yield MaterialProblem(
                code=code, path=trust.path, what=f"{name}: {weakness}", cure="use a CA of today's strength"
            )


def _no_anchor(trust: SourceFile, anchors: list[x509.Certificate]) -> MaterialProblem:
    if anchors:
        return MaterialProblem(
            code=ProblemCode.EXPIRED,
            path=trust.path,
            what="none of its CA certificates is valid today",
            cure="put a current CA certificate there",
        )
    return MaterialProblem(
        code=ProblemCode.NO_CA,
        path=trust.path,
        what="it holds no self-signed CA certificate",
        cure="add the root: an intermediate alone is never a trust anchor",
    )


def _is_current(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _needs_warning(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc > now or certificate.not_valid_after_utc - now < EXPIRY_WARNING


def _dated_warning(certificate: x509.Certificate, trust: SourceFile, now: datetime) -> MaterialProblem:
    name = short_name_of(certificate)
    if certificate.not_valid_before_utc > now:
        code, what = (
            ProblemCode.NOT_YET_VALID,
            f"CA {name} is valid from {utc_text(certificate.not_valid_before_utc)}",
        )
    elif certificate.not_valid_after_utc <= now:
        code, what = ProblemCode.EXPIRED, f"CA {name} expired at {utc_text(certificate.not_valid_after_utc)}"
    else:
        code, what = (
            ProblemCode.EXPIRING_SOON,
            f"CA {name} expires at {utc_text(certificate.not_valid_after_utc)}",
        )
    return MaterialProblem(code=code, path=trust.path, what=what, cure="renew or remove it")


def _revocation_lists(
    source: SourceFile,
    authorities: Iterable[x509.Certificate],
    profile: PolicyProfile,
    now: datetime,
    problems: list[MaterialProblem],
) -> Iterator[RevocationList]:
    blocks = _CRL_BLOCK.findall(source.data)
    if not blocks:
        problems.append(_crl_problem(ProblemCode.NOT_PEM, source, "it holds no PEM revocation list"))
    candidates = tuple(authorities)
    for number, block in enumerate(blocks, start=1):
        try:
            crl = x509.load_pem_x509_crl(block)
            fault = _crl_fault(crl, profile, now)
        except PARSE_ERRORS:
            fault = "cannot be parsed"
        if fault is not None:
            problems.append(_crl_problem(ProblemCode.CRL_UNUSABLE, source, f"list {number} {fault}"))
            continue
        issuer = next((candidate for candidate in candidates if _has_signed(candidate, crl)), None)
        if issuer is None:
            what = f"list {number} is not signed by a CA of the trust file"
            problems.append(_crl_problem(ProblemCode.CRL_UNSIGNED, source, what))
            continue
        yield RevocationList(issuer=issuer, crl=crl)


def _crl_fault(crl: x509.CertificateRevocationList, profile: PolicyProfile, now: datetime) -> str | None:
    if any(isinstance(extension.value, _UNSUPPORTED_CRL_EXTENSIONS) for extension in crl.extensions):
        return "covers a part of the certificates only; a complete list is required"
    weakness = signature_weakness(crl, profile)
    if weakness is not None:
        return f"is {weakness}"
    if crl.next_update_utc is None:
        return "has no next update, so its age cannot be judged"
    if crl.next_update_utc <= now:
        return f"expired at {utc_text(crl.next_update_utc)}"
    if crl.last_update_utc > now:
        return f"is valid from {utc_text(crl.last_update_utc)} only"
    return None


def _has_signed(candidate: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    if candidate.subject != crl.issuer:
        return False
    try:
        if not candidate.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
            return False
    except x509.ExtensionNotFound:
        pass
    try:
        return crl.is_signature_valid(candidate.public_key())  # type: ignore[arg-type] # any CA key; wrong kinds raise
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _crl_problem(code: ProblemCode, source: SourceFile, what: str) -> MaterialProblem:
    return MaterialProblem(
        code=code,
        path=source.path,
        what=what,
        cure="fetch the current complete list of each CA in the trust file",
    )


def _writable_problems(source: SourceFile) -> Iterator[MaterialProblem]:
    if source.mode & _OTHERS_MAY_WRITE:
        yield MaterialProblem(
            code=ProblemCode.WRITABLE_BY_OTHERS,
            path=source.path,
            what=f"mode {source.mode:04o} lets other users change whom we trust",
            cure=f"run: chmod go-w {source.path}",
        )


def _key_bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
