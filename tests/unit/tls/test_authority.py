"""The development CA: what it makes is accepted by our own judges, and nothing is ever overwritten."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from support.certificates import Issuer, write_private
from tls.authority import (
    CA_CERTIFICATE_NAME,
    CA_KEY_NAME,
    CA_LIFETIME,
    CLOCK_SKEW,
    LEAF_LIFETIME,
    DevelopmentAuthority,
)
from tls.certificate import Usage, is_self_signed_ca
from tls.errors import AuthorityError, MalformedIdentityError, PeerRefusedError, RefusalReason
from tls.material import load_material
from tls.policy import PeerVerifier
from tls.settings import TLS13_ONLY, PolicyProfile
from tls.trust import TrustStore

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> DevelopmentAuthority:
    return DevelopmentAuthority.create(tmp_path / "ca", now=NOW)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_ca_says_what_it_is(authority: DevelopmentAuthority) -> None:
    certificate = authority.certificate
    assert "development" in certificate.subject.rfc4514_string()
    assert is_self_signed_ca(certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.path_length == 0
    assert certificate.not_valid_before_utc == NOW - CLOCK_SKEW
    assert certificate.not_valid_after_utc == NOW + CA_LIFETIME
    assert certificate.signature_hash_algorithm is not None
    assert certificate.signature_hash_algorithm.name == "sha256"


def test_files_have_the_modes_the_loader_demands(authority: DevelopmentAuthority) -> None:
    files = authority.issue("edge", now=NOW, sip_identities=["edge.example"])
    assert mode_of(authority.directory) == 0o700
    assert mode_of(authority.directory / CA_KEY_NAME) == 0o600
    assert mode_of(files.private_key_path) == 0o600
    assert mode_of(files.certificate_path) == 0o644


def test_a_strict_umask_does_not_hide_the_certificate(authority: DevelopmentAuthority) -> None:
    before = os.umask(0o077)
    try:
        files = authority.issue("edge", now=NOW, sip_identities=["edge.example"])
    finally:
        os.umask(before)
    assert mode_of(files.certificate_path) == 0o644
    assert mode_of(files.private_key_path) == 0o600


def test_what_it_issues_is_accepted_in_both_directions(authority: DevelopmentAuthority) -> None:
    files = authority.issue("edge", now=NOW, sip_identities=["Edge.example"], ip_addresses=["127.0.0.1"])
    material = load_material(files, now=NOW)
    assert material.warnings == ()
    assert material.not_after == NOW + LEAF_LIFETIME
    assert {identity.host for identity in material.identities} == {"edge.example"}
    verifier = PeerVerifier(material.trust, clock=lambda: NOW)
    assert verifier.verify_client([material.certificate_pem]).has_identity("edge.example")
    assert verifier.verify_server([material.certificate_pem], "edge.example").has_identity("edge.example")


def test_an_address_is_an_identity_where_the_profile_says_so(authority: DevelopmentAuthority) -> None:
    files = authority.issue("edge", now=NOW, sip_identities=[], ip_addresses=["::1"])
    profile = PolicyProfile(
        name="addresses",
        minimum_version=TLS13_ONLY.minimum_version,
        maximum_version=TLS13_ONLY.maximum_version,
        cipher_suites=TLS13_ONLY.cipher_suites,
        accept_ip_identities=True,
    )
    material = load_material(files, now=NOW, profile=profile)
    verifier = PeerVerifier(material.trust, profile=profile, clock=lambda: NOW)
    assert verifier.verify_server([material.certificate_pem], "::1").has_identity("::1")


def test_usages_can_be_narrowed(authority: DevelopmentAuthority) -> None:
    files = authority.issue(
        "scraper", now=NOW, sip_identities=["scraper.example"], usages=frozenset({Usage.CLIENT})
    )
    verifier = PeerVerifier(load_trust_of(authority), clock=lambda: NOW)
    pem = files.certificate_path.read_bytes()
    assert verifier.verify_client([pem]).has_identity("scraper.example")
    with pytest.raises(PeerRefusedError) as caught:
        verifier.verify_server([pem], "scraper.example")
    assert caught.value.reason is RefusalReason.WRONG_USAGE


def load_trust_of(authority: DevelopmentAuthority) -> TrustStore:
    return TrustStore(anchors=(authority.certificate,))


def test_no_ca_below_it_counts(authority: DevelopmentAuthority, tmp_path: Path) -> None:
    """Path length 0: even a CA certificate made with the CA's key leads nowhere."""
    outer = Issuer(tmp_path / "outer", now=NOW)
    lower = outer.signed_ca("Lower", authority.certificate, authority.directory / CA_KEY_NAME)
    leaf = outer.below(lower).entity("victim", "victim.example")
    verifier = PeerVerifier(load_trust_of(authority), clock=lambda: NOW)
    with pytest.raises(PeerRefusedError) as caught:
        verifier.verify_client([leaf.pem, lower.pem])
    assert caught.value.reason is RefusalReason.UNTRUSTED


