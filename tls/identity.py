"""SIP identities in certificates: the rule of RFC 5922 section 7, stricter where the RFC leaves room.

Names come as URI, DNS or IP values of the subject alternative name. A URI counts when its scheme is exactly `sip` and
it has no user part; then its host is an identity, and DNS names no longer count. Without such a URI every DNS name
counts. The common name never counts, a wildcard never counts. A name with a NUL, a control character or a non-ASCII
character condemns the whole certificate: whoever issued it did not check what it says.

Source: RFC 5922 sections 7.1 and 7.2. Its permission to read the common name of a certificate that has no subject
alternative name is not used.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from tls.certificate import PARSE_ERRORS
from tls.errors import IdentityMismatch, IdentityMismatchError, MalformedIdentityError, MismatchKind

_MAX_HOST_CHARS: Final = 253
_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)
_ALLOWED_CHARACTERS: Final = re.compile(r"[\x21-\x7e]*", re.ASCII)


class NameKind(enum.Enum):
    """The kinds of subject alternative name that this rule looks at."""

    URI = "uri"
    DNS = "dns"
    IP = "ip"


@dataclass(frozen=True, kw_only=True, slots=True)
class PresentedName:
    """One subject alternative name as the certificate spells it; an IP address in its usual text form."""

    kind: NameKind
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SIPIdentity:
    """A SIP domain: a lower-case ASCII host name or the compressed text of an IP address.

    `source` says which kind of name it came from and takes no part in comparison, so that a configured identity equals
    a presented one.
    """

    host: str
    source: NameKind = field(compare=False)

    def __str__(self) -> str:
        return self.host


def parse_identity(host: str) -> SIPIdentity:
    """An identity from configuration or from the host of a URI: an A-label host name or an IP literal.

    Raises:
        MalformedIdentityError: it is neither; names in other scripts are expected as A-labels (`xn--...`).
    """
    address = _address_text(host)
    if address is not None:
        return SIPIdentity(host=address, source=NameKind.IP)
    name = _host_name(host)
    if name is None:
        raise MalformedIdentityError(
            f"{host!r} is not a host: give a domain name in ASCII (A-labels, no wildcard, no final dot) "
            "or an IP address"
        )
    return SIPIdentity(host=name, source=NameKind.DNS)


def presented_names(certificate: x509.Certificate) -> tuple[PresentedName, ...]:
    """The URI, DNS and IP names of a certificate, in its order.

    Raises:
        MalformedIdentityError: the extension cannot be parsed.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except PARSE_ERRORS as error:
        raise MalformedIdentityError("the subject alternative name cannot be parsed") from error
    return tuple(_presented(names))


def _presented(names: Iterable[x509.GeneralName]) -> Iterator[PresentedName]:
    for name in names:
        if isinstance(name, x509.UniformResourceIdentifier):
            yield PresentedName(kind=NameKind.URI, value=name.value)
        elif isinstance(name, x509.DNSName):
            yield PresentedName(kind=NameKind.DNS, value=name.value)
        elif isinstance(name, x509.IPAddress):
            yield PresentedName(kind=NameKind.IP, value=str(name.value))


def identities_of(certificate: x509.Certificate, *, accept_ip: bool = False) -> frozenset[SIPIdentity]:
    """Every SIP identity the certificate gives its holder; empty when it gives none.

    Raises:
        MalformedIdentityError: a name holds bytes no name may hold.
    """
    return identities_in(presented_names(certificate), accept_ip=accept_ip)


def identities_in(names: Sequence[PresentedName], *, accept_ip: bool = False) -> frozenset[SIPIdentity]:
    """`identities_of` for names already extracted."""
    _require_sane(names)
    judged = _judge(names, accept_ip=accept_ip)
    return frozenset(outcome for outcome in judged if isinstance(outcome, SIPIdentity))


def verify_identity(certificate: x509.Certificate, expected: str, *, accept_ip: bool = False) -> SIPIdentity:
    """The presented identity that is `expected`.

    Raises:
        IdentityMismatchError: none is; lists every name with the reason it does not count.
        MalformedIdentityError: a name holds bytes no name may hold, or `expected` is not a host.
    """
    return verify_names(presented_names(certificate), expected, accept_ip=accept_ip)


