"""`b2bua keys`: status, rotate, retire, shred."""

from __future__ import annotations

from typing import TYPE_CHECKING

from b2bua.cli import keys_retire, keys_rotate, keys_shred, keys_status
from b2bua.cli.parser import add_group

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the group and its commands."""
    group = add_group(
        subparsers,
        "keys",
        summary="Look after the keys of the recordings: docs/key-management.md.",
        example="""
            b2bua keys status -c lab/b2bua.toml
            b2bua keys retire clinic-2025 --to clinic-2026 --rewrap -c lab/b2bua.toml --reason suspected-leak
        """,
    )
    for module in (keys_status, keys_rotate, keys_retire, keys_shred):
        module.register(group)
