"""`b2bua audit`: verify, show, export and expire the sealed audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from b2bua.cli import audit_expire, audit_export, audit_show, audit_verify
from b2bua.cli.parser import add_group

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the group and its commands."""
    group = add_group(
        subparsers,
        "audit",
        summary="Verify, read, export and expire the sealed audit log.",
        example="""
            b2bua audit verify -c lab/b2bua.toml
            b2bua audit show -c lab/b2bua.toml --reason incident-review --event recording_read
        """,
    )
    for module in (audit_verify, audit_show, audit_export, audit_expire):
        module.register(group)
