"""`b2bua recordings find`: by number without showing it, by time, trunk, tenant, state and hold."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from b2bua.audit import AuditEvent, AuditLine
from b2bua.cli import output
from b2bua.cli.access import Access, access_of, add_access
from b2bua.cli.parser import add_command, add_configuration, add_json, add_limit, configuration_path
from b2bua.cli.recordings_list import entry_json, tell_more
from b2bua.cli.stewardship import Stewardship, open_stewardship
from b2bua.errors import CommandError
from recording.errors import RecordingError
from recording.format.content import RecordingKind
from recording.index import IndexEntry, IndexState
from recording.index.parties import Parties, PartyReader
from recording.index.search_key import SearchKey
from recording.keys.build import build_providers, slot_keys

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

_STANDARD_INPUT = "-"
_MOST_NUMBER = 256


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "find",
        summary="Find recordings by number, time, trunk, tenant, state or hold. Only --parties needs a key.",
        example="""
            b2bua recordings find -c lab/b2bua.toml --since 2026-11-01 --until 2026-11-02 --trunk carrier
            b2bua recordings find -c lab/b2bua.toml --number - < number.txt
            b2bua recordings find -c lab/b2bua.toml --hold --parties --reason complaint
        """,
        run=run,
    )
    add_configuration(parser)
    parser.add_argument(
        "--number",
        metavar="NUMBER",
        help="either party, the whole number or name; - reads it from standard input, where no process list shows it",
    )
    parser.add_argument(
        "--since", metavar="TIME", type=_time, help="begun then or later: 2026-11-24 or 2026-11-24T10"
    )
    parser.add_argument("--until", metavar="TIME", type=_time, help="begun before it")
    parser.add_argument("--trunk", metavar="NAME", help="on either side")
    parser.add_argument("--tenant", metavar="NAME", help="of this tenant")
    parser.add_argument("--state", choices=[state.value for state in IndexState], help="in this state")
    parser.add_argument("--kind", choices=[kind.value for kind in RecordingKind], help="of this kind")
    parser.add_argument("--hold", action="store_true", help="only those on hold")
    add_limit(parser)
    parser.add_argument("--parties", action="store_true", help="also show who called whom; needs --reason")
    add_access(parser, is_required=False)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Search, then print."""
    access = access_of(arguments, "parties") if arguments.parties else None
    with open_stewardship(configuration_path(arguments)) as stewardship:
        found = _search(stewardship, arguments)
        entries = found[: arguments.limit]
        searched = "number" if arguments.number is not None else "facts"
        stewardship.audit.write(AuditLine(event=AuditEvent.INDEX_SEARCHED, by=searched, count=len(entries)))
        parties: dict[bytes, Parties | str] = {}
        if access is not None:
            parties = _open_parties(stewardship, entries, access)
    _print(arguments, entries, parties, is_cut=len(found) > len(entries))
    tell_more(found, arguments.limit)
    return 0


def _search(stewardship: Stewardship, arguments: argparse.Namespace) -> list[IndexEntry]:
    handles = _handles(stewardship, arguments.tenant)
    return stewardship.index.find(
        state=None if arguments.state is None else IndexState(arguments.state),
        kind=None if arguments.kind is None else RecordingKind(arguments.kind),
        tenant_handle=handles[0] if arguments.tenant is not None else None,
        trunk=arguments.trunk,
        is_held=True if arguments.hold else None,
        since_hour=arguments.since,
        until_hour=arguments.until,
        blind=_blind(stewardship, arguments.number, handles),
        limit=arguments.limit + 1,
    )


def _handles(stewardship: Stewardship, tenant: str | None) -> list[bytes]:
    tenants = stewardship.settings.tenants
    if tenant is None:
        return [each.handle for each in tenants.values()]
    if tenant not in tenants:
        raise CommandError(
            f"there is no tenant {tenant!r}; the configured ones are {', '.join(sorted(tenants))}"
        )
    return [tenants[tenant].handle]


def _blind(stewardship: Stewardship, number: str | None, handles: list[bytes]) -> list[bytes] | None:
    """The number's blind index for each tenant; the number itself goes no further."""
    if number is None:
        return None
    path = stewardship.settings.recording.index.search_key_path
    if path is None:
        raise CommandError("there is no [index] search_key, so the index holds no number to find")
    if number == _STANDARD_INPUT:
        number = sys.stdin.readline(_MOST_NUMBER).strip()
    key = SearchKey(path)
    blind = [found for handle in handles if (found := key.blind(handle, number)) is not None]
    if not blind:
        raise CommandError("there is no number to look for")
    return blind


def _open_parties(
    stewardship: Stewardship, entries: list[IndexEntry], access: Access
) -> dict[bytes, Parties | str]:
    """What opens, and why the rest does not. Each is audited before it is opened."""
    keys = slot_keys(build_providers(stewardship.settings.recording.keys).values())
    reader = PartyReader(stewardship.index, keys)
    found: dict[bytes, Parties | str] = {}
    for entry in entries:
        if entry.parties.sealed is None:
            continue
        stewardship.note(AuditEvent.INDEX_READ, entry, access.reason.value, ticket=access.ticket)
        try:
            opened = reader.open(entry)
        except RecordingError as error:
            found[entry.file_id] = str(error)
        else:
            assert opened is not None
            found[entry.file_id] = opened
    return found


def _print(
    arguments: argparse.Namespace,
    entries: list[IndexEntry],
    parties: dict[bytes, Parties | str],
    *,
    is_cut: bool,
) -> None:
    if arguments.json:
        rows = [entry_json(entry) | _parties_json(parties.get(entry.file_id)) for entry in entries]
        output.print_json({"recordings": rows, "more": is_cut})
        return
    columns = ["hour (UTC)", "recording", "no", "file", "kind", "state", "trunks", "kept until", "hold"]
    output.print_table(
        columns + (["from", "to"] if arguments.parties else []),
        [
            [
                f"{entry.started_hour:%Y-%m-%d %H}h",
                entry.group.hex(),
                entry.segment,
                entry.file_id.hex(),
                entry.kind.value,
                entry.state.value,
                f"{entry.trunk_a or '?'} > {entry.trunk_b or '?'}",
                None if entry.retain_until is None else f"{entry.retain_until:%Y-%m-%d}",
                entry.hold,
                *(_cells(parties.get(entry.file_id)) if arguments.parties else ()),
            ]
            for entry in entries
        ],
    )


def _cells(found: Parties | str | None) -> tuple[str | None, str | None]:
    if isinstance(found, Parties):
        return found.from_, found.to
    return found, None


def _parties_json(found: Parties | str | None) -> dict[str, object]:
    if isinstance(found, Parties):
        return {"from": found.from_, "to": found.to}
    return {} if found is None else {"parties_problem": found}


def _time(text: str) -> datetime:
    """A day, or an hour of it, in UTC."""
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise argparse.ArgumentTypeError("write it like 2026-11-24 or 2026-11-24T10, in UTC")
