"""`b2bua recordings hold`, `release` and `expire`: who says that a recording stays, and when it goes."""

from __future__ import annotations

import argparse
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from b2bua.audit import AuditEvent, AuditLine
from b2bua.cli import output
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.cli.stewardship import Stewardship, checked_reason, open_stewardship
from b2bua.errors import CommandError, ExpiryError
from recording.errors import RecordingError
from recording.index import IndexEntry
from recording.retention import Deletion, Keep

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

_EXAMPLE_ID = "5f3c0a1b2d4e6f708192a3b4c5d6e7f8"
_EXPIRED = "retention_over"
_RELEASE_FAILED = "release_failed"


def register(subparsers: Subparsers) -> None:
    """Add the three commands."""
    hold = add_command(
        subparsers,
        "hold",
        summary="Keep a recording and what is attached to it from every deletion, whatever its time, until released.",
        example=f"b2bua recordings hold -c lab/b2bua.toml {_EXAMPLE_ID} --reason court-order-12",
        run=run_hold,
    )
    add_configuration(hold)
    hold.add_argument("name", metavar="ID", help="recording id, file id, or call uid")
    _add_reason(hold)
    add_json(hold)
    release = add_command(
        subparsers,
        "release",
        summary="Lift a hold. The recording then goes when its time is over.",
        example=f"""
            b2bua recordings release -c lab/b2bua.toml {_EXAMPLE_ID} --reason court-order-12-lifted
            b2bua recordings release -c lab/b2bua.toml --held-for index_rebuilt --reason reviewed
        """,
        run=run_release,
    )
    add_configuration(release)
    release.add_argument("name", metavar="ID", nargs="?", help="recording id, file id, or call uid")
    release.add_argument("--held-for", metavar="LABEL", help="all that are on hold for this reason")
    _add_reason(release)
    add_json(release)
    expire = add_command(
        subparsers,
        "expire",
        summary="Delete the recordings whose time is over and that nothing keeps, and prove that they are gone.",
        example="""
            b2bua recordings expire -c lab/b2bua.toml --dry-run
            b2bua recordings expire -c lab/b2bua.toml --repeat-locks
            b2bua recordings expire -c lab/b2bua.toml --json
        """,
        run=run_expire,
    )
    add_configuration(expire)
    expire.add_argument(
        "--dry-run", action="store_true", help="say what would go and what stays; delete nothing"
    )
    expire.add_argument(
        "--repeat-locks",
        action="store_true",
        help="first tell a bucket with Object Lock until when everything in it is kept; once after Object Lock was "
        "configured, or more days",
    )
    add_json(expire)


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason",
        required=True,
        metavar="LABEL",
        help="why, for the audit log: lower-case letters, digits, _ . and -, no number of five digits",
    )


def run_hold(arguments: argparse.Namespace) -> int:
    """Put a hold on one recording."""
    reason = checked_reason(arguments.reason)
    with open_stewardship(configuration_path(arguments)) as stewardship:
        recording = stewardship.recording_of(arguments.name)
        entries = stewardship.retention.hold(recording, reason)
        for entry in entries:
            stewardship.note(AuditEvent.RECORDING_HELD, entry, reason)
    _print(arguments, "on hold", entries)
    return 0


def run_release(arguments: argparse.Namespace) -> int:
    """Lift the hold of one recording, or all holds with one label."""
    reason = checked_reason(arguments.reason)
    if (arguments.name is None) == (arguments.held_for is None):
        raise CommandError("name a recording, or say --held-for LABEL")
    with open_stewardship(configuration_path(arguments)) as stewardship:
        entries = []
        for recording in _to_release(stewardship, arguments):
            entries += _release(stewardship, recording, reason)
    _print(arguments, "released", entries)
    return 0


def _release(stewardship: Stewardship, recording: bytes, reason: str) -> list[IndexEntry]:
    """Written down before it is done; where it then fails, that the hold goes on is written down too."""
    group = stewardship.index.group(recording)
    for entry in group:
        stewardship.note(AuditEvent.RECORDING_RELEASED, entry, reason)
    stewardship.audit.flush()
    try:
        return stewardship.retention.release(recording)
    except RecordingError:
        for entry in group:
            stewardship.note(AuditEvent.RECORDING_HELD, entry, _RELEASE_FAILED)
        raise