def test_it_is_taken_up_again(authority: DevelopmentAuthority) -> None:
    again = DevelopmentAuthority.load(authority.directory, now=NOW + timedelta(days=1))
    assert again == authority
    again.issue("late", now=NOW + timedelta(days=1), sip_identities=["late.example"])
    assert again.certificate_path.name == CA_CERTIFICATE_NAME


def test_nothing_is_overwritten(authority: DevelopmentAuthority) -> None:
    before = {path.name: path.read_bytes() for path in authority.directory.iterdir()}
    with pytest.raises(AuthorityError, match="never overwritten"):
        DevelopmentAuthority.create(authority.directory, now=NOW)
    authority.issue("edge", now=NOW, sip_identities=["edge.example"])
    certificate = (authority.directory / "edge.pem").read_bytes()
    with pytest.raises(AuthorityError, match="never overwritten"):
        authority.issue("edge", now=NOW, sip_identities=["edge.example"])
    assert (authority.directory / "edge.pem").read_bytes() == certificate
    assert {name: (authority.directory / name).read_bytes() for name in before} == before


def test_a_key_without_its_certificate_is_not_left_behind(authority: DevelopmentAuthority) -> None:
    (authority.directory / "edge.pem").write_text("occupied")
    with pytest.raises(AuthorityError, match="never overwritten"):
        authority.issue("edge", now=NOW, sip_identities=["edge.example"])
    assert not (authority.directory / "edge.key").exists()


@pytest.mark.parametrize("name", ["", "../edge", "a/b", "Edge", ".hidden", "a" * 65, "a b"])
def test_names_that_are_no_file_names(authority: DevelopmentAuthority, name: str) -> None:
    with pytest.raises(AuthorityError, match="file name"):
        authority.issue(name, now=NOW, sip_identities=["edge.example"])


def test_identities_must_be_domains_and_there_must_be_one(authority: DevelopmentAuthority) -> None:
    with pytest.raises(MalformedIdentityError):
        authority.issue("a", now=NOW, sip_identities=["*.example"])
    with pytest.raises(AuthorityError, match="is an address"):
        authority.issue("a", now=NOW, sip_identities=["127.0.0.1"])
    with pytest.raises(AuthorityError, match="not an IP address"):
        authority.issue("a", now=NOW, sip_identities=[], ip_addresses=["edge.example"])
    with pytest.raises(AuthorityError, match="identifies nobody"):
        authority.issue("a", now=NOW, sip_identities=[])
    authority.issue("a", now=NOW, sip_identities=["a.example"])


def test_a_leaf_never_outlives_the_ca(authority: DevelopmentAuthority) -> None:
    late = NOW + CA_LIFETIME - LEAF_LIFETIME
    authority.issue("in-time", now=late, sip_identities=["a.example"])
    with pytest.raises(AuthorityError, match="shorter lifetime"):
        authority.issue("too-late", now=late + timedelta(seconds=1), sip_identities=["a.example"])


def test_a_ca_that_cannot_be_used_is_not_loaded(authority: DevelopmentAuthority, tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="no such file"):
        DevelopmentAuthority.load(tmp_path / "absent", now=NOW)
    with pytest.raises(AuthorityError, match="expired"):
        DevelopmentAuthority.load(authority.directory, now=NOW + CA_LIFETIME)
    DevelopmentAuthority.load(authority.directory, now=NOW + CA_LIFETIME - timedelta(seconds=1))
    key_path = authority.directory / CA_KEY_NAME
    key = key_path.read_bytes()
    key_path.chmod(0o640)
    with pytest.raises(AuthorityError, match="exposes the CA key"):
        DevelopmentAuthority.load(authority.directory, now=NOW)
    write_private(key_path, Issuer(tmp_path / "other").root.key_pem)
    with pytest.raises(AuthorityError, match="not that of CA"):
        DevelopmentAuthority.load(authority.directory, now=NOW)
    write_private(key_path, b"nothing")
    with pytest.raises(AuthorityError, match="no readable private key"):
        DevelopmentAuthority.load(authority.directory, now=NOW)
    key_path.unlink()
    with pytest.raises(AuthorityError, match="no such file"):
        DevelopmentAuthority.load(authority.directory, now=NOW)
    write_private(key_path, key)
    DevelopmentAuthority.load(authority.directory, now=NOW)


def test_a_certificate_that_is_no_ca_is_not_loaded(authority: DevelopmentAuthority, tmp_path: Path) -> None:
    authority.certificate_path.write_bytes(Issuer(tmp_path / "o", now=NOW).entity("leaf").pem)
    with pytest.raises(AuthorityError, match="not a self-signed CA"):
        DevelopmentAuthority.load(authority.directory, now=NOW)
    authority.certificate_path.write_bytes(b"nothing")
    with pytest.raises(AuthorityError, match="no readable certificate"):
        DevelopmentAuthority.load(authority.directory, now=NOW)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuthorityError, match="cannot be created"):
        DevelopmentAuthority.create(tmp_path / "file" / "ca", now=NOW)


def test_a_directory_that_takes_no_files() -> None:
    with pytest.raises(AuthorityError, match="cannot be written"):
        DevelopmentAuthority.create(Path("/proc/self"), now=NOW)
