"""The table [index] judged against the other tables and the files it names, and made into settings."""

from __future__ import annotations

import stat

from b2bua.config_document import Document, Report, Section
from b2bua.config_shape_index import IndexTable
from recording.index.search_key import SearchKey
from recording.keys.errors import KeyConfigurationError
from recording.settings import IndexSettings, PostgreSQLSettings, RetentionSettings
from tls.errors import MaterialProblem
from tls.source import read_source

_OF_DATABASE = ("ca", "passfile", "certificate", "private_key", "tls_floor", "timeout_s")


def check_index(document: Document, report: Report) -> None:
    """What is set must be of use, and what it needs must be there."""
    section = document.index
    if section is None:
        return
    _check_database(document, section, report)
    for name in ("key", "backup_key"):
        value = getattr(section.value, name)
        if section.good(name) and value is not None and value not in document.keys:
            known = ", ".join(sorted(document.keys)) or "none"
            report.add(
                section.key(name),
                f"there is no [keys.{value}]",
                f"add that table or use one that exists: {known}",
            )
    backup = section.value.backup_key
    sealing = {tenant.value.key for tenant in document.tenants.values() if tenant.good("key")}
    if section.good("key") and section.value.key is not None:
        sealing.add(section.value.key)
    if section.good("backup_key") and backup is not None and backup in sealing:
        what = (
            f"key {backup} seals recordings or their index too, so a backup would be no safer than they are"
        )
        report.add(section.key("backup_key"), what, "give backups a key of their own")


def _check_database(document: Document, section: Section[IndexTable], report: Report) -> None:
    table = section.value
    if not section.is_set("url"):
        for name in _OF_DATABASE:
            if section.is_set(name):
                report.add(section.key(name), "it is of no use without `url`", "add url, or remove it")
        return
    if document.recording is not None and document.recording.is_set("index"):
        report.add(
            section.key("url"), "recording.index names an SQLite file, and there is one index", "remove one"
        )
    if section.good("ca") and table.ca is None:
        cure = 'add ca = "FILE" with the authority that issued its certificate'
        report.add(section.key("url"), "nobody vouches for the database", cure)
    if section.good("certificate", "private_key") and (table.certificate is None) != (
        table.private_key is None
    ):
        name = "certificate" if table.private_key is None else "private_key"
        report.add(section.key(name), "a client certificate and its key go together", "name both, or neither")
    if section.good("passfile", "certificate") and table.passfile is None and table.certificate is None:
        report.add(
            section.key("url"),
            "there is nothing to log in with",
            "add passfile, or certificate and private_key",
        )


def check_index_files(document: Document, report: Report) -> None:
    """Read what the table names."""
    section = document.index
    if section is None:
        return
    table = section.value
    if section.good("search_key") and table.search_key is not None:
        try:
            SearchKey(document.file(table.search_key))
        except KeyConfigurationError as error:
            what, _, cure = str(error).partition("; ")
            report.add(
                section.key("search_key"), what, cure or "name a file of 32 random bytes and mode 0600"
            )
    for name in ("ca", "certificate", "private_key", "passfile"):
        text = getattr(table, name)
        if text is None or not section.good(name):
            continue
        source = read_source(document.file(text))
        if isinstance(source, MaterialProblem):
            report.add(section.key(name), f"{source.path}: {source.what}", source.cure)
        elif name in ("ca", "certificate") and b"-----BEGIN CERTIFICATE-----" not in source.data:
            report.add(
                section.key(name), f"{source.path}: it holds no PEM certificate", "name a PEM file with one"
            )
        elif name in ("private_key", "passfile") and source.path.stat().st_mode & (
            stat.S_IRWXG | stat.S_IRWXO
        ):
            report.add(
                section.key(name), f"{source.path}: others may use it", f"run: chmod 600 {source.path}"
            )


def index_settings(document: Document) -> IndexSettings:
    """The settings of a table in which no check found a fault."""
    assert document.index is not None
    table = document.index.value

    postgresql = None
    if table.url is not None:
        assert table.ca is not None
        postgresql = PostgreSQLSettings(
            host=table.url.host,
            port=table.url.port,
            database=table.url.database,
            user=table.url.user,
            ca_path=document.file(table.ca),
            passfile_path=None if table.passfile is None else document.file(table.passfile),
            certificate_path=None if table.certificate is None else document.file(table.certificate),
            private_key_path=None if table.private_key is None else document.file(table.private_key),
            tls_floor=table.tls_floor,
            timeout_s=table.timeout_s,
        )
    return IndexSettings(
        postgresql=postgresql,
        search_key_path=None if table.search_key is None else document.file(table.search_key),
        key=table.key,
        backup_key=table.backup_key,
    )


def retention_settings(document: Document) -> RetentionSettings:
    """How long each tenant and trunk keeps what is recorded."""
    return RetentionSettings(
        tenants={
            section.value.handle: section.value.retain_days
            for section in document.tenants.values()
            if section.value.retain_days is not None
        },
        trunks={
            name: section.value.retain_days
            for name, section in document.trunks.items()
            if section.value.retain_days is not None
        },
    )
