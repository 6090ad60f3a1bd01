"""The front of an audit log whose time is over: which files it is, and the signed statement that takes its place.

A statement says how many files are gone and where the chain stood after them. A line of the log itself, written before
the first file goes, has the statement's hash. Verification begins where the statement ends. A front that somebody cut
is told from one that expired: there is no statement, or one that nobody signed, or no line that tells of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from b2bua.errors import JournalError
from b2bua.journal.chain import HASH_BYTES, ChainHead, read_line
from b2bua.journal.head import sync_directory
from b2bua.journal.read import SealedFile
from b2bua.journal.segment import segment_names
from recording.errors import MalformedContentError
from recording.signing import SigningKey, Verifier

EXPIRY_TYPE: Final = "crec-audit-expiry"
"""`typ` in the signature's header: no other signature of the key is one over a statement."""
EXPIRED_EVENT: Final = "audit_expired"
"""The event of the line that tells of a statement."""
NAME: Final = "expired.jws"
_VERSION: Final = 1
_ID_BYTES: Final = 16
_READ_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """That the files below number `files` are gone: they held the lines up to `chain`, the newest of them of `until`.

    `last_file_id`: the last of these files. `at`: when it was said. Times are aware UTC.
    """

    log_id: bytes
    files: int
    last_file_id: bytes
    chain: ChainHead
    until: datetime
    at: datetime

    def build(self) -> bytes:
        """The JSON that is signed."""
        document = {
            "v": _VERSION,
            "log": self.log_id.hex(),
            "files": self.files,
            "last": self.last_file_id.hex(),
            **self.chain.as_json(),
            "until": self.until.astimezone(UTC).isoformat(timespec="milliseconds"),
            "at": self.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Raises MalformedContentError for what `build` did not write."""
        try:
            found = json.loads(payload)
            if found["v"] != _VERSION:
                raise MalformedContentError(
                    f"a statement of version {found['v']!r}; this program knows {_VERSION}"
                )
            return cls(
                log_id=_bytes(found["log"], _ID_BYTES),
                files=_number(found["files"]),
                last_file_id=_bytes(found["last"], _ID_BYTES),
                chain=ChainHead(sequence=_number(found["sequence"]), hash=_bytes(found["hash"], HASH_BYTES)),
                until=datetime.fromisoformat(found["until"]),
                at=datetime.fromisoformat(found["at"]),
            )
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise MalformedContentError("a statement that can't be read") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """A statement whose signature is good. `fingerprint`: its SHA-256 in hex, which a line of the log has to name."""

    expiry: Expiry
    fingerprint: str


def read_expired(directory: Path, verifier: Verifier) -> Expired | str | None:
    """The statement in a log's directory; None: there is none; a text: why what is there is none.

    Raises:
        JournalError: it can't be read.
    """
    path = directory / NAME
    try:
        with path.open("rb") as file:
            token = file.read(_READ_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error
    payload, why = verifier.verify(token, typ=EXPIRY_TYPE)
    if payload is None:
        return why
    try:
        return Expired(expiry=Expiry.parse(payload), fingerprint=_fingerprint(token))
    except MalformedContentError as error:
        return str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A signed statement that is not in force yet."""

    expiry: Expiry
    token: bytes

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self.token)

    @classmethod
    def sign(cls, expiry: Expiry, key: SigningKey) -> Self:
        return cls(expiry=expiry, token=key.sign(expiry.build(), typ=EXPIRY_TYPE))

    def put_in_force(self, directory: Path) -> int:
        """Write it durably in the place of the one before, then remove the files. A line must tell of it by now.

        May be interrupted anywhere: what is left of the files counts no more, and the next expiry removes it.

        Returns:
            How many files were removed.

        Raises:
            JournalError: something was not written or removed; it is safe to begin again.
        """
        try:
            _replace(directory / NAME, self.token)
            return remove_expired(directory, self.expiry)
        except OSError as error:
            raise JournalError(f"{error.filename or directory}: {error.strerror}; expire again") from error


def remove_expired(directory: Path, expiry: Expiry) -> int:
    """Remove the files that a statement in force says are gone. How many there were. Raises OSError."""
    names = [name for name in segment_names(directory) if name.number < expiry.files]
    for name in names:
        name.path.unlink(missing_ok=True)
    sync_directory(directory)
    return len(names)


class Front:
    """Looks at files as they pass on their way to verification, and says how many from the first may go."""

    def __init__(self, expired: Expired | None) -> None:
        """`expired`: the statement in force."""
        self.expired = expired
        self._start = 0 if expired is None else expired.expiry.chain.sequence
        self._first = 0 if expired is None else expired.expiry.files
        self._seen: list[_Seen] = []

    def passing(self, files: Iterable[SealedFile]) -> Iterator[SealedFile]:
        """The same files."""
        for file in files:
            if file.name.number >= self._first:
                self._seen.append(_look_at(file))
            yield file

    def expiry(self, *, log_id: bytes, before: datetime, now: datetime) -> Expiry | None:
        """The longest front of whole, ended files with no line from `before` on; None: there is none.

        Processes that wrote at one time have their lines in several files: the front ends only where its lines are all
        those up to the highest of them.
        """
        found, lines = None, 0
        top: ChainHead | None = None
        newest: datetime | None = None
        for file in self._seen:
            if file.is_open or (file.newest is not None and file.newest >= before):
                break
            lines += file.lines
            if file.top is not None and (top is None or file.top.sequence > top.sequence):
                top = file.top
            newest = max(filter(None, (newest, file.newest)), default=None)
            if top is not None and newest is not None and self._start + lines == top.sequence:
                found = Expiry(
                    log_id=log_id,
                    files=file.number + 1,
                    last_file_id=file.file_id,
                    chain=top,
                    until=newest,
                    at=now,
                )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    number: int
    file_id: bytes
    is_open: bool
    lines: int
    top: ChainHead | None
    newest: datetime | None


def _look_at(file: SealedFile) -> _Seen:
    lines = [read_line(stored) for stored in file.lines] if _is_readable(file) else []
    times = [datetime.fromisoformat(line.values["at"]) for line in lines]
    return _Seen(
        number=file.name.number,
        file_id=file.name.file_id,
        is_open=file.name.is_open or len(lines) != len(file.lines),
        lines=len(lines),
        top=max((line.head for line in lines), key=lambda head: head.sequence, default=None),
        newest=max(times, default=None),
    )


def _is_readable(file: SealedFile) -> bool:
    """Whether each line has its form and its time. What has not is verification's to tell, and does not expire."""
    with contextlib.suppress(MalformedContentError, LookupError, TypeError, ValueError):
        return all(
            datetime.fromisoformat(read_line(stored).values["at"]).tzinfo is not None for stored in file.lines
        )
    return False


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)
    sync_directory(path.parent)


def _fingerprint(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def _bytes(value: Any, length: int) -> bytes:
    data = bytes.fromhex(value)
    if len(data) != length:
        raise ValueError("an id or hash of another length")
    return data


def _number(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("counts are whole numbers above zero")
    return value
