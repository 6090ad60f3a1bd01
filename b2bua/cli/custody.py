"""What the commands that change keys have in common: the configuration, the index, the audit log, a reason."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from b2bua.audit import AuditEvent, AuditLine
from b2bua.cli.archive import Archive, open_archive
from b2bua.errors import CommandError
from recording.errors import FormatError, RecordingError, TruncatedRecordingError
from recording.format.slots import parse_area
from recording.index import IndexKey, RecordingIndex
from recording.keys.build import build_provider
from recording.keys.dependants import (
    EVERYTHING,
    Dependants,
    find_dependants,
    recordings_on_hold,
    sort_dependants,
)
from recording.keys.errors import KeyInUseError
from recording.keys.provider import KeyProvider
from recording.keys.rewrap import is_of
from recording.reader import read_head
from recording.settings import KeySettings

_REASON = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


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
    if _REASON.fullmatch(text) is None or re.search(r"[0-9]{5}", text):
        raise argparse.ArgumentTypeError(
            "write lower-case letters, digits, -, _ and dots, e.g. yearly-rotation"
        )
    return text


class Custody:
    """Keys of one configuration and what depends on them. Each change is written down before and after."""

    def __init__(self, archive: Archive, reason: str) -> None:
        self.settings = archive.settings
        self._archive = archive
        self._reason = reason

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

    def dependants(self, name: str) -> Dependants:
        """Files under the key of a section."""
        provider = build_provider(name, self.key(name))
        return find_dependants(self.index(), provider, now=datetime.now(UTC))

    def dependants_of_tenant(self, tenant_handle: bytes) -> Dependants:
        """Files of a tenant, whichever key they are under."""
        found = self.index().find(tenant_handle=tenant_handle, limit=EVERYTHING)
        return sort_dependants(found, now=datetime.now(UTC), on_hold=recordings_on_hold(self.index()))

    def index_keys(self, name: str) -> list[IndexKey]:
        """Keys of the index under the key of a section: numbers and names in the index open with them alone."""
        provider = build_provider(name, self.key(name))
        return [
            key
            for key in self.index().index_keys()
            if (key.provider, key.slot_key_id) == (provider.slot_provider, provider.slot_key_id)
        ]

    def audit_segments(self, name: str) -> list[Path]:
        """Files of the sealed audit log that open with the key of a section."""
        directory = self.settings.audit.directory
        if directory is None or not directory.exists():
            return []
        provider = build_provider(name, self.key(name))
        return [path for path in sorted(directory.glob("*.crec*")) if _is_under(path, provider)]

    def require_unused(self, name: str, *, cure: str) -> None:
        """Nothing of the configuration makes new data keys under the key of a section.

        Raises:
            KeyInUseError: says who does, and `cure`.
        """
        settings = self.settings
        users = [f"tenant {tenant.name}" for tenant in settings.tenants.values() if name in tenant.key_names]
        if settings.audit.key_name == name:
            users.append("the audit log")
        if name in (settings.recording.index.key, settings.recording.index.backup_key):
            users.append("the index")
        if users:
            raise KeyInUseError(f"keys.{name} is in use by {', '.join(sorted(users))}; {cure}")

    def require_free(self, name: str, what: str) -> None:
        """Nothing that was ever sealed needs the key of a section. Raises KeyInUseError, which names what does."""
        self.dependants(name).require_none(what)
        keys = self.index_keys(name)
        if keys:
            raise KeyInUseError(
                f"{what} is refused, {len(keys)} keys of the index are under it; say --rewrap"
            )
        self.require_no_audit(name, what)

    def require_no_audit(self, name: str, what: str) -> None:
        """No part of the audit log opens with the key. Raises KeyInUseError."""
        segments = self.audit_segments(name)
        if segments:
            raise KeyInUseError(
                f"{what} is refused, {len(segments)} files of the audit log are under it, {segments[-1].name} the "
                "newest; keep the key for as long as they must be read"
            )

    def note(
        self,
        event: AuditEvent,
        *,
        key: str | None = None,
        far_key: str | None = None,
        tenant_handle: bytes | None = None,
        count: int | None = None,
    ) -> None:
        """A line in the audit log, with the reason given."""
        self._archive.note(
            AuditLine(
                event=event,
                key=key,
                far_key=far_key,
                tenant_handle=None if tenant_handle is None else tenant_handle.hex(),
                count=count,
                reason=self._reason,
            )
        )

    @contextlib.contextmanager
    def noting_refusal(self, key: str) -> Iterator[None]:
        """What is refused within is written down too."""
        try:
            yield
        except (CommandError, RecordingError):
            self.note(AuditEvent.KEY_REFUSED, key=key)
            raise


def _is_under(path: Path, provider: KeyProvider) -> bool:
    """Whether a container's own slots name the key. What has no readable head opens with no key at all."""
    try:
        with path.open("rb") as file:
            slots = parse_area(read_head(file).slots_area)
    except (FormatError, TruncatedRecordingError):
        return False
    except OSError as error:
        raise CommandError(
            f"{path}: {error.strerror}; the audit log must be readable to see what needs the key"
        ) from error
    return any(is_of(provider, slot) for slot in slots)


@contextlib.contextmanager
def open_custody(path: Path, *, reason: str) -> Iterator[Custody]:
    """The keys of a configuration file.

    Raises:
        ConfigurationError, IndexUnavailableError, AuditError: on the way in; AuditError on the way out too, where what
        was done could not be written down.
    """
    with open_archive(path) as archive:
        yield Custody(archive, reason)
