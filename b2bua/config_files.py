"""The files a configuration names: certificates, keys and key-encryption keys, judged before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from b2bua.config_document import Document, Report, Section
from b2bua.config_key_files import check_key_files
from b2bua.config_lines import KeyPath
from b2bua.config_shape_calls import TLS
from b2bua.config_shape_process import MetricsTable
from b2bua.config_sink import check_sink_files
from b2bua.settings import Environment
from recording.keys.errors import KeyConfigurationError
from recording.signing import PublicKey, SigningKey
from tls.certificate import Usage
from tls.errors import MaterialError
from tls.material import BOTH_USAGES, TLSMaterial, load_material
from tls.settings import TLSMaterialSettings

_PEM_FIELDS = ("certificate", "private_key", "trust", "crl")


def check_files(document: Document, report: Report, now: datetime) -> None:
    """Read every file the configuration names and report what makes it unusable."""
    if document.tls is not None and document.tls.good(*_PEM_FIELDS):
        _check_material(document, document.tls, material_settings(document), report, now, BOTH_USAGES)
    metrics = document.metrics
    if metrics is not None and metrics.good(*_PEM_FIELDS) and any(map(metrics.is_set, _PEM_FIELDS)):
        settings = metrics_material_settings(document)
        if settings is not None:
            _check_material(document, metrics, settings, report, now, frozenset({Usage.SERVER}))
    check_key_files(document, report)
    _check_signing(document, report)
    check_sink_files(document, report)
    audit = document.audit
    if audit is not None and audit.good("plain") and audit.value.plain not in {None, "-"}:
        _check_audit_path(document.file(audit.value.plain or ""), audit.key("plain"), report)


def material_settings(document: Document) -> TLSMaterialSettings:
    """The files of the SIP endpoint. The [tls] table must be good."""
    assert document.tls is not None
    table = document.tls.value
    return TLSMaterialSettings(
        certificate_path=document.file(table.certificate),
        private_key_path=document.file(table.private_key),
        trust_path=document.file(table.trust),
        crl_path=None if table.crl is None else document.file(table.crl),
    )


def metrics_material_settings(document: Document) -> TLSMaterialSettings | None:
    """The files of the metrics endpoint: its own or, one by one, those of [tls]. None while [tls] isn't good."""
    assert document.metrics is not None
    own = document.metrics.value
    if document.tls is None or not document.tls.good(*_PEM_FIELDS):
        return None
    shared = document.tls.value
    crl = own.crl or shared.crl
    return TLSMaterialSettings(
        certificate_path=document.file(own.certificate or shared.certificate),
        private_key_path=document.file(own.private_key or shared.private_key),
        trust_path=document.file(own.trust or shared.trust),
        crl_path=None if crl is None else document.file(crl),
    )


def _check_material(
    document: Document,
    section: Section[TLS] | Section[MetricsTable],
    settings: TLSMaterialSettings,
    report: Report,
    now: datetime,
    usages: frozenset[Usage],
) -> None:
    by_path = {
        settings.certificate_path: "certificate",
        settings.private_key_path: "private_key",
        settings.trust_path: "trust",
        settings.crl_path: "crl",
    }
    try:
        material = load_material(settings, now=now, usages=usages)
    except MaterialError as error:
        for problem in error.problems:
            report.add(section.key(by_path[problem.path]), f"{problem.path}: {problem.what}", problem.cure)
        return
    _check_authority(document, section, material, report)


def _check_authority(
    document: Document, section: Section[TLS] | Section[MetricsTable], material: TLSMaterial, report: Report
) -> None:
    general = document.general
    if not general.good("environment") or general.value.environment is not Environment.PRODUCTION:
        return
    if any(_is_development_ca(anchor) for anchor in material.trust.anchors):
        what = "it trusts a development certificate authority, which production refuses"
        cure = 'name the authority of your peers, or set environment = "development" for tests'
        report.add(section.key("trust"), what, cure)


def _is_development_ca(anchor: x509.Certificate) -> bool:
    """`tls.authority` puts the words into the name of each authority it makes."""
    names = anchor.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return any("development ca" in str(name.value).lower() for name in names)


def _check_signing(document: Document, report: Report) -> None:
    section = document.recording
    if section is None:
        return
    files: list[tuple[KeyPath, Path, Callable[[Path], object]]] = []
    if section.good("signing_key") and section.value.signing_key is not None:
        files.append((section.key("signing_key"), document.file(section.value.signing_key), SigningKey.load))
    if section.good("verification_keys"):
        files += [
            ((*section.key("verification_keys"), index), document.file(text), PublicKey.load)
            for index, text in enumerate(section.value.verification_keys)
        ]
    for key, path, load in files:
        try:
            load(path)
        except KeyConfigurationError as error:
            what, _, cure = str(error).partition("; ")
            report.add(key, what, cure)


def _check_audit_path(path: Path, key: KeyPath, report: Report) -> None:
    if path.is_dir():
        report.add(key, f"{path} is a directory", "name a file; it is made when missing")
    elif not path.parent.is_dir():
        report.add(key, f"there is no directory {path.parent}", "make it, or correct the path")
