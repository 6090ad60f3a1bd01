"""Search by number without numbers: a keyed blind index, which says that two are equal and nothing else.

Whoever holds the search key and the index can test guesses: the numbers of a country are few enough to try them all.
So the key is a secret beside the recorder's other ones, it is of no use without the index, and the index without it
says only which calls had a party in common, within one tenant.
Source: RFC 2104 (HMAC); RFC 3966 section 5.1.1 (visual separators), RFC 3986 section 2.1 (escapes).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from recording.keys.errors import KeyConfigurationError
from recording.keys.secret_file import read_secret
from recording.spool_state import sync_directory

KEY_BYTES: Final = 32
BLIND_BYTES: Final = 32
_LABEL: Final = b"sealtrunk/index/blind/v1\0"
_FILE_MODE: Final = 0o600
_SCHEME: Final = re.compile(r"(?:sips?|tel):", re.IGNORECASE)
_SEPARATORS: Final = re.compile(r"[\s().\-/]")
_NUMBER: Final = re.compile(r"\+?[0-9]+")


class SearchKey:
    """The key in memory, for the life of the process. Any thread."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            KeyConfigurationError: missing, of a wrong size, readable by others, or owned by another user.
        """
        key = read_secret(
            path, setting="index.search_key", cure="make one with `b2bua index new-key`", most_bytes=KEY_BYTES
        )
        if len(key) != KEY_BYTES:
            raise KeyConfigurationError(
                f"{path}: a search key has exactly {KEY_BYTES} bytes; make one with `b2bua index new-key`"
            )
        self._key = key

    def blind(self, tenant_handle: bytes, party: str | None) -> bytes | None:
        """The blind index of a number or name for one tenant: 32 bytes. None where there is nothing to find.

        The same number of two tenants has two blind indexes.
        """
        text = normalise(party or "")
        if not text:
            return None
        return hmac.digest(
            self._key, _LABEL + tenant_handle + text.encode("utf-8", "replace"), hashlib.sha256
        )


def normalise(party: str) -> str:
    """One form for what names the same party: `+` and digits, or the user part in lower case.

    Taken off: scheme, domain and parameters, and what only makes a number easier to read. `00` before a number becomes
    `+`. A national number stays one: no country is guessed, so it is found as it was dialled.
    """
    user = unquote(_SCHEME.sub("", party.strip(), count=1)).partition("@")[0].partition(";")[0]
    digits = _SEPARATORS.sub("", user)
    if _NUMBER.fullmatch(digits):
        return f"+{digits[2:]}" if digits.startswith("00") and len(digits) > 2 else digits
    return user.strip().lower()


def create_search_key(path: Path) -> None:
    """Make a new search key in `path`, mode 0600, durable on return. Never overwrites.

    Raises:
        KeyConfigurationError: the file exists, or the directory cannot be written.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            os.fchmod(fd, _FILE_MODE)
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(fd)
        sync_directory(path.parent)
    except FileExistsError as error:
        raise KeyConfigurationError(
            f"{path} exists; with another search key nothing entered before is found by number: move it away first"
        ) from error
    except OSError as error:
        raise KeyConfigurationError(f"{path}: {error.strerror}; the key file cannot be made there") from error
