"""`b2bua recordings attach` and `artefacts`: documents that belong to a call, sealed, listed and opened."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from b2bua.cli import output
from b2bua.cli.access import access_of, add_access, add_sealing, add_ticket, check_new, recipients_of
from b2bua.cli.archive import Archive, Selection, open_archive
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.errors import ArtefactPendingError, CommandError
from recording.artefact import (
    ArtefactWriter,
    Attached,
    Belonging,
    check_media_type,
    describe_artefact,
    open_artefact,
)
from recording.errors import CorruptRecordingError
from recording.format.content import RecordingKind
from recording.format.manifest import Manifest
from recording.index import IndexEntry, IndexState
from recording.keys.build import build_provider
from recording.observer import SilentObserver
from recording.private_file import in_place_of
from recording.recorder import recover
from recording.signing import Standing
from recording.sinks.sink import ObjectMissingError

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers

_STANDARD_OUTPUT = Path("-")
_MISSING = "missing"
_WORST_FIRST = (_MISSING, Standing.WRONG.value, Standing.UNSIGNED.value, Standing.SIGNED.value)


def register(subparsers: Subparsers) -> None:
    """Add both commands."""
    attach = add_command(
        subparsers,
        "attach",
        summary="Seal a document of any size to a call: it is kept, held and deleted with the call's recording.",
        example="b2bua recordings attach -c lab/b2bua.toml 5f0c… transcript.txt --type text/plain",
        run=run_attach,
    )
    add_configuration(attach)
    attach.add_argument("name", metavar="CALL", help="call uid or recording id")
    attach.add_argument("file", metavar="FILE", type=Path, help="the document; it is left as it is")
    attach.add_argument(
        "--type", metavar="TYPE", type=_media_type, required=True, help="its media type: text/plain"
    )
    add_ticket(attach)
    add_json(attach)
    artefacts = add_command(
        subparsers,
        "artefacts",
        summary="List the documents of a call, or open one. Listing needs no key; with --reason it tells their types.",
        example="""
            b2bua recordings artefacts -c lab/b2bua.toml 5f0c…
            b2bua recordings artefacts -c lab/b2bua.toml 5f0c… --open 77ab… -o t.txt.p7m --recipient doctor.pem \\
                --reason treatment
        """,
        run=run_artefacts,
    )
    add_configuration(artefacts)
    artefacts.add_argument("name", metavar="CALL", help="call uid or recording id")
    artefacts.add_argument("--open", metavar="ID", help="the document to open, as listed")
    artefacts.add_argument("-o", "--output", metavar="FILE", type=Path, help="where to; - is standard output")
    artefacts.add_argument("--force", action="store_true", help="replace the file if it exists")
    add_sealing(artefacts)
    add_access(artefacts, is_required=False)
    add_json(artefacts)


def run_attach(arguments: argparse.Namespace) -> int:
    """Seal into the spool, then into the store. What the store does not take at once stays in the spool, whole."""
    with open_archive(configuration_path(arguments)) as archive:
        call = _call(archive, arguments.name)
        attached = _attach(archive, call, arguments)
        archive.tell_attached(call, attached.file_ids, ticket=arguments.ticket)
        report = recover(archive.settings.recording, only_owner=attached.owner, observer=_Signatures(archive))
    facts = {
        "artefact": attached.artefact.hex(),
        "parent": call.recording.hex(),
        "files": [file_id.hex() for file_id in attached.file_ids],
        "size_bytes": attached.size_bytes,
        "sha256": attached.sha256.hex(),
        "stored": not report.waiting,
    }
    if arguments.json:
        output.print_json(facts)
    else:
        output.print_line(f"{facts['artefact']}: {attached.size_bytes} bytes, sha256 {facts['sha256']}")
    problems = [file.problem for file in report.files if file.problem is not None]
    if problems:
        raise ArtefactPendingError(
            f"{facts['artefact']} waits in the spool, whole ({problems[0]}); run: b2bua recordings recover"
        )
    return 0


class _Signatures(SilentObserver):
    """Has each manifest written to the audit log."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def recording_signed(self, *, call_uid: str, manifest: Manifest) -> None:
        self._archive.tell_signed(manifest, call_uid=call_uid)


