"""`b2bua recordings list` and `show`: what the index knows, and what one recording says of itself."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from b2bua.cli import output
from b2bua.cli.access import access_of, add_access
from b2bua.cli.archive import Archive, Segment, open_archive
from b2bua.cli.parser import add_command, add_configuration, add_json, add_limit, configuration_path
from recording.errors import CorruptRecordingError, TruncatedRecordingError
from recording.index import IndexEntry, IndexState
from recording.reader import RecordingReader

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

_NO_INDEX: Final = (
    "nothing was recorded yet, or it was lost; `b2bua index restore` or `rebuild` brings it back"
)


def register(subparsers: Subparsers) -> None:
    """Add both commands."""
    lister = add_command(
        subparsers,
        "list",
        summary="List recordings, newest first. Needs no key.",
        example="""
            b2bua recordings list -c lab/b2bua.toml
            b2bua recordings list -c lab/b2bua.toml --state incomplete --json
        """,
        run=run_list,
    )
    add_configuration(lister)
    lister.add_argument(
        "--state", choices=[state.value for state in IndexState], help="only those in this state"
    )
    lister.add_argument("--call", metavar="UID", help="only those of this call")
    add_limit(lister)
    add_json(lister)
    shower = add_command(
        subparsers,
        "show",
        summary="Show what one recording says of itself. Needs a key; the audit log says that it was read.",
        example="""
            b2bua recordings show -c lab/b2bua.toml 5f0c… --reason quality_review
            b2bua recordings show -c lab/b2bua.toml 5f0c… --reason patient_request --ticket PR-77 --parties
        """,
        run=run_show,
    )
    add_configuration(shower)
    shower.add_argument("name", metavar="ID", help="file id, recording id, call uid, or a path")
    add_access(shower)
    shower.add_argument("--parties", action="store_true", help="also the numbers and Call-IDs sealed in it")
    add_json(shower)


def run_list(arguments: argparse.Namespace) -> int:
    """Print the index."""
    with open_archive(configuration_path(arguments)) as archive:
        found = _find(archive, arguments)
        if archive.index is None:
            output.print_error(f"there is no index at {archive.settings.recording.index_place}: {_NO_INDEX}")
    entries = found[: arguments.limit]
    if arguments.json:
        output.print_json(
            {"recordings": [entry_json(entry) for entry in entries], "more": len(found) > len(entries)}
        )
        return 0
    output.print_table(
        ["hour (UTC)", "file", "recording", "no", "call", "state", "records", "bytes", "key", "in"],
        [
            [
                f"{entry.started_hour:%Y-%m-%d %H}h",
                entry.file_id.hex(),
                entry.recording.hex(),
                entry.segment,
                entry.call_uid,
                entry.state.value,
                entry.records,
                entry.size_bytes,
                entry.key_id,
                "spool" if entry.object_key is None else "store",
            ]
            for entry in entries
        ],
    )
    tell_more(found, arguments.limit)
    return 0


def tell_more(found: Sequence[object], limit: int) -> None:
    """Say that a list was cut, if one more than `limit` was found."""
    if len(found) > limit:
        output.print_error(f"there are more than these {limit}; give a higher --limit")


def _find(archive: Archive, arguments: argparse.Namespace) -> list[IndexEntry]:
    if archive.index is None:
        return []
    state = None if arguments.state is None else IndexState(arguments.state)
    return archive.index.find(state=state, call_uid=arguments.call, limit=arguments.limit + 1)


def entry_json(entry: IndexEntry) -> dict[str, object]:
    """An index entry for scripts: ids in hex."""
    return {
        "file_id": entry.file_id.hex(),
        "recording": entry.recording.hex(),
        "segment": entry.segment,
        "call_uid": entry.call_uid,
        "tenant_handle": entry.tenant_handle.hex(),
        "state": entry.state.value,
        "records": entry.records,
        "size_bytes": entry.size_bytes,
        "provider": entry.provider,
        "key_id": entry.key_id,
        "object_key": entry.object_key,
        "started_hour": entry.started_hour.isoformat(),
        "kind": entry.kind.value,
        "parent": None if entry.parent is None else entry.parent.hex(),
        "trunk_a": entry.trunk_a,
        "trunk_b": entry.trunk_b,
        "retain_until": None if entry.retain_until is None else entry.retain_until.isoformat(),
        "hold": entry.hold,
        "deleted_hour": None if entry.deleted_hour is None else entry.deleted_hour.isoformat(),
    }


def run_show(arguments: argparse.Namespace) -> int:
    """Print META, events and end of each segment."""
    found = []
    with open_archive(configuration_path(arguments)) as archive:
        access = access_of(arguments, "show")
        for selection in archive.select(arguments.name):
            for segment in selection.segments:
                if segment.entry is None or segment.entry.state is not IndexState.FAILED:
                    with archive.reading(segment, access) as reader:
                        facts = _facts(segment, reader, parties=arguments.parties)
                    found.append({"where": archive.where(segment), **facts})
    if arguments.json:
        output.print_json({"segments": found})
        return 0
    for facts in found:
        output.print_table(["what", "is"], [[name, _cell(value)] for name, value in facts.items()])
        output.print_line()
    return 0


def _facts(segment: Segment, reader: RecordingReader, *, parties: bool) -> dict[str, object]:
    meta = reader.meta
    end = reader.final()
    facts: dict[str, object] = {
        "file_id": segment.file_id.hex(),
        "state": None if segment.entry is None else segment.entry.state.value,
        "recording": None if meta.recording is None else meta.recording.hex(),
        "segment": meta.segment,
        "call_uid": meta.call_uid,
        "trunk_a": meta.trunk_a,
        "trunk_b": meta.trunk_b,
        "layout": None if meta.layout is None else meta.layout.value,
        "rate_hz": meta.rate_hz,
        "frames": None if end is None else end[0] - reader.first_position,
        "ended_by": None if end is None else end[1].ended_by,
        "reason": None if end is None else end[1].reason,
        "events": _events(reader),
    }
    if parties:
        facts |= {
            "started_at": None if meta.started_at is None else meta.started_at.isoformat(),
            "from": meta.from_,
            "to": meta.to,
            "sip_call_ids": list(meta.sip_call_ids or ()),
        }
    return facts


def _events(reader: RecordingReader) -> list[dict[str, object]]:
    """Those before the first damage: that there is some, `verify` says."""
    events: list[dict[str, object]] = []
    try:
        for position, event in reader.events():
            events.append({"event": event.event.value, "position": position, "frames": event.frames})
    except (TruncatedRecordingError, CorruptRecordingError) as error:
        events.append({"event": "unreadable", "records": error.records})
    return events


def _cell(value: object) -> object:
    if isinstance(value, list):
        return "\n".join(_cell_line(item) for item in value) or None
    return value


def _cell_line(item: object) -> str:
    if isinstance(item, dict):
        return ", ".join(f"{name} {value}" for name, value in item.items() if value is not None)
    return str(item)
