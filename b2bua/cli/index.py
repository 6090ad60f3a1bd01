"""`b2bua index`: what the catalogue knows, whether it agrees with the store, and how to get it back."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from b2bua.audit import AuditEvent, AuditLine
from b2bua.cli import output
from b2bua.cli.access import Access, access_of, add_access
from b2bua.cli.parser import add_command, add_configuration, add_group, add_json, configuration_path
from b2bua.cli.stewardship import Stewardship, open_stewardship
from b2bua.errors import CommandError, IndexFindingsError
from recording.format.header import Head
from recording.index.backup import HELD_AS, BackupCounts, back_up, restore
from recording.index.migrate import SCHEMA_VERSION
from recording.index.parties import PartySealer
from recording.index.rebuild import Differences, Rebuilder, Rebuilt, compare
from recording.index.search_key import SearchKey, create_search_key
from recording.keys.build import build_provider, build_providers, slot_keys
from recording.keys.pool import TenantKey
from recording.keys.provider import KeyProvider

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

SEALER_WAIT_S = 10.0


def register(subparsers: Subparsers) -> None:
    """Add the group and its commands."""
    group = add_group(
        subparsers,
        "index",
        summary="Look after the catalogue of recordings.",
        example="""
            b2bua index status -c lab/b2bua.toml --check
            b2bua index rebuild -c lab/b2bua.toml --reason migration
        """,
    )
    status = add_command(
        group,
        "status",
        summary="Say what the index holds; with --check also whether it agrees with the store. Needs no key.",
        example="b2bua index status -c lab/b2bua.toml --check --json",
        run=run_status,
    )
    add_configuration(status)
    status.add_argument("--check", action="store_true", help="compare it with a listing of the store")
    add_json(status)
    rebuild = add_command(
        group,
        "rebuild",
        summary="Make entries from storage alone, with a key that may open recordings. Each reading is audited.",
        example="b2bua index rebuild -c lab/b2bua.toml --reason migration",
        run=run_rebuild,
    )
    add_configuration(rebuild)
    add_access(rebuild)
    add_json(rebuild)
    backup = add_command(
        group,
        "backup",
        summary="Seal the index into a file under [index] backup_key.",
        example="b2bua index backup -c lab/b2bua.toml -o index-2026-11-24.crec",
        run=run_backup,
    )
    add_configuration(backup)
    backup.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="a new file")
    add_json(backup)
    back = add_command(
        group,
        "restore",
        summary="Enter what a backup knows and the index does not; what had no hold then is put on one.",
        example="b2bua index restore -c lab/b2bua.toml index-2026-11-24.crec",
        run=run_restore,
    )
    add_configuration(back)
    back.add_argument("file", metavar="FILE", type=Path, help="what `b2bua index backup` wrote")
    add_json(back)
    new_key = add_command(
        group,
        "new-key",
        summary="Make a search key: 32 random bytes, mode 0600, for [index] search_key.",
        example="b2bua index new-key lab/keys/index-search.key",
        run=run_new_key,
    )
    new_key.add_argument("file", metavar="FILE", type=Path, help="a new file")


def run_status(arguments: argparse.Namespace) -> int:
    """Count, and compare if asked. Differences are the exit code of IndexFindingsError."""
    with open_stewardship(configuration_path(arguments)) as stewardship:
        index = stewardship.index
        keys = index.index_keys()
        facts: dict[str, object] = {
            "place": str(index.place),
            "schema_version": SCHEMA_VERSION,
            "on_hold": index.count_held(),
            "index_keys": len(keys),
            "newest_index_key": max((key.created_hour.isoformat() for key in keys), default=None),
            "search_by_number": stewardship.settings.recording.index.search_key_path is not None,
        }
        facts |= {state.value: count for state, count in index.counts().items()}
        differences = compare(index, stewardship.sink) if arguments.check else None
    if differences is not None:
        facts |= {"lost": len(differences.lost), "unknown": len(differences.unknown)}
        facts["returned"] = len(differences.returned)
    if arguments.json:
        output.print_json(facts)
    else:
        output.print_table(["index", "is"], [[name, value] for name, value in facts.items()])
    if differences is not None and not differences.is_empty:
        raise IndexFindingsError("\n".join(_differences(differences)))
    return 0


def _differences(found: Differences) -> Iterator[str]:
    for key in found.lost:
        yield f"{key}: the index has it and the store does not; it was lost, or restored from elsewhere"
    for key in found.unknown:
        yield f"{key}: the store has it and the index does not; run: b2bua index rebuild"
    for key in found.returned:
        yield f"{key}: the index says that it was deleted, and it is in the store; find out who put it back"


def run_rebuild(arguments: argparse.Namespace) -> int:
    """Read every object. What could not be read is the exit code of IndexFindingsError."""
    done: list[Rebuilt] = []
    access = access_of(arguments, "index_rebuild")
    with open_stewardship(configuration_path(arguments)) as stewardship, contextlib.ExitStack() as stack:
        providers = build_providers(stewardship.settings.recording.keys)
        sealer = _sealer(stewardship, providers, stack)
        rebuilder = Rebuilder(
            index=stewardship.index,
            sink=stewardship.sink,
            keys=slot_keys(providers.values()),
            retention=stewardship.settings.recording.retention,
            sealer=sealer,
            on_read=lambda head: _tell(stewardship, head, access),
        )
        total = len(list(stewardship.sink.keys()))
        with output.progress_bar() as progress:
            done += progress.track(rebuilder.run(), total=total, description="rebuilding")
        stewardship.audit.write(AuditLine(event=AuditEvent.INDEX_REBUILT, count=len(done)))
        names_problem = None if sealer is None else sealer.problem
    problems = [each for each in done if each.problem is not None]
    facts = {
        "objects": len(done),
        "new": sum(each.is_new for each in done),
        "on_hold": sum(
            each.is_new and each.entry is not None and each.entry.hold is not None for each in done
        ),
        "unreadable": len(problems),
        "names_not_sealed": names_problem,
    }
    if arguments.json:
        output.print_json(facts)
    else:
        output.print_table(["rebuilt", "is"], [[name, value] for name, value in facts.items()])
    if problems:
        raise IndexFindingsError("\n".join(f"{each.key}: {each.problem}" for each in problems))
    return 0


def _tell(stewardship: Stewardship, head: Head, access: Access) -> None:
    """Durable before a record of the file is decrypted. Raises AuditError."""
    line = AuditLine(
        event=AuditEvent.RECORDING_READ,
        file_id=head.core.file_id.hex(),
        tenant_handle=head.core.tenant_handle.hex(),
        action=access.action,
        reason=access.reason.value,
        ticket=access.ticket,
    )
    stewardship.audit.write(line)
    stewardship.audit.flush()


def _sealer(
    stewardship: Stewardship, providers: dict[str, KeyProvider], stack: contextlib.ExitStack
) -> PartySealer | None:
    """Names are sealed again where there is a search key, and as far as this role may draw index keys."""
    settings = stewardship.settings
    if settings.recording.index.search_key_path is None:
        return None
    sealer = PartySealer(
        index=stewardship.index,
        tenants={
            tenant.name: TenantKey(handle=tenant.handle, provider=tenant.key)
            for tenant in settings.tenants.values()
        },
        providers=providers,
        search_key=SearchKey(settings.recording.index.search_key_path),
        key=settings.recording.index.key,
    )
    stack.callback(sealer.stop, 5.0)
    sealer.start()
    sealer.wait_ready(SEALER_WAIT_S)
    return sealer


def run_backup(arguments: argparse.Namespace) -> int:
    """Write a backup."""
    with open_stewardship(configuration_path(arguments)) as stewardship:
        counts = back_up(stewardship.index, arguments.output, _backup_provider(stewardship))
        stewardship.audit.write(AuditLine(event=AuditEvent.INDEX_BACKED_UP, count=counts.entries))
    _print_counts(arguments, counts)
    return 0


def run_restore(arguments: argparse.Namespace) -> int:
    """Restore one."""
    with open_stewardship(configuration_path(arguments)) as stewardship:
        keys = slot_keys([_backup_provider(stewardship)])
        counts = restore(stewardship.index, arguments.file, keys, stewardship.sink)
        stewardship.audit.write(AuditLine(event=AuditEvent.INDEX_RESTORED, count=counts.entries))
    _print_counts(arguments, counts)
    return 0


def _backup_provider(stewardship: Stewardship) -> KeyProvider:
    recording = stewardship.settings.recording
    name = recording.index.backup_key
    if name is None:
        raise CommandError("there is no [index] backup_key; name a [keys.NAME] section that no tenant uses")
    return build_provider(name, recording.keys[name])


def _print_counts(arguments: argparse.Namespace, counts: BackupCounts) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    if arguments.json:
        facts = {"entries": counts.entries, "index_keys": counts.keys, "on_hold": counts.held, "at": at}
        output.print_json(facts)
    else:
        output.print_line(f"{counts.entries} entries, {counts.keys} index keys")
    if counts.held:
        output.print_error(
            f"{counts.held} files had no hold in the backup and may have got one since: they are on hold now. Put the "
            f"holds of `b2bua audit show --event recording_held` since then on again, then run: "
            f"b2bua recordings release --held-for {HELD_AS} --reason LABEL"
        )


def run_new_key(arguments: argparse.Namespace) -> int:
    """Make the file."""
    create_search_key(arguments.file)
    output.print_line(f"{arguments.file} made; who holds it and the index can test guesses of numbers")
    return 0
