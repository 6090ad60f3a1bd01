"""What the operator and the product decide about TLS: file paths and policy profiles. Data only."""

from __future__ import annotations

import enum
import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class TLSMaterialSettings:
    """Paths of one endpoint's PEM files.

    `certificate_path` holds our leaf first, then its intermediates. `trust_path` holds the self-signed CA
    certificates peers must chain to; it may also hold intermediate CA certificates, which help to build a path and
    are never anchors (pjsip reports a peer's leaf only, so intermediates must be known beforehand). `crl_path`
    holds one or more certificate revocation lists; when it is set, a certificate whose issuer has no current list
    there is refused.
    """

    certificate_path: Path
    private_key_path: Path
    trust_path: Path
    crl_path: Path | None = None


class TLSVersion(enum.Enum):
    """A protocol version, valued by its code point. Source: RFC 8446 section 4.2.1."""

    TLS_1_0 = 0x0301
    TLS_1_1 = 0x0302
    TLS_1_2 = 0x0303
    TLS_1_3 = 0x0304

    @property
    def label(self) -> str:
        """Spelling of OpenSSL's configuration file and of our reports."""
        return _VERSION_LABELS[self]

    @property
    def for_ssl(self) -> ssl.TLSVersion:
        """The stdlib's name of it."""
        return ssl.TLSVersion(self.value)


_VERSION_LABELS: Final = {
    TLSVersion.TLS_1_0: "TLSv1",
    TLSVersion.TLS_1_1: "TLSv1.1",
    TLSVersion.TLS_1_2: "TLSv1.2",
    TLSVersion.TLS_1_3: "TLSv1.3",
}


class CipherSuite(enum.Enum):
    """A cipher suite, valued by its IANA code point (what pjsip's TlsConfig.ciphers takes).

    Source: RFC 8446 appendix B.4; RFC 5289 section 3.2 and RFC 7905 for the TLS 1.2 ones.
    """

    TLS_AES_128_GCM_SHA256 = 0x1301
    TLS_AES_256_GCM_SHA384 = 0x1302
    TLS_CHACHA20_POLY1305_SHA256 = 0x1303
    TLS_AES_128_CCM_SHA256 = 0x1304
    TLS_AES_128_CCM_8_SHA256 = 0x1305
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 = 0xC02B
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 = 0xC02C
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 = 0xC02F
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 = 0xC030

    @property
    def iana_id(self) -> int:
        """Two-octet code point."""
        return self.value

    @property
    def openssl_name(self) -> str:
        """OpenSSL's spelling: TLS 1.3 suites keep their IANA name, older ones have one of their own."""
        return _OPENSSL_NAMES.get(self, self.name)


_OPENSSL_NAMES: Final = {
    CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: "ECDHE-ECDSA-AES128-GCM-SHA256",
    CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: "ECDHE-ECDSA-AES256-GCM-SHA384",
    CipherSuite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: "ECDHE-RSA-AES128-GCM-SHA256",
    CipherSuite.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384: "ECDHE-RSA-AES256-GCM-SHA384",
}


class NamedGroup(enum.Enum):
    """A key-exchange group: code point, and OpenSSL's spelling. Source: RFC 8446 section 4.2.7."""

    X25519 = (0x001D, "X25519")
    SECP256R1 = (0x0017, "P-256")
    SECP384R1 = (0x0018, "P-384")

    @property
    def code_point(self) -> int:
        """As on the wire."""
        return self.value[0]

    @property
    def openssl_name(self) -> str:
        """As in OpenSSL's configuration."""
        return self.value[1]


class SignatureScheme(enum.Enum):
    """A signature scheme, valued by its code point; the name is OpenSSL's too. Source: RFC 8446 section 4.2.3.

    The PKCS#1 ones sign certificates only: TLS 1.3 itself never signs a handshake with them.
    """

    ecdsa_secp256r1_sha256 = 0x0403
    ecdsa_secp384r1_sha384 = 0x0503
    ecdsa_secp521r1_sha512 = 0x0603
    rsa_pss_rsae_sha256 = 0x0804
    rsa_pss_rsae_sha384 = 0x0805
    rsa_pss_rsae_sha512 = 0x0806
    rsa_pkcs1_sha256 = 0x0401
    rsa_pkcs1_sha384 = 0x0501
    rsa_pkcs1_sha512 = 0x0601


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyProfile:
    """Everything one endpoint accepts in a handshake and in a certificate.

    `max_chain_depth` counts the CA certificates between leaf and anchor, both excluded. `curves` are the names
    cryptography gives to EC keys' curves. `accept_ip_identities` lets an IP SAN stand for an IP-literal identity:
    RFC 5922 gives IP addresses no standing, so a trunk must ask for it.
    """

    name: str
    minimum_version: TLSVersion
    maximum_version: TLSVersion
    cipher_suites: tuple[CipherSuite, ...]
    groups: tuple[NamedGroup, ...] = (NamedGroup.X25519, NamedGroup.SECP256R1, NamedGroup.SECP384R1)
    signature_schemes: tuple[SignatureScheme, ...] = tuple(SignatureScheme)
    minimum_rsa_bits: int = 2048
    curves: frozenset[str] = frozenset({"secp256r1", "secp384r1", "secp521r1"})
    signature_hashes: frozenset[str] = frozenset({"sha256", "sha384", "sha512"})
    max_chain_depth: int = 3
    accept_ip_identities: bool = False


TLS13_ONLY: Final = PolicyProfile(
    name="tls13-only",
    minimum_version=TLSVersion.TLS_1_3,
    maximum_version=TLSVersion.TLS_1_3,
    cipher_suites=(
        CipherSuite.TLS_AES_256_GCM_SHA384,
        CipherSuite.TLS_CHACHA20_POLY1305_SHA256,
        CipherSuite.TLS_AES_128_GCM_SHA256,
    ),
)
"""The default and the only profile this package negotiates."""

TLS12_EXCEPTION: Final = PolicyProfile(
    name="tls12-exception",
    minimum_version=TLSVersion.TLS_1_2,
    maximum_version=TLSVersion.TLS_1_2,
    cipher_suites=(
        CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
)
"""Description of the exception a trunk may be granted in a worker process of its own; `context` refuses it."""

EXPIRY_WARNING: Final = timedelta(days=14)
"""A certificate this close to its end is reported. Two weeks are two tries of a weekly renewal."""
