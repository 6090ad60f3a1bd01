"""Reading the few headers a B2BUA needs from a raw message, and choosing which may cross.

Everything else stays on its own leg.

Source: RFC 3261 sections 7.3 (header syntax, compact forms), 16.3 and 20.22 (Max-Forwards), 20.20 (From).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

DEFAULT_MAX_FORWARDS = 70
MAX_HEADER_VALUE = 256
MAX_PASSED_HEADERS = 16

# Dialog, routing, identity and body headers belong to one leg: RFC 3261 dialogs, RFC 3325 (asserted identity
# needs its own policy).
NEVER_PASSED = frozenset(
    (
        "accept",
        "accept-encoding",
        "accept-language",
        "allow",
        "allow-events",
        "also",
        "authentication-info",
        "authorization",
        "call-id",
        "contact",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-length",
        "content-type",
        "cseq",
        "date",
        "event",
        "expires",
        "from",
        "identity",
        "max-forwards",
        "mime-version",
        "min-se",
        "p-asserted-identity",
        "p-preferred-identity",
        "path",
        "privacy",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-require",
        "rack",
        "reason",
        "record-route",
        "refer-to",
        "referred-by",
        "replaces",
        "require",
        "route",
        "rseq",
        "server",
        "service-route",
        "session-expires",
        "supported",
        "target-dialog",
        "timestamp",
        "to",
        "unsupported",
        "user-agent",
        "via",
        "warning",
        "www-authenticate",
    )
)
_COMPACT = {
    "b": "referred-by",
    "c": "content-type",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
}
_NAME = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")
_REQUEST_LINE = re.compile(r"([A-Z]+) (sips?):([^ ]+) SIP/2\.0")
_USER = re.compile(r"[A-Za-z0-9_.!~*'()&=+$,;?/%#-]{1,128}")
_TO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|#")
"""What `_USER` lets through and the grammar does not."""
_FROM_USER = re.compile(r"sips?:([^@>;\s]{1,128})@", re.IGNORECASE)


class HeaderError(ValueError):
    """A header needed for routing is missing or malformed: the request gets 400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteHeaders:
    """What an initial INVITE tells.

    `scheme` is the request URI's; users are the user parts as they came, escapes and all, None where absent.
    """

    scheme: str
    called_user: str | None
    calling_user: str | None
    max_forwards: int
    sip_call_id: str
    replaces: bool
    passed: tuple[tuple[str, str], ...]


def escape_user(user: str) -> str:
    """`user` as the user part of a URI of ours: what may not stand there is escaped, what is escaped stays.

    Peers write `#31#1001` and a lone `%`, and pjsip reads them. Source: RFC 3261 section 25.1, user.
    """
    return _TO_ESCAPE.sub(lambda found: f"%{ord(found[0]):02X}", user)


def read_invite(message: bytes, pass_headers: Collection[str]) -> InviteHeaders:
    """Read an initial INVITE.

    Args:
        message: start line and headers, as received; a body may follow.
        pass_headers: lower-case names that the trunk lets through.

    Raises:
        HeaderError: no SIP request line, or a needed header is malformed.
    """
    start, fields = _split(message)
    matched = _REQUEST_LINE.fullmatch(start)
    if matched is None:
        raise HeaderError("request line is not a sip or sips request")
    user, at, _ = matched[3].partition("@")
    called = user.split(":", 1)[0] if at else None
    if called is not None and _USER.fullmatch(called) is None:
        raise HeaderError("user part of the request URI is malformed")
    return InviteHeaders(
        scheme=matched[2],
        called_user=called,
        calling_user=_calling_user(fields),
        max_forwards=_max_forwards(fields),
        sip_call_id=_first(fields, "call-id") or "",
        replaces=_first(fields, "replaces") is not None,
        passed=_passed(fields, pass_headers),
    )


def _split(message: bytes) -> tuple[str, list[tuple[str, str]]]:
    text = message.decode("utf-8", errors="replace")
    head = text.split("\r\n\r\n", 1)[0]
    start, *lines = re.sub(r"\r\n[ \t]+", " ", head).split("\r\n")
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        stripped = name.strip().lower()
        if not colon or _NAME.fullmatch(stripped) is None:
            raise HeaderError("a header line is malformed")
        fields.append((_COMPACT.get(stripped, stripped), value.strip()))
    return start, fields


def _first(fields: list[tuple[str, str]], name: str) -> str | None:
    return next((value for key, value in fields if key == name), None)


def _max_forwards(fields: list[tuple[str, str]]) -> int:
    value = _first(fields, "max-forwards")
    if value is None:
        return DEFAULT_MAX_FORWARDS
    if not (value.isascii() and value.isdigit() and int(value) <= 255):
        raise HeaderError("Max-Forwards is not a number from 0 to 255")
    return int(value)


def _calling_user(fields: list[tuple[str, str]]) -> str | None:
    matched = _FROM_USER.search(_first(fields, "from") or "")
    if matched is None:
        return None
    user = matched[1].split(":", 1)[0]
    return user if _USER.fullmatch(user) else None


def _passed(fields: list[tuple[str, str]], pass_headers: Collection[str]) -> tuple[tuple[str, str], ...]:
    allowed = frozenset(name.lower() for name in pass_headers) - NEVER_PASSED
    passed = [(name, value) for name, value in fields if name in allowed and _is_clean(value)]
    return tuple(passed[:MAX_PASSED_HEADERS])


def _is_clean(value: str) -> bool:
    return len(value) <= MAX_HEADER_VALUE and value.isprintable()
