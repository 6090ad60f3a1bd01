"""Events of the process on standard error, with a last line of defence against numbers, addresses and keys in them.

Nothing should log those in the first place; what comes from a library or an exception's text may all the same.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO, assert_never

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from b2bua.config_values import is_ip_literal
from b2bua.settings import LogFormat, LogLevel, LogSettings

_LEVELS: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}

_OUR_PACKAGES: Final = frozenset({"b2bua", "recording", "tls"})

_ID: Final = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}|[0-9a-f]{64}")
"""Random ids and fingerprints by their length. A phone number has at most 15 digits (ITU-T E.164)."""
_ID_FIELDS: Final = frozenset(
    {"call_uid", "file_id", "recording", "tenant_handle", "fingerprint", "key_id", "owner"}
)
_NUMBER_FIELD: Final = re.compile(
    r"(?:.*_)?(?:ms|ns|s|bytes|samples|frames|hz|port|pid|status|count|records|line)"
)
"""Fields whose integers are measures, by the unit in their name."""
_ADDRESS_FIELDS: Final = frozenset({"source", "address"})
"""Where a peer's or our own IP address may stand."""
_TIME_FIELD: Final = "at"

_REDACTIONS: Final = (
    (re.compile(r"a=crypto:[^\r\n]*", re.IGNORECASE), "<crypto>"),
    (re.compile(r"inline:\s*[A-Za-z0-9+/=_-]*(?:\|[^\s;,\"']*)?", re.IGNORECASE), "<key>"),
    (re.compile(r"-----BEGIN [^-]*PRIVATE KEY-----.*?(?:-----END [^-]*-----|\Z)", re.DOTALL), "<key>"),
    (re.compile(r"\b(?:sips?|tel)(?::|%3a)[^\s<>\"',]*", re.IGNORECASE), "<uri>"),
    (re.compile(r"[^\s<>\"'=:;,(]*(?:@|%40)[^\s<>\"',;)]+", re.IGNORECASE), "<address>"),
)
"""In this order: what a longer pattern covers must not be cut up by a shorter one first."""

_NUMBER: Final = re.compile(
    r"(?P<id>(?<![0-9A-Za-z])(?=[0-9]*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{16})(?![0-9A-Za-z]))"
    r"|(?:\+|%2b)?\d(?:[-\s()/.]{0,2}\d){4,}",
    re.IGNORECASE,
)
"""Five digits on, with the separators people write between them (IPv4 addresses go too); or a random id, kept."""


def set_up(
    settings: LogSettings, stream: TextIO | None = None, *, write_sealed: Callable[[str], None] | None = None
) -> None:
    """Configure structlog and the standard library's logging, once, before threads start.

    Args:
        settings: level and format.
        stream: where to; None: standard error.
        write_sealed: takes each line, always in JSON, for the sealed log file; it must not wait.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key=_TIME_FIELD),
        structlog.processors.format_exc_info,
    ]
    level = _LEVELS[settings.level]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # it may be set up again, for a command and then as the file says
    )
    handlers = [(_Handler(stream), settings.format)]
    if write_sealed is not None:
        handlers.append((_SealedHandler(write_sealed), LogFormat.JSON))
    for handler, form in handlers:
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=shared,
                processors=[
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    redact,
                    _renderer(form),
                ],
            )
        )
        handler.addFilter(_is_ours_or_warning)
    root = logging.getLogger()
    others = [other for other in root.handlers if not isinstance(other, _Handler)]
    root.handlers = [*others, *(handler for handler, _ in handlers)]
    root.setLevel(level)


def _is_ours_or_warning(record: logging.LogRecord) -> bool:
    """Other people's libraries tell at debug and info what they send: from them warnings are enough."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _OUR_PACKAGES


class _Handler(logging.Handler):
    """Writes to `stream`, or to whatever standard error is at the time."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            (self._stream or sys.stderr).write(f"{self.format(record)}\n")
        except OSError:
            self.handleError(record)


class _SealedHandler(_Handler):
    """Hands each line to the sealed log file."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(None)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(self.format(record))


def _renderer(form: LogFormat) -> Processor:
    match form:
        case LogFormat.TEXT:
            return structlog.processors.KeyValueRenderer(
                key_order=[_TIME_FIELD, "level", "event", "call_uid"],
                drop_missing=True,
                repr_native_str=False,
            )
        case LogFormat.JSON:
            return structlog.processors.JSONRenderer()
        case _:
            assert_never(form)


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A structlog processor: every value of the event with numbers, addresses, URIs and keys taken out."""
    return {str(redact_text(str(key))): _redact_field(str(key), value) for key, value in event.items()}


def redact_text(text: str) -> str:
    """`text` without phone numbers, SIP and tel URIs, addresses, and SRTP or private keys."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return _NUMBER.sub(lambda match: match["id"] or "<number>", text)


def _redact_field(name: str, value: object) -> object:
    if name == _TIME_FIELD:
        return value
    if name in _ID_FIELDS and isinstance(value, str) and _ID.fullmatch(value):
        return value
    if name in _ADDRESS_FIELDS and isinstance(value, str) and is_ip_literal(value):
        return value
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int) and _NUMBER_FIELD.fullmatch(name):
        return value
    if isinstance(value, MutableMapping):
        return {redact_text(str(key)): _redact_field(str(key), child) for key, child in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_field("", child) for child in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return "<bytes>"
    return _redact_scalar(value)


def _redact_scalar(value: Any) -> object:
    """A text, or anything else by its text; an int that holds nothing stays one."""
    text = redact_text(str(value))
    return value if isinstance(value, int) and text == str(value) else text
