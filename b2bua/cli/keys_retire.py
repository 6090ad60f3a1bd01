"""`b2bua keys retire`: move every recording to another key without touching it, then take the old key out of use."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from b2bua.audit import AuditEvent
from b2bua.cli import output
from b2bua.cli.custody import Custody, add_reason, open_custody, utc_now
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.errors import CommandError
from recording.errors import RecordingError
from recording.format.slots import KeySlot
from recording.index import IndexEntry
from recording.keys.administration import build_administration
from recording.keys.build import build_mover, build_provider
from recording.keys.dependants import key_id_text
from recording.keys.errors import KeyInUseError, SlotNotMovedError
from recording.keys.openers import stored_files
from recording.keys.provider import KeyContext, KeyProvider
from recording.keys.rewrap import Outcome, RewrapTask, SlotMover, rewrap_all
from recording.sinks.retry import RetryingSink
from recording.sinks.sink import Sink, file_id_of

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

_INDEXED_AT_ONCE = 50
"""Files whose new key is written to the index in one go: a killed run asks for so many again."""
_NAMED = 20


@dataclass(slots=True)
class _Result:
    """What became of the files so far."""

    moved: int = 0
    done_before: int = 0
    failed: dict[bytes, RecordingError] = field(default_factory=dict)


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "retire",
        summary="Move all recordings under a key to another one, and disable it when nothing needs it any more.",
        example="""
            b2bua keys retire clinic-2025 --to clinic-2026 --rewrap -c rewrapper.toml --reason suspected-leak
            b2bua keys retire clinic-2025 --to clinic-2026 -c administrator.toml --reason suspected-leak
            b2bua keys retire clinic --to clinic --rewrap -c b2bua.toml --reason suspected-leak
        """,
        run=run,
    )
    parser.add_argument("name", metavar="NAME", help="of [keys.NAME], the key to go")
    parser.add_argument(
        "--to",
        metavar="OTHER",
        required=True,
        help="of [keys.OTHER], the key that takes its place; NAME itself: its newest version (transit, PKCS#11)",
    )
    parser.add_argument(
        "--rewrap",
        action="store_true",
        help="move the recordings' slots first; a run that was stopped goes on where it was",
    )
    parser.add_argument(
        "--keep-enabled",
        action="store_true",
        help="end after the move: who rewraps need not be who may disable keys",
    )
    add_configuration(parser)
    add_reason(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Move, then disable. Safe to repeat; refuses rather than leave a recording without its key."""
    name, other = arguments.name, arguments.to
    if arguments.keep_enabled and not arguments.rewrap:
        raise CommandError("--keep-enabled without --rewrap does nothing")
    with open_custody(configuration_path(arguments), action="retire", reason=arguments.reason) as custody:
        custody.key(name), custody.key(other)
        with custody.noting_refusal(name):
            if name != other:  # nothing new may come under the key while the old is moved away
                cure = f"name keys.{other} there, restart the service, then retire"
                custody.require_unused(name, cure=cure)
            result = _rewrap(custody, name, other) if arguments.rewrap else _Result()
            _require_movable(result)
            disabled = None if arguments.keep_enabled else _disable(custody, name, other, arguments.rewrap)
    _print(arguments, result, disabled)
    return 0


def _rewrap(custody: Custody, name: str, other: str) -> _Result:
    """All files under the key that are in the sink, then the index's own keys.

    The index learns of each file; what it says under the old key is what is left to do.
    """
    mover = build_mover(name, other, custody.settings.recording.keys)
    custody.note(AuditEvent.KEY_CHANGE_STARTED, key=name, far_key=other)
    target = build_provider(other, custody.key(other))
    stored = [entry for entry in custody.dependants(name).entries if entry.object_key is not None]
    result = _Result()
    sink = RetryingSink(custody.sink)
    pending: list[bytes] = []
    try:
        with output.progress_bar() as progress:
            bar = progress.add_task("rewrapping", total=len(stored))
            for task, outcome in rewrap_all(sink, mover, map(_task, stored)):
                _count(result, task, outcome)
                if isinstance(outcome, Outcome):
                    pending.append(task.context.file_id)
                if len(pending) >= _INDEXED_AT_ONCE:
                    _tell_index(custody, pending, target)
                progress.advance(bar)
        _move_index_keys(custody, name, mover)
        _count_unknown(result, custody, name, sink)
    finally:
        _tell_index(custody, pending, target)
        custody.note(AuditEvent.KEY_REWRAPPED, key=name, far_key=other, count=result.moved)
    return result


