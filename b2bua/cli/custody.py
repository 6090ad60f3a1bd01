"""What the commands that change keys have in common: the configuration, the index, the audit log, a reason."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from b2bua.audit import AuditEvent, AuditLine
from b2bua.cli.archive import Archive, open_archive
from b2bua.control.protocol import is_reason
from b2bua.errors import B2BUAError, CommandError
from recording.errors import RecordingError
from recording.index import IndexEntry, IndexKey, RecordingIndex
from recording.keys.build import build_provider
from recording.keys.dependants import Dependants, find_dependants, recordings_on_hold, sort_dependants
from recording.keys.errors import KeyConfigurationError, KeyInUseError
from recording.keys.openers import Opener, SealedFile, files_in, opener_of
from recording.settings import KeySettings
from recording.sinks.sink import Sink


def utc_now() -> datetime:
    """The clock of these commands."""
    return datetime.now(UTC)


def add_reason(parser: argparse.ArgumentParser) -> None:
    """`--reason`, which the audit log keeps."""
    parser.add_argument(
        "--reason",
        metavar="LABEL",
        required=True,
        type=_reason,
        help="why, for the audit log: a ticket or a word like yearly-rotation; no names, no numbers of people",
    )


def _reason(text: str) -> str:
    if not is_reason(text):
        raise argparse.ArgumentTypeError(
            "write lower-case letters, digits, -, _ and dots, e.g. yearly-rotation"
        )
    return text


class Custody:
    """Keys of one configuration and what depends on them. Each change is written down before and after.

    `action` is what the command does, as audit lines say it.
    """

    def __init__(self, archive: Archive, *, action: str, reason: str) -> None:
        self.settings = archive.settings
        self._archive = archive
        self._action = action
        self._reason = reason

    # -- keys --------------------------------------

    def key(self, name: str) -> KeySettings:
        """The section.

        Raises:
            CommandError: there is none.
            AuditError: its name cannot stand in the audit log, so nothing can be done with it.
        """
        AuditLine(event=AuditEvent.KEY_REFUSED, key=name)
        found = self.settings.recording.keys.get(name)
        if found is None:
            known = ", ".join(sorted(self.settings.recording.keys))
            raise CommandError(f"there is no [keys.{name}]; there are: {known}")
        return found

    def opener(self, name: str) -> Opener:
        """The key of a section, as slots name it. Raises KeyConfigurationError."""
        return opener_of(build_provider(name, self.key(name)))

    def sections(self) -> dict[Opener, list[str]]:
        """The sections of each key: two may name one. A section whose key is gone names none."""
        found: dict[Opener, list[str]] = {}
        for name in self.settings.recording.keys:
            with contextlib.suppress(KeyConfigurationError):
                found.setdefault(self.opener(name), []).append(name)
        return found

    def users(self, name: str) -> list[str]:
        """What makes new data keys under the key of a section, whichever section it names the key by."""
        alike = {name, *self.sections().get(self.opener(name), ())}
        settings = self.settings
        users = [
            f"tenant {tenant.name}" for tenant in settings.tenants.values() if alike & {*tenant.key_names}
        ]
        index = settings.recording.index
        owners = (
            ("the audit log", settings.audit.key_name),
            ("the log", settings.log.key_name),
            ("the index", index.key),
            ("the index's backups", index.backup_key),
        )
        return sorted([*users, *(owner for owner, key in owners if key in alike)])

    # -- what depends on them ----------------------

    def index(self) -> RecordingIndex:
        """The index, without which nobody knows what depends on a key.

        Raises:
            KeyInUseError: there is none.
        """
        found = self._archive.index
        if found is None:
            raise KeyInUseError(
                "there is no index, so nothing says which recordings need the key or are on hold; "
                "rebuild it, or start the service once where nothing was ever recorded"
            )
        return found

    @property
    def sink(self) -> Sink:
        return self._archive.sink

    def dependants(self, name: str) -> Dependants:
        """Files under the key of a section."""
        provider = build_provider(name, self.key(name))
        retention = self.settings.recording.retention
        return find_dependants(self.index(), provider, now=utc_now(), retention=retention)

    def sorted(self, entries: list[IndexEntry]) -> Dependants:
        """Files of one tenant, whichever key they are under."""
        return sort_dependants(
            entries,
            now=utc_now(),
            retention=self.settings.recording.retention,
            on_hold=recordings_on_hold(self.index()),
        )

    def index_keys(self, name: str) -> list[IndexKey]:
        """Keys of the index under the key of a section: numbers and names in the index open with them alone."""
        opener = self.opener(name)
        return [key for key in self.index().index_keys() if (key.provider, key.slot_key_id) == opener]

    def spooled_unknown(self) -> list[SealedFile]:
        """Files in this machine's spool that the index has not. Raises CommandError: the spool can't be read."""
        index = self.index()
        spooled = self._files_in(self.settings.recording.spool_directory)
        return [file for file in spooled if index.get(file.file_id) is None]

    def require_unused(self, name: str, *, cure: str) -> None:
        """Nothing of the configuration makes new data keys under the key of a section.

        Raises:
            KeyInUseError: says who does, and `cure`.
        """
        users = self.users(name)
        if users:
            raise KeyInUseError(f"keys.{name} is in use by {', '.join(users)}; {cure}")

    def require_free(self, name: str, what: str) -> None:
        """Nothing that was ever sealed needs the key of a section. Raises KeyInUseError, which names what does."""
        self.dependants(name).require_none(what)
        keys = self.index_keys(name)
        if keys:
            raise KeyInUseError(
                f"{what} is refused, {len(keys)} keys of the index are under it; say --rewrap"
            )
        self.require_no_other(name, what)

    def require_no_other(self, name: str, what: str) -> None:
        """What the index does not list does not need it: the sealed logs, and what a spool has that no index knows.

        Raises:
            KeyInUseError: it does.
        """
        opener = self.opener(name)
        forgotten = [file.file_id for file in self.spooled_unknown() if opener in file.openers]
        if forgotten:
            raise KeyInUseError(
                f"{what} is refused, {len(forgotten)} files in the spool that the index does not know are under it, "
                f"{forgotten[0].hex()} among them; store them first: b2bua recordings recover",
                file_ids=forgotten,
            )
        for log, directory in (
            ("audit log", self.settings.audit.directory),
            ("log", self.settings.log.directory),
        ):
            under_it = [file for file in self._files_in(directory) if opener in file.openers]
            if under_it:
                raise KeyInUseError(
                    f"{what} is refused, {len(under_it)} files of the {log} are under it, "
                    f"{under_it[-1].place} the newest; keep the key for as long as they must be read"
                )

    def _files_in(self, directory: Path | None) -> Iterator[SealedFile]:
        try:
            yield from () if directory is None else files_in(directory)
        except OSError as error:
            raise CommandError(
                f"{error.filename}: {error.strerror}; it must be readable to see what needs the key"
            ) from error

    # -- what is written down ----------------------

    def note(
        self,
        event: AuditEvent,
        *,
        key: str | None = None,
        far_key: str | None = None,
        tenant_handle: bytes | None = None,
        count: int | None = None,
    ) -> None:
        """A line in the audit log, with the reason given, durable on return. Raises AuditError."""
        self._archive.note(
            AuditLine(
                event=event,
                key=key,
                far_key=far_key,
                tenant_handle=None if tenant_handle is None else tenant_handle.hex(),
                count=count,
                action=self._action,
                reason=self._reason,
                uid=os.getuid(),
            )
        )

    @contextlib.contextmanager
    def noting_refusal(self, key: str) -> Iterator[None]:
        """What is refused within is written down too."""
        try:
            yield
        except (B2BUAError, RecordingError):
            self.note(AuditEvent.KEY_REFUSED, key=key)
            raise


@contextlib.contextmanager
def open_custody(path: Path, *, action: str, reason: str) -> Iterator[Custody]:
    """The keys of a configuration file.

    Raises:
        ConfigurationError, IndexUnavailableError, AuditError: on the way in; AuditError on the way out too, where what
        was done could not be written down.
    """
    with open_archive(path) as archive:
        yield Custody(archive, action=action, reason=reason)
