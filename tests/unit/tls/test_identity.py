"""RFC 5922 section 7 as code: which names are identities, and how they are compared."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from support.certificates import Flaw, Issuer, sip_names
from tls.errors import IdentityMismatchError, MalformedIdentityError, MismatchKind
from tls.identity import (
    NameKind,
    PresentedName,
    SIPIdentity,
    identities_in,
    identities_of,
    parse_identity,
    verify_identity,
    verify_names,
)


def uri(value: str) -> PresentedName:
    return PresentedName(kind=NameKind.URI, value=value)


def dns(value: str) -> PresentedName:
    return PresentedName(kind=NameKind.DNS, value=value)


def ip(value: str) -> PresentedName:
    return PresentedName(kind=NameKind.IP, value=value)


def hosts(*names: PresentedName, accept_ip: bool = False) -> set[str]:
    return {identity.host for identity in identities_in(names, accept_ip=accept_ip)}


LONGEST = ".".join(["a" * 49] * 5) + ".abc"
assert len(LONGEST) == 253


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        ([uri("sip:a.example")], {"a.example"}),
        ([uri("SIP:A.Example")], {"a.example"}),
        ([uri("sip:a.example:5061")], {"a.example"}),
        ([uri("sip:a.example;transport=tls")], {"a.example"}),
        ([uri("sip:a.example?subject=x")], {"a.example"}),
        ([uri("sip:a.example"), uri("sip:b.example")], {"a.example", "b.example"}),
        ([dns("a.example")], {"a.example"}),
        ([dns("A.EXAMPLE"), dns("b.example")], {"a.example", "b.example"}),
        ([dns("xn--bcher-kva.example")], {"xn--bcher-kva.example"}),
        ([dns("trunk1")], {"trunk1"}),
        ([uri("sip:a.example"), dns("b.example")], {"a.example"}),
        ([dns("b.example"), uri("sip:a.example")], {"a.example"}),
        # A URI that is no identity does not hide the DNS names.
        ([uri("https://a.example"), dns("b.example")], {"b.example"}),
        ([uri("sips:a.example"), dns("b.example")], {"b.example"}),
        ([uri("sip:bob@a.example"), dns("b.example")], {"b.example"}),
        ([uri("sips:a.example")], set()),
        ([uri("sip:bob@a.example")], set()),
        ([uri("sip:a.example;x=@b")], set()),
        ([uri("sip:*.example")], set()),
        ([uri("sip:")], set()),
        ([uri("a.example")], set()),
        ([uri("sip:%61.example")], set()),
        ([uri("sip:192.0.2.1")], set()),
        ([dns("*.example")], set()),
        ([dns("w*.example")], set()),
        ([dns("a.example.")], set()),
        ([dns(".a.example")], set()),
        ([dns("a..example")], set()),
        ([dns("-a.example")], set()),
        ([dns("a-.example")], set()),
        ([dns("a_b.example")], set()),
        ([dns("192.0.2.1")], set()),
        ([dns("a" * 64 + ".example")], set()),
        ([dns("a" * 63 + ".example")], {"a" * 63 + ".example"}),
        ([dns(LONGEST)], {LONGEST}),
        ([dns("a" + LONGEST)], set()),
        ([ip("192.0.2.1")], set()),
        ([], set()),
    ],
)
def test_identities_in_names(presented: list[PresentedName], expected: set[str]) -> None:
    assert hosts(*presented) == expected


def test_ip_names_count_only_when_the_policy_says_so() -> None:
    assert hosts(ip("192.0.2.1"), ip("2001:DB8:0::1"), accept_ip=True) == {"192.0.2.1", "2001:db8::1"}
    assert hosts(ip("192.0.2.1"), accept_ip=False) == set()


@pytest.mark.parametrize("kind", list(NameKind))
@pytest.mark.parametrize("bad", ["\0", "\n", "\x7f", " ", "\u00fc", "\u3002", "\u0430"])
def test_a_foul_character_condemns_every_name(kind: NameKind, bad: str) -> None:
    prefix = "sip:" if kind is NameKind.URI else ""
    foul = PresentedName(kind=kind, value=f"{prefix}a.example{bad}.attacker.example")
    clean = PresentedName(kind=kind, value=f"{prefix}a.example.attacker.example")
    with pytest.raises(MalformedIdentityError, match="non-ASCII"):
        identities_in([dns("a.example"), foul])
    with pytest.raises(MalformedIdentityError):
        verify_names([dns("a.example"), foul], "a.example")
    if kind is not NameKind.URI:
        assert verify_names([dns("a.example"), clean], "a.example").host == "a.example"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*.example",
        "a.example.",
        "b\u00fccher.example",
        "a example",
        "a\0b",
        "sip:a.example",
        "1.2.3",
        "[::1",
        "::1]",
    ],
)
def test_parse_identity_refuses_what_is_no_host(text: str) -> None:
    with pytest.raises(MalformedIdentityError, match="is not a host"):
        parse_identity(text)


@pytest.mark.parametrize(
    ("text", "host", "source"),
    [
        ("Carrier.Example", "carrier.example", NameKind.DNS),
        ("192.0.2.7", "192.0.2.7", NameKind.IP),
        ("[2001:DB8::7]", "2001:db8::7", NameKind.IP),
        ("2001:db8:0:0::7", "2001:db8::7", NameKind.IP),
    ],
)
def test_parse_identity_normalises(text: str, host: str, source: NameKind) -> None:
    identity = parse_identity(text)
    assert (identity.host, identity.source, str(identity)) == (host, source, host)


def test_an_address_with_a_zone_is_no_identity() -> None:
    with pytest.raises(MalformedIdentityError):
        parse_identity("fe80::1%eth0")


def test_configured_and_presented_identities_are_equal_whatever_their_source() -> None:
    assert parse_identity("A.example") in identities_in([uri("sip:a.EXAMPLE")])
    assert SIPIdentity(host="a", source=NameKind.URI) == SIPIdentity(host="a", source=NameKind.DNS)


def test_a_mismatch_lists_every_name_with_its_reason() -> None:
    names = [
        uri("sip:other.example"),
        uri("sips:a.example"),
        uri("sip:+15550100@a.example"),
        uri("sip:*.example"),
        uri("sip:a_b"),
        dns("a.example"),
        dns("*.example"),
        dns("a_b"),
        ip("192.0.2.1"),
    ]
    with pytest.raises(IdentityMismatchError) as caught:
        verify_names(names, "A.Example")
    assert caught.value.expected == "a.example"
    assert [mismatch.kind for mismatch in caught.value.mismatches] == [
        MismatchKind.URI_DIFFERS,
        MismatchKind.NOT_SIP_SCHEME,
        MismatchKind.HAS_USER_PART,
        MismatchKind.WILDCARD,
        MismatchKind.NOT_A_HOST,
        MismatchKind.DNS_BEHIND_URI,
        MismatchKind.WILDCARD,
        MismatchKind.NOT_A_HOST,
        MismatchKind.IP_NOT_ENABLED,
    ]
    assert "sip:other.example (uri-differs)" in str(caught.value)
    assert "5550100" not in str(caught.value)


def test_dns_and_ip_differences_are_told_apart() -> None:
    with pytest.raises(IdentityMismatchError) as caught:
        verify_names([dns("b.example"), ip("192.0.2.1")], "192.0.2.2", accept_ip=True)
    assert [mismatch.kind for mismatch in caught.value.mismatches] == [
        MismatchKind.DNS_DIFFERS,
        MismatchKind.IP_DIFFERS,
    ]
    assert (
        verify_names([dns("b.example"), ip("192.0.2.2")], "192.0.2.2", accept_ip=True).source is NameKind.IP
    )


def test_a_dns_name_never_stands_for_an_address() -> None:
    with pytest.raises(IdentityMismatchError):
        verify_names([dns("192.0.2.2")], "192.0.2.2", accept_ip=True)


def test_the_common_name_never_counts(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    with pytest.raises(IdentityMismatchError) as caught:
        verify_identity(issuer.entity("edge", "edge.example", flaw=Flaw.CN_ONLY).certificate, "edge.example")
    assert [mismatch.kind for mismatch in caught.value.mismatches] == [MismatchKind.NO_NAMES]
    assert (
        verify_identity(issuer.entity("edge", "edge.example").certificate, "edge.example").host
        == "edge.example"
    )


def test_names_are_read_from_certificates(tmp_path: Path) -> None:
    certificate = (
        Issuer(tmp_path).issue("edge", [*sip_names("192.0.2.9"), x509.DNSName("Edge.example")]).certificate
    )
    assert {identity.host for identity in identities_of(certificate)} == {"edge.example"}
    assert {identity.host for identity in identities_of(certificate, accept_ip=True)} == {
        "edge.example",
        "192.0.2.9",
    }


@pytest.mark.parametrize("flaw", [Flaw.NUL_IN_NAME, Flaw.NUL_IN_URI])
def test_a_certificate_with_nul_in_a_name_is_refused_whole(tmp_path: Path, flaw: Flaw) -> None:
    certificate = Issuer(tmp_path).entity("edge", "edge.example", flaw=flaw).certificate
    with pytest.raises(MalformedIdentityError):
        identities_of(certificate)
    with pytest.raises(MalformedIdentityError):
        verify_identity(certificate, "edge.example")


def test_names_that_cannot_be_parsed_are_malformed(tmp_path: Path) -> None:
    der = Issuer(tmp_path).entity("edge", "edge.example").certificate.public_bytes(Encoding.DER)
    damaged = x509.load_der_x509_certificate(der.replace(b"sip:edge", b"\xffip:edge"))
    with pytest.raises(MalformedIdentityError, match="cannot be parsed"):
        identities_of(damaged)
    assert identities_of(x509.load_der_x509_certificate(der))


LABELS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12)
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "example"]))
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)


@settings(deadline=None)
@given(host=HOSTS, upper=st.lists(st.booleans(), min_size=80, max_size=80))
def test_comparison_ignores_ascii_case_and_nothing_else(host: str, upper: list[bool]) -> None:
    spelled = "".join(char.upper() if up else char for char, up in zip(host, upper, strict=False))
    assert verify_names([uri(f"sip:{spelled}")], host).host == host
    assert verify_names([dns(host)], spelled).host == host


@settings(deadline=None)
@given(expected=HOSTS, presented=HOSTS)
def test_only_the_whole_host_matches(expected: str, presented: str) -> None:
    for name in (uri(f"sip:{presented}"), dns(presented)):
        if presented == expected:
            assert verify_names([name], expected).host == expected
        else:
            with pytest.raises(IdentityMismatchError):
                verify_names([name], expected)


@settings(deadline=None)
@given(expected=HOSTS, label=LABELS)
def test_neither_parent_nor_child_matches(expected: str, label: str) -> None:
    for presented in (f"{label}.{expected}", expected.partition(".")[2], f"*.{expected.partition('.')[2]}"):
        with pytest.raises(IdentityMismatchError):
            verify_names([uri(f"sip:{presented}"), dns(presented)], expected)


@settings(deadline=None)
@given(
    names=st.lists(st.tuples(st.sampled_from(list(NameKind)), PRINTABLE), max_size=6), accept_ip=st.booleans()
)
def test_every_identity_found_parses_to_itself(names: list[tuple[NameKind, str]], accept_ip: bool) -> None:
    presented = [PresentedName(kind=kind, value=value) for kind, value in names]
    for identity in identities_in(presented, accept_ip=accept_ip):
        assert parse_identity(identity.host) == identity
        assert "*" not in identity.host
        assert verify_names(presented, identity.host, accept_ip=accept_ip) == identity
