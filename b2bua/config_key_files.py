"""The files that key tables name: key-encryption keys, tokens, PINs, trust anchors, judged before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never

from b2bua.config_document import Document, Report, Section
from b2bua.config_keys import AWSKey, LocalKey, RSAKey, TokenKey, TransitTable, VaultKey
from b2bua.config_lines import KeyPath
from recording.keys.errors import KeyConfigurationError
from recording.keys.local import read_kek
from recording.keys.public_key import read_private_key, read_public_key
from recording.keys.secret_file import SecretLine
from tls.errors import MaterialProblem
from tls.source import read_source


def check_key_files(document: Document, report: Report) -> None:
    """Read every file that a key table names and report what makes it unusable."""
    for section in document.keys.values():
        if section is None:
            continue
        table = section.value
        match table:
            case LocalKey():
                _check_kek(document, section, report)
            case AWSKey():
                _check_anchors(document, table.ca, section.key("ca"), report, is_good=section.good("ca"))
            case VaultKey():
                _check_transit(document, section, table, section.path, report)
            case TokenKey():
                _check_token(document, section, table, report)
            case RSAKey():
                _check_pair(document, section, table, report)
            case _:
                assert_never(table)


def _check_kek(document: Document, section: Section[Any], report: Report) -> None:
    if not section.good("kek"):
        return
    source = read_source(document.file(section.value.kek))
    if isinstance(source, MaterialProblem):
        report.add(
            section.key("kek"),
            f"{source.path}: {source.what}",
            f"{source.cure}, or make one with: b2bua init",
        )
        return
    _read(
        lambda: read_kek(source.path),
        section.key("kek"),
        report,
        "name a file of 32 random bytes and mode 0600",
    )


def _check_transit(
    document: Document, section: Section[Any], table: TransitTable, path: KeyPath, report: Report
) -> None:
    """`path` is the table's own place: `section` may be the one around it."""
    is_nested = path != section.path
    _check_anchors(document, table.ca, (*path, "ca"), report, is_good=is_nested or section.good("ca"))
    if is_nested or section.good("token_file"):
        _check_secret(document.file(table.token_file), (*path, "token_file"), report)


def _check_token(document: Document, section: Section[Any], table: TokenKey, report: Report) -> None:
    if section.good("module") and not document.file(table.module).is_file():
        what = f"there is no file {document.file(table.module)}"
        report.add(section.key("module"), what, "install the vendor's PKCS#11 module, or correct the path")
    if section.good("pin_file"):
        _check_secret(document.file(table.pin_file), section.key("pin_file"), report)


def _check_pair(document: Document, section: Section[Any], table: RSAKey, report: Report) -> None:
    if section.good("public_key") and table.public_key is not None:
        path = document.file(table.public_key)
        _read(lambda: read_public_key(path), section.key("public_key"), report, "name a PEM public key")
    if section.good("private_key") and table.private_key is not None:
        secret = document.file(table.private_key)
        _read(lambda: read_private_key(secret), section.key("private_key"), report, "name a PEM private key")
    if section.good("transit") and table.transit is not None:
        _check_transit(document, section, table.transit, section.key("transit"), report)


def _check_secret(path: Path, key: KeyPath, report: Report) -> None:
    line = SecretLine(path, setting=str(key[-1]))
    _read(line.read, key, report, "write it again, mode 0600")


def _check_anchors(
    document: Document, text: str | None, key: KeyPath, report: Report, *, is_good: bool
) -> None:
    if not is_good or text is None:
        return
    source = read_source(document.file(text))
    if isinstance(source, MaterialProblem):
        report.add(key, f"{source.path}: {source.what}", source.cure)
    elif b"-----BEGIN CERTIFICATE-----" not in source.data:
        report.add(key, f"{source.path}: it holds no PEM certificate", "name a PEM file with the authority")


def _read(read: Callable[[], object], key: KeyPath, report: Report, cure: str) -> None:
    try:
        read()
    except KeyConfigurationError as error:
        what, _, own_cure = str(error).partition("; ")
        report.add(key, what, own_cure or cure)