def _to_release(stewardship: Stewardship, arguments: argparse.Namespace) -> list[bytes]:
    if arguments.name is not None:
        return [stewardship.recording_of(arguments.name)]
    held = [entry for entry in stewardship.index.scan() if entry.hold == arguments.held_for]
    if not held:
        raise CommandError(f"nothing is on hold for {arguments.held_for!r}")
    return list(dict.fromkeys(entry.group for entry in held))


def _print(arguments: argparse.Namespace, word: str, entries: list[IndexEntry]) -> None:
    if arguments.json:
        files = [{"file_id": entry.file_id.hex(), "hold": entry.hold} for entry in entries]
        output.print_json({"files": files})
        return
    for entry in entries:
        output.print_line(f"{entry.file_id.hex()} {word}")


def run_expire(arguments: argparse.Namespace) -> int:
    """Go through the index once. The exit code is that of ExpiryError if something should have gone and did not."""
    now = datetime.now(UTC)
    stays: Counter[Keep] = Counter()
    done: list[Deletion] = []
    if arguments.dry_run and arguments.repeat_locks:
        raise CommandError("--dry-run changes nothing; --repeat-locks does")
    with open_stewardship(configuration_path(arguments)) as stewardship:
        if not arguments.dry_run:
            stewardship.retention.repeat_holds()
        if arguments.repeat_locks:
            count = stewardship.retention.repeat_locks(now)
            stewardship.audit.write(AuditLine(event=AuditEvent.LOCKS_REPEATED, count=count))
        with output.progress_bar() as progress:
            looked = progress.track(list(stewardship.retention.candidates(now)), description="expiring")
            for recording, keep in looked:
                if keep is not None:
                    stays[keep] += 1
                elif arguments.dry_run:
                    done += [Deletion(entry=entry) for entry in stewardship.index.group(recording)]
                else:
                    done += _delete(stewardship, recording, now)
        if not arguments.dry_run:
            count = sum(each.is_gone for each in done)
            stewardship.audit.write(AuditLine(event=AuditEvent.EXPIRY_ENDED, count=count))
    _report(arguments, done, stays)
    failed = [each for each in done if each.problem is not None]
    if failed:
        raise ExpiryError("\n".join(f"{each.entry.file_id.hex()}: {each.problem}" for each in failed))
    return 0


def _delete(stewardship: Stewardship, recording: bytes, now: datetime) -> list[Deletion]:
    for entry in stewardship.index.group(recording):
        stewardship.note(AuditEvent.DELETION_BEGUN, entry, _EXPIRED)
    stewardship.audit.flush()
    done = stewardship.retention.delete(recording, now)
    for each in done:
        if each.is_gone:
            stewardship.note(AuditEvent.RECORDING_DELETED, each.entry, _EXPIRED)
        else:
            why = "failed" if each.keep is None else each.keep.value
            stewardship.note(AuditEvent.DELETION_REFUSED, each.entry, why)
    return done


def _report(arguments: argparse.Namespace, done: list[Deletion], stays: Counter[Keep]) -> None:
    gone = [each for each in done if each.is_gone]
    stays.update(each.keep for each in done if each.keep is not None)
    if arguments.json:
        output.print_json(
            {
                "dry_run": arguments.dry_run,
                "deleted": [each.entry.file_id.hex() for each in gone],
                "failed": {
                    each.entry.file_id.hex(): each.problem for each in done if each.problem is not None
                },
                "kept": {keep.value: stays[keep] for keep in Keep},
            }
        )
        return
    verb = "would go" if arguments.dry_run else "deleted"
    for each in gone:
        output.print_line(f"{each.entry.file_id.hex()} {verb}")
    output.print_table(
        ["recordings kept for", "count"], [[keep.value, stays[keep]] for keep in Keep if stays[keep]]
    )
