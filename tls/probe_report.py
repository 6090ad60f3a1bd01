"""What a probe finds out, and what a policy profile holds against it. Pure; `probe` runs the handshakes."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from tls.certificate import fingerprint_of, utc_text
from tls.errors import PeerRefusedError
from tls.identity import SIPIdentity
from tls.settings import CipherSuite, PolicyProfile, TLSVersion


class Answer(enum.Enum):
    """What a server made of an offer."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNTESTABLE = "untestable"
    """Our own library cannot make the offer."""


class Ending(enum.Enum):
    """How a probing handshake ended."""

    OPEN = "open"
    """Established, and still open when the patience ran out."""
    CLOSED = "closed"
    """Established, then closed by the server without an alert."""
    ALERTED = "alerted"
    """Ended by an alert or a close before it was established, or by an alert afterwards."""
    NOT_OFFERED = "not-offered"
    """Our own library refused to begin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialogue:
    """One handshake with a server. `detail` is OpenSSL's word for its end, such as an alert's name."""

    ending: Ending
    detail: str
    established: bool
    cipher_name: str | None
    group_name: str | None
    certificate_requested: bool
    certificate_received: bool
    tickets: int
    chain: tuple[x509.Certificate, ...]

    @property
    def answer(self) -> Answer:
        """Whether the server took the offered version and suite; it may still refuse us afterwards."""
        if self.ending is Ending.NOT_OFFERED:
            return Answer.UNTESTABLE
        return Answer.ACCEPTED if self.established or self.certificate_received else Answer.REFUSED


class ClientCertificateDemand(enum.Enum):
    """What the server does about client certificates."""

    REQUIRED = "required"
    REQUESTED = "requested"
    NOT_REQUESTED = "not-requested"


class FindingCode(enum.Enum):
    """What a probe may hold against a server."""

    OLD_VERSION = "old-version"
    NO_TLS_1_3 = "no-tls-1.3"
    SUITE_BEYOND_PROFILE = "suite-beyond-profile"
    CLIENT_CERTIFICATE_NOT_REQUIRED = "client-certificate-not-required"
    TICKETS_ISSUED = "tickets-issued"
    SESSION_RESUMED = "session-resumed"
    PEER_REFUSED = "peer-refused"
    OUR_CERTIFICATE_REFUSED = "our-certificate-refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One way in which a server falls short of the profile."""

    code: FindingCode
    what: str

    def __str__(self) -> str:
        return f"{self.code.value}: {self.what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionOutcome:
    """What came of offering exactly one protocol version."""

    version: TLSVersion
    answer: Answer
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeReport:
    """What a server really offers.

    `chain` is as presented, leaf first; nothing about it is trusted by itself. `group` is the key exchange a TLS 1.3
    handshake settled on. `refusal` is the judgement of the verifier that was given to the probe, None if it accepted
    or there was none.
    """

    host: str
    port: int
    versions: tuple[VersionOutcome, ...]
    cipher_suites: tuple[CipherSuite, ...]
    group: str | None
    client_certificate: ClientCertificateDemand
    our_certificate_accepted: bool | None
    tickets: int
    resumed: bool
    chain: tuple[x509.Certificate, ...]
    identities: frozenset[SIPIdentity]
    refusal: PeerRefusedError | None
    findings: tuple[Finding, ...] = ()

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the leaf, lower-case hexadecimal; None if no handshake got as far as a certificate."""
        return fingerprint_of(self.chain[0]) if self.chain else None

    @property
    def not_after(self) -> datetime | None:
        """End of the leaf, aware UTC."""
        return self.chain[0].not_valid_after_utc if self.chain else None

    @property
    def accepted_versions(self) -> frozenset[TLSVersion]:
        """The versions the server took up."""
        return frozenset(each.version for each in self.versions if each.answer is Answer.ACCEPTED)

    def lines(self) -> tuple[str, ...]:
        """The report as an operator reads it, one fact a line."""
        end = self.not_after
        facts = [
            *(f"{each.version.label}: {each.answer.value} {each.detail}".rstrip() for each in self.versions),
            f"cipher suites: {_joined(suite.name for suite in self.cipher_suites)}",
            f"group: {self.group or 'none'}",
            f"client certificate: {self.client_certificate.value}",
            f"session tickets: {self.tickets}, resumption: {'yes' if self.resumed else 'no'}",
            f"identities: {_joined(sorted(identity.host for identity in self.identities))}",
            f"certificate: {self.fingerprint or 'none'}, until {utc_text(end) if end else 'unknown'}",
        ]
        return (*facts, *(f"FINDING {finding}" for finding in self.findings))


def demand_of(bare: Dialogue) -> ClientCertificateDemand:
    """What a server demands, from a dialogue in which we had no certificate to show."""
    if not bare.certificate_requested:
        return ClientCertificateDemand.NOT_REQUESTED
    if bare.ending is Ending.OPEN:
        return ClientCertificateDemand.REQUESTED
    return ClientCertificateDemand.REQUIRED


def findings_of(report: ProbeReport, profile: PolicyProfile) -> tuple[Finding, ...]:
    """Everything in `report` that `profile` does not allow."""
    found = [
        Finding(code=FindingCode.OLD_VERSION, what=f"{version.label} is accepted")
        for version in TLSVersion
        if version in report.accepted_versions and version.value < profile.minimum_version.value
    ]
    surplus_suites = [suite.name for suite in report.cipher_suites if suite not in profile.cipher_suites]
    checks = (
        (
            TLSVersion.TLS_1_3 not in report.accepted_versions,
            FindingCode.NO_TLS_1_3,
            "TLS 1.3 is not accepted",
        ),
        (bool(surplus_suites), FindingCode.SUITE_BEYOND_PROFILE, _joined(surplus_suites)),
        (
            report.client_certificate is not ClientCertificateDemand.REQUIRED,
            FindingCode.CLIENT_CERTIFICATE_NOT_REQUIRED,
            f"a client without a certificate gets in (certificate {report.client_certificate.value})",
        ),
        (report.tickets > 0, FindingCode.TICKETS_ISSUED, f"{report.tickets} session tickets were sent"),
        (
            report.resumed,
            FindingCode.SESSION_RESUMED,
            "a session was resumed: the client's certificate was not looked at again",
        ),
        (
            report.our_certificate_accepted is False,
            FindingCode.OUR_CERTIFICATE_REFUSED,
            "the server closed the connection that showed our certificate",
        ),
        (report.refusal is not None, FindingCode.PEER_REFUSED, str(report.refusal)),
    )
    return (*found, *(Finding(code=code, what=what) for failed, code, what in checks if failed))


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
