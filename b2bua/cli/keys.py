"""`b2bua keys`: whether the keys that the configuration names can be used."""

from __future__ import annotations

import argparse
import secrets
import time
from typing import TYPE_CHECKING

from b2bua import config
from b2bua.cli import output
from b2bua.cli.parser import add_command, add_configuration, add_group, add_json, configuration_path
from b2bua.settings import Settings
from recording.errors import RecordingError
from recording.format.suites import wipe
from recording.keys.build import build_provider
from recording.keys.provider import KeyContext, KeyProvider, lifecycle_facts
from recording.settings import KeySettings

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the group and its command."""
    group = add_group(
        subparsers,
        "keys",
        summary="Look after the keys of the recordings.",
        example="b2bua keys status -c lab/b2bua.toml",
    )
    parser = add_command(
        group,
        "status",
        summary="Say of each key-encryption key where it is, who uses it, and whether it answers.",
        example="""
            b2bua keys status -c lab/b2bua.toml
            b2bua keys status -c lab/b2bua.toml --request --json
        """,
        run=run_status,
    )
    add_configuration(parser)
    parser.add_argument(
        "--request", action="store_true", help="ask for a data key too and throw it away: shows permissions"
    )
    add_json(parser)


def run_status(arguments: argparse.Namespace) -> int:
    """Ask every provider, those after a failing one too. The exit code is that of the first failure."""
    settings = config.load(configuration_path(arguments))
    found = []
    failures: list[RecordingError] = []
    for name, key in settings.recording.keys.items():
        facts, failure = _status(name, key, settings, request=arguments.request)
        found.append(facts)
        if failure is not None:
            failures.append(failure)
    if arguments.json:
        output.print_json({"keys": found})
    else:
        for facts in found:
            output.print_table(
                ["key", str(facts["name"])],
                [[name, value] for name, value in facts.items() if name != "name"],
            )
            output.print_line()
    for failure in failures:
        output.print_error(str(failure))
    return failures[0].exit_code if failures else 0


def _status(
    name: str, key: KeySettings, settings: Settings, *, request: bool
) -> tuple[dict[str, object], RecordingError | None]:
    tenants = sorted(tenant.name for tenant in settings.tenants.values() if tenant.key == name)
    facts: dict[str, object] = {"name": name, "tenants": ", ".join(tenants) or None}
    began = time.monotonic_ns()
    try:
        provider = build_provider(name, key)
        facts |= provider.describe()
        provider.health()
        facts |= lifecycle_facts(provider)
        if request:
            _request(provider)
    except RecordingError as error:
        return {**facts, "health": f"failed: {error}"}, error
    milliseconds = (time.monotonic_ns() - began) / 1e6
    return {
        **facts,
        "health": "a data key was made" if request else "answers",
        "took_ms": round(milliseconds, 1),
    }, None


def _request(provider: KeyProvider) -> None:
    """A data key for a file and a tenant that don't exist, wiped at once."""
    context = KeyContext(file_id=secrets.token_bytes(16), tenant_handle=secrets.token_bytes(16))
    wipe(provider.new_key(context).dek)