def _count_unknown(result: _Result, custody: Custody, name: str, sink: Sink) -> None:
    """What lies in the store and no index knows would be left behind."""
    index, opener = custody.index(), custody.opener(name)
    unknown = (key for key in sink.keys("") if index.get(file_id_of(key)) is None)
    for file in stored_files(sink, unknown, now=utc_now()):
        if file is not None and opener in file.openers:
            result.failed[file.file_id] = SlotNotMovedError(
                f"{file.file_id.hex()}: it is in the store and not in the index; enter it first: b2bua index rebuild"
            )


def _move_index_keys(custody: Custody, name: str, mover: SlotMover) -> None:
    for key in custody.index_keys(name):
        slot = KeySlot(provider=key.provider, key_id=key.slot_key_id, wrapped=key.wrapped)
        if mover.is_source(slot):
            context = KeyContext(file_id=key.key_id, tenant_handle=key.tenant_handle)
            moved = mover.move(slot, context)
            custody.index().put_key(
                replace(key, provider=moved.provider, slot_key_id=moved.key_id, wrapped=moved.wrapped)
            )


def _task(entry: IndexEntry) -> RewrapTask:
    assert entry.object_key is not None
    context = KeyContext(file_id=entry.file_id, tenant_handle=entry.tenant_handle)
    return RewrapTask(object_key=entry.object_key, context=context)


def _count(result: _Result, task: RewrapTask, outcome: Outcome | RecordingError) -> None:
    match outcome:
        case Outcome.MOVED:
            result.moved += 1
        case Outcome.DONE_BEFORE:
            result.done_before += 1
        case error:
            result.failed[task.context.file_id] = error


def _tell_index(custody: Custody, pending: list[bytes], target: KeyProvider) -> None:
    custody.index().set_key(pending, provider=target.slot_provider, key_id=key_id_text(target.slot_key_id))
    pending.clear()


def _require_movable(result: _Result) -> None:
    if result.failed:
        shown = list(result.failed.items())[:_NAMED]
        raise KeyInUseError(
            f"{len(result.failed)} recordings could not be moved, {result.moved} were; the key stays in use:\n"
            + "\n".join(str(error) for _, error in shown),
            file_ids=list(result.failed),
        )


def _disable(custody: Custody, name: str, other: str, was_rewrapped: bool) -> str:
    """Only when nothing depends on the key, asked once more after the move."""
    administration = build_administration(name, custody.key(name))
    if name != other:
        custody.require_free(name, f"disabling keys.{name}")
    else:
        _require_older_unused(custody, name, was_rewrapped)
    custody.note(AuditEvent.KEY_CHANGE_STARTED, key=name, far_key=other)
    done = administration.disable() if name != other else administration.disable_older()
    custody.note(AuditEvent.KEY_DISABLED, key=name, far_key=other)
    return done


def _require_older_unused(custody: Custody, name: str, was_rewrapped: bool) -> None:
    """Versions older than the newest open nothing that is left, and wrap nothing that is still to come.

    Raises:
        CommandError: the key service was not asked. KeyInUseError: they do.
    """
    if not was_rewrapped:
        raise CommandError(
            "the index does not know versions of a key, the key service must be asked in the same run: say --rewrap, "
            "with credentials of both the rewrapper and the key administrator"
        )
    waiting = [entry.file_id for entry in custody.dependants(name).entries if entry.object_key is None]
    if waiting:
        raise KeyInUseError(
            f"{len(waiting)} recordings are not in the store yet, {waiting[0].hex()} among them; "
            "wait for their upload, then repeat",
            file_ids=waiting,
        )
    custody.require_no_other(name, f"taking older versions of keys.{name} out of use")
    newest = build_provider(name, custody.key(name)).lifecycle().versions[-1]
    ttl = timedelta(seconds=custody.settings.recording.pool.ttl_s)
    if newest.created_at is not None and utc_now() < newest.created_at + ttl:
        raise KeyInUseError(
            f"version {newest.number} of keys.{name} is younger than the data keys that recorders may have ready from "
            f"an older one; repeat after {newest.created_at + ttl:%Y-%m-%d %H:%M:%S} UTC"
        )


def _print(arguments: argparse.Namespace, result: _Result, disabled: str | None) -> None:
    if arguments.json:
        output.print_json(
            {
                "key": arguments.name,
                "to": arguments.to,
                "moved": result.moved,
                "done_before": result.done_before,
                "disabled": disabled is not None,
                "detail": disabled,
            }
        )
        return
    if arguments.rewrap:
        output.print_line(
            f"{result.moved} recordings moved to keys.{arguments.to}, {result.done_before} were there"
        )
    output.print_line(
        f"keys.{arguments.name} is still enabled"
        if disabled is None
        else f"keys.{arguments.name}: {disabled}"
    )
