"""What can go wrong in `tls`, split by what the catcher does next.

    TLSError                        50  root, never raised itself
    +-- MaterialError               51  our own files are wrong: mend every listed problem, start again
    +-- PeerRefusedError            52  the peer's certificate is not acceptable: close the connection
    +-- IdentityError               53  abstract: the names of a certificate
    |   +-- IdentityMismatchError   54  no name of the certificate is the expected one
    |   +-- MalformedIdentityError  55  a name is an attack or an accident: trust none of the others either
    +-- ContextError                56  a TLS context cannot be built as the policy states
    +-- OpenSSLConfigurationError   57  the process runs without its OpenSSL floor: do not serve
    +-- ProbeError                  58  the probed endpoint did not answer
    +-- AuthorityError              59  the development CA's directory is not as it must be

The number is the exit code of a command that ends with the error.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


class TLSError(Exception):
    """Root of everything this package raises on purpose."""

    exit_code: ClassVar[int] = 50


class ProblemCode(enum.Enum):
    """Kinds of defect in our own certificate, key, trust or revocation files."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    NOT_A_FILE = "not-a-file"
    TOO_LARGE = "too-large"
    NOT_PEM = "not-pem"
    KEY_ENCRYPTED = "key-encrypted"
    KEY_MISMATCH = "key-mismatch"
    KEY_EXPOSED = "key-exposed"
    KEY_FOREIGN_OWNER = "key-foreign-owner"
    WRITABLE_BY_OTHERS = "writable-by-others"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRING_SOON = "expiring-soon"
    WEAK_KEY = "weak-key"
    WEAK_SIGNATURE = "weak-signature"
    BROKEN_CHAIN = "broken-chain"
    TOO_DEEP = "too-deep"
    WRONG_USAGE = "wrong-usage"
    MALFORMED = "malformed"
    NO_IDENTITY = "no-identity"
    NO_CA = "no-ca"
    NOT_A_CA = "not-a-ca"
    CRL_UNUSABLE = "crl-unusable"
    CRL_UNSIGNED = "crl-unsigned"


@dataclass(frozen=True, kw_only=True, slots=True)
class MaterialProblem:
    """One defect: which file, what is wrong with it, and what mends it."""

    code: ProblemCode
    path: Path
    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.cure}"


class MaterialError(TLSError):
    """Our own files cannot be used. Carries every problem found, not just the first."""

    exit_code = 51

    def __init__(self, problems: Sequence[MaterialProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @property
    def codes(self) -> frozenset[ProblemCode]:
        """The kinds of defect present."""
        return frozenset(problem.code for problem in self.problems)


class RefusalReason(enum.Enum):
    """Why a peer's certificate was refused; the value is a bounded metric label."""

    UNTRUSTED = "untrusted"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    REVOKED = "revoked"
    REVOCATION_UNKNOWN = "revocation-unknown"
    WRONG_IDENTITY = "wrong-identity"
    NO_IDENTITY = "no-identity"
    WRONG_USAGE = "wrong-usage"
    WEAK_KEY = "weak-key"
    WEAK_SIGNATURE = "weak-signature"
    MALFORMED = "malformed"
    TOO_DEEP = "too-deep"
    NO_CERTIFICATE = "no-certificate"


class PeerRefusedError(TLSError):
    """A peer's certificate is not acceptable.

    `detail` names certificates by the first bytes of their fingerprint and never quotes a user part, so it may be
    logged.
    """

    exit_code = 52

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}")


class MismatchKind(enum.Enum):
    """Why one presented name did not count as the expected identity."""

    URI_DIFFERS = "uri-differs"
    DNS_DIFFERS = "dns-differs"
    IP_DIFFERS = "ip-differs"
    IP_NOT_ENABLED = "ip-not-enabled"
    WILDCARD = "wildcard"
    NOT_SIP_SCHEME = "not-sip-scheme"
    HAS_USER_PART = "has-user-part"
    NOT_A_HOST = "not-a-host"
    DNS_BEHIND_URI = "dns-behind-uri"
    NO_NAMES = "no-names"


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityMismatch:
    """One presented name and why it does not count. `presented` has any user part removed."""

    kind: MismatchKind
    presented: str

    def __str__(self) -> str:
        return f"{self.presented} ({self.kind.value})"


class IdentityError(TLSError):
    """The names in a certificate do not do."""

    exit_code = 53


class IdentityMismatchError(IdentityError):
    """No presented name is the expected one. Carries a reason for every name, in the certificate's order."""

    exit_code = 54

    def __init__(self, expected: str, mismatches: Sequence[IdentityMismatch]) -> None:
        self.expected = expected
        self.mismatches = tuple(mismatches)
        listing = ", ".join(str(mismatch) for mismatch in self.mismatches)
        super().__init__(f"certificate is not for {expected}: {listing}")


class MalformedIdentityError(IdentityError):
    """A name holds bytes that no name may hold, or an identity given to us is not a host."""

    exit_code = 55


class ContextError(TLSError):
    """A TLS context cannot be built as the policy states it."""

    exit_code = 56


class OpenSSLConfigurationError(TLSError):
    """The process-wide OpenSSL floor is not in effect. Carries every difference found."""

    exit_code = 57

    def __init__(self, differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        super().__init__(
            "the OpenSSL defaults of this process are not the product's: "
            + "; ".join(self.differences)
            + "; start it with OPENSSL_CONF naming the file that openssl_configuration() describes"
        )


class ProbeError(TLSError):
    """The probed endpoint could not be reached or does not speak TLS."""

    exit_code = 58


class AuthorityError(TLSError):
    """The development CA's directory is missing, occupied or unusable."""

    exit_code = 59