def verify_names(names: Sequence[PresentedName], expected: str, *, accept_ip: bool = False) -> SIPIdentity:
    """`verify_identity` for names already extracted."""
    wanted = parse_identity(expected)
    _require_sane(names)
    mismatches: list[IdentityMismatch] = []
    for outcome in _judge(names, accept_ip=accept_ip):
        if outcome == wanted:
            assert isinstance(outcome, SIPIdentity)
            return outcome
        mismatches.append(_differs(outcome) if isinstance(outcome, SIPIdentity) else outcome)
    if not mismatches:
        mismatches.append(
            IdentityMismatch(kind=MismatchKind.NO_NAMES, presented="no subject alternative name")
        )
    raise IdentityMismatchError(wanted.host, mismatches)


def _require_sane(names: Iterable[PresentedName]) -> None:
    for name in names:
        if not _ALLOWED_CHARACTERS.fullmatch(name.value):
            raise MalformedIdentityError(
                f"a {name.kind.value} name of the certificate holds a space, control or non-ASCII character"
            )


def _judge(names: Sequence[PresentedName], *, accept_ip: bool) -> Iterator[SIPIdentity | IdentityMismatch]:
    from_uris = [_identity_of_uri(name.value) for name in names if name.kind is NameKind.URI]
    yield from from_uris
    # RFC 5922 section 7.1: DNS names count if and only if no SIP URI gave an identity.
    uri_found = any(isinstance(outcome, SIPIdentity) for outcome in from_uris)
    for name in names:
        if name.kind is NameKind.DNS:
            yield _identity_of_dns(name.value, uri_found)
        elif name.kind is NameKind.IP:
            yield _identity_of_ip(name.value, accept_ip)


def _identity_of_uri(uri: str) -> SIPIdentity | IdentityMismatch:
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme.lower() != "sip":
        return IdentityMismatch(kind=MismatchKind.NOT_SIP_SCHEME, presented=f"{scheme}:")
    if "@" in rest:
        # The user part may be a telephone number: it goes into no message.
        return IdentityMismatch(kind=MismatchKind.HAS_USER_PART, presented="sip:<user>@...")
    host = _host_of(rest)
    if "*" in host:
        return IdentityMismatch(kind=MismatchKind.WILDCARD, presented=f"sip:{host}")
    name = _host_name(host)
    if name is None:
        return IdentityMismatch(kind=MismatchKind.NOT_A_HOST, presented=f"sip:{host}")
    return SIPIdentity(host=name, source=NameKind.URI)


def _host_of(rest: str) -> str:
    """The host of `host[:port][;parameters][?headers]`. Source: RFC 3261 section 25.1, hostport."""
    return re.split(r"[:;?]", rest, maxsplit=1)[0]


def _identity_of_dns(value: str, uri_found: bool) -> SIPIdentity | IdentityMismatch:
    if "*" in value:
        return IdentityMismatch(kind=MismatchKind.WILDCARD, presented=value)
    name = _host_name(value)
    if name is None:
        return IdentityMismatch(kind=MismatchKind.NOT_A_HOST, presented=value)
    if uri_found:
        return IdentityMismatch(kind=MismatchKind.DNS_BEHIND_URI, presented=value)
    return SIPIdentity(host=name, source=NameKind.DNS)


def _identity_of_ip(value: str, accept_ip: bool) -> SIPIdentity | IdentityMismatch:
    address = _address_text(value)
    if address is None:
        return IdentityMismatch(kind=MismatchKind.NOT_A_HOST, presented=value)
    if not accept_ip:
        return IdentityMismatch(kind=MismatchKind.IP_NOT_ENABLED, presented=address)
    return SIPIdentity(host=address, source=NameKind.IP)


_DIFFERENCES: Final = {
    NameKind.URI: MismatchKind.URI_DIFFERS,
    NameKind.DNS: MismatchKind.DNS_DIFFERS,
    NameKind.IP: MismatchKind.IP_DIFFERS,
}


def _differs(identity: SIPIdentity) -> IdentityMismatch:
    prefix = "sip:" if identity.source is NameKind.URI else ""
    return IdentityMismatch(kind=_DIFFERENCES[identity.source], presented=f"{prefix}{identity.host}")


def _host_name(text: str) -> str | None:
    """The lower-case form of a host name in letters, digits and hyphens, or None.

    A last label of digits alone would make it read as an IPv4 address. Source: RFC 1123 section 2.1.
    """
    lowered = text.lower() if text.isascii() else ""
    labels = lowered.split(".")
    if len(lowered) > _MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    return None if labels[-1].isdigit() else lowered


def _address_text(text: str) -> str | None:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return None
    return str(address)
