"""The table [recording.sink] judged as a whole and with the files it names, and made into settings."""

from __future__ import annotations

import stat

from b2bua.config_document import Document, Report
from b2bua.config_keys import AWSKey
from b2bua.config_shape_sink import SinkKind, SinkTable
from recording.settings import LocalSinkSettings, S3SinkSettings, ServerSideEncryption, SinkSettings
from tls.errors import MaterialProblem
from tls.source import read_source


def check_sink(document: Document, report: Report) -> None:
    """What a bucket needs must be there; what only a bucket has must not stand beside a directory."""
    section = document.sink
    if not section.good("kind"):
        return
    table = section.value
    if table.kind is SinkKind.LOCAL:
        for name in SinkTable.model_fields:
            if name != "kind" and section.is_set(name):
                report.add(
                    section.key(name), "it is of no use to a local sink", 'add kind = "s3", or remove it'
                )
        return
    for name, example in (("bucket", '"clinic-recordings"'), ("region", '"eu-central-1"')):
        if section.good(name) and getattr(table, name) is None:
            report.add(section.key(name), "the key is missing", f"add it, like {name} = {example}")
    if table.object_lock_days and section.good("object_lock_mode") and table.object_lock_mode is None:
        cure = 'add object_lock_mode = "GOVERNANCE" or "COMPLIANCE"'
        report.add(section.key("object_lock_days"), "nothing says how firmly to keep", cure)
    if section.is_set("profile") and section.good("credentials_file") and table.credentials_file is None:
        report.add(section.key("profile"), "it names a section of no file", "add credentials_file")
    _check_sse_key(document, report)


def _check_sse_key(document: Document, report: Report) -> None:
    """Uploads under SSE-KMS need Decrypt on that key: with a recording's key the recorder could read."""
    section = document.sink
    key_id = section.value.sse_kms_key_id
    if key_id is None or not section.good("sse_kms_key_id", "server_side_encryption"):
        return
    if section.value.server_side_encryption is not ServerSideEncryption.KMS:
        cure = 'add server_side_encryption = "aws:kms", or remove it'
        report.add(section.key("sse_kms_key_id"), 'it is of no use without "aws:kms"', cure)
    for name, key in document.keys.items():
        if key is not None and isinstance(key.value, AWSKey) and key.value.key_id == key_id:
            what = f"keys.{name} seals recordings under it, and uploads need the right to decrypt with it"
            report.add(section.key("sse_kms_key_id"), what, "give the bucket a key of its own")


def check_sink_files(document: Document, report: Report) -> None:
    """Read what the table names."""
    section = document.sink
    table = section.value
    if section.good("ca") and table.ca is not None:
        source = read_source(document.file(table.ca))
        if isinstance(source, MaterialProblem):
            report.add(section.key("ca"), f"{source.path}: {source.what}", source.cure)
        elif b"-----BEGIN CERTIFICATE-----" not in source.data:
            cure = "name a PEM file with the authority"
            report.add(section.key("ca"), f"{source.path}: it holds no PEM certificate", cure)
    if section.good("credentials_file") and table.credentials_file is not None:
        source = read_source(document.file(table.credentials_file))
        if isinstance(source, MaterialProblem):
            report.add(section.key("credentials_file"), f"{source.path}: {source.what}", source.cure)
        elif source.path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            what, cure = f"{source.path}: others may use it", f"run: chmod 600 {source.path}"
            report.add(section.key("credentials_file"), what, cure)


def sink_settings(document: Document) -> SinkSettings:
    """The settings of a table in which no check found a fault."""
    table = document.sink.value
    if table.kind is SinkKind.LOCAL:
        return LocalSinkSettings()
    assert table.bucket is not None
    assert table.region is not None
    credentials = table.credentials_file
    return S3SinkSettings(
        bucket=table.bucket,
        region=table.region,
        endpoint_url=table.endpoint_url,
        prefix=table.prefix,
        addressing_style=table.addressing_style,
        ca_path=None if table.ca is None else document.file(table.ca),
        credentials_path=None if credentials is None else document.file(credentials),
        profile=table.profile,
        acl=table.acl,
        object_lock_mode=table.object_lock_mode,
        object_lock_days=table.object_lock_days,
        server_side_encryption=table.server_side_encryption,
        sse_kms_key_id=table.sse_kms_key_id,
        multipart_chunksize=table.multipart_chunksize,
        max_concurrency=table.max_concurrency,
        request_checksum_calculation=table.request_checksum_calculation,
        if_none_match=table.if_none_match,
        tls_floor=table.tls_floor,
        timeout_s=table.timeout_s,
    )