def _attach(archive: Archive, call: IndexEntry, arguments: argparse.Namespace) -> Attached:
    recording = archive.settings.recording
    tenant = next(
        (each for each in archive.settings.tenants.values() if each.handle == call.tenant_handle), None
    )
    if tenant is None or archive.index is None:
        raise CommandError("the call's tenant is not in this configuration; its documents need its key")
    writer = ArtefactWriter(
        spool_directory=recording.spool_directory,
        min_free_bytes=recording.min_free_bytes,
        index=archive.index,
        provider=build_provider(tenant.key, recording.keys[tenant.key]),
    )
    with output.progress_bar() as progress:
        task = progress.add_task("sealing", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        try:
            return writer.attach(call, arguments.file, media_type=arguments.type, progress=report)
        except OSError as error:
            raise CommandError(f"{arguments.file}: {error.strerror}; name a file that can be read") from error


def run_artefacts(arguments: argparse.Namespace) -> int:
    """List and hold against their manifests, or open one."""
    if (arguments.open is None) != (arguments.output is None):
        raise CommandError("--open ID and -o FILE belong together")
    if arguments.open is not None:
        return _open(arguments)
    if arguments.recipient or arguments.plaintext:
        raise CommandError("--recipient and --plaintext are for --open")
    with open_archive(configuration_path(arguments)) as archive:
        selections = _artefacts(archive, _call(archive, arguments.name))
        with output.progress_bar() as progress:
            listed = [
                (_facts(archive, selection, arguments), _stored(archive, selection))
                for selection in progress.track(selections, description="reading")
            ]
    found = [{**facts, "manifest": stored.standing} for facts, stored in listed]
    if arguments.json:
        output.print_json({"artefacts": found})
    else:
        columns = ["artefact", "hour", "files", "stored_bytes", "state", "manifest", "type", "sha256"]
        output.print_table(columns, [[facts.get(column) for column in columns] for facts in found])
    for _, stored in listed:
        for problem in stored.problems:
            output.print_error(problem)
    return next((stored.exit_code for _, stored in listed if stored.exit_code), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What a document's files are worth, by their manifests; None: it was deleted as it should be."""

    standing: str | None
    problems: tuple[str, ...] = ()
    exit_code: int = 0


def _stored(archive: Archive, selection: Selection) -> _Stored:
    """Each file is read whole for it; no key is needed."""
    standings: set[str] = set()
    problems = []
    exit_code = 0
    for segment in selection.segments:
        if segment.entry is not None and segment.entry.state in {IndexState.DELETING, IndexState.DELETED}:
            continue
        try:
            vouching = archive.vouching(segment)
        except CommandError as error:
            standings.add(_MISSING)
            problems.append(str(error))
            exit_code = ObjectMissingError.exit_code
            continue
        standings.add(vouching.standing.value)
        if vouching.standing is Standing.WRONG:
            problems.append(f"{archive.where(segment)}: {vouching.detail}")
            exit_code = exit_code or CorruptRecordingError.exit_code
    worst = next((each for each in _WORST_FIRST if each in standings), None)
    return _Stored(standing=worst, problems=tuple(problems), exit_code=exit_code)


def _facts(archive: Archive, selection: Selection, arguments: argparse.Namespace) -> dict[str, object]:
    entries = [segment.entry for segment in selection.segments if segment.entry is not None]
    states = {entry.state.value for entry in entries}
    facts: dict[str, object] = {
        "artefact": entries[0].recording.hex(),
        "hour": entries[0].started_hour.isoformat(),
        "files": len(entries),
        "stored_bytes": sum(entry.size_bytes for entry in entries),
        "state": states.pop() if len(states) == 1 else "mixed",
    }
    if arguments.reason is not None:
        opener = archive.openers(selection, access_of(arguments, "list"))[0]
        meta = describe_artefact(opener, _belonging(entries[0]))
        facts |= {"type": meta.media_type, "sha256": None if meta.sha256 is None else meta.sha256.hex()}
    return facts


def _open(arguments: argparse.Namespace) -> int:
    recipients = recipients_of(arguments)
    access = access_of(arguments, "open")
    destination: Path = arguments.output
    if destination == _STANDARD_OUTPUT and arguments.json:
        raise CommandError("--json and the document can't both go to standard output; name a file")
    check_new(destination, is_forced=arguments.force)
    with open_archive(configuration_path(arguments)) as archive:
        call = _call(archive, arguments.name)
        found = [
            selection
            for selection in _artefacts(archive, call)
            if selection.entry is not None and selection.entry.recording.hex() == arguments.open
        ]
        if not found:
            raise CommandError(f"{arguments.open} is no document of that call; list them without --open")
        assert found[0].entry is not None
        belonging = _belonging(found[0].entry)
        archive.tell_export(found[0], access, recipients)
        openers = archive.openers(found[0], access)
        if destination == _STANDARD_OUTPUT:
            open_artefact(openers, sys.stdout.buffer, belonging, recipients=recipients)
            return 0
        try:
            with in_place_of(destination, is_forced=arguments.force) as target:
                meta = open_artefact(openers, target, belonging, recipients=recipients)
        except OSError as error:
            raise CommandError(f"{destination}: {error.strerror}; name a file that can be written") from error
    facts = {
        "path": str(destination.absolute()),
        "type": meta.media_type,
        "sealed_to": [recipient.fingerprint for recipient in recipients],
    }
    if arguments.json:
        output.print_json(facts)
    else:
        output.print_line(f"{destination}: {meta.media_type}{', sealed' if recipients else ''}")
    return 0


def _belonging(entry: IndexEntry) -> Belonging:
    return Belonging(artefact=entry.recording, parent=entry.parent)


def _call(archive: Archive, name: str) -> IndexEntry:
    """The first entry of the call's recording."""
    entry = archive.select_one(name).entry
    if entry is None or entry.kind is not RecordingKind.AUDIO:
        raise CommandError(f"{name} is no call in the index; see: b2bua recordings list")
    return entry


def _artefacts(archive: Archive, call: IndexEntry) -> list[Selection]:
    if archive.index is None:
        return []
    entries = archive.index.find(parent=call.recording, kind=RecordingKind.ARTEFACT, limit=None)
    return archive.grouped(
        [entry for entry in reversed(entries) if entry.state not in {IndexState.FAILED, IndexState.RECORDING}]
    )


def _media_type(text: str) -> str:
    try:
        return check_media_type(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
