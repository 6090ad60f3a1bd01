"""Our own files: each defect is found, all are found together, and the same files without it load."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from support.certificates import DAY, Flaw, Issuer, new_key, write_private
from tls.certificate import Usage
from tls.errors import MaterialError, ProblemCode
from tls.material import TLSMaterial, load_material, load_trust
from tls.settings import EXPIRY_WARNING, TLSMaterialSettings
from tls.source import MAX_FILE_BYTES

HOST = "edge.example"


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path, depth=1)


@pytest.fixture
def files(issuer: Issuer) -> TLSMaterialSettings:
    return issuer.material("edge", HOST)


def load(issuer: Issuer, settings: TLSMaterialSettings) -> TLSMaterial:
    return load_material(settings, now=issuer.now)


def problems(issuer: Issuer, settings: TLSMaterialSettings) -> MaterialError:
    with pytest.raises(MaterialError) as caught:
        load(issuer, settings)
    for problem in caught.value.problems:
        assert problem.what
        assert problem.cure
        assert str(problem.path) in str(caught.value)
    return caught.value


def test_good_material(issuer: Issuer, files: TLSMaterialSettings) -> None:
    material = load(issuer, files)
    entity = issuer.entities["edge"]
    assert material.leaf == entity.certificate
    assert len(material.chain) == 2
    assert {identity.host for identity in material.identities} == {HOST}
    assert material.fingerprint == material.leaf.fingerprint(hashes.SHA256()).hex()
    assert material.not_after == issuer.now + 30 * DAY
    assert material.trust.anchors == (issuer.root.certificate,)
    assert material.private_key_pem == entity.key_pem
    assert material.warnings == ()


def test_the_private_key_is_in_no_repr(issuer: Issuer, files: TLSMaterialSettings) -> None:
    text = repr(load(issuer, files))
    body = issuer.entities["edge"].key_pem.decode().splitlines()[1]
    assert "PRIVATE" not in text
    assert body not in text


def missing_certificate(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    return replace(files, certificate_path=issuer.directory / "absent.pem")


def key_is_a_directory(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    return replace(files, private_key_path=issuer.directory)


def key_is_a_fifo(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    path = issuer.directory / "fifo"
    os.mkfifo(path, 0o600)
    return replace(files, private_key_path=path)


def certificate_is_huge(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    with files.certificate_path.open("ab") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    return files


def certificate_not_pem(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    files.certificate_path.write_text("not a certificate")
    return files


def certificate_empty(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    files.certificate_path.write_bytes(b"")
    return files


def key_not_pem(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    write_private(files.private_key_path, b"not a key")
    return files


def key_encrypted(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    pem = issuer.entities["edge"].key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    write_private(files.private_key_path, pem)
    return files


def key_of_another(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    write_private(files.private_key_path, issuer.entity("other").key_pem)
    return files


def key_for_group(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    files.private_key_path.chmod(0o640)
    return files


def key_for_others(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    files.private_key_path.chmod(0o604)
    return files


def flawed(flaw: Flaw) -> Callable[[Issuer, TLSMaterialSettings], TLSMaterialSettings]:
    return lambda issuer, _files: issuer.material("edge", HOST, flaw=flaw)


def chain_out_of_order(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    stranger = Issuer(issuer.directory / "stranger", name="Stranger", depth=1)
    files.certificate_path.write_bytes(issuer.entities["edge"].pem + stranger.intermediates[0].pem)
    return files


def chain_too_deep(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    return Issuer(issuer.directory / "deep", name="Deep", depth=4).material("edge", HOST)


def sha1(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    old = Issuer(issuer.directory / "old", name="Old", rsa=True)
    return old.write("edge", old.sha1_entity("edge", HOST))


def foul_extension(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    entity = issuer.entities["edge"]
    der = entity.certificate.public_bytes(serialization.Encoding.DER)
    name = f"sip:{HOST}".encode()
    assert name in der
    damaged = x509.load_der_x509_certificate(der.replace(name, b"\xff" + name[1:]))
    files.certificate_path.write_bytes(damaged.public_bytes(serialization.Encoding.PEM))
    return files


def trust_missing(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    return replace(files, trust_path=issuer.directory / "absent.pem")


def trust_not_pem(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    return replace(files, trust_path=issuer.write_trust("trust.pem", b"nothing"))


def trust_of_intermediates(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    return replace(files, trust_path=issuer.write_trust("trust.pem", issuer.intermediates[0]))


def trust_with_a_leaf(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    return replace(files, trust_path=issuer.write_trust("trust.pem", issuer.root, issuer.entities["edge"]))


def trust_malformed(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    named = Issuer(issuer.directory / "named", name="Named", ca_names=[x509.DNSName("ca.example")])
    der = named.root.certificate.public_bytes(serialization.Encoding.DER)
    assert b"ca.example" in der
    damaged = x509.load_der_x509_certificate(der.replace(b"ca.example", b"\xffa.example"))
    pem = damaged.public_bytes(serialization.Encoding.PEM)
    return replace(files, trust_path=issuer.write_trust("trust.pem", issuer.root, pem))


def trust_writable(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    files.trust_path.chmod(0o664)
    return files


def trust_expired(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    gone = Issuer(issuer.directory / "gone", name="Gone", ca_lifetime=timedelta(0))
    return replace(files, trust_path=gone.trust_path)


def trust_weak(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    weak = Issuer(issuer.directory / "weak", name="Weak", rsa=True, rsa_bits=1024)
    return replace(files, trust_path=weak.trust_path)


def crl_missing(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    return replace(files, crl_path=issuer.directory / "absent.pem")


def crl_writable(issuer: Issuer, files: TLSMaterialSettings) -> TLSMaterialSettings:
    path = issuer.write_crl("crl.pem", issuer.crl(signer=issuer.root))
    path.chmod(0o666)
    return replace(files, crl_path=path)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (missing_certificate, ProblemCode.MISSING),
        (key_is_a_directory, ProblemCode.NOT_A_FILE),
        (key_is_a_fifo, ProblemCode.NOT_A_FILE),
        (certificate_is_huge, ProblemCode.TOO_LARGE),
        (certificate_not_pem, ProblemCode.NOT_PEM),
        (certificate_empty, ProblemCode.NOT_PEM),
        (key_not_pem, ProblemCode.NOT_PEM),
        (key_encrypted, ProblemCode.KEY_ENCRYPTED),
        (key_of_another, ProblemCode.KEY_MISMATCH),
        (key_for_group, ProblemCode.KEY_EXPOSED),
        (key_for_others, ProblemCode.KEY_EXPOSED),
        (flawed(Flaw.EXPIRED), ProblemCode.EXPIRED),
        (flawed(Flaw.NOT_YET_VALID), ProblemCode.NOT_YET_VALID),
        (flawed(Flaw.WEAK_RSA), ProblemCode.WEAK_KEY),
        (flawed(Flaw.WEAK_CURVE), ProblemCode.WEAK_KEY),
        (flawed(Flaw.NO_EKU), ProblemCode.WRONG_USAGE),
        (flawed(Flaw.CLIENT_ONLY), ProblemCode.WRONG_USAGE),
        (flawed(Flaw.SERVER_ONLY), ProblemCode.WRONG_USAGE),
        (flawed(Flaw.IS_CA), ProblemCode.WRONG_USAGE),
        (flawed(Flaw.CN_ONLY), ProblemCode.NO_IDENTITY),
        (flawed(Flaw.WILDCARD), ProblemCode.NO_IDENTITY),
        (flawed(Flaw.NUL_IN_NAME), ProblemCode.NO_IDENTITY),
        (chain_out_of_order, ProblemCode.BROKEN_CHAIN),
        (chain_too_deep, ProblemCode.TOO_DEEP),
        (sha1, ProblemCode.WEAK_SIGNATURE),
        (foul_extension, ProblemCode.MALFORMED),
        (trust_missing, ProblemCode.MISSING),
        (trust_not_pem, ProblemCode.NOT_PEM),
        (trust_of_intermediates, ProblemCode.NO_CA),
        (trust_with_a_leaf, ProblemCode.NOT_A_CA),
        (trust_malformed, ProblemCode.MALFORMED),
        (trust_writable, ProblemCode.WRITABLE_BY_OTHERS),
        (trust_expired, ProblemCode.EXPIRED),
        (trust_weak, ProblemCode.WEAK_KEY),
        (crl_missing, ProblemCode.MISSING),
        (crl_writable, ProblemCode.WRITABLE_BY_OTHERS),
    ],
)
def test_each_defect_is_found_and_its_absence_loads(
    issuer: Issuer,
    files: TLSMaterialSettings,
    damage: Callable[[Issuer, TLSMaterialSettings], TLSMaterialSettings],
    code: ProblemCode,
) -> None:
    load(issuer, files)
    assert problems(issuer, damage(issuer, files)).codes == {code}


def test_all_problems_of_all_files_come_together(issuer: Issuer, files: TLSMaterialSettings) -> None:
    issuer.material("edge", HOST, flaw=Flaw.EXPIRED)
    key_of_another(issuer, files)
    key_for_others(issuer, files)
    error = problems(issuer, crl_missing(issuer, trust_not_pem(issuer, files)))
    assert error.codes == {
        ProblemCode.EXPIRED,
        ProblemCode.KEY_MISMATCH,
        ProblemCode.KEY_EXPOSED,
        ProblemCode.NOT_PEM,
        ProblemCode.MISSING,
    }
    assert len(str(error).splitlines()) == 5


def test_one_usage_is_enough_where_only_one_is_asked(issuer: Issuer) -> None:
    server = issuer.material("server", HOST, flaw=Flaw.SERVER_ONLY)
    load_material(server, now=issuer.now, usages=frozenset({Usage.SERVER}))
    with pytest.raises(MaterialError, match="clientAuth"):
        load_material(server, now=issuer.now, usages=frozenset({Usage.CLIENT}))


def test_read_only_keys_and_links_are_fine(issuer: Issuer, files: TLSMaterialSettings) -> None:
    files.private_key_path.chmod(0o400)
    link = issuer.directory / "current.key"
    link.symlink_to(files.private_key_path)
    load(issuer, replace(files, private_key_path=link))


def test_a_key_of_another_user_is_refused(
    issuer: Issuer, files: TLSMaterialSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(issuer, files)
    if os.geteuid() == 0:
        os.chown(files.private_key_path, 65534, 65534)
    else:
        # Only root can give a file away; anybody can be told to be somebody else.
        own = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert problems(issuer, files).codes == {ProblemCode.KEY_FOREIGN_OWNER}


def test_the_deepest_chain_allowed_loads_with_and_without_its_root(issuer: Issuer) -> None:
    deep = Issuer(issuer.directory / "deep", name="Deep", depth=3)
    files = deep.material("edge", HOST)
    load(deep, files)
    with files.certificate_path.open("ab") as stream:
        stream.write(deep.root.pem)
    load(deep, files)


def test_our_certificate_counts_from_its_first_second_to_the_one_before_its_last(
    issuer: Issuer, files: TLSMaterialSettings
) -> None:
    leaf = issuer.entities["edge"].certificate
    load_material(files, now=leaf.not_valid_before_utc)
    load_material(files, now=leaf.not_valid_after_utc - timedelta(seconds=1))
    for moment, code in (
        (leaf.not_valid_before_utc - timedelta(seconds=1), ProblemCode.NOT_YET_VALID),
        (leaf.not_valid_after_utc, ProblemCode.EXPIRED),
    ):
        with pytest.raises(MaterialError) as caught:
            load_material(files, now=moment)
        assert caught.value.codes == {code}


def test_expiring_soon_is_a_warning_on_the_day(issuer: Issuer) -> None:
    late = issuer.write("late", issuer.issue("late", [x509.DNSName(HOST)], lifetime=EXPIRY_WARNING))
    assert load(issuer, late).warnings == ()
    later = load_material(late, now=issuer.now + timedelta(seconds=1))
    assert [warning.code for warning in later.warnings] == [ProblemCode.EXPIRING_SOON]


def test_one_expired_anchor_beside_a_good_one_is_a_warning(
    issuer: Issuer, files: TLSMaterialSettings
) -> None:
    gone = Issuer(issuer.directory / "gone", name="Gone", ca_lifetime=timedelta(0))
    both = replace(files, trust_path=issuer.write_trust("both.pem", gone.root, issuer.root))
    assert [warning.code for warning in load(issuer, both).warnings] == [ProblemCode.EXPIRED]


def test_an_anchor_counts_from_its_first_second(issuer: Issuer, files: TLSMaterialSettings) -> None:
    start = issuer.root.certificate.not_valid_before_utc
    assert load_trust(files, now=start).anchors == (issuer.root.certificate,)
    with pytest.raises(MaterialError, match="none of its CA certificates is valid today"):
        load_trust(files, now=start - timedelta(seconds=1))


def test_intermediates_in_the_trust_file_are_no_anchors(issuer: Issuer, files: TLSMaterialSettings) -> None:
    both = replace(files, trust_path=issuer.write_trust("both.pem", issuer.root, issuer.intermediates[0]))
    trust = load_trust(both, now=issuer.now)
    assert trust.anchors == (issuer.root.certificate,)
    assert trust.intermediates == (issuer.intermediates[0].certificate,)
    assert x509.load_pem_x509_certificates(trust.anchors_pem) == [issuer.root.certificate]


def test_trust_alone_reports_both_files(issuer: Issuer, files: TLSMaterialSettings) -> None:
    absent = issuer.directory / "absent.pem"
    with pytest.raises(MaterialError) as caught:
        load_trust(replace(files, trust_path=absent, crl_path=absent), now=issuer.now)
    assert len(caught.value.problems) == 2
    with pytest.raises(MaterialError, match="no self-signed CA"):
        load_trust(trust_of_intermediates(issuer, files), now=issuer.now)


def test_the_digest_follows_content_and_mode(issuer: Issuer, files: TLSMaterialSettings) -> None:
    before = load(issuer, files).digest
    assert load(issuer, files).digest == before
    shutil.copy(files.certificate_path, issuer.directory / "copy.pem")
    os.utime(files.certificate_path)
    assert load(issuer, files).digest == before
    files.private_key_path.chmod(0o400)
    changed = load(issuer, files).digest
    assert changed != before
    issuer.material("edge", HOST)
    files.private_key_path.chmod(0o400)
    assert load(issuer, files).digest not in (before, changed)


def test_keys_that_are_neither_rsa_nor_ec_are_refused(issuer: Issuer) -> None:
    entity = issuer.with_key("edge", ed25519.Ed25519PrivateKey.generate(), HOST)
    assert problems(issuer, issuer.write("edge", entity)).codes == {ProblemCode.WEAK_KEY}
    load(issuer, issuer.write("edge", issuer.with_key("edge", new_key("secp384r1"), HOST)))


def test_a_ca_for_mail_does_not_matter_to_our_own_file(issuer: Issuer) -> None:
    """Our chain is judged for order and strength; whether peers accept its CA is theirs to say."""
    mail = Issuer(issuer.directory / "m", depth=1, ca_usages=[ExtendedKeyUsageOID.EMAIL_PROTECTION])
    load(mail, mail.material("edge", HOST))
