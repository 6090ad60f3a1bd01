"""`b2bua recordings`: list, find, show, verify, export, attach, artefacts, hold, release, expire, recover."""

from __future__ import annotations

from typing import TYPE_CHECKING

from b2bua.cli import (
    recordings_artefacts,
    recordings_export,
    recordings_find,
    recordings_keep,
    recordings_list,
    recordings_recover,
    recordings_verify,
)
from b2bua.cli.parser import add_group

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the group and its commands."""
    group = add_group(
        subparsers,
        "recordings",
        summary="Find, judge, export and recover recordings.",
        example="""
            b2bua recordings list -c lab/b2bua.toml
            b2bua recordings verify -c lab/b2bua.toml --all --reason integrity_check
        """,
    )
    for module in (
        recordings_list,
        recordings_find,
        recordings_keep,
        recordings_verify,
        recordings_export,
        recordings_artefacts,
        recordings_recover,
    ):
        module.register(group)
